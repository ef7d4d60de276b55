"""Coverage-guided fuzzing of the readers, with atheris (https://github.com/google/atheris).

    pip install atheris
    python benchmarks/trust_coverage_guided.py "run record" -runs=20000

The readers' own Python is instrumented, so that inputs that reach new lines are kept and changed
further. The first fault ends it, with its input in a file. Arguments behind the format are
libFuzzer's.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris
import numpy as np

READERS = [
    f"napari_defocus.{name}"
    for name in ("container", "metric", "nets", "patches", "dense", "run_record", "files")
]

with atheris.instrument_imports(include=[*READERS, "json"]):
    import trust_files


class FaultError(Exception):
    """A reader did what it must not."""


def main() -> None:
    name, *arguments = sys.argv[1:]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        corpus, place = Path(scratch, "corpus"), Path(scratch, "place")
        for folder in (corpus, place):
            folder.mkdir()
        for number, seed in enumerate(trust_files.FORMATS[name].seeds()):
            (corpus / str(number)).write_bytes(seed)
        for extra in trust_files.EXTRAS:
            (place / extra).write_bytes((trust_files.FIXTURES / "format-1" / extra).read_bytes())

        def one(content: bytes) -> None:
            outcome = trust_files.try_file(name, content, place)
            if outcome not in (trust_files.LOADED, trust_files.REFUSED):
                raise FaultError(outcome)

        seeds = trust_files.FORMATS[name].seeds()

        def change(content: bytes, most: int, seed: int) -> bytes:
            rng = np.random.default_rng(seed)
            if rng.random() < 0.5:
                return atheris.Mutate(content, most)
            return trust_files.mutate(content, seeds, rng)[:most]

        limits = ["-rss_limit_mb=2048", "-timeout=10", "-max_len=200000"]
        atheris.Setup([sys.argv[0], str(corpus), *limits, *arguments], one, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
