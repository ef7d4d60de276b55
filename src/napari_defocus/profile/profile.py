"""A profile: what sharp means on one instrument, as a small linear classifier on features."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.graph import WIDTHS
from napari_defocus.dense.plane import DensePlane
from napari_defocus.filters.resampling import enlarge
from napari_defocus.io.cards import as_floats, load_container, save_container
from napari_defocus.profile.limit import log_radius

Float = npt.NDArray[np.float32]

KIND = "profile"
# Of the network, and its log odds and the logarithm of its radius.
FEATURES = WIDTHS[0]
INPUTS = FEATURES + 2


@dataclass(frozen=True, eq=False)
class Profile:
    """What counts as sharp, learnt from a user's images: data, not code.

    Parameters
    ----------
    weights : ndarray of float32, (34,)
        What each of `classifier_inputs` adds to the log odds of being sharp.
    bias : float
        What is added everywhere.
    limit : float
        The sharpness limit, in pixels, that the log odds started from.
    network : str
        Digest of the dense network whose features these are.
    record : mapping
        How it was made: ``taught_from``, ``pixel_size_um``, ``held_out``, ...
    """

    weights: Float
    bias: float
    limit: float
    network: str
    record: Mapping[str, Any] = field(default_factory=dict)

    def correction(self, inputs: Float) -> Float:
        """Return what is added to the log odds of blocks of pixels with these inputs, (34, ...)."""
        added = np.tensordot(self.weights, inputs, 1)
        return np.asarray(added + np.float32(self.bias), np.float32)

    def correct(self, score: Float, plane: DensePlane) -> Float:
        """Return the score (Y, X) of a plane, corrected by what was learnt."""
        rows, columns = score.shape
        return score + enlarge(self.correction(classifier_inputs(plane)), 2)[:rows, :columns]

    @cached_property
    def digest(self) -> str:
        """Names the numbers."""
        numbers = np.append(self.weights, [self.bias, self.limit]).astype(np.float32)
        return sha256(numbers.tobytes() + self.network.encode()).hexdigest()[:16]


def classifier_inputs(plane: DensePlane, blocks: Any = ...) -> Float:
    """Return what a profile classifies blocks of 2 x 2 pixels by, (34, Y / 2, X / 2).

    `blocks` is an index, by rows and columns, of some of them.
    """
    features = plane.found.features
    assert features is not None
    index = blocks if isinstance(blocks, tuple) else (blocks,)
    log_odds, radius = plane.found.log_odds[::2, ::2][index], plane.radius[::2, ::2][index]
    more = np.stack([log_odds, log_radius(radius)])
    return np.concatenate([features[:, *index], more])


def save_profile(profile: Profile, path: Path, *, overwrite: bool = True) -> None:
    """Write a profile to one ``.safetensors`` file.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    card = {
        "bias": profile.bias,
        "limit_px": profile.limit,
        "network": profile.network,
        "record": dict(profile.record),
    }
    save_container(path, KIND, {"weights": profile.weights}, card, overwrite=overwrite)


def load_profile(path: Path) -> Profile:
    """Read a profile from its file.

    Raises
    ------
    DefocusError
        Where the file is missing, damaged, or no profile.
    """
    tensors, card = load_container(Path(path), KIND)
    try:
        weights = as_floats(tensors["weights"])
        bias, limit = float(card["bias"]), float(card["limit_px"])
        whole = weights.shape == (INPUTS,) and np.isfinite(bias) and 0 < limit < float("inf")
        if not whole or not isinstance(card["network"], str):
            raise ValueError("not the numbers of a profile")
        return Profile(weights, bias, limit, card["network"], dict(card["record"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DefocusError(f"{path}: not a whole profile; teach it anew") from error


def check_network(profile: Profile, network: str) -> None:
    """Check that a profile was learnt on the features of the network of this digest.

    Raises
    ------
    DefocusError
        Where it was another network.
    """
    if profile.network != network:
        raise DefocusError(
            "the profile was taught on another version of the network; teach it anew "
            "from the same images"
        )
