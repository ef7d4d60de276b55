"""The command `demo`: the bundled samples, their maps, how right these are, and a report."""

import argparse

import numpy as np

from napari_defocus.cli._options import add_out
from napari_defocus.cli.detect import Request, detect_file
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import choose_detector
from napari_defocus.io.open import read_image


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_out(parser, "folder for the results")


def run(options: argparse.Namespace) -> int:
    """Detect defocus in the bundled samples, say what is known of them, and write the report."""
    from napari_defocus.data.samples import SAMPLES, read_sample
    from napari_defocus.evaluate.scores import score_map
    from napari_defocus.labels.classes import SHARP
    from napari_defocus.report.fields import Results
    from napari_defocus.report.page import write_report

    config = DetectionConfig()
    request = Request(
        choose_detector("default", config),
        config,
        options.out,
        ("picture",),
        overwrite=options.overwrite,
    )
    for name in SAMPLES:
        sample = read_sample(name)
        for path in detect_file(sample.path, sample.path.stem, request):
            print(path)
        if len(sample.scale) == 3:
            masks = read_image(options.out / f"{sample.path.stem}.mask.tif").data
            shares = [(mask[mask > 0] == SHARP).mean() if mask.any() else 0.0 for mask in masks]
            print(f"{name}: sharp, plane by plane:", *(f"{share:.0%}" for share in shares))
        if sample.blurred is not None:
            blur = read_image(options.out / f"{sample.path.stem}.blur.tif").data
            error = float(np.abs(blur - sample.blurred).mean())
            auc = score_map(blur, sample.blurred).values["AUC"]
            print(f"{name}: mean error {error:.3f}, AUC {auc:.3f} against the known truth")
    page = options.out / "report.html"
    for path in write_report(Results(options.out), page, overwrite=options.overwrite).files:
        print(path)
    return 0
