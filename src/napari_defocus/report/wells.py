"""Wells and sites, read from the names of images."""

import re
from dataclasses import dataclass

# A01 to AF48, set apart from other words: plate_B03_s2, or r02c03f01 as the Opera writes it.
WELL = re.compile(r"(?<![A-Za-z0-9])(A[A-F]|[A-P])-?(\d{1,2})(?![A-Za-z0-9])", re.IGNORECASE)
ROW_COLUMN = re.compile(r"(?<![A-Za-z])r(\d{1,2})c(\d{1,2})(?!\d)", re.IGNORECASE)
SITE = re.compile(
    r"(?:(?<=[\d_\-. ])|\b)(?:site|field|fov|pos|s|f|p)[_\-]?(\d{1,4})(?!\d)", re.IGNORECASE
)
PLATES = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of plates in use: 6 to 1536 wells."""
ROWS, COLUMNS = PLATES[-1]


@dataclass(frozen=True, order=True)
class Well:
    """A well, by its row and column from 0."""

    row: int
    column: int

    def __str__(self) -> str:
        return f"{row_letters(self.row)}{self.column + 1:02d}"


def row_letters(row: int) -> str:
    """Name a row of a plate: A to Z, AA to AF."""
    return chr(65 + row) if row < 26 else f"A{chr(65 + row - 26)}"


def find_well(name: str) -> tuple[Well | None, int | None]:
    """Return the well and the site that a name holds; None where it holds none."""
    if match := ROW_COLUMN.search(name):
        row, column = int(match[1]) - 1, int(match[2]) - 1
    elif match := WELL.search(name):
        letters = match[1].upper()
        row = ord(letters[-1]) - 65 + 26 * (len(letters) - 1)
        column = int(match[2]) - 1
    else:
        return None, None
    if not (0 <= row < ROWS and 0 <= column < COLUMNS):
        return None, None
    site = SITE.search(name, match.end())
    return Well(row, column), int(site[1]) if site else None


def plate_size(wells: list[Well]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all the wells."""
    rows = 1 + max(well.row for well in wells)
    columns = 1 + max(well.column for well in wells)
    return next(size for size in PLATES if rows <= size[0] and columns <= size[1])
