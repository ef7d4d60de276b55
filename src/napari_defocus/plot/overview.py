"""Pictures for people: an image beside its blur map and its mask."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.io.atomic import whole_file
from napari_defocus.labels.classes import CLASS_NAMES, COLOURS
from napari_defocus.measure.regions import region_shares, shares_text
from napari_defocus.plot.colours import as_rgb, tinted

WIDTH_INCHES = 15.0
HEADING_INCHES = 0.9
# Images that are longer, or wider, are drawn out of proportion; and of larger ones every so many
# pixels only, so that a side has no more than this.
MOST_ASPECT = 3.0
MOST_SIDE = 2000


def save_overview(
    path: Path,
    image: npt.NDArray[Any],
    blur: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    *,
    overwrite: bool = True,
) -> None:
    """Draw an image (Y, X) or (Y, X, C), its blur map and its mask side by side, as PNG.

    The picture has a bounded size, whatever that of the image.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    # A figure of its own, not pyplot's: no window, no state shared with the caller's plots.
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    told = shares_text(region_shares(mask, np.ones(mask.shape, bool)))
    shares = {label: float((mask == label).mean()) for label in COLOURS}
    true_aspect = mask.shape[0] / mask.shape[1]
    aspect = min(max(true_aspect, 1 / MOST_ASPECT), MOST_ASPECT)
    look: dict[str, Any] = {} if aspect == true_aspect else {"aspect": "auto"}
    rows, columns = (slice(None, None, -(-size // MOST_SIDE)) for size in mask.shape)
    thinned = rows, columns
    picture, blur, mask = as_rgb(image, thinned), blur[thinned], mask[thinned]
    figure = Figure(
        (WIDTH_INCHES, WIDTH_INCHES / 3 * aspect + HEADING_INCHES), layout="constrained"
    )
    left, centre, right = figure.subplots(1, 3)
    left.imshow(picture, **look)
    left.set_title("image" + ", out of proportion" * bool(look))
    shown = centre.imshow(blur, cmap="gray", vmin=0, vmax=1, **look)
    centre.set_title("blur map")
    figure.colorbar(shown, ax=centre, ticks=(0, 0.5, 1), fraction=0.04, pad=0.02)
    right.imshow(tinted(picture, mask), **look)
    right.set_title(f"mask\n{told}", fontsize="medium")
    handles = [
        Patch(color=COLOURS[label], label=f"{CLASS_NAMES[label]} {share:.0%}")
        for label, share in shares.items()
    ]
    right.legend(handles=handles, loc="lower right", framealpha=0.9)
    for axes in (left, centre, right):
        axes.set_axis_off()
    with whole_file(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=100)
