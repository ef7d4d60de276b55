import numpy as np
import pytest

from napari_defocus.data.samples import read_sample
from napari_defocus.profile.evidence import predictor


@pytest.fixture(scope="session")
def predict():
    return predictor()


@pytest.fixture(scope="session")
def photo():
    """A photo, in focus in part, and which pixels are blurred."""
    sample = read_sample("photo")
    return sample.image[:192, :256], sample.blurred[:192, :256]


@pytest.fixture(scope="session")
def field():
    """A microscope image in focus: dots and rods of 3 pixels' width, a little noise."""
    rng = np.random.default_rng(3)
    image = np.full((160, 192), 30.0)
    y, x = np.mgrid[:160, :192]
    for cy, cx in rng.uniform((8, 8), (152, 184), (60, 2)):
        image += 150 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 1.6**2))
    return np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)
