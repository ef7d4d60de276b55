"""The settings of detection; quick to import, for the command line and the widgets."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from napari_defocus.core.devices import DEVICES
from napari_defocus.core.errors import ABOVE_0, DefocusError
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.metric.calibration import CAUTION
from napari_defocus.profile.limit import AUTO, check_limit

# The planes of each stack teach the profile that judges them.
STACK = "stack"
DETECTORS = ("auto", "metric", "dense", STACK, "zeng2019")
SCALES = ("calibrated", "image")


@dataclass(frozen=True)
class DetectionConfig(Settings):
    """Settings of detection; the widget and the command line share these defaults.

    Parameters
    ----------
    detector : str
        ``metric``: the local metric. ``dense``: a network, which sees the surroundings too.
        ``stack``: the network with the profile that the planes of each focus stack teach, compared
        with each other. ``zeng2019``: the paper's method as written; `refinement` and `mask` are
        then those of `ZENG2019`, unless others are given. Or the file of a metric, a network or a
        profile.
        ``auto``: dense, but the metric where it is not the default one, `scale` is ``image`` or
        ONNX Runtime is missing.
    limit : float or str
        The widest blur radius that counts as sharp: pixels, a text with a unit such as ``0.8um``,
        or ``auto``, by the sharpest structure of each plane. Of the dense detector; `scale` to
        `gain` are of the metric.
    scale : str
        ``calibrated``: that of the metric's training patches, so that images compare. ``image``:
        each image from its least response to its largest, as with ``zeng2019``.
    adapt : float
        Share, in [0, 1], of the way from the metric's threshold down to the image's own (Otsu's),
        for images softer than those the metric learnt from. The threshold never rises: a wholly
        sharp image has one of its own too.
    reach : float
        Furthest that `adapt` may lower the threshold, in log odds. It keeps a wholly blurred image
        blurred.
    caution : float
        Log odds above even that a pixel needs to be called sharp.
    gain : float
        Slope of the map at the threshold, as a factor on the log odds of a patch.
    refine : bool
        Whether the tanh refinement runs.
    refinement : RefinementConfig
        Its settings.
    mask : MaskConfig
        Settings of the mask.
    device : str
        Where it is computed: ``cpu``, ``cuda`` or ``mps``; the result is the same but for rounding.
        ``auto``: CUDA for the dense detector, where it is there, and else the CPU.
    """

    detector: str = "auto"
    limit: float | str = AUTO
    scale: str = "calibrated"
    adapt: float = 0.7
    reach: float = 2.0
    caution: float = CAUTION
    gain: float = 2.0
    refine: bool = True
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    device: str = "auto"

    _allowed: ClassVar[Allowed] = {
        "scale": SCALES,
        "adapt": (0, 1),
        "reach": (0, 1000),
        "caution": (-1000, 1000),
        "gain": (ABOVE_0, 1000),
        "device": DEVICES,
    }
    _called: ClassVar[dict[str, str]] = {"device": "the device", "limit": "the limit"}

    def _check(self) -> None:
        check_limit(self.limit)


# The method as the paper has it, but for what the texts at hand leave open: see the comments.
ZENG2019 = DetectionConfig(
    detector="zeng2019",
    scale="image",  # L is in [0, 1]; that it gets there by its least and largest value is ours
    refinement=RefinementConfig(
        iterations=(10, 50, 100),
        weights=(0.3, 0.2, 0.5),
        neighbourhood=5,  # not published; ours
        threshold=None,  # "the global threshold": not published; the mean of the map is ours
        keep=0.0,
        growing=False,
    ),
    mask=MaskConfig(
        threshold="mean",  # "the adaptive threshold": its rule is not published; ours
        range=(0.0, 1.0),
        smallest=0,
    ),
)


def with_preset(config: DetectionConfig) -> DetectionConfig:
    """Return settings with the refinement and the mask of `ZENG2019`, each where none was given.

    One that is the default counts as not given.
    """
    refinement, mask = config.refinement, config.mask
    return replace(
        config,
        scale=ZENG2019.scale,
        refinement=ZENG2019.refinement if refinement == RefinementConfig() else refinement,
        mask=ZENG2019.mask if mask == MaskConfig() else mask,
    )


def check_config(config: DetectionConfig) -> None:
    """Raise DefocusError where there is no such detector; the rest was checked when it was made."""
    if config.detector not in DETECTORS and not Path(config.detector).is_file():
        raise DefocusError(
            f"the detector is {config.detector!r}; choose one of {', '.join(DETECTORS)}, "
            "or give the file of one"
        )
