"""Drive napari as a person would, and take the pictures of the documentation.

    xvfb-run -a -s '-screen 0 1600x1000x24' python docs/session.py [FOLDER] [--theme light]

Opens the tilted section and detects; paints scribbles with the mouse, makes patches, trains; then
detects and evaluates in the photo, whose truth is known; then opens the focus stack, and maps what
is in focus where. FOLDER is docs/images by default, docs/images/light for the light theme.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("NAPARI_CONFIG", "")
# Annotations that other sessions left behind are not for these pictures.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

PLUGIN = "napari-defocus"
IMAGES = Path(__file__).parent / "images"
LONGEST = 180.0
# Strokes on the tilted section, (y, x) in pixels.
BLURRED = (((50, 70), (110, 40), (180, 50)), ((190, 340), (260, 320), (330, 330)))
SHARP = (((30, 235), (80, 215), (130, 205)), ((200, 170), (260, 140), (330, 110)))


def wait(until: Callable[[], bool] = lambda: False, seconds: float = LONGEST) -> None:
    """Let the window live until something holds."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    if seconds == LONGEST and not until():
        raise TimeoutError(f"{until} did not come true in {seconds} s")


def pause() -> None:
    """Let the window draw itself."""
    wait(seconds=0.5)


class Session:
    """A viewer, its canvas and the dock widget in use."""

    def __init__(self, folder: Path, theme: str) -> None:
        self.folder = folder
        self.viewer = napari.Viewer(title="napari-defocus")
        self.viewer.theme = theme
        self.viewer.window._qt_window.resize(1560, 960)
        self.dock: Any = None
        pause()

    def open(self, name: str) -> Any:
        """Open a widget of the plugin in place of the one before."""
        if self.dock is not None:
            self.dock.hide()
        self.dock, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, name)
        self.dock.show()
        pause()
        return widget

    def picture(self, name: str) -> None:
        """Save the whole window, without the mouse."""
        canvas = self.viewer.window._qt_viewer.canvas.native
        for place in (QPoint(9, 9), QPoint(1, 1)):
            QTest.mouseMove(canvas, place)
            wait(seconds=0.1)
        self.viewer.reset_view()
        pause()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        print(path)

    def widen(self, width: int) -> None:
        """Give the dock another width."""
        window = self.viewer.window._qt_window
        window.resizeDocks([self.dock], [width], Qt.Orientation.Horizontal)

    def show_only(self, *names: str) -> None:
        """Show some layers and hide all others."""
        for layer in self.viewer.layers:
            layer.visible = layer.name in names

    def click(self, button: QWidget) -> None:
        """Click a button."""
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def draw(self, stroke: Sequence[tuple[float, float]]) -> None:
        """Draw a stroke on the canvas with the mouse."""
        canvas = self.viewer.window._qt_viewer.canvas.native
        points = [self._on_canvas(canvas, point) for point in _dense(stroke)]
        left = Qt.MouseButton.LeftButton
        QTest.mousePress(canvas, left, pos=points[0])
        for point in points[1:]:
            QTest.mouseMove(canvas, point)
            QApplication.processEvents()
        QTest.mouseRelease(canvas, left, pos=points[-1])
        QApplication.processEvents()

    def _on_canvas(self, canvas: QWidget, point: Sequence[float]) -> QPoint:
        centre = np.asarray(self.viewer.camera.center)[-2:]
        world = np.asarray(point) * self.viewer.layers.selection.active.scale[-2:]
        y, x = (world - centre) * self.viewer.camera.zoom
        return QPoint(round(canvas.width() / 2 + x), round(canvas.height() / 2 + y))


def _dense(stroke: Sequence[tuple[float, float]], step: float = 6.0) -> np.ndarray:
    corners = np.asarray(stroke, float)
    parts = []
    for first, second in itertools.pairwise(corners):
        count = max(2, int(np.hypot(*(second - first)) / step))
        parts.append(np.linspace(first, second, count))
    return np.concatenate(parts)


def main() -> None:
    """Go through the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    options = parser.parse_args()
    light = options.theme == "light"
    session = Session(options.folder or (IMAGES / "light" if light else IMAGES), options.theme)
    session.viewer.open_sample(PLUGIN, "tilted_plane")
    detect_at_once(session)
    learn_from_strokes(session)
    predict(session)
    map_a_stack(session)
    session.viewer.close()


def detect_at_once(session: Session) -> None:
    """Press Detect, and nothing else."""
    viewer = session.viewer
    viewer.layers.selection.active = viewer.layers["tilted plane"]
    detect = session.open("Detect")
    session.click(detect.jobs.run_button)
    wait(lambda: not detect.jobs.busy)
    session.picture("detect")


def learn_from_strokes(session: Session) -> None:
    """Annotate with the mouse, train, look at the metric."""
    viewer = session.viewer
    session.show_only("tilted plane")
    annotate = session.open("Annotate")
    session.click(annotate.new)
    annotation = viewer.layers.selection.active
    annotation.brush_size = 12
    session.click(annotate.paint_blurred)
    for stroke in BLURRED:
        session.draw(stroke)
    session.click(annotate.paint_sharp)
    for stroke in SHARP:
        session.draw(stroke)
    assert {1, 2} <= set(np.unique(annotation.data)), "the strokes did not reach the layer"
    wait(seconds=3)
    session.picture("annotate")
    annotate.patches.fold.expand(animate=False)
    pause()
    session.click(annotate.patches.jobs.run_button)
    wait(lambda: not annotate.patches.jobs.busy)

    train = session.open("Train")
    train.settings.epochs.setValue(12)
    session.click(train.jobs.run_button)
    assert train.jobs.busy, train.jobs.text.text()
    wait(lambda: not train.jobs.busy)
    session.picture("train")

    kernels = session.open("Kernel PCA")
    kernels.metric_chooser.setCurrentText("just trained")
    session.widen(520)
    session.picture("kernels")


def predict(session: Session) -> None:
    """Detect in the photo, and compare with the truth."""
    viewer = session.viewer
    viewer.layers.clear()
    viewer.open_sample(PLUGIN, "photo")
    detect = session.open("Detect")
    viewer.layers.selection.active = viewer.layers["photo"]
    detect.detector_chooser.setCurrentText("Local metric")
    session.click(detect.jobs.run_button)
    wait(lambda: not detect.jobs.busy)
    session.show_only("photo", "photo mask")

    evaluate = session.open("Evaluate")
    evaluate.labels.value = viewer.layers["photo true mask"]
    session.click(evaluate.jobs.run_button)
    wait(lambda: not evaluate.jobs.busy)
    session.picture("evaluate")


def map_a_stack(session: Session) -> None:
    """Analyse the focus stack, and find the best plane of three objects."""
    viewer = session.viewer
    viewer.layers.clear()
    viewer.open_sample(PLUGIN, "z_stack")
    source = viewer.layers["z stack"]
    objects = np.zeros(source.data.shape[1:], np.uint8)
    for label, (y, x) in enumerate(((50, 40), (150, 170), (215, 235)), 1):
        objects[np.hypot(*np.ogrid[-y : 256 - y, -x : 256 - x]) < 18] = label
    where = {"scale": source.scale[1:], "units": source.units[1:]}
    labels = viewer.add_labels(objects, name="objects", **where)
    labels.contour = 2
    viewer.layers.selection.active = source
    stacks = session.open("Stacks")
    session.widen(340)
    stacks.settings.objects.value = labels
    session.click(stacks.jobs.run_button)
    wait(lambda: not stacks.jobs.busy)
    viewer.layers.move(viewer.layers.index(labels), len(viewer.layers))
    stacks.results.plot.figure.canvas.draw()
    session.picture("stacks")


if __name__ == "__main__":
    main()
