"""Settings are checked when they are made, all in one place."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from napari_defocus.core.errors import ABOVE_0, DefocusError, check_range
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.dense.config import DenseConfig
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import Pooling
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import PatchConfig
from napari_defocus.report.fields import Thresholds
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.stacks.api import StackConfig
from napari_defocus.tiled.api import TileConfig

CONFIGS = (
    DetectionConfig,
    RefinementConfig,
    MaskConfig,
    PatchConfig,
    TrainingConfig,
    FitConfig,
    Pooling,
    StackConfig,
    TileConfig,
    Thresholds,
    DenseConfig,
    SceneConfig,
)
FIELDS = [(kind, each.name) for kind in CONFIGS for each in fields(kind)]


@dataclass(frozen=True)
class Some(Settings):
    count: int = 1
    share: float | None = None
    word: str = "a"
    pair: tuple[float, float] = (0.0, 1.0)

    _allowed: ClassVar[Allowed] = {"count": (1, 9), "share": (ABOVE_0, 1), "word": ("a", "b")}
    _called: ClassVar[dict[str, str]] = {"count": "the count"}


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_no_setting_takes_what_is_no_number_or_of_another_type(kind, name):
    for value in (math.nan, math.inf, -math.inf, object(), [1, 2], b"x"):
        with pytest.raises(DefocusError, match=r" is .*; give "):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 0}, "the count is 0; give a number from 1 to 9"),
        ({"count": 2.0}, "the count is 2.0; give a whole number"),
        ({"count": True}, "the count is True; give a whole number"),
        ({"share": 0}, "share is 0; give a number above 0 to 1"),
        ({"share": "half"}, "share is 'half'; give a number or None"),
        ({"share": math.nan}, "share is nan"),
        ({"word": "c"}, "word is 'c'; choose one of a, b"),
        ({"pair": (1.0,)}, "pair is .*; give a tuple"),
        ({"pair": [0.0, 1.0]}, "give a tuple"),
    ],
)
def test_the_message_names_the_setting_and_what_it_may_be(given, words):
    with pytest.raises(DefocusError, match=words):
        Some(**given)


def test_numbers_of_numpy_and_paths_become_plain_ones():
    made = Some(count=np.int64(3), share=np.float32(0.5), word=Path("b"))
    assert made == Some(3, 0.5, "b")
    assert [type(each) for each in (made.count, made.share, made.word)] == [int, float, str]


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (MaskConfig, {"smallest": -5}, "smallest is -5"),
        (MaskConfig, {"range": (0.7, 0.3)}, "give the lower first"),
        (TrainingConfig, {"learning_rate": math.nan}, "the learning rate is nan; give .* above 0"),
        (TrainingConfig, {"learning_rate": 0.0}, "the learning rate is 0.0; give a number above 0"),
        (PatchConfig, {"superpixel": 10**9}, "superpixel is 1000000000; give .* to 4096"),
        (DenseConfig, {"crop": 100}, "give a multiple of 32"),
        (FitConfig, {"components": 0}, "components is 0"),
        (TileConfig, {"side": 0}, "tile is 0"),
    ],
)
def test_ranges(kind, given, words):
    with pytest.raises(DefocusError, match=words):
        kind(**given)


def test_no_number_is_infinite_even_where_there_is_no_end():
    with pytest.raises(DefocusError, match="x is inf; give a finite number from 0"):
        check_range("x", math.inf, 0)
