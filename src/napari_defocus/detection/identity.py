"""What the result of a detection depends on, so that a finished one need not be made again."""

from dataclasses import asdict
from typing import Any

from napari_defocus import __version__
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import Detector


def result_identity(
    fingerprint: str, detector: Detector, config: DetectionConfig
) -> dict[str, Any]:
    """Return what the result of an image of this fingerprint depends on."""
    settings = asdict(config)
    # Rounding apart devices give the same: a run may go on where there is none.
    del settings["device"]
    return {
        "version": __version__,
        "input": fingerprint,
        "detector": detector.digest,
        "config": settings,
    }
