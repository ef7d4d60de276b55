"""Charts of fields as SVG: the distribution, the plate, the course of time, the place on a slide.

Colours are classes of the page's style sheet, so that they follow light and dark.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from napari_defocus.report.fields import VERDICTS, Field, Thresholds
from napari_defocus.report.wells import Well, plate_size, row_letters

BINS = 20
# Blue of out of focus to orange of in focus; white is neither, so that it is read in grey too.
LOW, MIDDLE, HIGH = (0, 114, 178), (242, 240, 235), (230, 159, 0)
# Lines of a time line, at most; of more series the points are drawn alone.
MOST_LINES = 12


def verdict_class(verdict: str) -> str:
    """Return the style class of a verdict."""
    return verdict.split()[0]  # in, soft, out, nothing


def share_colour(share: float) -> str:
    """Return the colour of a share from 0 to 1; grey of nan."""
    if math.isnan(share):
        return "#9a9a9a"
    low, high = (LOW, MIDDLE) if share < 0.5 else (MIDDLE, HIGH)
    part = 2 * share % 1 if share < 1 else 1.0
    mixed = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    inside = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{width:g}px">{inside}</svg>'
    )


def _text(x: float, y: float, text: object, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(str(text))}</text>'


def histogram(fields: Sequence[Field], thresholds: Thresholds) -> str:
    """Draw how many fields have which sharp share; thresholds are dashed."""
    width, height, left, bottom, top = 620, 230, 20, 38, 18
    judged = [(one.sharp, thresholds.judge(one)) for one in fields if not math.isnan(one.sharp)]
    bins = [dict.fromkeys(VERDICTS, 0) for _ in range(BINS)]
    for share, verdict in judged:
        bins[min(int(share * BINS), BINS - 1)][verdict] += 1
    most = max((sum(found.values()) for found in bins), default=0) or 1
    step, tall = (width - left - 20) / BINS, height - bottom - top
    parts = []
    for k, found in enumerate(bins):
        y = float(height - bottom)
        for verdict, count in found.items():
            if count:
                part = tall * count / most
                y -= part
                tip = f"{count} {verdict}, {k / BINS:.0%} to {(k + 1) / BINS:.0%} sharp"
                parts.append(
                    f'<rect class="{verdict_class(verdict)}" x="{left + k * step + 1:.1f}" '
                    f'y="{y:.1f}" width="{step - 2:.1f}" height="{part:.1f}">'
                    f"<title>{tip}</title></rect>"
                )
        if any(found.values()):
            parts.append(_text(left + (k + 0.5) * step, y - 3, sum(found.values())))
    base = height - bottom
    parts.append(f'<path class="axis" d="M{left} {top}V{base}H{width - 20}"/>')
    for k in range(0, BINS + 1, 4):
        parts.append(_text(left + k * step, base + 15, f"{k / BINS:.0%}"))
    parts.append(_text(left + (width - left) / 2, height - 5, "of the structure is sharp"))
    for share in (thresholds.out_of_focus, thresholds.in_focus):
        x = left + share * BINS * step
        parts.append(f'<path class="limit" d="M{x:.1f} {top - 6}V{base}"/>')
    return _svg(width, height, parts, "distribution of the sharp share of structure")


def plate_map(fields: Sequence[Field]) -> str:
    """Draw the wells of a plate, each with its sites, by their sharp share."""
    wells: dict[Well, list[Field]] = {}
    for one in fields:
        if one.well is not None:
            wells.setdefault(one.well, []).append(one)
    rows, columns = plate_size(list(wells))
    cell = 40.0 if columns <= 12 else 26.0 if columns <= 24 else 14.0
    parts = [_text(20 + (c + 0.5) * cell, 12, c + 1) for c in range(columns)]
    for row in range(rows):
        y = 18 + row * cell
        parts.append(_text(15, y + cell / 2 + 4, row_letters(row), "end"))
        for column in range(columns):
            x = 20 + column * cell
            parts.append(_well(Well(row, column), wells, x, y, cell - 2))
    return _svg(24 + columns * cell, 22 + rows * cell, parts, "map of the plate")


def _well(well: Well, wells: Mapping[Well, list[Field]], x: float, y: float, side: float) -> str:
    found = sorted(wells.get(well, []), key=lambda one: (one.site or 0, one.title))
    if not found:
        return f'<rect class="empty" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"/>'
    across = math.ceil(math.sqrt(len(found)))
    part = side / across
    tip = [str(well)] + [f"{_site(one)}: {_percent(one.sharp)}" for one in found[:16]]
    squares = "".join(
        f'<rect x="{x + k % across * part:.1f}" y="{y + k // across * part:.1f}" '
        f'width="{part:.1f}" height="{part:.1f}" fill="{share_colour(one.sharp)}"/>'
        for k, one in enumerate(found)
    )
    frame = f'<rect class="frame" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"/>'
    title = escape("\n".join(tip))
    return f'<g class="well" data-well="{well}"><title>{title}</title>{squares}{frame}</g>'


def _site(one: Field) -> str:
    return one.title if one.site is None else f"site {one.site}"


def _percent(share: float) -> str:
    return "nothing to see" if math.isnan(share) else f"{share:.0%} sharp"


def time_line(
    series: Mapping[str, Sequence[tuple[float, Field]]],
    thresholds: Thresholds,
    ends: tuple[str, str],
    label: str,
) -> str:
    """Draw the sharp share over time, a line a series that has a name; `ends` name the ends."""
    width, height, left, bottom, top = 620, 230, 44, 38, 14
    times = [time for points in series.values() for time, _ in points]
    first, last = min(times), max(times)
    base, tall = height - bottom, height - bottom - top

    def place(time: float, share: float) -> tuple[float, float]:
        x = left + 6 + (time - first) / ((last - first) or 1) * (width - left - 18)
        return round(x, 1), round(base - share * tall, 1)

    parts = [f'<path class="axis" d="M{left} {top}V{base}H{width - 4}"/>']
    for share in (thresholds.out_of_focus, thresholds.in_focus):
        y = base - share * tall
        parts.append(f'<path class="limit" d="M{left} {y:.1f}H{width - 4}"/>')
    parts += [_text(left - 5, base - k * tall + 4, f"{k:.0%}", "end") for k in (0, 0.5, 1)]
    for name, points in series.items():
        seen = [(time, one) for time, one in points if not math.isnan(one.sharp)]
        where = [place(time, one.sharp) for time, one in seen]
        if name and len(series) <= MOST_LINES and len(where) > 1:
            path = " ".join(f"{x:g},{y:g}" for x, y in where)
            parts.append(f'<polyline class="course" points="{path}"/>')
        for (x, y), (_, one) in zip(where, seen, strict=True):
            kind = verdict_class(thresholds.judge(one))
            tip = escape(f"{one.title}: {_percent(one.sharp)}")
            parts.append(
                f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="3"><title>{tip}</title></circle>'
            )
    parts += [_text(left, base + 15, ends[0], "start"), _text(width - 8, base + 15, ends[1], "end")]
    parts.append(_text(left + (width - left) / 2, height - 5, label))
    return _svg(width, height, parts, f"sharp share of structure {label}")


def tile_map(fields: Sequence[Field]) -> str:
    """Draw the tiles of an image where they lie, by their sharp share."""
    bottom = max(one.region[0].stop for one in fields)
    right = max(one.region[1].stop for one in fields)
    scale = 420 / max(bottom, right)
    parts = []
    for one in fields:
        rows, columns = one.region
        tip = escape(f"{one.title}: {_percent(one.sharp)}")
        parts.append(
            f'<rect class="frame" style="fill:{share_colour(one.sharp)}" '
            f'x="{columns.start * scale:.1f}" y="{rows.start * scale:.1f}" '
            f'width="{(columns.stop - columns.start) * scale:.1f}" '
            f'height="{(rows.stop - rows.start) * scale:.1f}"><title>{tip}</title></rect>'
        )
    return _svg(right * scale, bottom * scale, parts, "map of the tiles")
