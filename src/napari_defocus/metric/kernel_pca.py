"""Principal components of convolution kernels.

`plain_pca` is that of Zeng et al., IEEE TIP 28(5), 2019; `kernel_pca` is ours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

# Values this close, as a share of the largest, are equal but for rounding; so are entries of a
# vector this close to its largest one.
EQUAL = 1e-10
TIE = 1e-6
# Filters of at least this correlation are the same.
ALIKE = 0.98


@dataclass(frozen=True)
class KernelPCA:
    """Components of kernels, (N, size, size) on pixels, and their shares.

    `explained_variance_ratio` has shares of the variance by `plain_pca`, and of the power about 0
    by `kernel_pca`.
    """

    components: Float
    explained_variance_ratio: Float

    def filters(self, count: int) -> Float:
        """Return K1 ... K`count`, their squares summing to 1 over all."""
        most = len(self.components)
        if not 1 <= count <= most:
            raise DefocusError(f"{count} components are asked for; give 1 to {most}")
        filters = self.components[:count]
        return np.asarray(filters / np.sqrt(np.square(filters).sum()), np.float32)


def kernel_pca(kernels: Float, whitening: Float) -> KernelPCA:
    """Principal components of kernels (N, size, size) in whitened space, carried to pixels.

    Not the paper's, which is `plain_pca`. A kernel and its negative are the same to CReLU, so the
    components are taken about 0, and their shares are of the power, not the variance. Each
    kernel stands in the matrix with its turned and mirrored copies: training turns patches, so any
    of them might as well have been learnt, and the metric should prefer no direction. So most
    components come in pairs of equal share, one filter and the same turned by 90 degrees; the
    energy of such a pair is one measure in all directions.
    """
    turned = [np.rot90(kernels, turn, (1, 2)) for turn in range(4)]
    every = np.concatenate(turned + [k[:, ::-1] for k in turned])
    columns = every.reshape(len(every), -1).T.astype(np.float64)
    vectors, values, _ = np.linalg.svd(columns, full_matrices=False)
    vectors = fixed_directions(vectors, values)
    filters = (whitening.astype(np.float64) @ vectors).T.reshape(-1, *kernels.shape[1:])
    filters = filters - filters.mean(axis=(1, 2), keepdims=True)
    variance = np.square(values)
    return KernelPCA(filters.astype(np.float32), (variance / variance.sum()).astype(np.float32))


def is_turned(first: Float, second: Float) -> bool:
    """Tell whether two filters (size, size) are one and the same, turned by 90 degrees."""
    a, b = np.rot90(first).ravel(), second.ravel()
    return bool(abs(a @ b) > ALIKE * np.sqrt((a @ a) * (b @ b)))


def plain_pca(kernels: Float) -> KernelPCA:
    """Principal components of raw kernels (N, size, size), as the paper says: see `zeng2019`.

    The kernels are the columns of a matrix of 49 x N, for 7 x 7. Its N columns are reduced to K,
    and the result of 49 x K is K filters. So pixels are the observations, and each kernel is taken
    about its own mean.
    """
    columns = kernels.reshape(len(kernels), -1).T.astype(np.float64)
    columns = columns - columns.mean(axis=0)
    vectors, values, _ = np.linalg.svd(columns, full_matrices=False)
    reduced = fixed_directions(vectors, values) * values
    variance = np.square(values)
    return KernelPCA(
        reduced.T.reshape(-1, *kernels.shape[1:]).astype(np.float32),
        (variance / variance.sum()).astype(np.float32),
    )


def fixed_directions(vectors: Double, values: Double) -> Double:
    """Turn and sign eigenvectors in columns in a fixed way, whatever linear algebra found them.

    Eigenvectors of equal values are defined up to a rotation. Kernels with their turned copies make
    pairs of them: one filter and the same turned by 90 degrees. Such a pair is rotated so that the
    first is symmetric about the diagonal and the second antisymmetric, which is where LAPACK puts
    them on most machines. Larger groups take a coincidence; there, filters of the same symmetry are
    ordered by where their weight lies. Of the largest values of each, the leftmost is positive.
    """
    pixels, count = vectors.shape
    size = round(pixels**0.5)
    across_diagonal = np.arange(pixels).reshape(size, size).T.ravel()
    y, x = np.divmod(np.arange(pixels), size)
    place = ((y + x) / (2 * size)) ** 2
    fixed = np.empty_like(vectors)
    ends = np.flatnonzero(np.diff(values) < -EQUAL * values[0]) + 1
    for group in np.split(np.arange(count), ends):
        found = vectors[:, group]
        operator = found.T @ (found[across_diagonal] + place[:, np.newaxis] * found)
        fixed[:, group] = found @ np.linalg.eigh(operator)[1][:, ::-1]
    by_columns = np.abs(fixed[across_diagonal])
    leftmost = across_diagonal[(by_columns > (1 - TIE) * by_columns.max(axis=0)).argmax(axis=0)]
    return np.asarray(fixed * np.sign(fixed[leftmost, np.arange(count)]))
