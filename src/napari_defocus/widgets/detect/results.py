"""What a detection is shown by: layers that lie on its image."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image

from napari_defocus.detection.postprocess import Detection
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.layers import BLUR, CONFIDENCE, MASK, RADIUS

KEPT = f"the mask as you painted it stays, as a layer {layers.CORRECTED}"


def do_all(steps: Iterable[Callable[[], Any]]) -> None:
    """Take every step, also where an earlier one fails; then raise the first error."""
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def painting_is_kept(viewer: ViewerModel, source: Image) -> bool:
    """Tell whether the mask of an image was painted on, so that a new one does not replace it."""
    return layers.painted_on(layers.find_owned(viewer, source, MASK))


def put_layers(
    viewer: ViewerModel,
    found: Detection,
    source: Image,
    more: tuple[str, ...],
    note: dict[str, Any],
) -> list[Callable[[], Any]]:
    """Return the steps that put the layers of a detection on its image, from below."""
    images = [(BLUR, found.blur)]
    for name, role in (("confidence", CONFIDENCE), ("radius", RADIUS)):
        values = getattr(found, name)
        if name in more and values is not None:
            images.append((role, values))
    return [
        *(partial(layers.put_image, viewer, data, source, role, **note) for role, data in images),
        partial(layers.put_labels, viewer, found.mask, source, MASK, **note),
    ]
