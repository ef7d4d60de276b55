import numpy as np

from napari_defocus.data.samples import SAMPLES
from napari_defocus.io.open import read_image
from tests.cli.helpers import assert_refused, names, results, without_limits


def test_demo_writes_results_of_all_samples(run, tmp_path):
    out = tmp_path / "demo"
    status, lines, err = run("demo", "--out", out)
    assert (status, without_limits(err)) == (0, [])
    assert len(err) == len(SAMPLES)
    assert set(names(out)) == {*results(*SAMPLES, picture=True), "fields.csv", "report.html"}
    (told,) = (line for line in lines if line.startswith("nuclei_series: "))
    planes = [int(share.rstrip("%")) for share in told.split()[-7:]]
    assert [share > 50 for share in planes] == [False, False, True, True, True, False, False]
    score = next(line for line in lines if line.startswith("photo: "))
    assert float(score.split("AUC ")[1].split()[0]) > 0.95
    for name in SAMPLES:
        blur, mask = (read_image(out / f"{name}.{kind}.tif").data for kind in ("blur", "mask"))
        assert blur.shape == mask.shape
        assert blur.dtype == np.float32
    (out / "photo.mask.tif").write_text("mine")
    assert_refused(run("demo", "--out", out), "exists")
    assert (out / "photo.mask.tif").read_text() == "mine"
