"""Super-pixels: clusters of like pixels, which patches are centred on."""

import numpy as np
import numpy.typing as npt


def superpixels(grey: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int64]:
    """Cluster a plane into super-pixels (SLIC, Achanta et al., IEEE PAMI 34(11), 2012).

    Parameters
    ----------
    grey : ndarray of float32, (Y, X)
        Values around [0, 1].
    size : int
        Side of a super-pixel if it were square, in pixels; their number follows the area.

    Returns
    -------
    ndarray of int, (Y, X)
        Labels from 1.
    """
    from skimage.segmentation import slic

    count = max(1, round(grey.size / size**2))
    # Smoothing by sigma=1: pixel noise would shatter super-pixels, which are then merged away.
    segments = slic(
        np.clip(grey, 0, 1),
        n_segments=count,
        compactness=0.1,
        sigma=1,
        start_label=1,
        channel_axis=None,
    )
    return np.asarray(segments, np.int64)


def superpixel_outlines(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return the pixels (Y, X) whose lower or right neighbour is of another super-pixel."""
    outlines = np.zeros(segments.shape, bool)
    outlines[:-1] |= segments[:-1] != segments[1:]
    outlines[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    return outlines


def centroids(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Compute the rounded centroid (y, x) of each super-pixel, (N, 2)."""
    label = segments.ravel()
    area = np.bincount(label)[1:]
    y, x = np.indices(segments.shape)
    sums = [np.bincount(label, weights=axis.ravel())[1:] for axis in (y, x)]
    present = area > 0
    return np.rint(np.stack(sums, 1)[present] / area[present, np.newaxis]).astype(np.int64)
