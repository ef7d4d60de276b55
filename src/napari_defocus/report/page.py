"""The quality report: one page of HTML with all in it, which needs no network."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_defocus import __version__
from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import whole_file
from napari_defocus.io.tables import write_csv
from napari_defocus.report.charts import (
    histogram,
    plate_map,
    tile_map,
    time_line,
    verdict_class,
)
from napari_defocus.report.fields import (
    IN_FOCUS,
    NOTHING,
    VERDICTS,
    Field,
    Results,
    Thresholds,
    field_rows,
)
from napari_defocus.report.pictures import pictures_of

FIELDS = "fields.csv"
WORST, BORDERLINE = 20, 10
# Borderline is what lies so near to a threshold, in the sharp share.
NEAR = 0.15
# A plate is drawn where so many of the fields name a well; slides are drawn one by one.
MOST_IN_WELLS, MOST_SLIDES = 0.8, 12
# Files written within less were copied, not acquired.
LEAST_SECONDS = 60
LEGEND = '0 % <span class="scale"></span> 100 % of the structure is sharp; grey: nothing to see'
COLUMNS = {
    "verdict": "verdict",
    "field": "field",
    "well": "well",
    "site": "site",
    "sharp_of_structure": "sharp",
    "structure": "structure",
    "limit_px": "limit, px",
    "sharpest_px": "sharpest, px",
    "near_limit": "near limit",
}
SHARES = ("sharp_of_structure", "structure", "near_limit")


@dataclass(frozen=True)
class Summary:
    """What a report found: fields by verdict, masks that could not be read, and the files."""

    counts: Mapping[str, int]
    failed: Mapping[str, DefocusError]
    files: tuple[Path, ...]


def write_report(
    results: Results,
    path: Path,
    thresholds: Thresholds | None = None,
    *,
    title: str = "",
    overwrite: bool = True,
) -> Summary:
    """Write the report of a folder of results, and `FIELDS` beside it.

    Raises
    ------
    DefocusError
        Where the folder holds no masks that can be read, or a file cannot be written.
    """
    thresholds = thresholds or Thresholds()
    fields = results.fields()
    if not fields:
        raise next(iter(results.failed.values()))
    table = path.with_name(FIELDS)
    write_csv(table, field_rows(fields, thresholds), overwrite=overwrite)
    page = render(results, fields, thresholds, title or f"Focus of {results.folder.name}")
    with whole_file(path, overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    counts = Counter(map(thresholds.judge, fields))
    return Summary({v: counts[v] for v in VERDICTS}, dict(results.failed), (path, table))


def render(results: Results, fields: list[Field], thresholds: Thresholds, title: str) -> str:
    """Return the page."""
    worst = sorted((f for f in fields if thresholds.judge(f) != NOTHING), key=lambda f: f.sharp)
    below = [f for f in worst if thresholds.judge(f) != IN_FOCUS][:WORST]
    doubtful = [f for f in worst if f not in below and _distance(f, thresholds) <= NEAR]
    doubtful.sort(key=lambda f: _distance(f, thresholds))
    sections = [
        _head(results, fields, thresholds, title),
        _charts(fields, thresholds),
        _gallery("The worst", below, thresholds),
        _gallery("Borderline: nearest to a threshold", doubtful[:BORDERLINE], thresholds),
        _table(fields, thresholds),
        _settings(results, fields),
        _failures(results),
    ]
    style, script = (files(__package__).joinpath(name).read_text() for name in _ASSETS)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{style}</style></head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + f"\n<script>\n{script}</script>\n</body></html>\n"
    )


_ASSETS = ("page.css", "page.js")


def _distance(field: Field, thresholds: Thresholds) -> float:
    return min(abs(field.sharp - t) for t in (thresholds.in_focus, thresholds.out_of_focus))


def _head(results: Results, fields: Sequence[Field], thresholds: Thresholds, title: str) -> str:
    counts = Counter(map(thresholds.judge, fields))
    images = len({field.mask for field in fields})
    parts = [
        f'<div class="{verdict_class(v)}"><b>{counts[v]}</b>{v}, '
        f"{counts[v] / len(fields):.0%}</div>"
        for v in VERDICTS
    ]
    when = datetime.now().strftime("%Y-%m-%d %H:%M")
    return (
        f"<h1>{escape(title)}</h1><p>{len(fields)} fields of {images} images in "
        f"{escape(str(results.folder))}; {when}, napari-defocus {__version__}</p>"
        f'<div class="counts">{"".join(parts)}</div>'
        f"<p>In focus: {thresholds.in_focus:.0%} or more of the structure in the field is sharp. "
        f"Out of focus: less than {thresholds.out_of_focus:.0%}. Soft: between both, or "
        f"with a sharpest structure far wider than in the other fields. "
        f"Nothing to see: structure on less than {thresholds.least:.2%} of the field.</p>"
    )


def _charts(fields: Sequence[Field], thresholds: Thresholds) -> str:
    charts = [f"<h2>Distribution</h2>{histogram(fields, thresholds)}"]
    if course := _course(fields, thresholds):
        charts.append(f"<h2>Over time</h2>{course}")
    in_wells = [field for field in fields if field.well is not None]
    if len(in_wells) >= MOST_IN_WELLS * len(fields) and len({f.well for f in in_wells}) > 1:
        charts.append(f'<h2>Plate</h2>{plate_map(fields)}<p class="small">{LEGEND}</p>')
    slides: dict[tuple[Any, ...], list[Field]] = {}
    for field in fields:
        if field.tiled:
            slides.setdefault((field.mask, field.plane), []).append(field)
    for tiles in list(slides.values())[:MOST_SLIDES]:
        name = escape(tiles[0].name)
        charts.append(f'<h2>Where in {name}</h2>{tile_map(tiles)}<p class="small">{LEGEND}</p>')
    sections = "".join(f"<section>{chart}</section>" for chart in charts)
    return f'<div class="charts">{sections}</div>'


def _course(fields: Sequence[Field], thresholds: Thresholds) -> str:
    """Draw the course of time: along T, or by the time when the images were written."""
    if any("T" in field.where for field in fields):
        series: dict[str, list[tuple[float, Field]]] = {}
        for field in fields:
            if not field.tiled:
                others = {k: v for k, v in field.where.items() if k not in "TZ"}
                series.setdefault(f"{field.mask} {others}", []).append(
                    (field.where.get("T", 0), field)
                )
        last = max(field.where.get("T", 0) for field in fields)
        return time_line(series, thresholds, ("0", str(last)), "frame") if series else ""
    written: dict[str, float | None] = {}
    for field in fields:
        if field.source not in written:
            written[field.source] = _written(field.source)
    times = [time for time in written.values() if time is not None]
    if len(times) < len(written) or max(times) - min(times) < LEAST_SECONDS:
        return ""
    points = sorted(
        ((written[field.source] or 0.0, field) for field in fields), key=lambda point: point[0]
    )
    ends = [
        datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M") for time in (min(times), max(times))
    ]
    return time_line({"": points}, thresholds, (ends[0], ends[1]), "when the image was written")


def _written(source: str) -> float | None:
    try:
        return Path(source).stat().st_mtime if source else None
    except (OSError, ValueError):
        return None


def _gallery(title: str, fields: Sequence[Field], thresholds: Thresholds) -> str:
    figures = []
    for field in fields:
        verdict = thresholds.judge(field)
        try:
            drawn = pictures_of(field)
        except DefocusError:
            continue  # changed since it was counted
        images = f'<img src="{drawn.masked}" alt="the field under its mask" loading="lazy">'
        if drawn.detail:
            images += f'<img src="{drawn.detail}" alt="a detail of it" loading="lazy">'
        note = f'<br><span class="small">{escape(drawn.note)}</span>' if drawn.note else ""
        figures.append(
            f"<figure><div>{images}</div><figcaption>{_mark(verdict)}{escape(field.title)}: "
            f"{field.sharp:.0%} sharp, {verdict}{note}</figcaption></figure>"
        )
    if not figures:
        return ""
    note = "Left the field, orange where sharp and blue where blurred; right a detail, as it is."
    return f'<h2>{title}</h2><p>{note}</p><div class="pictures">{"".join(figures)}</div>'


def _mark(verdict: str) -> str:
    return f'<span class="mark {verdict_class(verdict)}"></span>'


def _table(fields: Sequence[Field], thresholds: Thresholds) -> str:
    rows = [field.row(thresholds) for field in fields]
    shown = [name for name in COLUMNS if any(row[name] not in ("", None) for row in rows)]
    order = sorted(range(len(fields)), key=lambda k: (_rank(fields[k]), fields[k].title))
    lines = []
    for k in order:
        cells = "".join(_cell(name, rows[k][name], fields[k]) for name in shown)
        lines.append(f'<tr data-k="{verdict_class(rows[k]["verdict"])}">{cells}</tr>')
    heads = "".join(f'<th scope="col" tabindex="0">{COLUMNS[name]}</th>' for name in shown)
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{verdict_class(v)}"> {_mark(v)}{v}</label>'
        for v in VERDICTS
    )
    return (
        f'<h2>All fields</h2><div class="tools"><input type="search" id="search" '
        f'placeholder="name or well" aria-label="filter">{boxes}<span id="shown"></span></div>'
        f'<table id="fields"><thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table>"
    )


def _rank(field: Field) -> float:
    return math.inf if math.isnan(field.sharp) else field.sharp


def _cell(name: str, value: Any, field: Field) -> str:
    if name == "verdict":
        rank = VERDICTS.index(value)
        return f'<td class="v" data-v="{rank}">{_mark(verdict_class(value))}{value}</td>'
    if name == "field":
        return f"<td>{escape(field.title)}</td>"
    if value in ("", None) or (isinstance(value, float) and math.isnan(value)):
        return "<td></td>"
    if name in SHARES:
        return f'<td data-v="{value:.4f}">{value:.1%}</td>'
    return f"<td>{value:.2f}</td>" if isinstance(value, float) else f"<td>{escape(str(value))}</td>"


def _settings(results: Results, fields: Sequence[Field]) -> str:
    """Say what the results were made with; several where they differ."""
    stems = {field.name for field in fields}
    made: Counter[str] = Counter()
    for stem, entry in results.record.entries().items():
        identity = {k: v for k, v in entry["identity"].items() if k not in ("input", "outputs")}
        identity["checksum of the detector"] = identity.pop("detector", "")
        if stem in stems:
            made[json.dumps(identity, sort_keys=True)] += 1
    if not made:
        return "<h2>Settings</h2><p>No record of how these masks were made.</p>"
    limits = sorted({v for f in fields if (v := f.found.get("limit_px")) is not None})
    text = f"Sharpness limit used: {limits[0]:.2f} to {limits[-1]:.2f} px. " if limits else ""
    if len(made) > 1:
        text += f"The images were made with {len(made)} settings: compare them with care."
    tables = []
    for settings, count in made.most_common(5):
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in _flat(json.loads(settings)).items()
        )
        tables.append(f'<h3>{count} images</h3><table class="plain">{rows}</table>')
    return f"<h2>Settings</h2><p>{text}</p>{''.join(tables)}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, "" if name == "config" else f"{name} ")
        else:
            found[before + name] = value
    return found


def _failures(results: Results) -> str:
    if not results.failed:
        return ""
    lines = "".join(f"<p>{escape(str(error))}</p>" for error in results.failed.values())
    return f"<h2>Could not be read</h2>{lines}"
