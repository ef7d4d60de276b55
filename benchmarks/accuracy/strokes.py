"""What strokes on a photo bring: the profile that they teach, scored off them.

Run as: python -m benchmarks.accuracy.strokes PHOTOS

PHOTOS holds ``images`` and ``masks``. Strokes are drawn in both regions of each mask.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.accuracy.photos import Photo, read_photos
from benchmarks.accuracy.scribbles import draw_scribbles
from napari_defocus.detection.api import Detection, detect
from napari_defocus.evaluate.scores import score_map
from napari_defocus.labels.classes import Labels
from napari_defocus.profile.evidence import from_strokes, predictor
from napari_defocus.profile.teach import teach

SHARES = (0.007, 0.04)


def score(found: Detection, photo: Photo, labels: Labels) -> tuple[float, float, float]:
    """Return IoU and AUC off the strokes, and the share of painted structure that holds."""
    off = labels == 0
    blur, mask, blurred = (
        part[off][np.newaxis] for part in (found.blur, found.mask, photo.blurred)
    )
    values = score_map(blur, blurred, mask=mask).values
    decided = ~off & (found.mask > 0)
    return values["IoU(mask)"], values["AUC"], float((found.mask == labels)[decided].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    photos = read_photos(parser.parse_args().photos)
    print("\n".join(tables.head(["strokes cover", "", "IoU(mask)", "AUC", "holds"])), flush=True)
    predict = predictor()
    for share in SHARES:
        covered, found = [], {"default": [], "taught": []}
        for seed, photo in enumerate(photos):
            labels = draw_scribbles(photo.blurred, share, seed)
            covered.append((labels > 0).mean())
            profile = teach(from_strokes(predict(photo.image), labels, photo.name)).profile
            found["default"].append(score(detect(photo.image), photo, labels))
            found["taught"].append(score(detect(photo.image, profile), photo, labels))
        for name, scores in found.items():
            iou, auc, holds = np.mean(scores, axis=0)
            cells = [f"{np.mean(covered):.1%}", name, f"{iou:.3f}", f"{auc:.3f}", f"{holds:.0%}"]
            print(tables.row(cells), flush=True)


if __name__ == "__main__":
    main()
