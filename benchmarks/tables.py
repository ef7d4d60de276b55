"""Rows of Markdown tables, as the pages in docs/ hold them."""

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def show(names: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table, row by row as they come."""
    print("\n".join(head(names)), flush=True)
    for cells in rows:
        print(row(cells), flush=True)


def head(cells: Iterable[str]) -> list[str]:
    """Return the first two rows of a Markdown table: the columns' names and the rule."""
    names = list(cells)
    return [row(names), row(["---"] * len(names))]
