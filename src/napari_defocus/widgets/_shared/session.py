"""What the plugin's widgets share while napari runs: metrics, the patch set, the one job."""

from functools import cache
from pathlib import Path

from qtpy.QtCore import QObject, Signal

from napari_defocus.metric.local_metric import PACKAGED, LocalMetric, load_metric
from napari_defocus.metric.nets import TrainedNets
from napari_defocus.metric.patches import PatchSet
from napari_defocus.widgets._shared.jobs import Jobs

TRAINED = "just trained"


class Session(QObject):
    """Shared state; every change emits a signal."""

    # With the name of the metric that is new or changed.
    metrics_changed = Signal(str)
    patches_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.nets: TrainedNets | None = None
        self._patch_sets: dict[str, PatchSet] = {}
        self._metrics: dict[str, LocalMetric | None] = dict.fromkeys(PACKAGED)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names to choose from."""
        return tuple(self._metrics)

    def metric(self, name: str) -> LocalMetric:
        """Return a metric by its name; a packaged one is read at the first request."""
        metric = self._metrics[name]
        if metric is None:
            metric = self._metrics[name] = load_metric(name)
        return metric

    def add_metric(self, name: str, metric: LocalMetric) -> None:
        """Offer a metric under a name, in place of an earlier one."""
        self._metrics[name] = metric
        self.metrics_changed.emit(name)

    def open_metric(self, path: Path) -> None:
        """Read a metric file and offer it under its path."""
        self.add_metric(str(path), load_metric(path))

    @property
    def patch_sets(self) -> dict[str, PatchSet]:
        """Patch sets by the name of their image or file."""
        return dict(self._patch_sets)

    def add_patches(self, name: str, patches: PatchSet) -> None:
        """Keep the patches of an image, in place of its earlier ones."""
        self._patch_sets[name] = patches
        self.patches_changed.emit()

    def clear_patches(self) -> None:
        """Forget all patches."""
        self._patch_sets.clear()
        self.patches_changed.emit()


@cache
def session() -> Session:
    """Return the one session of this process: napari makes widgets one by one, without an owner."""
    return Session()
