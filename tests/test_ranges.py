"""Range and order of colours, found out on images with labels."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from colours import CONVENTIONS, Data, taking
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.adapter import range_words
from kerasrobust.networks.adapters.choosing import Choice, choice_of
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.adapters.trials import calibrated_loss, is_stale
from kerasrobust.networks.making import as_classifier, classifier_of


@pytest.mark.parametrize(("input_range", "colors"), CONVENTIONS)
def test_what_a_model_was_trained_on_is_found(
    input_range: str, colors: str, coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    found = understood(as_classifier(taking(colour_network, input_range, colors)), x, y)
    if (input_range, colors) == ("0,1", "rgb"):
        assert found.conventions.said() == {} and found.notes == []
    else:
        assert (found.conventions.input_range, found.conventions.colors) == (input_range, colors)
        assert "% are right so" in " ".join(found.notes)
    np.testing.assert_allclose(found.run(x[:9]), colour_network(x[:9]), rtol=1e-3, atol=1e-3)


def test_it_is_told_once_and_kept_with_the_model(coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    model = taking(colour_network, "0,255", "rgb")
    for _ in range(2):
        evaluation = evaluate(model, x[:200], y[:200], attacks="fgsm", epsilon=1 / 255, audit=False)
        assert evaluation.conventions == {"input_range": "0,255", "colors": "rgb"}
        assert [finding.code for finding in evaluation.findings] == ["conventions"]
    plain = evaluate(colour_network, x[:200], y[:200], attacks="fgsm", epsilon=1 / 255, audit=False)
    assert evaluation.clean_accuracy == plain.clean_accuracy > 0.9
    assert evaluation.robust_accuracy == plain.robust_accuracy


@pytest.mark.parametrize("found", [False, True], ids=["settled", "found"])
def test_it_is_asked_again_of_other_weights(found: bool, coloured: Data, colour_network: keras.Model) -> None:
    """One object that holds a network of [0, 1] and one of [0, 255] in turn is each time judged as a fresh one."""
    x, y = coloured[0][:300], coloured[1][:300]
    scale, image = L.Dense(3, kernel_initializer="identity"), keras.Input((8, 8, 3))
    model = keras.Model(image, colour_network(scale(image)))
    plain, narrowing = scale.get_weights(), [np.eye(3) / 255, np.zeros(3)]
    right = colour_network(x).numpy()
    order = ["0,1", "0,255"] if found else ["0,255", "0,1"]
    for input_range in (*order, order[0]):
        scale.set_weights(plain if input_range == "0,1" else narrowing)
        kept = understood(classifier_of(model), x, y)
        expected = {} if input_range == "0,1" else {"input_range": "0,255", "colors": "rgb"}
        assert kept.conventions.said() == expected
        assert kept is classifier_of(model)
        np.testing.assert_allclose(kept.run(x), right, rtol=1e-3, atol=1e-3)
        assert understood(kept, x, y) is kept
    # Of a few images, what was found stays.
    scale.set_weights(narrowing)
    kept = understood(classifier_of(model), x, y)
    scale.set_weights([narrowing[0] * 1.01, narrowing[1]])
    assert understood(kept, x[:30], y[:30]) is kept
    # The same range of other weights is the same classifier, and its graphs stay.
    assert understood(kept, x, y) is kept and not is_stale(kept)


def test_training_on_costs_one_pass_of_100_images(coloured: Data, colour_network: keras.Model) -> None:
    """As long as it is right in [0, 1] as often as when it was settled; then all conversions are tried."""
    x, y = coloured[0][:300], coloured[1][:300]
    scale, image = L.Dense(3, kernel_initializer="identity"), keras.Input((8, 8, 3))
    model = keras.Model(image, colour_network(scale(image)))
    classifier = understood(as_classifier(model), x, y)
    passes, inner = [], classifier.passed
    classifier.passed = lambda x: passes.append(len(x)) or inner(x)  # type: ignore[method-assign]
    assert understood(classifier, x, y) is classifier and not passes
    for turn in range(2):
        scale.set_weights([np.eye(3) * (1.01 + turn / 100), np.zeros(3)])
        assert understood(classifier, x, y) is classifier and passes == [100] * (turn + 1)
    assert understood(classifier, x, y) is classifier and passes == [100, 100]
    scale.set_weights([np.eye(3) / 255, np.zeros(3)])
    assert understood(classifier, x, y).conventions.input_range == "0,255" and len(passes) > 8


@pytest.mark.parametrize("form", ["dict", "arrays", "method"])
def test_weights_of_other_objects_are_left_alone(form: str, coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured[0][:200], coloured[1][:200]

    class Own:
        weights: object = {"w": tf.Variable(1.0)} if form == "dict" else [np.ones(2)]

        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            return colour_network(x)

    if form == "method":
        Own.weights, Own.variables = None, lambda self: []  # type: ignore[attr-defined]
    found = evaluate(Own(), x, y, attacks="fgsm", epsilon=1 / 255, audit=False)
    assert found.clean_accuracy == np.mean(colour_network(x).numpy().argmax(axis=1) == y)


@pytest.mark.parametrize(("input_range", "colors"), [pair for pair in CONVENTIONS if pair != ("0,1", "rgb")])
def test_what_was_said_is_not_doubted_but_checked(
    input_range: str, colors: str, coloured: Data, colour_network: keras.Model
) -> None:
    """Who then says what the finding names measures the network that the model is."""
    x, y = coloured[0][:200], coloured[1][:200]
    model = taking(colour_network, input_range, colors)
    evaluation = evaluate(as_classifier(model, input_range=(0, 1), colors="rgb"), x, y, attacks="fgsm", epsilon=1 / 255)
    (finding,) = [item for item in evaluation.findings if item.code == "input-range"]
    assert f"with {range_words(input_range)}, {colors.upper()}, and on" in finding.message
    assert finding.severity == "error"
    told = as_classifier(model, input_range=input_range, colors=colors)
    np.testing.assert_allclose(told.run(x), colour_network(x), rtol=1e-3, atol=2e-3)
    right = (colour_network.predict(x, verbose=0).argmax(axis=1) == y).mean()
    assert finding.evidence["accuracy_otherwise"] == pytest.approx(right)


def test_untrained_and_constant_models_are_left_alone(coloured: Data) -> None:
    x, y = coloured
    keras.utils.set_random_seed(1)
    untrained = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(6)])
    assert understood(as_classifier(untrained), x, np.random.default_rng(0).permutation(y)).conventions.said() == {}
    constant = as_classifier(lambda x: tf.zeros((tf.shape(x)[0], 6)) * tf.reduce_sum(x), image_shape=(8, 8, 3))
    assert understood(constant, x, y).conventions.said() == {}


def test_equal_fits_are_asked_about() -> None:
    draw = np.random.default_rng(1)
    y = draw.integers(0, 4, 300)
    good = 5 * np.eye(4)[y] + draw.normal(size=(300, 4))
    logits = {("0,1", "rgb"): draw.normal(size=(300, 4)), ("-1,1", "rgb"): good, ("imagenet", "rgb"): good + 1e-3}
    choice = choice_of(logits, y)
    assert {choice.best[0], *(name for name, _ in choice.rivals)} == {"-1,1", "imagenet"}
    # The default comes first where it fits as well.
    assert choice_of(logits | {("0,1", "rgb"): good}, y).best == ("0,1", "rgb")


@pytest.mark.parametrize(
    ("imagenet", "other", "told"),
    [(0.264, 0.594, False), (0.178, 0.372, False), (0.3, 0.002, True), (0.3, 6, True), (1.1, 6, True)],
)
def test_how_sure_a_network_is_of_itself_tells_ranges_apart_where_it_is_odd(
    imagenet: float, other: float, told: bool
) -> None:
    """The first two pairs of best scales are those of networks of cars and planes, trained on either range."""
    draw = np.random.default_rng(0)
    y = np.arange(300) % 2
    good = 3 * np.eye(2)[y] + draw.normal(size=(300, 2))
    # Of normal numbers 3 apart the best scale is 3.
    logits = {
        ("0,1", "rgb"): draw.normal(size=(300, 2)),
        ("imagenet", "rgb"): 3 * good / imagenet,
        ("-1,1", "rgb"): 3 * good / other,
    }
    choice = choice_of(logits, y)
    assert {choice.best[0], *(name for name, _ in choice.rivals)} == {"imagenet"} | (set() if told else {"-1,1"})
    assert choice.clear is told


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_the_scale_of_logits_that_are_all_right_is_one_of_a_single_error(count: int) -> None:
    """One more image that is wrong, of logits 2 apart: the likelihood is highest at odds of `count` to 1."""
    y = np.arange(count) % 2
    losses, scale = calibrated_loss(2 * np.eye(2)[y], y)
    assert scale == pytest.approx(math.log(count) / 2, rel=0.05)
    np.testing.assert_allclose(losses, math.log1p(math.exp(-2 * scale)), rtol=1e-6)


@pytest.mark.parametrize("smallest", [0.02, 0.5, 2.0])
@pytest.mark.parametrize("right", [93, 96])
def test_a_range_in_which_all_images_are_right_loses_to_none_with_errors(smallest: float, right: int) -> None:
    """Their smallest margin bounds no scale of the logits, and so says nothing against that range."""
    draw, y = np.random.default_rng(4), np.arange(100) % 4
    sizes = np.geomspace(smallest, 20, 100)[draw.permutation(100)]
    hit = np.where(draw.permutation(100) < right, y, (y + 1) % 4)
    found = {
        ("0,1", "rgb"): 0.1 * np.eye(4)[np.where(draw.permutation(100) < 72, y, (y + 1) % 4)],
        ("0,255", "rgb"): np.where(hit == y, sizes, 1)[:, None] * np.eye(4)[hit],
        ("caffe", "bgr"): sizes[:, None] * np.eye(4)[y],
    }
    choice = choice_of(found, y)
    assert choice.best == ("caffe", "bgr")
    assert choice.clear or choice.rivals == (("0,255", "rgb"),)
    equal = choice_of(found | {("-1,1", "rgb"): found["caffe", "bgr"] / 2}, y)
    assert {equal.best[0], *(name[0] for name in equal.rivals)} >= {"caffe", "-1,1"}


def test_none_is_clear_that_is_right_clearly_less_often() -> None:
    """As in [0, 255], of a network whose own range isn't among those tried, and isn't far from one of an odd scale."""
    draw, y = np.random.default_rng(0), np.arange(300) % 4

    def logits(right: int, size: float) -> np.ndarray:
        hit = draw.permutation(300) < right
        return np.where(hit, size, size / 8)[:, None] * np.eye(4)[np.where(hit, y, (y + 1) % 4)]

    found = {("0,1", "rgb"): logits(100, 2), ("0,255", "rgb"): logits(285, 8), ("imagenet", "rgb"): logits(299, 0.1)}
    choice = choice_of(found, y)
    assert {choice.best[0], *(name[0] for name in choice.rivals)} == {"0,255", "imagenet"}


@pytest.mark.parametrize(("right", "order", "clear"), [(95, "rgb", True), (91, "rgb", False), (70, "bgr", True)])
def test_an_order_of_colours_is_found_where_it_is_clear(right: int, order: str, clear: bool) -> None:
    """RGB is the usual one, which more images are looked at for where BGR is somewhat better."""
    draw, y = np.random.default_rng(0), np.arange(100) % 4

    def logits(right: int, size: float = 4.0) -> np.ndarray:
        return size * np.eye(4)[np.where(draw.permutation(100) < right, y, (y + 1) % 4)]

    found = {("0,1", "rgb"): logits(50), ("0,255", "rgb"): logits(right), ("0,255", "bgr"): logits(98)}
    choice = choice_of(found, y)
    assert (choice.best, choice.clear) == (("0,255", order), clear)


def test_a_lower_loss_of_a_few_thousandths_chooses_no_range() -> None:
    """A network that was trained on ImageNet's range may have one lower by 0.013 nats in [-1, 1]."""
    y = np.arange(1000) % 2
    known = np.where(np.random.default_rng(0).permutation(1000) < 900, y, 1 - y)
    # As sure as it is right, 90 %, at some scale: 0.325 nats. With six more wrong images 0.338.
    logits = np.log(np.where(np.eye(2)[known] == 1, 0.9, 0.1))
    found = {("-1,1", "rgb"): logits / 0.64, ("imagenet", "rgb"): logits / 0.29}
    found["imagenet", "rgb"][:6] *= -1
    choice = choice_of(found | {("0,1", "rgb"): np.zeros((1000, 2))}, y)
    assert choice.rivals and not choice.clear


def test_a_network_that_overfits_is_known_to_have_learned_by_how_often_it_is_right() -> None:
    """39 % of 4 classes, as animals in Caffe's range; so sure of the others that its losses are hardly lower."""
    draw, y = np.random.default_rng(0), np.arange(300) % 4
    said = np.where(draw.permutation(300) < 117, y, (y + draw.integers(1, 4, 300)) % 4)
    found = {
        ("0,1", "rgb"): draw.normal(size=(300, 4)),
        ("caffe", "bgr"): draw.exponential(4, 300)[:, None] * np.eye(4)[said],
    }
    choice = choice_of(found, y)
    assert (choice.best, choice.clear) == (("caffe", "bgr"), True)
    # Saying the commonest class of all is no knowledge.
    constant = {("0,1", "rgb"): np.eye(4)[np.ones(300, int)], ("caffe", "bgr"): np.eye(4)[np.zeros(300, int)]}
    assert choice_of(constant, np.where(np.arange(300) < 28, 0, y)).best == ("0,1", "rgb")


@pytest.mark.parametrize("default", ["0,1", "0,255", "-1,1"])
@pytest.mark.parametrize(("right", "better"), [(83, True), (77, False)])
def test_being_right_clearly_more_often_is_enough(default: str, right: int, better: bool) -> None:
    """The mean losses are 2.6 standard errors apart, and 56 of 150 are right in the default range."""
    draw = np.random.default_rng(2)
    y = np.arange(150) % 4
    plain = 0.35 * np.eye(4)[np.where(draw.permutation(150) < 56, y, (y + 1) % 4)] + draw.normal(0, 0.01, (150, 4))
    other = 1.5 * np.eye(4)[np.where(draw.permutation(150) < right, y, (y + 2) % 4)]
    choice = choice_of({(default, "rgb"): plain, ("imagenet", "rgb"): other}, y, (default, "rgb"))
    assert (choice.best, choice.rivals) == (("imagenet" if better else default, "rgb"), ())


@pytest.mark.parametrize("other", ["0,255", "caffe"])
def test_a_network_whose_logits_are_far_too_small_is_doubted(other: str) -> None:
    """As one without biases is, which is right as often in [0, 255]; it is attacked as it is."""
    y = np.arange(300) % 6
    good = np.eye(6)[np.where(np.random.default_rng(2).permutation(300) < 200, y, (y + 1) % 6)]
    choice = choice_of({("0,1", "rgb"): 0.02 * good, (other, "bgr"): 2 * good}, y)
    assert (choice.best, choice.rivals, choice.clear) == ((other, "bgr"), (("0,1", "rgb"),), False)
    shown = choice_of({("0,255", "rgb"): 0.02 * good, ("0,1", "rgb"): 2 * good}, y, ("0,255", "rgb"))
    assert (shown.best, shown.rivals) == (("0,255", "rgb"), ())


def test_the_doubt_is_a_note(monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    choice = Choice(("0,255", "rgb"), (("0,1", "rgb"),), (0.4, 0.41), clear=False)
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(colour_network), x, y)
    assert found.conventions.said() == {} and "--input-range" in found.notes[-1] and "isn't clear" in found.notes[-1]


@pytest.mark.parametrize(("count", "told"), [(100, True), (40, False)])
@pytest.mark.parametrize("other", ["-1,1", "0,255"])
def test_a_range_that_fits_better_but_is_not_right_clearly_more_often_is_told(
    other: str, count: int, told: bool, monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model
) -> None:
    """Surer of what it is right about, of which there is no more. Of a handful of images nothing is said."""
    draw = np.random.default_rng(1)
    y = np.arange(count) % 4
    said = np.where(draw.permutation(count) < 0.4 * count, y, (y + 1) % 4)
    plain = np.eye(4)[said]
    better = plain * np.where(said == y, 4, 1)[:, None]
    found = {("0,1", "rgb"): plain, (other, "rgb"): better}
    choice = choice_of(found, y)
    assert choice.best == ("0,1", "rgb") and choice.other == (other, "rgb") and not choice.clear
    assert choice_of({("0,1", "rgb"): better, (other, "rgb"): plain}, y).other is None
    assert choice.accuracy == pytest.approx((0.4, 0.4))
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    x, y = coloured
    classifier = understood(as_classifier(colour_network), x[:count], y[:count])
    assert any("isn't clear: 40.0 % of" in note for note in classifier.notes) is told


def test_a_network_that_shows_nothing_of_few_images_is_told_what_fits_better() -> None:
    """18 of 100 right as it is and 25 of 100 otherwise, neither surer than guessing among ten classes."""
    draw, y = np.random.default_rng(3), np.arange(100) % 10
    found = {
        (name, "rgb"): 0.1 * np.eye(10)[np.where(draw.permutation(100) < right, y, (y + 1) % 10)]
        for name, right in (("0,1", 18), ("caffe", 25))
    }
    choice = choice_of(found, y)
    assert (choice.best, choice.other, choice.clear) == (("0,1", "rgb"), ("caffe", "rgb"), False)
    assert choice.accuracy == pytest.approx((0.25, 0.18))


def test_asking_is_one_line(monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    choice = Choice(("-1,1", "rgb"), (("imagenet", "rgb"),), (0.9, 0.2), clear=False)
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    with pytest.raises(InputError, match="--input-range") as caught:
        understood(as_classifier(colour_network), x, y)
    assert "\n" not in str(caught.value)


def test_training_changes_what_was_found_out_of_an_untrained_network(
    coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    model = taking(colour_network, "-1,1", "rgb")
    trained = model.get_weights()
    draw = np.random.default_rng(5)
    model.set_weights([draw.normal(0, 0.1, weights.shape) for weights in trained])
    evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    model.set_weights(trained)
    assert evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255).conventions["input_range"] == "-1,1"


def test_a_doubt_ends_where_more_images_end_it(
    monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    classifier = as_classifier(taking(colour_network, "0,1", "rgb"))
    with monkeypatch.context() as patched:
        doubt = Choice(("0,1", "rgb"), (), (0.41, 0.4), False, ("0,255", "rgb"))
        patched.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: doubt)
        for _ in range(2):
            assert len(understood(classifier, x[:100], y[:100]).notes) == 1
    assert understood(classifier, x, y).notes == []


def test_what_was_said_of_the_range_alone_is_checked(coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured[0][:200], coloured[1][:200]
    model = taking(colour_network, "imagenet", "rgb")
    evaluation = evaluate(as_classifier(model, input_range=(0, 1)), x, y, attacks="fgsm", epsilon=1 / 255)
    (finding,) = [item for item in evaluation.findings if item.code == "input-range"]
    assert "with imagenet's range, RGB, and on" in finding.message


def test_what_was_said_of_the_range_alone_is_kept(coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    model = taking(colour_network, "0,255", "rgb")
    said = as_classifier(model, input_range="0,255")
    assert understood(said, x, y) is said
    found = understood(as_classifier(taking(colour_network, "0,255", "bgr"), input_range="0,255"), x, y)
    assert found.conventions.colors == "bgr" and " 0.0 %" not in " ".join(found.notes)


@pytest.mark.parametrize("input_range", ["0,1", "0,255"])
def test_an_order_of_colours_that_was_said_is_kept(
    input_range: str, coloured: Data, colour_network: keras.Model
) -> None:
    """The range is found out in that order, not in the other one."""
    x, y = coloured
    found = understood(as_classifier(taking(colour_network, input_range, "bgr"), colors="bgr"), x, y)
    assert found.conventions.colors == "bgr" and found.conventions.input_range in (input_range, "auto")
    np.testing.assert_allclose(found.run(x[:9]), colour_network(x[:9]), rtol=1e-3, atol=1e-3)
    assert not any(" 0.0 %" in note for note in found.notes)


def test_the_range_of_caffe_is_one_of_bgr(coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    seen = keras.Input((8, 8, 3))
    mean = np.float32([103.939, 116.779, 123.68])
    said = as_classifier(keras.Model(seen, colour_network(((seen + mean) / 255)[..., ::-1])), input_range="caffe")
    found = understood(said, x, y)
    np.testing.assert_allclose(found.run(x[:9]), colour_network(x[:9]), rtol=1e-3, atol=1e-3)
    assert found.adapter.bgr


@pytest.mark.parametrize("count", [6, 12, 40])
def test_few_images_choose_only_what_is_clearly_more_often_right(count: int) -> None:
    """Losses of a few images lie close together by chance, in one range as in another."""
    y = np.arange(count) % 2
    sure = np.stack([1.0 - 2 * y, 2.0 * y - 1], axis=1)
    plain = sure * np.where(np.arange(count) < 2, -0.1, 0.1)[:, None]  # Two wrong, and unsure of all.
    assert choice_of({("0,1", "rgb"): plain, ("-1,1", "bgr"): sure}, y).best == ("0,1", "rgb")
    wrong = {("0,1", "rgb"): -plain, ("-1,1", "bgr"): sure}
    assert (choice_of(wrong, y).best == ("-1,1", "bgr")) == (count > 10)


def test_the_only_better_range_may_have_an_odd_scale() -> None:
    """Its logits are ten times too large, those of [0, 1] are not, and clearly more images are right."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 300)

    def logits(right: float, scale: float) -> np.ndarray:
        hit = draw.random(300) < right
        return scale * np.stack([np.where((y == 0) == hit, 1.0, -1.0), np.where((y == 1) == hit, 1.0, -1.0)], axis=1)

    seen = [choice_of({("0,1", "rgb"): logits(0.69, 0.4), ("0,255", "rgb"): logits(0.9, s)}, y) for s in (1, 10, 30)]
    assert {choice.best for choice in seen} == {("0,255", "rgb")}
