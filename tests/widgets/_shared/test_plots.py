import pytest
from matplotlib.colors import to_hex
from napari.utils.theme import get_theme

from napari_defocus.widgets._shared.plots import Plot


def line(figure):
    axes = figure.subplots()
    axes.plot([1, 2, 3], [1, 4, 9])
    axes.set_title("squares")


@pytest.fixture
def plot(viewer):
    plot = Plot(viewer)
    viewer.window.add_dock_widget(plot)
    return plot


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_draws_in_the_colours_of_the_theme(viewer, plot, theme):
    viewer.theme = theme
    plot.draw(line)
    axes = plot.figure.axes[0]
    colours = get_theme(theme)
    assert to_hex(axes.title.get_color()) == colours.text.as_hex("long")
    for part in (plot.figure, axes):
        assert to_hex(part.get_facecolor()) == colours.background.as_hex("long")


def test_follows_a_change_of_theme(viewer, plot):
    viewer.theme = "dark"
    plot.draw(line)
    viewer.theme = "light"
    colours = get_theme("light")
    assert to_hex(plot.figure.get_facecolor()) == colours.background.as_hex("long")
    assert to_hex(plot.figure.axes[0].title.get_color()) == colours.text.as_hex("long")


def test_draws_anew_on_a_clear_figure(plot):
    plot.draw(line)
    plot.draw(line)
    assert len(plot.figure.axes) == 1


def test_shows_what_is_drawn(plot, qtbot):
    plot.resize(300, 300)
    plot.show()
    qtbot.waitExposed(plot)
    plot.draw(line)

    def colours():
        image = plot.grab().toImage()
        return {image.pixel(x, x) for x in range(0, 300, 2)}

    qtbot.waitUntil(lambda: len(colours()) > 2)
