"""Print the table of docs/trust.md: what faults, hostile files and odd images do.

    python -m benchmarks.trust.table [--parts files,images,disks,kills] [--share 0.01]

All of it takes some hours on two cores; a share of 0.01 tries a hundredth of each number. Ends with
status 1 where a file or image crashed a reader, or a fault left something half written.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from benchmarks.trust import faults as trust_faults
from benchmarks.trust import files as trust_files
from benchmarks.trust import images as trust_images

FILES, IMAGES, MOMENTS = 20_000, 5_000, 100
Row = tuple[str, str, str]


def parts(share: float) -> dict[str, Callable[[], Iterator[Row]]]:
    """Give what makes the rows of each part."""

    def most(count: int) -> int:
        return max(1, round(share * count))

    return {
        # First: it forks, and nothing of torch may have run before.
        "kills": lambda: trust_faults.kill_rows(most(MOMENTS)),
        "disks": trust_faults.disk_rows,
        "files": lambda: trust_files.rows(most(FILES)),
        "images": lambda: trust_images.rows(most(IMAGES)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(parts(1)))
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    wanted = options.parts.split(",")
    unknown = set(wanted) - set(parts(1))
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    faulty = False
    print("| what | target | measured |\n| --- | --- | --- |", flush=True)
    for name, make in parts(options.share).items():
        if name in wanted:
            for row in make():
                print("| " + " | ".join(row) + " |", flush=True)
                faulty |= " faults" in row[2] and " 0 faults" not in row[2]
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
