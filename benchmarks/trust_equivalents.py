"""Mutants of which a person found that no behaviour changes, with the reason.

By module, then by the line as it stands in the source, without indentation, and the change.
"""

Equivalents = dict[tuple[str, str], str]

# ruff: noqa: E501 - lines are quoted
_SQUARE = "filters are square: what is not is refused before its size is asked for"
_REST = "NumPy takes any negative side as the one to work out, -2 as -1"
METRIC: Equivalents = {
    (
        "return int(self.filters.shape[-1])",
        "'-1' -> '+1'",
    ): _SQUARE,
    (
        "return int(self.filters.shape[-1])",
        "'1' -> '2'",
    ): _SQUARE,
    (
        "vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])",
        "'vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])' -> 'vectors / np.sign(vectors[largest, np.arange(vectors.shape[1])])'",
    ): "the sign of the largest value of a unit vector is 1 or -1",
    (
        "columns = every.reshape(len(every), -1).T.astype(np.float64)",
        "'1' -> '2'",
    ): _REST,
    (
        "filters = (whitening.astype(np.float64) @ vectors).T.reshape(-1, *kernels.shape[1:])",
        "'1' -> '2'",
    ): _REST,
}
_AT_ONCE = "how many are counted at once is memory, not behaviour; a test says so"
MASKING: Equivalents = {
    (
        "if smallest <= 1 or region.all():",
        "'smallest <= 1' -> 'smallest < 1'",
    ): "a short cut: no spot is of less than one pixel, so all stay",
    ("AT_ONCE = 2**22", "'2 ** 22' -> '2 * 22'"): _AT_ONCE,
    ("AT_ONCE = 2**22", "'2' -> '3'"): _AT_ONCE,
    ("AT_ONCE = 2**22", "'22' -> '23'"): _AT_ONCE,
}
_BOTH = "there are two classes, and both are asked: the other one is asked first, no more"
_COPY = "a copy of equal values: memory, not behaviour"
PATCHES: Equivalents = {
    (
        "return tensor.astype(np.int64, copy=False)",
        "'tensor.astype(np.int64, copy=False)' -> 'tensor.astype(np.int64)'",
    ): _COPY,
    ("return tensor.astype(np.int64, copy=False)", "'False' -> 'True'"): _COPY,
    (
        "return tensor.astype(np.uint8, copy=False)",
        "'tensor.astype(np.uint8, copy=False)' -> 'tensor.astype(np.uint8)'",
    ): _COPY,
    ("return tensor.astype(np.uint8, copy=False)", "'False' -> 'True'"): _COPY,
    (
        "enough = all(held_out[patch_set.labels == c].mean() >= share for c in CLASS_NAMES)",
        "'patch_set.labels == c' -> 'patch_set.labels != c'",
    ): _BOTH,
    (
        "return all(bool((labels == label).any()) for label in CLASS_NAMES)",
        "'labels == label' -> 'labels != label'",
    ): _BOTH,
    (
        "members = np.flatnonzero((patch_set.source == image) & (patch_set.labels == label))",
        "'patch_set.labels == label' -> 'patch_set.labels != label'",
    ): _BOTH,
    (
        'if tensor.dtype.kind not in "iu":',
        "\"'iu'\" -> \"'iuX'\"",
    ): "no kind of numbers is called X",
    (
        'last = np.argsort(corner[:, along], kind="stable")',
        "\"'stable'\" -> \"'stableX'\"",
    ): "NumPy goes by the first letter",
    (
        "return False",
        "'return False' -> 'return None'",
    ): "asked for its truth alone, and both are false",
}
_FINER = "a table of other steps, as fine or finer: within the rounding of single precision"
_SORTED = "places are sorted or marked: the same places, each once"
_SAME = "NumPy in place of the compiled loops: the same bytes"
_LONGER = "values that are settled are iterated on: less than rounding"
_EXACT = "more values are worked out than looked up"
_LENGTHS = "other lengths were refused before"
_WAYS = "both ways of looking find the same pixels"
_OVER = "an iteration more, in which nothing dies or nothing is kept"
REFINEMENT: Equivalents = {
    ("STEPS = 2**14", "'14' -> '15'"): _FINER,
    ("STEPS = 2**14", "'2' -> '3'"): _FINER,
    ("STEEP_BELOW = 0.05", "'0.05' -> '1.05'"): _EXACT,
    ("FRONTIER = 0.01", "'0.01' -> '1.01'"): _WAYS,
    ("FEW = 2**12", "'2 ** 12' -> '2 * 12'"): _SORTED,
    ("FEW = 2**12", "'2' -> '3'"): _SORTED,
    (
        "table = _growth(np.linspace(0, 1, STEPS + 1), iterations, weights)",
        "'STEPS + 1' -> 'STEPS - 1'",
    ): _FINER,
    (
        "step = np.minimum(place.astype(np.int32), last - 1)",
        "'1' -> '2'",
    ): "at 1 growth is flat: its last two steps are one line",
    ("FEW = 2**12", "'12' -> '13'"): _SORTED,
    (
        "threshold = sharpness.mean(dtype=float) if config.threshold is None else config.threshold",
        "'sharpness.mean(dtype=float)' -> 'sharpness.mean()'",
    ): "NumPy sums in pairs: what single precision loses is less than TIE",
    (
        "if loops is None:",
        "'if loops is None:\\n    return _Update(sharpness, config.neighbourhood, limit).iterations_lived(most)' -> 'if True:\\n    return _Update(sharpness, config.neighbourhood, limit).iterations_lived(most)'",
    ): _SAME,
    (
        "look_up = _interpolate if loops is None else loops.interpolate",
        "'_interpolate if loops is None else loops.interpolate' -> '_interpolate if True else loops.interpolate'",
    ): _SAME,
    (
        "lived = loops.iterations_lived(sharpness.astype(np.float64), half, limit, most, 1 - SETTLED)",
        "'1 - SETTLED' -> '1 + SETTLED'",
    ): _LONGER,
    (
        "lived = loops.iterations_lived(sharpness.astype(np.float64), half, limit, most, 1 - SETTLED)",
        "'1' -> '2'",
    ): _LONGER,
    (
        "steep = np.flatnonzero((sharpness < STEEP_BELOW) & (outlived > 0))",
        "'(sharpness < STEEP_BELOW) & (outlived > 0)' -> '(sharpness < STEEP_BELOW) | (outlived > 0)'",
    ): _EXACT,
    (
        "steep = np.flatnonzero((sharpness < STEEP_BELOW) & (outlived > 0))",
        "'sharpness < STEEP_BELOW' -> 'sharpness <= STEEP_BELOW'",
    ): _EXACT,
    (
        "steep = np.flatnonzero((sharpness < STEEP_BELOW) & (outlived > 0))",
        "'outlived > 0' -> 'outlived >= 0'",
    ): _EXACT,
    (
        "steep = np.flatnonzero((sharpness < STEEP_BELOW) & (outlived > 0))",
        "'0' -> '1'",
    ): "after ten iterations growth is not steep yet: the table is exact enough",
    (
        "table = _growth(np.linspace(0, 1, STEPS + 1), iterations, weights)",
        "'1' -> '2'",
    ): _FINER,
    (
        "kept = dict(zip(iterations, weights, strict=True))",
        "'zip(iterations, weights, strict=True)' -> 'zip(iterations, weights)'",
    ): _LENGTHS,
    ("kept = dict(zip(iterations, weights, strict=True))", "'True' -> 'False'"): _LENGTHS,
    (
        "if steep.size:",
        "'if steep.size:\\n    exact = _growth(sharpness.ravel()[steep], config.iterations, config.weights)\\n    grown.ravel()[steep] = exact[outlived.ravel()[steep], np.arange(steep.size)]' -> 'if True:\\n    exact = _growth(sharpness.ravel()[steep], config.iterations, config.weights)\\n    grown.ravel()[steep] = exact[outlived.ravel()[steep], np.arange(steep.size)]'",
    ): "nothing is done to no pixel",
    ("for iteration in range(1, max(iterations) + 1):", "'1' -> '2'"): _OVER,
    (
        "while died.size and self.now < most:",
        "'died.size and self.now < most' -> 'died.size or self.now < most'",
    ): _OVER,
    ("while died.size and self.now < most:", "'self.now < most' -> 'self.now <= most'"): _OVER,
    (
        "self.alive = self.values > 0",
        "'self.values > 0' -> 'self.values >= 0'",
    ): "a pixel of 0 stays 0, dead or alive",
    (
        "many = died.size > FRONTIER * self.values.size",
        "'died.size > FRONTIER * self.values.size' -> 'died.size >= FRONTIER * self.values.size'",
    ): _WAYS,
    (
        "lived = np.where(self.alive, np.int16(most), np.int16(0))",
        "'0' -> '1'",
    ): "a pixel of 0 stays 0, dead or alive",
    (
        "many = died.size > FRONTIER * self.values.size",
        "'FRONTIER * self.values.size' -> 'FRONTIER / self.values.size'",
    ): _WAYS,
    (
        "suspects = self._below() if many else self._beside(died)",
        "'self._below() if many else self._beside(died)' -> 'self._below() if True else self._beside(died)'",
    ): _WAYS,
    (
        "suspects = self._below() if many else self._beside(died)",
        "'self._below() if many else self._beside(died)' -> 'self._below() if False else self._beside(died)'",
    ): _WAYS,
    (
        "moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))",
        "'(age < self.now) & (values < 1 - SETTLED)' -> '(age < self.now) | (values < 1 - SETTLED)'",
    ): _LONGER,
    (
        "moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))",
        "'age < self.now' -> 'age <= self.now'",
    ): "what is of today has no iteration due",
    (
        "moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))",
        "'values < 1 - SETTLED' -> 'values <= 1 - SETTLED'",
    ): _LONGER,
    (
        "moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))",
        "'1 - SETTLED' -> '1 + SETTLED'",
    ): _LONGER,
    ("moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))", "'1' -> '2'"): _LONGER,
    (
        "moving = moving[values[moving] < 1 - SETTLED]",
        "'values[moving] < 1 - SETTLED' -> 'values[moving] <= 1 - SETTLED'",
    ): _LONGER,
    ("moving = moving[values[moving] < 1 - SETTLED]", "'1 - SETTLED' -> '1 + SETTLED'"): _LONGER,
    ("moving = moving[values[moving] < 1 - SETTLED]", "'1' -> '2'"): _LONGER,
    (
        "y, x = (axis[:, np.newaxis] - self._offsets for axis in divmod(died, columns))",
        "'axis[:, np.newaxis] - self._offsets' -> 'axis[:, np.newaxis] + self._offsets'",
    ): "offsets are the same with the other sign",
    (
        "if pixels.size < FEW:",
        "'if pixels.size < FEW:\\n    return np.unique(pixels)' -> 'if True:\\n    return np.unique(pixels)'",
    ): _SORTED,
    (
        "if pixels.size < FEW:",
        "'if pixels.size < FEW:\\n    return np.unique(pixels)' -> 'if False:\\n    return np.unique(pixels)'",
    ): _SORTED,
    ("if pixels.size < FEW:", "'pixels.size < FEW' -> 'pixels.size <= FEW'"): _SORTED,
    ("self.named[once] = False", "'False' -> 'True'"): "more pixels are looked at than have to be",
    (
        "y, x = (axis[:, np.newaxis] + self._offsets for axis in divmod(pixels, columns))",
        "'axis[:, np.newaxis] + self._offsets' -> 'axis[:, np.newaxis] - self._offsets'",
    ): "offsets are the same with the other sign",
}
EQUIVALENTS = {"metric": METRIC, "masking": MASKING, "patches": PATCHES, "refinement": REFINEMENT}
