"""What annotations and the buttons beside them teach: a profile, and the mask that it gives."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.dense.plane import DensePlane
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.inference import Prediction
from napari_defocus.labels.classes import BLURRED, CLASS_NAMES, SHARP, Labels
from napari_defocus.profile.evidence import Evidence, from_strokes, joined, predictor
from napari_defocus.profile.limit import EdgeRadii, score_of
from napari_defocus.profile.profile import Profile, classifier_inputs
from napari_defocus.profile.teach import Taught, teach
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.reduced import postprocess_reduced, preview_step, reduced
from napari_defocus.widgets._shared.targets import Target

# Planes whose prediction is kept, with some 50 bytes a pixel.
MOST_PLANES = 8
MOST_PIXELS = 2**24
# Coarser than Detect's preview: each stroke waits for it.
MOST_PREVIEWED = 100_000

NOTHING_PAINTED = "nothing is painted yet: paint over edges or texture, a little of each class"

Key = tuple[Any, layers.Index]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a button taught, of an image of this pixel size in micrometres."""

    evidence: Evidence
    pixel_size: float | None


@dataclass(frozen=True, eq=False)
class Lesson:
    """A profile, what is to be said of it, and the mask of every step-th pixel of a plane."""

    taught: Taught | None
    text: str
    mask: Labels | None = None
    step: int = 1


@dataclass(frozen=True, eq=False)
class _Reduced:
    """What the preview of a plane is made of."""

    plane: DensePlane
    step: int
    inputs: npt.NDArray[np.float32]
    prediction: Prediction

    @classmethod
    def of(cls, plane: DensePlane) -> "_Reduced":
        """Take every so many pixels."""
        step = preview_step(plane.seen.shape, MOST_PREVIEWED)
        edges = EdgeRadii.of(plane)
        prediction = reduced(Prediction(score_of(plane), plane.seen, edges=edges), step)
        rows, columns = (np.arange(0, size, step) // 2 for size in plane.seen.shape)
        return cls(plane, step, classifier_inputs(plane, np.ix_(rows, columns)), prediction)

    def mask(self, profile: Profile) -> Labels:
        """Return what a profile makes of them."""
        score = self.prediction.score + profile.correction(self.inputs)
        config = DetectionConfig(limit=profile.limit)
        found = postprocess_reduced(replace(self.prediction, score=score), config, self.step)
        return found.mask


class Lessons:
    """Predicts each plane once, and looks again at annotations that changed; for one thread."""

    def __init__(self) -> None:
        # By plane, with the pixels it was of, oldest first.
        self._planes: OrderedDict[Key, tuple[Any, DensePlane]] = OrderedDict()
        # Of each annotated plane: pixels, labels, and what they teach or why they do not.
        self._strokes: dict[Key, tuple[Any, Labels, Evidence | DefocusError]] = {}
        self._reduced: _Reduced | None = None

    def learn(
        self,
        targets: Sequence[Target],
        shown: Sequence[Shown],
        screen: Target,
        on_event: OnEvent,
        should_stop: ShouldStop,
    ) -> Lesson:
        """Learn from annotations and from what buttons taught; preview the plane on screen."""
        self._strokes = {key_of(t): self._look(t, should_stop) for t in targets if t.labels.any()}
        faults = [f"⚠ {e}" for *_, e in self._strokes.values() if isinstance(e, DefocusError)]
        plane = None
        try:
            # Before anything is painted, so that the first stroke has not to wait for it.
            plane = self._plane(screen, should_stop)
        except DefocusError as error:
            faults.append(f"⚠ {error}")
        parts = self.parts(targets, shown)
        if not parts:
            return Lesson(None, "\n".join(dict.fromkeys(faults)) or NOTHING_PAINTED)
        sizes = [part.pixel_size for part in parts if part.pixel_size]
        if sizes and max(sizes) > 1.1 * min(sizes):
            faults.append(
                f"⚠ the images have pixels of {min(sizes):g} to {max(sizes):g} µm; "
                "a profile fits one size: teach one for each"
            )
        taught = teach_from(parts, held_out=False)
        text = "\n".join(dict.fromkeys([agreement_text(taught), *faults]))
        if plane is None:
            return Lesson(taught, text)
        if self._reduced is None or self._reduced.plane is not plane:
            self._reduced = _Reduced.of(plane)
        return Lesson(taught, text, self._reduced.mask(taught.profile), self._reduced.step)

    def parts(self, targets: Sequence[Target], shown: Sequence[Shown]) -> list[Shown]:
        """Return all that was taught last."""
        sizes = {key_of(target): layers.pixel_size_um(target.source) for target in targets}
        strokes = [
            Shown(found, sizes.get(key))
            for key, (_, _, found) in self._strokes.items()
            if isinstance(found, Evidence)
        ]
        return [*shown, *strokes]

    def _look(
        self, target: Target, should_stop: ShouldStop
    ) -> tuple[Any, Labels, Evidence | DefocusError]:
        data = layers.full_resolution(target.source)
        before = self._strokes.get(key_of(target))
        if before and before[0] is data and np.array_equal(before[1], target.labels):
            return before
        try:
            plane = self._plane(target, should_stop)
            return data, target.labels, from_strokes(plane, target.labels, target.name)
        except DefocusError as error:
            return data, target.labels, error

    def _plane(self, target: Target, should_stop: ShouldStop) -> DensePlane:
        data, key = layers.full_resolution(target.source), key_of(target)
        if key not in self._planes or self._planes[key][0] is not data:
            if target.labels.size > MOST_PIXELS:
                raise DefocusError(
                    f"{target.name} is too large to learn from while you paint; "
                    "crop it, or teach with napari-defocus fit"
                )
            self._planes[key] = data, predictor(should_stop=should_stop)(target.read())
        self._planes.move_to_end(key)
        sizes = [plane.seen.size for _, plane in self._planes.values()]
        while len(sizes) > MOST_PLANES or (len(sizes) > 1 and sum(sizes) > MOST_PIXELS):
            self._planes.popitem(last=False)
            sizes.pop(0)
        return self._planes[key][1]


def key_of(target: Target) -> Key:
    """Return what names the plane of a target."""
    return target.source.unique_id, target.index


def teach_from(parts: Sequence[Shown], *, held_out: bool) -> Taught:
    """Teach a profile; its card says what it was taught from."""
    sizes = {part.pixel_size for part in parts if part.pixel_size}
    record = {
        "taught_from": sorted({name for part in parts for name in part.evidence.names}),
        "pixel_size_um": sizes.pop() if len(sizes) == 1 else None,
    }
    return teach(joined([part.evidence for part in parts]), record, held_out=held_out)


def agreement_text(taught: Taught) -> str:
    """Say how much of what was taught holds, and what does not."""
    record, wrong = taught.profile.record, taught.disagreeing
    text = f"{taught.holds:.0%} of what you taught holds"
    if wrong:
        share = 1 - taught.agreement[wrong[0]]
        text = (
            f"⚠ {share:.0%} of {wrong[0]} does not hold: erase it where it is wrong, "
            "else paint more like it"
        )
        text += f" ({len(wrong) - 1} more like this)" * (len(wrong) > 1)
    for label in (BLURRED, SHARP):
        name = CLASS_NAMES[label]
        if not record[name]:
            text += f"; nothing {name} is taught: that stays as it was"
    return text
