"""A small focus stack whose best plane is soft, as on a microscope."""

import numpy as np
from scipy import ndimage


def soft_stack():
    """Return three planes of dots, blurred by Gaussians of 9, 4 and 9 pixels, a little noise."""
    rng = np.random.default_rng(3)
    image = np.full((128, 128), 30.0, np.float32)
    places = rng.integers(4, 124, (60, 2))
    image[tuple(places.T)] += 4000
    planes = [ndimage.gaussian_filter(image, sigma) for sigma in (9, 4, 9)]
    return np.stack(planes) + rng.normal(0, 0.5, (3, 128, 128)).astype(np.float32)
