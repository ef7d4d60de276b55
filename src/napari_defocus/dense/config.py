"""The settings of the dense detector's training; quick to import, for the command line."""

from dataclasses import dataclass, field
from typing import ClassVar

from napari_defocus.core.errors import ABOVE_0, DefocusError
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.simulate.config import SceneConfig


@dataclass(frozen=True)
class DenseConfig(Settings):
    """How the dense detector is trained.

    Parameters
    ----------
    scenes : int
        Number of rendered scenes.
    scene : SceneConfig
        What they are like.
    runs : int
        How many networks are trained, from the same start on other crops; their weights are
        averaged (M. Wortsman et al., "Model soups", ICML 2022).
    steps : int
        Batches that each is trained on.
    batch : int
        Crops in a batch.
    crop : int
        Side of a crop, in pixels; a multiple of the network's stride, 32.
    learning_rate : float
        Highest of AdamW; it rises over `warm_up` steps and falls along a cosine to 0.
    backbone_share : float
        Share of it for the weights that start from ImageNet; 0 leaves them as they are.
    warm_up : int
        Steps.
    radius_weight : float
        Weight of the radius' loss beside that of sharp or blurred.
    memory : float
        Share that the averaged weights, those that are saved, keep at each step.
    seed : int
        Of scenes and crops.
    """

    scenes: int = 6500
    scene: SceneConfig = field(default_factory=SceneConfig)
    runs: int = 3
    steps: int = 800
    batch: int = 8
    crop: int = 256
    learning_rate: float = 1.5e-3
    backbone_share: float = 0.3
    warm_up: int = 50
    radius_weight: float = 0.25
    memory: float = 0.99
    seed: int = 0

    _allowed: ClassVar[Allowed] = {
        **dict.fromkeys(("scenes", "runs", "steps", "batch"), (1, 10**6)),
        "crop": (32, 4096),
        "learning_rate": (ABOVE_0, 10**3),
        "backbone_share": (0, 1),
        "warm_up": (0, 10**6),
        "radius_weight": (0, 10**6),
        "memory": (0, 1),
        "seed": (0, 2**63 - 1),
    }

    def _check(self) -> None:
        if self.crop % 32:
            raise DefocusError(f"crop is {self.crop}; give a multiple of 32")
