"""Which image of a file that holds several: its series, positions, resolutions, or a thumbnail."""

import math
from collections.abc import Sequence

from napari_defocus.core.errors import DefocusError, notice

# Images that are listed for the user.
MOST_LISTED = 6


def choose_image(
    name: str, titles: Sequence[str], shapes: Sequence[tuple[int, ...]], wanted: int | None
) -> int:
    """Return which of several images counts: the `wanted` one, else the first of the largest.

    Not simply the first: that may be a thumbnail. What is chosen so is told.

    Raises
    ------
    DefocusError
        Where there is no such image.
    """
    count = len(shapes)
    if wanted is not None:
        if not 0 <= wanted < count:
            held = "one image, 0" if count == 1 else f"images 0 to {count - 1}"
            raise DefocusError(f"{name} holds {held}; there is no series {wanted}")
        return wanted
    sizes = [math.prod(shape) for shape in shapes]
    chosen = sizes.index(max(sizes))
    if count > 1:
        listed = [
            f"{number}: {f'{title}, ' if title else ''}{' x '.join(map(str, shape))}"
            for number, (title, shape) in enumerate(zip(titles, shapes, strict=True))
        ]
        more = f"; and {count - MOST_LISTED} more" * (count > MOST_LISTED)
        which = "the first" if chosen == 0 else f"number {chosen}, the largest,"
        notice(
            f"{name} holds {count} images ({'; '.join(listed[:MOST_LISTED])}{more}); {which} is "
            "taken: name another with series (--series N, or --series all)"
        )
    return chosen
