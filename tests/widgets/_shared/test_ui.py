import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.widgets._shared import ui


@pytest.mark.parametrize(
    ("error", "text"),
    [(DefocusError("no patch yet"), "no patch yet"), (MemoryError(), "MemoryError")],
)
def test_an_error_without_a_text_is_named(error, text):
    assert ui.warning(error) == f"⚠ {text}"


def test_only_what_the_user_can_mend_is_shown():
    shown = []
    with ui.refusing(shown.append):
        raise DefocusError("empty")
    assert [str(error) for error in shown] == ["empty"]
    with pytest.raises(RuntimeError, match="bug"), ui.refusing(shown.append):
        raise RuntimeError("bug")
