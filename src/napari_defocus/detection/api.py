"""Detection, the main job: an image in, a blur map and a mask out."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, NoDetailError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import (
    Detector,
    DetectorLike,
    choose_detector,
    settle,
)
from napari_defocus.detection.inference import predict_plane, undecided
from napari_defocus.detection.own_stack import StackDetectors
from napari_defocus.detection.postprocess import Detection, postprocess
from napari_defocus.io.axes import (
    check_as_told,
    check_axes,
    guess_axes,
    plane_name,
    planes_last,
)
from napari_defocus.io.optics import Optics

__all__ = ["Detection", "DetectionConfig", "detect"]


def detect(
    image: npt.NDArray[Any],
    detector: Detector | DetectorLike | str | Path = "default",
    config: DetectionConfig | None = None,
    *,
    axes: str | None = None,
    pixel_size: float | None = None,
    optics: Optics | None = None,
    radius: bool = True,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Detection:
    """Detect defocus.

    Parameters
    ----------
    image : ndarray, or array that is read plane by plane (Dask, Zarr)
        (Y, X), (Y, X, C) with C = 3 or 4 colours, or, with `axes`, more planes of such; any real,
        integer or bool type. The result does not depend on the type that holds a picture.
    detector : LocalMetric, Profile, str or Path
        A metric, a profile, the file of one, or a name; `DetectionConfig.detector` goes before it.
    config : DetectionConfig, optional
        How.
    axes : str, optional
        A letter for each axis, in any order, S for colours: "ZYX", "TYXS", "YXZ". Axes other than
        Y, X and S are detected plane by plane.
    pixel_size : float, optional
        Of the image, in micrometres, for a limit in such.
    optics : Optics, optional
        Of the microscope: with the pixel size, objective and wavelength set the automatic limit.
    radius : bool
        Whether the dense detector returns the radius of the blur; without, memory is saved.
    on_event, should_stop : callable
        Called after each plane, and before each and between its steps.

    Returns
    -------
    Detection
        Rows and columns last, the other axes in the order of `axes`. A constant plane of a stack is
        undecided.

    Raises
    ------
    DefocusError
        Where the image cannot be used, or the detector cannot be read.
    Stopped
        Where `should_stop` answered yes.
    """
    config = config or DetectionConfig()
    chosen = choose_detector(detector, config)
    if not hasattr(image, "shape"):
        image = np.asarray(image)
    axes = check_axes(axes, image.shape) if axes else guess_axes(image.shape)
    axes, order = planes_last(axes)
    leading = tuple(image.shape[place] for place in order[: len(axes.removesuffix("S")) - 2])

    def read(index: tuple[int, ...]) -> npt.NDArray[Any]:
        return _plane(image, axes, order, index)

    detectors = StackDetectors(chosen, axes, leading, read, "the image", pixel_size)
    planes = []
    for done, index in enumerate(np.ndindex(leading), start=1):
        own = detectors.at(index, should_stop)
        settled = settle(config, own, pixel_size, optics)
        plane = read(index)
        try:
            prediction = predict_plane(plane, own, settled, should_stop, radius=radius)
        except NoDetailError:
            if math.prod(leading) == 1:
                raise
            prediction = undecided(plane.shape[:2], own, settled, radius=radius)
        except DefocusError as error:
            where = plane_name(axes, index)
            raise DefocusError(f"{where}: {error}" if where else str(error)) from error
        planes.append(postprocess(prediction, settled))
        on_event(Event("detecting", done, math.prod(leading)))
    if not planes:
        raise DefocusError(f"the image is empty, its shape is {image.shape}")
    return replace(_stack(planes, leading), note=detectors.note)


def _plane(
    image: npt.NDArray[Any], axes: str, order: tuple[int, ...], index: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read one plane, rows and columns first, colours last."""
    wanted: list[int | slice] = [slice(None)] * image.ndim
    for place, position in zip(order, index, strict=False):
        wanted[place] = position
    # What is left of the dimensions keeps its order in the image.
    left = order[len(index) :]
    plane = np.asarray(image[tuple(wanted)])
    check_as_told(plane_name(axes, index), plane.shape, [image.shape[i] for i in sorted(left)])
    return plane.transpose(np.argsort(np.argsort(left)))


def _stack(planes: list[Detection], leading: tuple[int, ...]) -> Detection:
    """Put the detections of planes together, along `leading` axes."""

    def stacked(name: str) -> Any:
        parts = [getattr(plane, name) for plane in planes]
        return None if parts[0] is None else np.stack(parts).reshape(leading + parts[0].shape)

    arrays = (part.name for part in fields(Detection) if part.name != "note")
    return Detection(**{name: stacked(name) for name in arrays})
