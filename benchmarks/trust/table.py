"""Print the table of docs/trust.md: what faults, hostile files and odd images do.

    python -m benchmarks.trust.table [--parts files,images,disks,kills] [--share 0.01]

All of it takes some hours on two cores; a share of 0.01 tries a hundredth of each number. Ends with
status 1 where a file or image crashed a reader, or a fault left something half written.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping

from benchmarks import tables
from benchmarks.trust import faults, files, images

Row = tuple[str, str, str]
# What makes the rows of each part, of a share of the cases.
PARTS: Mapping[str, Callable[[float], Iterator[Row]]] = {
    # First: it forks, and nothing of torch may have run before.
    "kills": lambda share: faults.kill_rows(max(1, round(share * 100))),
    "disks": lambda share: faults.disk_rows(),
    "files": lambda share: files.rows(max(1, round(share * 20_000))),
    "images": lambda share: images.rows(max(1, round(share * 5_000))),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    wanted = options.parts.split(",")
    unknown = set(wanted) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    faulty = False
    print("\n".join(tables.head(["what", "target", "measured"])), flush=True)
    for name, rows in PARTS.items():
        for row in rows(options.share) if name in wanted else ():
            print(tables.row(row), flush=True)
            faulty |= " faults" in row[2] and " 0 faults" not in row[2]
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
