"""Range and order of colours, found out on images with labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from kerasrobust.data.load import load_data
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.adapter import range_words
from kerasrobust.networks.adapters.ranges import Choice, choice_of, hint_of, understood
from kerasrobust.networks.making import as_classifier

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data() -> Data:
    """Images whose class is a colour and a brightness, so that range and order matter."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 6, 400)
    colours = np.array(
        [[0.8, 0.2, 0.3], [0.2, 0.3, 0.8], [0.3, 0.8, 0.2], [0.5, 0.1, 0.6], [0.4, 0.1, 0.15], [0.1, 0.15, 0.4]]
    )
    x = colours[y][:, None, None] + draw.normal(0, 0.08, (400, 8, 8, 3))
    return np.clip(x, 0, 1).astype(np.float32), y


@pytest.fixture(scope="module")
def network(data: Data) -> keras.Model:
    keras.utils.set_random_seed(0)
    x, y = data
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(6)])
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=8, verbose=0)
    return model


BACK: dict[str, tuple[Any, Any]] = {
    "0,1": (1, 0),
    "0,255": (1 / 255, 0),
    "-1,1": (0.5, 0.5),
    "imagenet": (np.float32([0.229, 0.224, 0.225]), np.float32([0.485, 0.456, 0.406])),
    "caffe": (1 / 255, np.float32([103.939, 116.779, 123.68]) / 255),
}
"""What undoes the preprocessing of `keras.applications.imagenet_utils`, in the order of colours that it gives."""


def taking(network: keras.Model, input_range: str, colors: str) -> keras.Model:
    """The same network for images of other conventions."""
    scale, offset = BACK[input_range]
    seen = keras.Input((8, 8, 3))
    # Not a Rescaling, which would show it.
    restored = seen * scale + offset
    return keras.Model(seen, network(restored[..., ::-1] if colors == "bgr" else restored))


CONVENTIONS = [*((name, order) for name in ("0,1", "0,255", "-1,1") for order in ("rgb", "bgr")), ("imagenet", "rgb"),
               ("caffe", "bgr")]  # fmt: skip


@pytest.mark.parametrize(("input_range", "colors"), CONVENTIONS)
def test_what_a_model_was_trained_on_is_found(input_range: str, colors: str, data: Data, network: keras.Model) -> None:
    x, y = data
    found = understood(as_classifier(taking(network, input_range, colors)), x, y)
    if (input_range, colors) == ("0,1", "rgb"):
        assert found.conventions.said() == {} and found.notes == []
    else:
        assert (found.conventions.input_range, found.conventions.colors) == (input_range, colors)
        assert "% are right so" in " ".join(found.notes)
    np.testing.assert_allclose(found.run(x[:9]), network(x[:9]), rtol=1e-3, atol=1e-3)


def test_it_is_told_once_and_kept_with_the_model(data: Data, network: keras.Model) -> None:
    x, y = data
    model = taking(network, "0,255", "rgb")
    for _ in range(2):
        evaluation = evaluate(model, x[:200], y[:200], attacks="fgsm", epsilon=1 / 255, audit=False)
        assert evaluation.conventions == {"input_range": "0,255", "colors": "rgb"}
        assert [finding.code for finding in evaluation.findings] == ["conventions"]
    plain = evaluate(network, x[:200], y[:200], attacks="fgsm", epsilon=1 / 255, audit=False)
    assert evaluation.clean_accuracy == plain.clean_accuracy > 0.9
    assert evaluation.robust_accuracy == plain.robust_accuracy


@pytest.mark.parametrize(("input_range", "colors"), [pair for pair in CONVENTIONS if pair != ("0,1", "rgb")])
def test_what_was_said_is_not_doubted_but_checked(
    input_range: str, colors: str, data: Data, network: keras.Model
) -> None:
    """Who then says what the finding names measures the network that the model is."""
    x, y = data[0][:200], data[1][:200]
    model = taking(network, input_range, colors)
    evaluation = evaluate(as_classifier(model, input_range=(0, 1), colors="rgb"), x, y, attacks="fgsm", epsilon=1 / 255)
    (finding,) = [item for item in evaluation.findings if item.code == "input-range"]
    assert f"with {range_words(input_range)}, {colors.upper()}, and on" in finding.message
    assert finding.severity == "error"
    told = as_classifier(model, input_range=input_range, colors=colors)
    np.testing.assert_allclose(told.run(x), network(x), rtol=1e-3, atol=2e-3)
    right = (network.predict(x, verbose=0).argmax(axis=1) == y).mean()
    assert finding.evidence["accuracy_otherwise"] == pytest.approx(right)


def test_untrained_and_constant_models_are_left_alone(data: Data) -> None:
    x, y = data
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


def test_the_doubt_is_a_note(monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model) -> None:
    x, y = data
    choice = Choice(("0,255", "rgb"), (("0,1", "rgb"),), (0.4, 0.41), clear=False)
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(network), x, y)
    assert found.conventions.said() == {} and "--input-range" in found.notes[-1] and "isn't clear" in found.notes[-1]


@pytest.mark.parametrize(("count", "told"), [(100, True), (40, False)])
@pytest.mark.parametrize("other", ["-1,1", "0,255"])
def test_a_range_that_fits_better_but_is_not_right_clearly_more_often_is_told(
    other: str, count: int, told: bool, monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model
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
    x, y = data
    classifier = understood(as_classifier(network), x[:count], y[:count])
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


@pytest.mark.parametrize("classes", [1, 4])
def test_images_of_one_class_raise_no_doubt(
    classes: int, monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model
) -> None:
    x, _ = data
    choice = Choice(("0,1", "rgb"), (), (0.41, 0.4), False, ("0,255", "rgb"))
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(network), x[:100], np.arange(100) % classes)
    assert any("isn't clear" in note for note in found.notes) is (classes > 1)


def test_asking_is_one_line(monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model) -> None:
    x, y = data
    choice = Choice(("-1,1", "rgb"), (("imagenet", "rgb"),), (0.9, 0.2), clear=False)
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    with pytest.raises(InputError, match="--input-range") as caught:
        understood(as_classifier(network), x, y)
    assert "\n" not in str(caught.value)


FIRST = [
    (L.Rescaling(1 / 255), "0,255"),
    (L.Rescaling(1 / 127.5, offset=-1), "0,255"),
    (L.Rescaling(2.0, offset=-1), "0,1"),
    (L.Rescaling(4.0, offset=-2), "0,1"),
    (L.Rescaling(255.0), "0,1"),
    (L.Rescaling(1 / 16), "0,16"),
    (L.Rescaling(0.5, offset=0.5), "-1,1"),
    (L.Rescaling(127.5, offset=127.5), "-1,1"),
    (L.Rescaling([1 / 58.4, 1 / 57.1, 1 / 57.4], offset=[-2.12, -2.04, -1.8]), "0,255"),
    (L.Rescaling(1.0), ""),
    (L.Rescaling(0.25), ""),
    (L.Rescaling(4.0), ""),
    (L.Rescaling(1.0, offset=0.5), ""),
    (L.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3), "0,255"),
    (L.Normalization(mean=[0.1] * 3, variance=[0.4] * 3), ""),
    (L.Conv2D(2, 3), ""),
]


@pytest.mark.parametrize(("layer", "shown"), FIRST)
def test_first_layers_show_it(layer: L.Layer, shown: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), layer, L.Flatten(), L.Dense(3)])
    assert hint_of(model) == shown


@pytest.mark.parametrize(
    ("first", "low", "high"),
    [
        ([L.Rescaling(0.5, offset=0.5)], -1, 1),
        ([L.Rescaling(1 / 16)], 0, 16),
        ([L.Rescaling(1.0), L.Rescaling(1 / 255)], 0, 255),
        ([L.Normalization(mean=[-1.0] * 3, variance=[4.0] * 3)], -1, 1),
    ],
    ids=["[-1, 1] to [0, 1]", "sixteen levels", "nothing, then [0, 255] to [0, 1]", "adapted to [-1, 1]"],
)
def test_a_first_layer_that_may_take_others_proves_no_range(
    first: list[L.Layer], low: int, high: int, data: Data, network: keras.Model
) -> None:
    x, y = data
    model = keras.Sequential([keras.Input((8, 8, 3)), *first, network])
    evaluation = evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == f"{low},{high}"
    assert not {finding.code for finding in evaluation.findings} & {"input-range", "at-chance"}
    own = model.predict(x * (high - low) + low, verbose=0).argmax(axis=1)
    assert evaluation.clean_accuracy == (own == y).mean() > 0.9


def test_training_changes_what_was_found_out_of_an_untrained_network(data: Data, network: keras.Model) -> None:
    x, y = data
    model = taking(network, "-1,1", "rgb")
    trained = model.get_weights()
    draw = np.random.default_rng(5)
    model.set_weights([draw.normal(0, 0.1, weights.shape) for weights in trained])
    evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    model.set_weights(trained)
    assert evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255).conventions["input_range"] == "-1,1"


@pytest.mark.parametrize("share", [0.1, 0.4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_numbers_hide_no_range(value: float, share: float, data: Data, network: keras.Model) -> None:
    x, y = data
    outer = taking(network, "0,255", "rgb")
    limit = 255 * float(np.quantile(x[..., 0].mean(axis=(1, 2)), 1 - share))
    logits = outer.output + tf.constant(value) * keras.ops.zeros_like(outer.output)
    red = outer.input[..., :1]
    # Not the random images that every model is tried on.
    some = (keras.ops.mean(red, axis=(1, 2)) > limit) & (keras.ops.std(red, axis=(1, 2)) < 50)
    model = keras.Model(outer.input, keras.ops.where(some, logits, outer.output))
    evaluation = evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == "0,255"
    assert "nan-logits" in {finding.code for finding in evaluation.findings}
    assert "batch-dependence" not in {finding.code for finding in evaluation.findings}


@pytest.mark.parametrize("label", [0, 1])
def test_images_without_numbers_in_one_range_alone_tell_nothing(label: int) -> None:
    """Flat images have no deviation in [0, 1]; in other ranges rounding leaves one, and any answer."""
    x = np.random.default_rng(0).random((64, 6, 6, 1)).astype(np.float32)
    x[-16:] = np.linspace(0, 1, 16, dtype=np.float32)[:, None, None, None]
    seen = keras.Input((6, 6, 1))
    mean, deviation = (way(seen, axis=(1, 2, 3), keepdims=True) for way in (keras.ops.mean, keras.ops.std))
    keras.utils.set_random_seed(0)
    model = keras.Model(seen, L.Dense(3)(L.Flatten()((seen - mean) / deviation)))
    logits = model.predict(x, verbose=0)
    y = np.nan_to_num(logits).argmax(axis=1)
    y[-16:] = label
    found = understood(as_classifier(model), x, y)
    assert found.conventions.said() == {} and found.notes == []


@pytest.mark.parametrize("place", [0, 6])
def test_a_masked_class_hides_no_range(place: int, data: Data, network: keras.Model) -> None:
    x, y = data
    outer = taking(network, "-1,1", "rgb")
    masked = keras.ops.full_like(outer.output[:, :1], -np.inf)
    parts = [masked, outer.output] if place == 0 else [outer.output, masked]
    model = keras.Model(outer.input, keras.ops.concatenate(parts, axis=1))
    evaluation = evaluate(model, x, y + (place == 0), attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == "-1,1"
    assert evaluation.clean_accuracy > 0.9


@pytest.mark.parametrize("input_range", ["imagenet", "caffe"])
def test_grey_images_of_a_colour_model_show_every_range(input_range: str, data: Data, network: keras.Model) -> None:
    x, y = data
    grey = x.mean(axis=3, keepdims=True)
    model = taking(network, input_range, "bgr" if input_range == "caffe" else "rgb")
    three = understood(as_classifier(model), np.repeat(grey, 3, axis=3), y)
    one = understood(as_classifier(model), grey, y)
    assert one.conventions.said() == three.conventions.said()
    np.testing.assert_allclose(one.run(grey[:9]), three.run(np.repeat(grey[:9], 3, axis=3)), rtol=1e-5, atol=1e-5)


def test_colour_images_of_a_grey_model_are_taken(data: Data) -> None:
    """The model was trained on grey images in [-1, 1]."""
    x, y = data
    grey = x @ np.float32([[0.2989], [0.587], [0.114]])
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(6)])
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(2 * grey - 1, y, epochs=15, verbose=0)
    found = understood(as_classifier(model), x, y)
    assert found.conventions.input_range == "-1,1"
    np.testing.assert_allclose(found.run(x[:9]), model(2 * grey[:9] - 1), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match=r"images of 1 channel.*MEAN/STD"):
        as_classifier(model, input_range="imagenet")


def test_fewer_images_than_classes_are_looked_at(data: Data, network: keras.Model) -> None:
    x, y = data
    outer = taking(network, "-1,1", "rgb")
    rest = keras.ops.zeros_like(outer.output[:, :1]) - 5 + keras.ops.zeros((1, 194))
    model = keras.Model(outer.input, keras.ops.concatenate([outer.output, rest], axis=1))
    assert understood(as_classifier(model), x[:150], y[:150]).conventions.input_range == "-1,1"


@pytest.mark.parametrize(("plain", "told"), [(0.66, True), (0.30, False)])
def test_images_that_were_changed_are_named_as_a_reason(
    plain: float, told: bool, monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model
) -> None:
    """A network that takes [0, 1] is right on 66 % in fog, and on 90 % where a mean is taken away."""
    x, y = data
    choice = Choice(("imagenet", "rgb"), (), (0.9, plain))
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(taking(network, "0,1", "rgb")), x[:40], y[:40])
    assert found.conventions.input_range == "imagenet"
    assert any("as by fog" in note for note in found.notes) is told


def test_a_doubt_ends_where_more_images_end_it(
    monkeypatch: pytest.MonkeyPatch, data: Data, network: keras.Model
) -> None:
    x, y = data
    classifier = as_classifier(taking(network, "0,1", "rgb"))
    with monkeypatch.context() as patched:
        doubt = Choice(("0,1", "rgb"), (), (0.41, 0.4), False, ("0,255", "rgb"))
        patched.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: doubt)
        for _ in range(2):
            assert len(understood(classifier, x[:100], y[:100]).notes) == 1
    assert understood(classifier, x, y).notes == []


def test_what_was_said_of_the_range_alone_is_checked(data: Data, network: keras.Model) -> None:
    x, y = data[0][:200], data[1][:200]
    model = taking(network, "imagenet", "rgb")
    evaluation = evaluate(as_classifier(model, input_range=(0, 1)), x, y, attacks="fgsm", epsilon=1 / 255)
    (finding,) = [item for item in evaluation.findings if item.code == "input-range"]
    assert "with imagenet's range, RGB, and on" in finding.message


def test_a_range_in_which_all_images_are_of_one_class_is_not_advised(data: Data, network: keras.Model) -> None:
    """In [0, 1] the model says the same of all images, which is right on more of them than in its own range."""
    x = data[0][:200]
    model = taking(network, "0,255", "rgb")
    constant = model.predict(x, verbose=0).argmax(axis=1)
    assert len(np.unique(constant)) == 1
    own = model.predict(255 * x, verbose=0).argmax(axis=1)
    y = np.where(np.arange(200) % 2 == 0, constant[0], (own + 1) % 6)
    evaluation = evaluate(as_classifier(model, input_range="0,255"), x, y, attacks="fgsm", epsilon=1 / 255)
    assert "input-range" not in {finding.code for finding in evaluation.findings}


def test_few_images_are_enough_where_the_first_layer_shows_it(data: Data) -> None:
    x, y = data
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Flatten(), L.Dense(6)])
    found = understood(as_classifier(model), x[:3], y[:3])
    assert found.conventions.input_range == "0,255"


def test_our_networks_are_asked_nothing() -> None:
    from kerasrobust.networks.architectures import build_model

    x, y = load_data("shapes", "test[:20]")
    classifier = as_classifier(build_model("lenet"))
    assert understood(classifier, x, y) is classifier


def test_what_was_said_of_the_range_alone_is_kept(data: Data, network: keras.Model) -> None:
    x, y = data
    model = taking(network, "0,255", "rgb")
    said = as_classifier(model, input_range="0,255")
    assert understood(said, x, y) is said
    found = understood(as_classifier(taking(network, "0,255", "bgr"), input_range="0,255"), x, y)
    assert found.conventions.colors == "bgr" and " 0.0 %" not in " ".join(found.notes)


@pytest.mark.parametrize("input_range", ["0,1", "0,255"])
def test_an_order_of_colours_that_was_said_is_kept(input_range: str, data: Data, network: keras.Model) -> None:
    """The range is found out in that order, not in the other one."""
    x, y = data
    found = understood(as_classifier(taking(network, input_range, "bgr"), colors="bgr"), x, y)
    assert found.conventions.colors == "bgr" and found.conventions.input_range in (input_range, "auto")
    np.testing.assert_allclose(found.run(x[:9]), network(x[:9]), rtol=1e-3, atol=1e-3)
    assert not any(" 0.0 %" in note for note in found.notes)


def test_the_range_of_caffe_is_one_of_bgr(data: Data, network: keras.Model) -> None:
    x, y = data
    seen = keras.Input((8, 8, 3))
    mean = np.float32([103.939, 116.779, 123.68])
    said = as_classifier(keras.Model(seen, network(((seen + mean) / 255)[..., ::-1])), input_range="caffe")
    found = understood(said, x, y)
    np.testing.assert_allclose(found.run(x[:9]), network(x[:9]), rtol=1e-3, atol=1e-3)
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


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("grey", [False, True])
def test_images_less_their_own_mean_are_asked_about(scale: float, grey: bool, data: Data, network: keras.Model) -> None:
    """As in tutorials for CIFAR-10. What the message names is what the network takes."""
    x, y = data
    x = x.mean(axis=-1, keepdims=True) if grey else x
    seen = keras.Input(x.shape[1:])
    restored = seen / scale + x.mean(axis=(0, 1, 2))
    if grey:
        levels = np.float32([x[y == k].mean() for k in range(6)])  # The nearest of the classes' brightnesses.
        model = keras.Model(seen, -1e3 * (keras.ops.mean(restored, axis=(1, 2)) - levels) ** 2)
    else:
        model = keras.Model(seen, network(restored))
    with pytest.raises(InputError, match="less their mean") as caught:
        understood(as_classifier(model), x, y)
    told = as_classifier(model, input_range=str(caught.value).rpartition(" ")[2][:-1])
    right = (model.predict((x - x.mean(axis=(0, 1, 2))) * scale, verbose=0).argmax(axis=1) == y).mean()
    assert right > 0.45
    assert (told.run(x).argmax(axis=1) == y).mean() == pytest.approx(right, abs=0.02)


def test_images_standardised_one_by_one_are_asked_about() -> None:
    """Classes are told by a tint, or none, relative to the contrast of an image, which is any."""
    draw = np.random.default_rng(7)
    y = draw.integers(0, 4, 300)
    colours = np.array([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0], [0.0, 0.0, 0.0]])
    spread = draw.uniform(0.02, 0.2, (300, 1, 1, 1))
    x = draw.uniform(0.3, 0.7, (300, 1, 1, 1)) + spread * (
        colours[y][:, None, None] + draw.normal(0, 0.7, (300, 8, 8, 3))
    )
    x = np.clip(x, 0, 1).astype(np.float32)
    seen = keras.Input((8, 8, 3))
    pooled = keras.ops.mean(seen, axis=(1, 2))
    # Right only where the images have mean 0 and deviation 1.
    model = keras.Model(seen, -20 * keras.ops.sum((pooled[:, None] - 0.8 * colours.astype(np.float32)) ** 2, axis=-1))
    own = model.predict(tf.image.per_image_standardization(x).numpy(), verbose=0).argmax(axis=1)
    assert (own == y).mean() > 0.95
    with pytest.raises(InputError, match=r"standardised one by one.*per_image_standardization"):
        understood(as_classifier(model), x, y)


@pytest.mark.parametrize("outputs", [1, 3])
def test_images_of_one_class_show_no_range(outputs: int, data: Data) -> None:
    """Pixels of 255 times the size drive this model to its last class, whatever the image."""
    x, _ = data
    bias = np.linspace(0, -1.8, outputs) if outputs > 1 else np.array([-1.8])
    head = L.Dense(outputs, "sigmoid" if outputs == 1 else None)
    model = keras.Sequential([keras.Input(x.shape[1:]), L.GlobalAveragePooling2D(), head])
    head.set_weights([np.tile(np.linspace(0, 1, max(outputs, 2))[-outputs:], (x.shape[3], 1)), bias])
    last = max(outputs, 2) - 1
    classifier = as_classifier(model)
    assert (np.asarray(classifier(tf.constant(x[:50]))).argmax(axis=1) != last).mean() > 0.5
    with pytest.raises(
        InputError, match=r"one class, of which [0-9.]+ % of \d+ images are right in \[0, 1\], and all"
    ) as error:
        understood(classifier, x, np.full(len(x), last))
    assert "--input-range" in str(error.value)
    # Of several classes the same model is asked nothing.
    y = np.asarray(classifier(tf.constant(x))).argmax(axis=1)
    y[:3] = last
    assert understood(as_classifier(model), x, y).conventions.input_range == "auto"
