"""Axes: a letter for each dimension of an image, and the one order that planes are worked in.

T time, C channel, Z depth, Y rows, X columns, S colour samples. Other letters, such as I, Q or A
of TIFF files, are leading axes of unknown meaning: planes along them are worked one by one.
"""

from collections.abc import Sequence

from napari_defocus.core.errors import DefocusError

AXES = "TCZYXS"
"""Letters with a meaning. OME orders them so, with colours last."""

COLOUR_SIZES = (1, 2, 3, 4)
"""Sizes of S: grey, grey and alpha, RGB, RGBA."""

MEANINGS = {
    "Z": {"z", "depth", "plane", "planes", "focus", "slice"},
    "T": {"t", "time", "frame", "frames"},
    "C": {"c", "channel", "channels", "ch", "wavelength", "w"},
}
"""The letter of an axis by the words that people and programs call it."""


def meaning(words: set[str]) -> str:
    """Return the letter that words of a name stand for; none where they stand for none."""
    return next((letter for letter, names in MEANINGS.items() if words & names), "")


def stack_axis(axes: str) -> int | None:
    """Return which axis the planes of a stack are along: Z, else T; None where none tells.

    Channels and axes of unknown meaning are none: that has to be asked. What takes planes apart
    by their focus asks here, in commands and widgets.
    """
    return next((axes.index(letter) for letter in "ZT" if letter in axes), None)


def check_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Return axes of any order in upper case; DefocusError where they do not fit the shape."""
    letters = axes.upper()
    if len(letters) != len(shape):
        raise DefocusError(
            f"axes {axes!r} do not fit an image of shape {shape}; give a letter for each of its "
            f"{len(shape)} dimensions, {example_axes(shape)}"
        )
    check_letters(letters, example_axes(shape))
    if "S" in letters and shape[letters.index("S")] not in COLOUR_SIZES:
        raise DefocusError(
            f"axes {axes!r} make {shape[letters.index('S')]} colours of an image of shape {shape}, "
            "S has 1 to 4; use C for channels"
        )
    return letters


def check_letters(axes: str, example: str = "for instance ZYX") -> None:
    """Raise DefocusError where letters are axes of no image at all."""
    letters = axes.upper()
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
                f"axes {axes!r} have no {letter}; "
                f"say which dimension holds the {meaning}, {example}"
            )


def guess_axes(shape: tuple[int, ...]) -> str:
    """Return ``YX`` or, with 1, 3 or 4 last, ``YXS``; DefocusError where axes must be named."""
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3 and shape[-1] == 2:
        raise DefocusError(
            f"an image of shape {shape} may have two channels, or be grey with alpha; "
            "say so with axes, YXC or YXS"
        )
    if len(shape) == 3 and shape[-1] in COLOUR_SIZES:
        return "YXS"
    raise DefocusError(
        f"which axes an image of shape {shape} has cannot be told; "
        f"say so with axes, {example_axes(shape)}"
    )


def guess_stack_axes(along: str, shape: tuple[int, ...]) -> str:
    """Return the axes of planes along a letter, ``ZYX`` or ``ZYXS``; DefocusError as above."""
    if len(shape) == 4 and shape[-1] != 2:
        return f"{along}YXS"
    return along + guess_axes(shape[1:]) if len(shape) in (3, 4) else guess_axes(shape)


def example_axes(shape: tuple[int, ...]) -> str:
    """Return ``for instance ZYXS``: letters that would fit a shape."""
    plane = "YXS" if len(shape) > 2 and shape[-1] in (3, 4) else "YX"
    return "for instance " + "IQTCZ"[max(5 + len(plane) - len(shape), 0) :] + plane


def planes_last(axes: str) -> tuple[str, tuple[int, ...]]:
    """Return axes in the standard order, "CZYX" of "XYCZ", and their places for `transpose`."""
    last = "YXS" if "S" in axes else "YX"
    standard = "".join(letter for letter in axes if letter not in last) + last
    return standard, tuple(axes.index(letter) for letter in standard)


def plane_name(axes: str, index: tuple[int, ...]) -> str:
    """Name the plane at `index` along leading axes, from 0: ``T=0, Z=3``, or nothing."""
    return ", ".join(f"{letter}={place}" for letter, place in zip(axes, index, strict=False))


def check_as_told(where: str, found: Sequence[int], told: Sequence[int]) -> None:
    """Raise where what was read is not of the shape that the array tells.

    So it is with files of several sizes that a viewer put into one stack, and reads one by one.
    """
    if list(found) != list(told):
        read, expected = (" x ".join(map(str, shape)) for shape in (found, told))
        raise DefocusError(
            f"{where or 'the image'} is {read} and not {expected} as the whole tells: files of a "
            "stack differ in size; crop them to one size, or open each by itself"
        )
