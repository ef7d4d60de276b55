"""Spread values along things: pixels of like colour share them, outlines stop them.

A random walk over colour (L. Grady, IEEE PAMI 28(11), 2006), solved from coarse to fine with a few
steps on each level, so that a pixel is reached from a finite distance and time grows with the
pixels. The last step is the fast guided filter (K. He and J. Sun, arXiv 1505.00996).
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.guided import guided_coefficients
from napari_defocus.filters.resampling import block_mean, enlarge

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Neighbours = list[tuple[tuple[slice, slice], tuple[slice, slice], Float]]

# Side of the finest cells, in pixels; those of each next level are twice as wide.
CELL = 4
LEVELS = 3
STEPS = 6
# Two cells share less than a third of their values from a colour difference of .05 on, of 1 for
# black to white.
STEEPNESS = 400.0
# How strongly a pixel holds its own value, where there is something to see and elsewhere; 1 is how
# strongly a cell holds that of a neighbour of the same colour.
OWN, OWN_UNSEEN = 0.005, 0.0005
# Shared whatever the colours; and by neighbours on a diagonal, less.
LEAST = 1e-4
DIAGONAL = 0.7
# Of the guided filter: radius in cells, and the variance of luminance that is an outline.
OUTLINE_RADIUS = 1
OUTLINE_EPSILON = 1e-4


def spread(values: Float, colours: Float, seen: Bool) -> Float:
    """Spread values between pixels of like colour, (Y, X).

    It is linear in the values, and keeps a constant. Cells are counted from the first pixel.

    Parameters
    ----------
    values : ndarray of float32, (Y, X)
        Such as log odds.
    colours : ndarray of float32, (Y, X, 3)
        Red, green and blue, 0 black and 1 white.
    seen : ndarray of bool, (Y, X)
        Where values are to go by; others give way to them.
    """
    luminance, *chroma = _opponent(colours)
    guides = [[block_mean(part, CELL) for part in (luminance, *chroma)]]
    weight = np.where(seen, np.float32(OWN), np.float32(OWN_UNSEEN))
    held, weights = [block_mean(values * weight, CELL)], [block_mean(weight, CELL)]
    for _ in range(LEVELS - 1):
        guides.append([block_mean(part, 2) for part in guides[-1]])
        held.append(block_mean(held[-1], 2))
        weights.append(block_mean(weights[-1], 2))
    found = held[-1] / weights[-1]
    for level in reversed(range(LEVELS)):
        rows, columns = held[level].shape
        if level < LEVELS - 1:
            found = found.repeat(2, 0).repeat(2, 1)[:rows, :columns]
        # A cell of twice the side holds its value four times as strongly.
        pixels = np.float32((CELL * 2**level) ** 2)
        shared = _neighbours(guides[level])
        found = _walk(found, held[level] * pixels, weights[level] * pixels, shared)
    gain, offset = guided_coefficients(found, guides[0][0], OUTLINE_RADIUS, OUTLINE_EPSILON)
    rows, columns = values.shape
    smooth = enlarge(gain, CELL)[:rows, :columns] * luminance
    smooth += enlarge(offset, CELL)[:rows, :columns]
    return smooth


def _opponent(colours: Float) -> list[Float]:
    """Return luminance and two colour differences, (Y, X) each; of grey the luminance alone."""
    red, green, blue = np.moveaxis(colours, -1, 0)
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return [np.ascontiguousarray(red)]
    shares = np.array([0.299, 0.587, 0.114], np.float32)
    luminance = red * shares[0]
    luminance += green * shares[1]
    luminance += blue * shares[2]
    return [luminance, (blue - luminance) * np.float32(0.56), (red - luminance) * np.float32(0.71)]


def _neighbours(guide: Sequence[Float]) -> Neighbours:
    """Return pairs of neighbours among the cells, and what they share."""
    pairs = []
    for down, across, share in ((0, 1, 1), (1, 0, 1), (1, 1, DIAGONAL), (1, -1, DIAGONAL)):
        rows, columns = guide[0].shape
        one = slice(0, rows - down), slice(max(-across, 0), columns - max(across, 0))
        other = slice(down, rows), slice(max(across, 0), columns + min(across, 0))
        apart = reduce(np.add, (np.square(part[one] - part[other]) for part in guide))
        pairs.append((one, other, (np.exp(-STEEPNESS * apart) + LEAST) * np.float32(share)))
    return pairs


def _walk(start: Float, held: Float, own: Float, neighbours: Neighbours) -> Float:
    """Replace each cell by the weighted mean of its value and its neighbours', several times.

    `own` is the weight of its value, `held` the value times that weight.
    """
    total = own.copy()
    for one, other, weight in neighbours:
        total[one] += weight
        total[other] += weight
    found = start
    for _ in range(STEPS):
        sums = held.copy()
        for one, other, weight in neighbours:
            sums[one] += weight * found[other]
            sums[other] += weight * found[one]
        found = sums / total
    return found
