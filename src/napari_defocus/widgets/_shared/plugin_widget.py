"""What the widgets have in common."""

from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_defocus.widgets._shared.session import session


class PluginWidget(QWidget):
    """A widget of the plugin; napari gives it the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session()
