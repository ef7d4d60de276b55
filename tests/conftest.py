import os

os.environ["NAPARI_CONFIG"] = ""

import pytest
from hypothesis import settings

from napari_defocus.core import child
from napari_defocus.metric.default_recipe import RecipeConfig, render_scenes, textured_annotation
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.patches import build_patch_set

# The machine may be busy: a slow example is no failure.
settings.register_profile("unhurried", deadline=None, max_examples=60)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def scenes():
    """Name, image and annotation of a few rendered scenes, 192 x 192 pixels."""
    config = RecipeConfig(scenes=8, size=192)
    return [
        (name, scene.image, textured_annotation(scene, config.texture))
        for name, scene in render_scenes(config)
    ]


@pytest.fixture(scope="session")
def patch_set(scenes):
    """Some hundred patches of the scenes, of both classes."""
    return build_patch_set(scenes)


@pytest.fixture(scope="session")
def metric(patch_set):
    """A metric of two 7 x 7 filters, fitted to the patches in closed form."""
    return instant_metric(patch_set)


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread: the machine may be busy, and sums are taken in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def started(monkeypatch):
    """The child processes that were started."""
    made = []
    start = child._start

    def watched(*arguments):
        made.append(start(*arguments))
        return made[-1]

    monkeypatch.setattr(child, "_start", watched)
    return made


@pytest.fixture(scope="module")
def random_detector():
    """A dense detector of random weights."""
    import torch

    from napari_defocus.dense.detector import DenseDetector
    from napari_defocus.dense.network import DenseNet

    torch.manual_seed(0)
    network = DenseNet(torch.randn(2, 7, 7))
    return DenseDetector({k: v.numpy() for k, v in network.state_dict().items()}, {"random": True})
