from napari_defocus.cli.main import build_parser
from napari_defocus.evaluate.scores import score_map
from napari_defocus.io.open import read_image
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import load_metric
from tests.cli.helpers import assert_refused


def test_default_of_metric_is_that_of_the_library():
    options = build_parser().parse_args(["metric", "x", "--out", "y"])
    assert options.components == FitConfig().components


def test_metric_of_trained_nets_tells_blurred_from_sharp(made, scenes):
    metric = load_metric(made / "metric.safetensors")
    assert metric.record["method"] == "nets"
    assert metric.record["held_out"]["auc"] > 0.8
    labels = scenes[6][2]
    blur = read_image(made / "new.blur.tif").data
    assert score_map(blur[labels > 0], labels[labels > 0] == 1).values["AUC"] > 0.9


def test_metric_takes_the_components_asked_for(run, made, tmp_path):
    out = tmp_path / "metric.safetensors"
    status, lines, err = run("metric", made / "nets.safetensors", "--out", out, "--components", 3)
    assert (status, err) == (0, [])
    assert len(load_metric(out).filters) == 3
    assert lines[0].startswith(f"{out} (held-out AUC ")
    refused = run("metric", made / "nets.safetensors", "--out", tmp_path / "x", "--components", 0)
    assert_refused(refused, "components is 0")
