"""Axes: a letter for each dimension of an image, and the one order that planes are worked in.

T time, C channel, Z depth, Y rows, X columns, S colour samples. Other letters, such as I, Q or A
of TIFF files, are leading axes of unknown meaning: planes along them are worked one by one.
"""

from napari_defocus.core.errors import DefocusError

AXES = "TCZYXS"
"""Letters with a meaning. OME orders them so, with colours last."""

COLOUR_SIZES = (1, 2, 3, 4)
"""Sizes of S: grey, grey and alpha, RGB, RGBA."""


def check_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Check that axes, in any order and case, fit a shape, and return them in upper case.

    Raises
    ------
    DefocusError
        Where the number of letters differs from that of the dimensions, a letter is none or comes
        twice, Y or X is missing, or S is no colour (1 to 4 samples).
    """
    letters = axes.upper()
    if len(letters) != len(shape):
        raise DefocusError(
            f"axes {axes!r} do not fit an image of shape {shape}; give a letter for each of its "
            f"{len(shape)} dimensions"
        )
    if not letters.isascii() or not letters.isalpha():
        raise DefocusError(f"axes {axes!r} are unknown; give letters such as {AXES}")
    twice = sorted({letter for letter in letters if letters.count(letter) > 1})
    if twice:
        raise DefocusError(
            f"axes {axes!r} have {', '.join(twice)} twice; give each dimension its own letter"
        )
    for letter, meaning in (("Y", "rows"), ("X", "columns")):
        if letter not in letters:
            raise DefocusError(
                f"axes {axes!r} of an image of shape {shape} have no {letter}; "
                f"say which dimension holds the {meaning}, for instance ZYX"
            )
    if "S" in letters and shape[letters.index("S")] not in COLOUR_SIZES:
        raise DefocusError(
            f"axes {axes!r} make {shape[letters.index('S')]} colours of an image of shape {shape}, "
            "S has 1 to 4; use C for channels"
        )
    return letters


def guess_axes(shape: tuple[int, ...]) -> str:
    """Return ``YX``, or ``YXS`` where there are three dimensions and the last has 1 to 4.

    Raises
    ------
    DefocusError
        Where there are other dimensions: they must be named.
    """
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3 and shape[-1] in COLOUR_SIZES:
        return "YXS"
    raise DefocusError(
        f"which axes an image of shape {shape} has cannot be told; "
        "say so with axes, for instance ZYX"
    )


def planes_last(axes: str) -> tuple[str, tuple[int, ...]]:
    """Return checked axes in the standard order, and what `numpy.transpose` needs to make it.

    That is leading axes as they come, then rows and columns, then colours: "CZYX" of "XYCZ".
    """
    last = "YXS" if "S" in axes else "YX"
    standard = "".join(letter for letter in axes if letter not in last) + last
    return standard, tuple(axes.index(letter) for letter in standard)


def plane_name(axes: str, index: tuple[int, ...]) -> str:
    """Name a plane in messages, counted from 0 as napari's sliders do, such as ``T=0, Z=3``.

    `index` is its place along each leading axis; without any the name is empty.
    """
    return ", ".join(f"{letter}={place}" for letter, place in zip(axes, index, strict=False))
