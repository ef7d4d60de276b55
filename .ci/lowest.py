"""Print the lowest versions that the package allows of what it depends on directly.

    python .ci/lowest.py [--keep NAME ...] > lowest.txt

NAME is left to pip: torch, whose old wheels for Linux bring 3 GB of CUDA libraries.
"""

import argparse
import re
import tomllib
from pathlib import Path


def main() -> None:
    """Print a requirement for each dependency, at its lower bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", nargs="*", default=[])
    kept = parser.parse_args().keep
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    for line in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        name, version = re.fullmatch(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+).*", line).groups()
        if name not in kept:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
