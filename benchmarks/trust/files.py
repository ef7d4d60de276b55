"""Read mutated files: each loads to a valid object or raises the package's error.

Each process of readers may take 500 MiB beyond what it holds after a warm-up; a reader that dies,
hangs, takes more or raises anything else is a fault, listed by the number of the case, which makes
it again.
"""

import faulthandler
import io
import json
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from benchmarks.trust.fixtures import DENSE, FIXTURES, METRIC, NETS_FILE, PATCHES
from benchmarks.trust.mutations import mutate
from benchmarks.trust.outcomes import LOADED, REFUSED, Outcomes, attempt, print_faults
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import load_dense
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.io.manifest import NAME as RECORD
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.open import read_image, read_labels
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.metric.local_metric import load_metric, principal_components
from napari_defocus.metric.nets import load_nets
from napari_defocus.metric.patches import PatchSet, load_patch_set

MOST_MEMORY = 500 * 2**20
MOST_SECONDS = 2.0
# A process that sends nothing for so long is ended.
PATIENCE_S = 60.0
CHUNK = 1000
# What the run record of the fixtures lists.
EXTRAS = ("noise.blur.tif", "noise.mask.tif")
TEXTURE = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)


def check_metric(path: Path) -> None:
    """Load a metric, and detect with it."""
    metric = load_metric(path)
    assert metric.filters.dtype == np.float32
    assert np.isfinite(metric.filters).all()
    assert isinstance(metric.digest, str)
    components = principal_components(metric)
    assert components.components.shape[1:] == metric.filters.shape[1:]
    found = detect(TEXTURE, metric, DetectionConfig(detector="metric"))
    assert np.isfinite(found.blur).all()
    assert 0 <= found.blur.min() <= found.blur.max() <= 1


def check_nets(path: Path) -> None:
    """Load nets, and check what metrics are made of."""
    nets = load_nets(path)
    assert np.isfinite(nets.kernels).all()
    assert 0 <= nets.accuracy <= 1
    assert isinstance(nets.complete, bool)
    assert all(type(n.done) is bool and n.best_epoch >= 0 for n in nets.nets)
    check_patches(nets.training)
    check_patches(nets.validation)


def check_patches(patches: PatchSet) -> None:
    """Check a patch set."""
    size = patches.config.size
    assert patches.patches.shape == (len(patches), size, size)
    assert patches.patches.dtype == np.float32
    assert np.isfinite(patches.patches).all()
    assert (np.isfinite(patches.noise) & (patches.noise >= 0)).all()
    assert set(np.unique(patches.labels).tolist()) <= {BLURRED, SHARP}
    assert all(isinstance(source.name, str) for source in patches.sources)
    shapes = np.array([source.shape for source in patches.sources]).reshape(-1, 2)
    if len(patches):
        assert (patches.corner >= 0).all()
        assert (patches.corner + size <= shapes[patches.source]).all()
    patches.balanced()


def check_dense(path: Path) -> None:
    """Load a dense detector; whether its weights fit the network is checked at prediction."""
    detector = load_dense(path)
    assert all(np.isfinite(w).all() for w in detector.weights.values())
    json.dumps(dict(detector.record))


def check_record(path: Path) -> None:
    """Read a run's record in the ways that commands do, and add to it."""
    record = RunRecord(path.parent)
    assert record.file == path
    results = json.loads((FIXTURES / "format-1" / RECORD).read_text())["results"]
    for stem, entry in results.items():
        finished = record.finished(stem, entry["identity"])
        assert all(p.parent == path.parent and p.is_file() for p in finished)
        assert not record.mine(path.parent / "never.tif")
    record.add("new", {"a": 1}, [path.parent / "noise.mask.tif"])
    assert record.finished("new", {"a": 1})


def check_image(path: Path) -> None:
    """Read an image, and the same as labels."""
    image = read_image(path)
    assert image.data.size > 0
    assert len(image.axes) == image.data.ndim
    try:
        labels = read_labels(path)
    except DefocusError:  # colours and stacks are no labels
        return
    assert labels.ndim == 2
    assert labels.dtype.kind in "iu"


@dataclass(frozen=True)
class Format:
    """A kind of file: the valid ones in a folder of fixtures, and what reads them."""

    check: Callable[[Path], None]
    names: tuple[str, ...]

    def seeds(self) -> list[bytes]:
        """Return the valid files of every version."""
        found = [f / name for f in sorted(FIXTURES.glob("format-*")) for name in self.names]
        seeds = [path.read_bytes() for path in found if path.is_file()]
        return seeds + (list(pictures()) if self.check is check_image else [])


@cache
def pictures() -> tuple[bytes, ...]:
    """Return images of other formats, as other programs write them."""
    colours = np.stack([TEXTURE] * 3, axis=-1)
    stack = np.stack([TEXTURE] * 2).astype(np.uint16)
    files = []
    for form, pixels in (("JPEG", colours), ("BMP", TEXTURE), ("PNG", colours)):
        files.append(io.BytesIO())
        Image.fromarray(pixels).save(files[-1], form)
    options: tuple[dict[str, Any], ...] = (
        {"compression": "lzw", "tile": (16, 16)},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"bigtiff": True, "compression": "zstd", "predictor": True},
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5, "UUID": f"{1:032x}"}},
    )
    for chosen in options:
        files.append(io.BytesIO())
        tifffile.imwrite(files[-1], stack, **chosen)
    return tuple(file.getvalue() for file in files)


FORMATS = {
    "metric": Format(check_metric, (METRIC,)),
    "nets": Format(check_nets, (NETS_FILE,)),
    "patch set": Format(lambda path: check_patches(load_patch_set(path)), (PATCHES,)),
    "dense detector": Format(check_dense, (DENSE,)),
    "run record": Format(check_record, (RECORD,)),
    "image": Format(check_image, ("noise.png", "noise.blur.tif", "noise.mask.tif")),
}


def mutated(name: str, number: int) -> bytes:
    """Make a case again by its format and number."""
    rng = np.random.default_rng([list(FORMATS).index(name), number])
    seeds = FORMATS[name].seeds()
    others = [FORMATS[other].seeds()[0] for other in FORMATS]
    return mutate(seeds[rng.integers(len(seeds))], others, rng)


def try_file(name: str, content: bytes, folder: Path) -> str:
    """Read a file; return `LOADED`, `REFUSED` or what went wrong."""
    form = FORMATS[name]
    path = folder / form.names[0]

    def read() -> str:
        form.check(path)
        return LOADED

    for _ in range(2):  # a slow one is tried again: the machine may have been busy
        path.write_bytes(content)
        began = time.perf_counter()
        outcome = attempt(read, str(path))
        took = time.perf_counter() - began
        if took <= MOST_SECONDS:
            return outcome
    return f"took {took:.1f} s"


@dataclass
class FileOutcomes(Outcomes):
    """How the cases of a format ended, and the most memory and time that one took."""

    most_memory: int = 0
    most_seconds: float = 0.0


def run(name: str, count: int) -> FileOutcomes:
    """Try `count` cases of a format, in processes of their own."""
    outcomes, number = FileOutcomes(), 0
    while number < count:
        number = _run_chunk(name, number, min(number + CHUNK, count), outcomes)
    return outcomes


def _run_chunk(name: str, start: int, stop: int, outcomes: FileOutcomes) -> int:
    """Try some cases in one process; return the number to go on with."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, start, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        for number in range(start, stop):
            if not ours.poll(PATIENCE_S):
                process.kill()
                outcomes.add(number, "hangs")
                return number + 1
            outcome, memory, took = ours.recv()
            outcomes.add(number, outcome)
            outcomes.most_memory = max(outcomes.most_memory, memory)
            outcomes.most_seconds = max(outcomes.most_seconds, took)
    except EOFError:
        process.join()
        outcomes.add(number, f"the process died with {process.exitcode}")
        return number + 1
    finally:
        process.join()
    return stop


def _work(name: str, start: int, stop: int, pipe: Any) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for extra in EXTRAS:
            (place / extra).write_bytes((FIXTURES / "format-1" / extra).read_bytes())
        for content in FORMATS[name].seeds():  # the warm-up
            outcome = try_file(name, content, place)
            assert outcome == LOADED or name == "image", outcome
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        before = peak_memory()
        for number in range(start, stop):
            content = mutated(name, number)
            began = time.perf_counter()
            outcome = try_file(name, content, place)
            took = time.perf_counter() - began
            pipe.send((outcome, peak_memory() - before, took))


def peak_memory() -> int:
    """Return the most bytes that this process ever held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield a row of the table for each format."""
    for name in FORMATS:
        found = run(name, count)
        slow = sum("took" in fault or fault == "hangs" for fault in found.faults.values())
        text = (
            f"{found.counts[LOADED]} loaded, {found.counts[REFUSED]} refused, "
            f"{len(found.faults) - slow} faults, {slow} hangs; most memory "
            f"{found.most_memory / 2**20:.0f} MiB, longest {found.most_seconds:.2f} s"
        )
        print_faults(name, (f"{number}: {fault}" for number, fault in found.faults.items()))
        yield f"{count:,} mutated {name} files", "0 faults, 0 hangs, 500 MiB", text
