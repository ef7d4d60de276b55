import numpy as np
import pytest
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import detect
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.profile.evidence import (
    Evidence,
    from_defocused,
    from_focused,
    from_planes,
    from_strokes,
    joined,
)
from napari_defocus.profile.profile import INPUTS
from napari_defocus.profile.teach import _fit, teach


def evidence(score, sharp, inputs=None, source=None):
    sharp = np.asarray(sharp)
    count = len(sharp)
    source = np.zeros(count, np.intp) if source is None else source
    names = tuple(f"stroke {i}" for i in range(source.max() + 1))
    inputs = np.zeros((count, INPUTS), np.float32) if inputs is None else inputs
    return Evidence(inputs, np.asarray(score, np.float32), sharp, source, names, (1.0,))


def separable(count=400, seed=0):
    """One feature tells the classes apart, which the network's score has upside down."""
    rng = np.random.default_rng(seed)
    sharp = np.arange(count) % 2 == 0
    inputs = rng.normal(0, 1, (count, INPUTS)).astype(np.float32)
    inputs[:, 5] += np.where(sharp, 2, -2)
    score = np.where(sharp, -1.0, 0.0)
    return evidence(score, sharp, inputs, (~sharp).astype(np.intp))


def test_what_is_taught_holds_against_the_networks_own_answer():
    taught = teach(separable())
    assert min(taught.agreement.values()) > 0.95
    assert not taught.disagreeing
    assert np.argmax(np.abs(taught.profile.weights)) == 5


def test_the_fit_is_at_the_minimum_of_its_loss():
    """An independent reference: the loss as written, compared with values beside the found ones."""
    given, weights, pull = separable(60), np.full(60, 0.7), 3.0
    limit, slopes, bias = _fit(given, weights, pull)
    from napari_defocus.profile.limit import shift

    mean, spread = given.inputs.mean(0), given.inputs.std(0) + 1e-3
    start = slopes * spread
    offset = bias + slopes @ mean

    def loss(values, constant):
        answer = given.score + shift(limit) + (given.inputs - mean) / spread @ values + constant
        signed = np.where(given.sharp, answer, -answer)
        penalty = pull / 2 * (values @ values + constant**2)
        return (weights * np.log1p(np.exp(-signed))).sum() + penalty

    least = loss(start, offset)
    for index in range(0, INPUTS, 7):
        for step in (-0.02, 0.02):
            moved = start.copy()
            moved[index] += step
            assert loss(moved, offset) > least
    assert loss(start, offset + 0.02) > least
    assert loss(start, offset - 0.02) > least


def test_little_evidence_moves_the_detector_less_than_much():
    def moved(count):
        given = evidence(np.full(count, -2.0), np.ones(count, bool))
        taught = teach(given).profile
        return taught.bias, taught.limit

    few, many = moved(2), moved(400)
    assert few[1] <= many[1]
    assert few[0] < many[0] or few[1] < many[1]


def test_strokes_of_one_class_are_enough():
    taught = teach(evidence(np.full(300, -3.0), np.ones(300, bool)))
    assert taught.agreement == {"stroke 0": 1.0}


def test_evidence_that_contradicts_itself_is_named():
    score, sharp = np.zeros(200), np.arange(200) < 100
    taught = teach(evidence(score, sharp, source=(~sharp).astype(np.intp)))
    assert taught.disagreeing


def test_no_evidence_is_refused():
    with pytest.raises(DefocusError, match="nothing to learn from"):
        teach(evidence([], np.zeros(0, bool), source=np.zeros(1, np.intp)[:1]))


def test_strokes_turn_the_detector_round(predict, photo):
    """A wilful user: what is in focus is called blurred, and the other way round."""
    image, blurred = photo
    labels = np.zeros(blurred.shape, np.uint8)
    labels[40:150:3] = np.where(blurred, SHARP, BLURRED)[40:150:3]
    plane = predict(image)
    taught = teach(from_strokes(plane, labels, "photo"))
    mask = detect(image, taught.profile).mask
    painted = (labels > 0) & plane.seen
    assert (mask == labels)[painted].mean() > 0.9


def test_strokes_are_named_one_by_one(predict, photo):
    image, blurred = photo
    labels = np.zeros(blurred.shape, np.uint8)
    labels[20:26, 20:200] = BLURRED
    labels[60:66, 20:200] = BLURRED
    labels[90:130, 20:200] = SHARP
    found = from_strokes(predict(image), labels, "photo")
    assert found.names == (
        "photo, blurred stroke 1",
        "photo, blurred stroke 2",
        "photo, sharp stroke 1",
    )
    assert set(np.unique(found.source)) == {0, 1, 2}
    assert (found.sharp == (found.source == 2)).all()


def test_strokes_on_nothing_are_refused(predict):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 3, (128, 128))
    image[:, 96:] += 80 * (rng.random((128, 32)) > 0.5)
    labels = np.zeros((128, 128), np.uint8)
    labels[10:20, 10:40] = SHARP
    with pytest.raises(DefocusError, match="nothing that shows structure"):
        from_strokes(predict(image), labels, "field")


def test_an_image_in_focus_teaches_that_it_is(predict, field):
    taught = teach(from_focused(field, predict, "field"))
    bright = ndimage.gaussian_gradient_magnitude(field.astype(float), 1.5)
    edges = bright > np.quantile(bright, 0.85)
    sharp = detect(field, taught.profile).mask == 2
    blurred = ndimage.gaussian_filter(field.astype(float), 6)
    assert sharp[edges].mean() > 0.95
    assert (detect(blurred, taught.profile).mask == 2)[edges].mean() < 0.05


@pytest.mark.parametrize("sigma", [4, 9])
def test_an_image_out_of_focus_can_not_teach_focus(predict, field, sigma):
    message = r"field: it shows no structure narrower than \d+ pixels; give an image in focus"
    with pytest.raises(DefocusError, match=message):
        from_focused(ndimage.gaussian_filter(field.astype(float), sigma), predict, "field")


def test_an_image_of_nothing_can_not_teach_blur(predict):
    for image, message in ((np.full((64, 64), 7), "constant"), (noise_alone(), "no structure")):
        with pytest.raises(DefocusError, match=f"^dark: .*{message}"):
            from_defocused(image, predict, "dark")


def noise_alone(kind="normal"):
    return getattr(np.random.default_rng(0), kind)(20, size=(160, 192))


@pytest.mark.parametrize("noise", ["normal", "poisson"])
def test_noise_can_not_teach_focus(predict, noise):
    image = noise_alone(noise)
    with pytest.raises(DefocusError, match="it shows no structure; give an image in focus"):
        from_focused(image, predict, "noise")


def test_an_image_out_of_focus_teaches_what_is_blurred(predict, field):
    soft = ndimage.gaussian_filter(field.astype(float), 1.5)
    found = joined([from_focused(field, predict, "a"), from_defocused(soft, predict, "b")])
    taught = teach(found)
    assert taught.agreement["b, out of focus"] > 0.9
    assert taught.agreement["a, in focus"] > 0.9


def test_a_constant_image_can_not_teach(predict):
    with pytest.raises(DefocusError, match="field: the image is constant"):
        from_focused(np.full((64, 64), 7), predict, "field")


def test_a_stack_teaches_which_planes_are_in_focus(predict, field):
    stack = [ndimage.gaussian_filter(field.astype(float), s) for s in (6, 3, 0, 3, 6)]
    taught = teach(from_planes(stack, predict, "stack"))
    shares = [(detect(plane, taught.profile).mask == 2).mean() for plane in stack]
    assert np.argmax(shares) == 2
    assert max(shares[0], shares[4]) < 0.02


def test_a_stack_that_does_not_differ_is_refused(predict, field):
    with pytest.raises(DefocusError, match="its planes do not differ in focus"):
        from_planes([field] * 3, predict, "stack")
