"""What the plugin's widgets share while napari runs: detectors, the patch set, the one job."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from qtpy.QtCore import QObject, Signal

from napari_defocus.detection.config import DETECTORS, STACK, DetectionConfig
from napari_defocus.detection.detectors import DetectorLike, choose_detector, load_detector
from napari_defocus.metric.local_metric import PACKAGED, LocalMetric, load_metric
from napari_defocus.metric.nets import TrainedNets
from napari_defocus.metric.patches import PatchSet
from napari_defocus.profile.profile import Profile
from napari_defocus.widgets._shared.jobs import Jobs

TRAINED = "just trained"
TAUGHT = "profile just taught"


class Session(QObject):
    """Shared state; every change emits a signal."""

    # With the name of the metric, or of the detector of another kind, that is new or changed.
    metrics_changed = Signal(str)
    detectors_changed = Signal(str)
    patches_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.nets: TrainedNets | None = None
        self._patch_sets: dict[str, PatchSet] = {}
        self._metrics: dict[str, LocalMetric | None] = dict.fromkeys(PACKAGED)
        # Profiles; None: the file of a network.
        self._others: dict[str, Profile | None] = {}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of metrics to choose from."""
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

    # Detectors of any kind

    @property
    def detector_names(self) -> tuple[str, ...]:
        """Names of detectors to choose from; that of the packaged metric is ``metric``."""
        own = (name for name in self._metrics if name not in PACKAGED)
        return (*DETECTORS, *self._others, *own)

    def detector(self, name: str) -> tuple[DetectorLike, str]:
        """Return a detector as `detect` takes it: what was learnt, and the name for the settings.

        Files and the package's own go by their name.
        """
        if not self.is_named(name):
            if name in self._metrics:
                return self.metric(name), "metric"
            profile = self._others[name]
            if profile is not None:
                return profile, "dense"
        return self.metric("default"), name

    def is_named(self, name: str) -> bool:
        """Tell whether the name says it all: not so of what is in memory alone."""
        return name in DETECTORS or Path(name).is_file()

    def uses_network(self, name: str) -> bool:
        """Tell whether a detector is the dense network's, with or without a profile."""
        if name == "auto":
            return find_spec("onnxruntime") is not None
        return name in ("dense", STACK) or name in self._others

    def is_literal(self, name: str) -> bool:
        """Tell whether a detector is a metric that is made and applied as the paper says."""
        return name in self._metrics and self.metric(name).literal

    def add_profile(self, name: str, profile: Profile) -> None:
        """Offer a profile under a name, in place of an earlier one."""
        self._others[name] = profile
        self.detectors_changed.emit(name)

    def open_detector(self, path: Path) -> None:
        """Check a file of any kind, and offer it under its path."""
        found, name = load_detector(path), str(path)
        if isinstance(found, LocalMetric):
            self.add_metric(name, found)
            return
        # Only the network itself shows whether it works, and whether a profile is of it.
        _ = choose_detector(path, DetectionConfig()).digest
        self._others[name] = None if isinstance(found, str) else found
        self.detectors_changed.emit(name)

    # Patches

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
