"""GeoJSON files, as QuPath reads them."""

import json
from pathlib import Path
from typing import Any

from napari_defocus.io.atomic import whole_file


def write_geojson(path: Path, features: list[dict[str, Any]], *, overwrite: bool = True) -> None:
    """Write features as a GeoJSON collection, a feature a line.

    Parameters
    ----------
    path : Path
        The file to be.
    features : list of dict
        See `mask_features`.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    lines = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in features)
    text = f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n'
    with whole_file(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
