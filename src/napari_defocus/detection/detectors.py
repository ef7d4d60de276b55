"""Which detector works: the dense network, with or without a profile, or the local metric alone."""

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import KIND as NETWORK
from napari_defocus.dense.detector import cached_dense
from napari_defocus.detection.config import (
    STACK,
    ZENG2019,
    DetectionConfig,
    check_config,
    with_preset,
)
from napari_defocus.io.cards import read_kind
from napari_defocus.io.optics import Optics
from napari_defocus.metric.local_metric import KIND as METRIC
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.profile.limit import AUTO, limit_by_objective, limit_in_pixels
from napari_defocus.profile.profile import KIND as PROFILE
from napari_defocus.profile.profile import Profile, check_network, load_profile

KINDS = (METRIC, NETWORK, PROFILE)
# Pixel sizes that differ by less, relatively, are the same.
SAME_SIZE = 0.05
# What a user may give as a detector.
DetectorLike = LocalMetric | Profile


@dataclass(frozen=True, eq=False)
class Detector:
    """What predicts a plane.

    Parameters
    ----------
    metric : LocalMetric
        The local metric; it works where there is no network.
    network : str or None
        Name or file of the dense network.
    profile : Profile or None
        Corrects the network.
    by_stack : bool
        Whether the planes of a stack have yet to teach the profile: see `StackDetectors`.
    """

    metric: LocalMetric
    network: str | None = None
    profile: Profile | None = None
    by_stack: bool = False

    @property
    def literal(self) -> bool:
        """Whether it is a metric that is made and applied as the paper says."""
        return self.network is None and self.metric.literal

    @property
    def digest(self) -> str:
        """Names all that results depend on."""
        if self.network is None:
            return self.metric.digest
        digest = cached_dense(self.network).digest
        if self.by_stack:
            return f"{digest} {STACK}"
        return digest if self.profile is None else f"{digest} {self.profile.digest}"


def load_detector(source: str | Path) -> DetectorLike | str:
    """Read a detector from a file of any kind, or by name.

    Returns
    -------
    LocalMetric, Profile or str
        A network, and the detectors of `DetectionConfig`, stay what was given.

    Raises
    ------
    DefocusError
        Where there is none of this name, or its file cannot be used.
    """
    path = Path(source)
    if not path.is_file():
        return load_metric(source)
    kind = read_kind(path, KINDS)
    if kind == NETWORK:
        return str(path)
    return load_profile(path) if kind == PROFILE else load_metric(path)


def choose_detector(
    given: Detector | DetectorLike | str | Path, config: DetectionConfig
) -> Detector:
    """Return what works with a metric or a profile, by the detector that the settings name.

    Raises
    ------
    DefocusError
        Where a setting or a file cannot be used, or a profile does not fit its network.
    """
    check_config(config)
    if isinstance(given, Detector):
        return given
    name, default = config.detector, _packaged_metric("default")
    if isinstance(given, str | Path):
        given = load_detector(given)
        if isinstance(given, str):  # a network
            name, given = (given if name == "auto" else name), default
    metric, profile = (given, None) if isinstance(given, LocalMetric) else (default, given)
    if name == "auto":
        own = profile is None and metric.digest != default.digest
        if own or config.scale == "image" or not find_spec("onnxruntime"):
            name = "metric"
    if name in ("metric", ZENG2019.detector):
        if profile is not None:
            raise DefocusError("a profile corrects the network; the metric cannot use it")
        literal = name == "metric" or metric.literal
        return Detector(metric if literal else _packaged_metric(ZENG2019.detector))
    network = "dense"
    if name == STACK:
        if profile is not None:
            raise DefocusError("a stack teaches its own profile; give a profile or stack, not both")
        return Detector(metric, network, by_stack=True)
    if name not in ("auto", "dense"):
        found = _load_once(Path(name), Path(name).stat().st_mtime_ns)
        if isinstance(found, LocalMetric):
            return Detector(found)
        if isinstance(found, Profile):
            profile = found
        else:
            network = found
    if profile is not None:
        check_network(profile, cached_dense(network).digest)
    return Detector(metric, network, profile)


def settle(
    config: DetectionConfig,
    detector: Detector,
    pixel_size: float | None,
    optics: Optics | None = None,
) -> DetectionConfig:
    """Return the settings that a detector works with.

    A limit is in pixels; where it is automatic, it is that of the profile, if any. A `literal`
    metric takes the paper's refinement and mask, see `with_preset`. `pixel_size` is in
    micrometres. A profile's limit is as wide in micrometres as where it was taught, if both pixel
    sizes are known. Without a profile it is by the objective, where `optics` tell it; else `auto`
    stays.

    Raises
    ------
    DefocusError
        Where the limit cannot be told, or the detector has yet to be taught by its stack.
    """
    if detector.by_stack:
        raise DefocusError(
            "the detector stack compares the planes of a focus stack; detect in one, or choose "
            "another detector"
        )
    limit = limit_in_pixels(config.limit, pixel_size)
    if limit == AUTO and detector.profile is not None:
        limit = detector.profile.limit * (_scale(detector, pixel_size) or 1.0)
    else:
        limit = _by_objective(config, detector, pixel_size, optics) or limit
    config = replace(config, limit=limit)
    return with_preset(config) if detector.literal else config


def _by_objective(
    config: DetectionConfig, detector: Detector, pixel_size: float | None, optics: Optics | None
) -> float | None:
    """Return the automatic limit by the objective, in pixels; None where it is not by that."""
    by_profile = detector.profile is not None or detector.by_stack
    if config.limit != AUTO or by_profile or detector.network is None:
        return None
    return limit_by_objective(optics, pixel_size)


def objective_note(
    config: DetectionConfig, detector: Detector, pixel_size: float | None, optics: Optics
) -> str:
    """Say that the automatic limit is by the objective; nothing where it is not."""
    limit = _by_objective(config, detector, pixel_size, optics)
    if limit is None:
        return ""
    assert optics.point_um is not None
    assert pixel_size is not None
    return (
        f"by the objective (NA {optics.na:g}, {max(optics.emission_nm):g} nm) a point in focus is "
        f"{optics.point_um / pixel_size:.1f} px wide: sharp up to {limit:.1f} px"
    )


def scale_note(detector: Detector, pixel_size: float | None) -> str:
    """Say that an image has other pixels than a profile was taught with; nothing where not."""
    scale = _scale(detector, pixel_size)
    if detector.profile is None or scale is None or abs(scale - 1) < SAME_SIZE:
        return ""
    taught = detector.profile.record["pixel_size_um"]
    return (
        f"the profile was taught on pixels of {taught:g} um, these have {pixel_size:g} um: its "
        f"limit is {scale:.2g} times as many pixels"
    )


def _scale(detector: Detector, pixel_size: float | None) -> float | None:
    """Return how many of these pixels are as wide as one where the profile was taught."""
    taught = detector.profile.record.get("pixel_size_um") if detector.profile else None
    return taught / pixel_size if taught and pixel_size else None


@lru_cache(maxsize=2)
def _packaged_metric(name: str) -> LocalMetric:
    return load_metric(name)


@lru_cache(maxsize=8)
def _load_once(path: Path, changed: int) -> DetectorLike | str:
    return load_detector(path)
