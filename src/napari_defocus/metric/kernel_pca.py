"""Principal components of convolution kernels.

Zeng et al., IEEE TIP 28(5), 2019, section on PCA of the convolution kernels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class KernelPCA:
    """Principal components of convolution kernels.

    Parameters
    ----------
    components : ndarray of float32, (components, size, size)
        As filters on pixels, in order of explained variance; size^2, or what few kernels give.
    explained_variance_ratio : ndarray of float32, (components,)
        Shares, summing to 1.
    """

    components: Float
    explained_variance_ratio: Float

    def filters(self, count: int) -> Float:
        """Give K1 ... K`count`, their squares summing to 1 over all.

        Raises
        ------
        DefocusError
            Where there are not so many.
        """
        most = len(self.components)
        if not 1 <= count <= most:
            raise DefocusError(f"{count} components are asked for; give 1 to {most}")
        filters = self.components[:count]
        return np.asarray(filters / np.sqrt(np.square(filters).sum()), np.float32)


def kernel_pca(kernels: Float, whitening: Float) -> KernelPCA:
    """Principal components of kernels in whitened space, carried to pixels.

    A kernel and its negative are the same to CReLU, so the components are taken about 0. Each
    kernel stands in the matrix with its turned and mirrored copies: training turns patches, so any
    of them might as well have been learnt, and the metric should prefer no direction.

    Parameters
    ----------
    kernels : ndarray of float32, (N, size, size)
        In whitened space.
    whitening : ndarray of float32, (size^2, size^2)
        See `whitening`.

    Returns
    -------
    KernelPCA
    """
    turned = [np.rot90(kernels, turn, (1, 2)) for turn in range(4)]
    every = np.concatenate(turned + [k[:, ::-1] for k in turned])
    columns = every.reshape(len(every), -1).T.astype(np.float64)
    vectors, values, _ = np.linalg.svd(columns, full_matrices=False)
    # The sign of a component is free: let its largest value be positive.
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    filters = (whitening.astype(np.float64) @ vectors).T.reshape(-1, *kernels.shape[1:])
    filters = filters - filters.mean(axis=(1, 2), keepdims=True)
    variance = np.square(values)
    return KernelPCA(filters.astype(np.float32), (variance / variance.sum()).astype(np.float32))
