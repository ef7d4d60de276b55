"""The planes of a focus stack, read one by one whatever holds them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import AXES, guess_stack_axes, stack_axis
from napari_defocus.io.base import ImageSource, array_source
from napari_defocus.io.folder import describe_plane
from napari_defocus.stacks.flaws import Flaws, without_spots

# Cubic: what is between pixels stays as sharp as it was.
WARP_ORDER = 3


@dataclass(frozen=True, eq=False)
class StackPlanes:
    """A focus stack as a sequence of planes (Y, X) or (Y, X, S).

    Parameters
    ----------
    count : int
        Z.
    read : callable
        Returns plane z, from 0.
    transforms : ndarray of float64, (Z, 3, 3), or None
        From the registered image to each plane, see `FocusStack`.
    flaws : Flaws
        Hot pixels are replaced, and odd planes by one beside them.
    """

    count: int
    read: Callable[[int], npt.NDArray[Any]]
    transforms: npt.NDArray[np.float64] | None = None
    flaws: Flaws = field(default_factory=Flaws)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[z] for z in range(self.count))

    def __getitem__(self, z: int) -> npt.NDArray[Any]:
        """Read plane `z`, from 0."""
        if not 0 <= z < self.count:
            raise IndexError(z)
        z = self.flaws.stand_in(z, self.count)
        plane = self.read(z)
        plane = _blank_if_empty(plane)
        if z in self.flaws.hot:
            plane = without_spots(np.asarray(plane), self.flaws.hot[z])
        return plane if self.transforms is None else _warped(plane, self.transforms[z])

    def in_view(self, z: int, shape: tuple[int, ...], step: int) -> npt.NDArray[np.bool_]:
        """Return which of every `step`-th pixel of the registered image plane `z` shows."""
        sizes = [-(-size // step) for size in shape]
        if self.transforms is None:
            return np.ones(sizes, bool)
        y, x = ((np.arange(size) + 0.5) * step - 0.5 for size in sizes)
        to_x, to_y, _ = self.transforms[z]
        there = [row[0] * x + row[1] * y[:, np.newaxis] + row[2] for row in (to_y, to_x)]
        inside = [(at >= -0.5) & (at <= size - 0.5) for at, size in zip(there, shape, strict=True)]
        return np.asarray(inside[0] & inside[1])

    def registered(self, transforms: npt.NDArray[np.float64] | None) -> "StackPlanes":
        """Return the same planes, moved by `transforms` (Z, 3, 3); as they are where None."""
        return replace(self, transforms=transforms)


def _blank_if_empty(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return 0 in place of a plane that was not taken: not finite, or transparent, all over."""
    has_alpha = plane.ndim == 3 and plane.shape[2] in (2, 4)
    infinite = plane.dtype.kind == "f" and not np.isfinite(plane).any()
    if not infinite and not (has_alpha and not plane[..., -1].any()):
        return plane
    blank = np.zeros_like(plane)
    if has_alpha:
        blank[..., -1] = 1
    return blank


StackLike = npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | StackPlanes


def open_stack(stack: Any, axes: str | None = None) -> StackPlanes:
    """Open an array or a sequence of planes as a focus stack.

    Parameters
    ----------
    stack : ndarray, array that is read plane by plane (Dask, Zarr), or sequence of planes
        (Z, Y, X) or (Z, Y, X, S), or with `axes` in another order.
    axes : str, optional
        A letter for each axis: Z, Y, X and perhaps S. A sequence has its planes along Z.

    Raises
    ------
    DefocusError
        Where the axes do not fit, or there are fewer than two planes.
    """
    if isinstance(stack, StackPlanes):
        planes = stack
    elif hasattr(stack, "shape"):
        given = axes or guess_stack_axes("Z", tuple(stack.shape))
        source = array_source(stack, given, name="the stack")
        found = dict(stacks_in(source))
        if list(found) != [()]:
            raise DefocusError(
                f"axes {given!r} hold {len(found)} stacks; give one, of Z, Y, X and perhaps S"
            )
        planes = found[()]
    else:
        planes = StackPlanes(len(stack), lambda z: np.asarray(stack[z]))
    if len(planes) < 2:
        raise DefocusError(
            f"a focus stack has two planes or more, this one has {len(planes)}; "
            "take another axis for Z, or a stack of more planes"
        )
    return planes


def stacks_in(source: ImageSource) -> Iterator[tuple[tuple[int, ...], StackPlanes]]:
    """Yield each focus stack of an image, after its index along the leading axes other than Z.

    Raises
    ------
    DefocusError
        Where the image has no Z axis.
    """
    z = stack_axis(source.axes)
    if z is None or source.axes[z] != "Z":
        if not source.leading:
            raise DefocusError(
                f"{source.name} is one plane ({source.axes}); name a stack of planes"
            )
        raise DefocusError(
            f"{source.name} has axes {source.axes} and no Z; "
            f"say with axes which one the planes are along{_with_z(source)}"
        )
    count, others = source.leading[z], source.leading[:z] + source.leading[z + 1 :]
    for index in np.ndindex(others):

        def read(plane: int, index: tuple[int, ...] = index) -> npt.NDArray[Any]:
            return source.read((*index[:z], plane, *index[z:]))

        yield index, StackPlanes(count, read)


def _with_z(source: ImageSource) -> str:
    """Name the axes of a source, as stored, with Z for the leading one that means the least."""
    stored = source.stored_axes
    leading = sorted(set(source.axes) - set("YXS"), key=lambda letter: (letter in AXES, letter))
    return f", for instance {stored.replace(leading[0], 'Z')}" if leading else ""


def check_same(z: int, plane: npt.NDArray[Any], first: npt.NDArray[Any]) -> None:
    """Raise where plane `z` differs from the first one in size, colours or number type."""
    if plane.ndim not in (2, 3) or (plane.ndim == 3 and plane.shape[-1] not in (1, 2, 3, 4)):
        raise DefocusError(f"plane {z} of shape {plane.shape} is no image; give (Y, X[, colours])")
    if plane.dtype.kind not in "buif":
        raise DefocusError(f"plane {z} holds {plane.dtype} values; give numbers")
    if plane.shape != first.shape or plane.dtype != first.dtype:
        own, other = (describe_plane(each.shape, each.dtype) for each in (plane, first))
        raise DefocusError(
            f"plane {z} is {own}, plane 0 is {other}; "
            "the planes of a stack are all alike: take out or convert the odd one"
        )


def _warped(plane: npt.NDArray[Any], transform: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    if np.allclose(transform, np.eye(3)):
        return plane
    from skimage.transform import AffineTransform, warp

    inverse = AffineTransform(matrix=transform)
    channels = plane.reshape(*plane.shape[:2], -1)
    moved = np.empty_like(channels)
    for channel in range(channels.shape[2]):
        values = channels[..., channel].astype(np.float32)
        found = warp(values, inverse, order=WARP_ORDER, mode="edge", preserve_range=True)
        moved[..., channel] = as_type(found, plane.dtype)
    return moved.reshape(plane.shape)


def as_type(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Round and clip float values into a number type; float types take them as they are."""
    if dtype.kind == "b":
        return values > 0.5
    if dtype.kind == "f":
        return np.asarray(values.astype(dtype))
    limits = np.iinfo(dtype)
    # The nearest float below the largest integer: beyond it, the cast would turn over.
    high = np.nextafter(np.float32(limits.max), np.float32(0)) if limits.bits > 24 else limits.max
    return np.asarray(np.clip(np.rint(values), limits.min, high).astype(dtype))
