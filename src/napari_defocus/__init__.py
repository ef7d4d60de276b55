"""Which part of an image is in focus: blur maps and masks from a learnt local metric."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from napari_defocus.deciding import Detection
    from napari_defocus.detection import detect
    from napari_defocus.detection_config import DetectionConfig
    from napari_defocus.errors import DefocusError
    from napari_defocus.fitting import FitConfig, fit_metric, instant_metric, metric_from_nets
    from napari_defocus.metric import LocalMetric, load_metric, save_metric
    from napari_defocus.nets import TrainingConfig
    from napari_defocus.patches import PatchConfig, PatchSet, build_patch_set
    from napari_defocus.training import train

_HOMES = {
    "Detection": "detection",
    "DetectionConfig": "detection",
    "detect": "detection",
    "DefocusError": "errors",
    "FitConfig": "fitting",
    "fit_metric": "fitting",
    "instant_metric": "fitting",
    "metric_from_nets": "fitting",
    "LocalMetric": "metric",
    "load_metric": "metric",
    "save_metric": "metric",
    "TrainingConfig": "nets",
    "PatchConfig": "patches",
    "PatchSet": "patches",
    "build_patch_set": "patches",
    "train": "training",
}

__all__ = [  # noqa: RUF022 - in the order of the method
    "detect",
    "Detection",
    "DetectionConfig",
    "build_patch_set",
    "PatchConfig",
    "PatchSet",
    "train",
    "TrainingConfig",
    "fit_metric",
    "FitConfig",
    "metric_from_nets",
    "instant_metric",
    "LocalMetric",
    "load_metric",
    "save_metric",
    "DefocusError",
]


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first used: importing the package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
