"""What the result of a detection depends on, so that a finished one need not be made again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_defocus import __version__
from napari_defocus.dense.detector import PACKAGED
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.inference import detector_for
from napari_defocus.io.manifest import checksum
from napari_defocus.metric.local_metric import LocalMetric


def result_identity(
    fingerprint: str, metric: LocalMetric, config: DetectionConfig
) -> dict[str, Any]:
    """Return what the result of an image of this fingerprint depends on."""
    detector = detector_for(metric, config)
    if detector != "metric":
        path = PACKAGED.get(detector, Path(detector))
        detector = f"{detector} {checksum(path)}"
    settings = asdict(config)
    # Rounding apart devices give the same: a run may go on where there is none.
    del settings["device"]
    return {
        "version": __version__,
        "input": fingerprint,
        "metric": metric.digest,
        "detector": detector,
        "config": settings,
    }
