"""Which arithmetic "auto" means follows a measurement, and whatever it is, verdicts are the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import FASTEST, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import FAB, PGD, DeepFool
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.names import Precision
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.cloning import with_precision
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.randomizing import randomize
from kerasrobust.training.adversarial import training_precision
from kerasrobust.twins import precision

X = images(20)


@pytest.fixture(autouse=True)
def probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_fastest", FASTEST)


@pytest.fixture
def fresh() -> keras.Model:
    """A convnet that nothing has been measured on."""
    keras.utils.set_random_seed(3)
    return build_model("convnet", image_shape=SHAPE, classes=4, widths=(4, 8))


def clock(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    """Makes the probe's measurements take given seconds: float32, folded, bfloat16, and again."""
    turn: Iterator[float] = iter(part for second in seconds * 10 for part in (0.0, second))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(turn))
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)


def test_every_precision_has_a_meaning_for_people() -> None:
    assert ("auto", *precision.MEANING) == get_args(Precision)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 0.7, 0.4], "bfloat16"),
        ([1.0, 0.7, 0.8], "folded"),
        ([1.0, 0.85, 1.2], "float32"),  # What differs by so little may be noise.
    ],
)
def test_the_fastest_arithmetic_is_chosen(
    seconds: list[float], expected: str, fresh: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, seconds)
    classifier = as_classifier(fresh)
    assert precision.chosen_precision(classifier, "auto", X) == expected
    monkeypatch.setattr(precision, "_fastest", lambda *_: 1 / 0)  # It isn't measured twice.
    assert precision.chosen_precision(classifier, "auto", X) == expected


@pytest.mark.parametrize(("seconds", "expected"), [([1.0, 0.7, 0.4], "bfloat16"), ([1.0, 0.5, 0.6], "folded")])
def test_beside_a_gpu_several_gradients_are_timed_at_once_and_xla_is_not_tried(
    seconds: list[float], expected: str, linear: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, seconds)
    monkeypatch.setattr(precision, "on_gpu", lambda: True)
    times = []
    repeated = precision._repeated
    monkeypatch.setattr(precision, "_repeated", lambda slope, count: times.append(count) or repeated(slope, count))
    classifier = as_classifier(linear)
    assert precision.chosen_precision(classifier, "auto", X) == expected
    assert set(precision._twins(classifier).made) == {"folded", "bfloat16"}
    assert times == [10, 10, 10]


def test_what_follows_gradients_takes_as_many_and_moves_nothing(linear: keras.Model) -> None:
    taken = []

    def slope(x: tf.Tensor) -> tf.Tensor:
        tf.numpy_function(lambda: taken.append(1) or np.float32(0), [], tf.float32)
        return x

    moved = tf.function(precision._repeated(slope, 7))(tf.constant(X))
    assert len(taken) == 7
    np.testing.assert_allclose(moved, X, atol=1e-6)


def test_xla_gets_whole_batches_and_no_noise(small: keras.Model) -> None:
    classifier = as_classifier(small)
    assert precision.of(classifier, "folded", X).any_batch
    assert not precision.of(classifier, "folded-xla", X).any_batch
    with pytest.raises(InputError, match=r"without noise.*Use bfloat16"):
        precision.of(as_classifier(randomize(small, 0.2)), "bfloat16-xla", X)


def test_a_cheap_network_is_attacked_as_it_is(fresh: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [1e-3, 1e-9, 1e-9])
    assert precision.chosen_precision(as_classifier(fresh), "auto", X) == "float32"


def test_gradients_that_point_elsewhere_are_not_taken(fresh: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose logits are tiny differences of large numbers: nothing of them is left in bfloat16."""
    x = keras.Input(SHAPE)
    dense = keras.layers.Dense(8)
    turned = keras.ops.sin(dense(keras.layers.Dense(8)(keras.layers.Flatten()(x))))
    big = keras.Model(x, keras.layers.Dense(4)(turned))
    dense.set_weights([np.random.default_rng(0).normal(size=(8, 8)), np.full(8, 1000.0)])
    clock(monkeypatch, [1.0, 0.95, 0.1])
    assert precision.chosen_precision(as_classifier(big), "auto", X) == "float32"


def test_layers_that_cannot_be_rebuilt_are_attacked_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    head = keras.layers.Dense(4, activation=lambda x: keras.ops.sin(x))
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), head])
    clock(monkeypatch, [1.0, 0.1, 0.1])
    assert precision.chosen_precision(as_classifier(model), "auto", X) == "float32"
    with pytest.raises(InputError, match="Use float32"):
        precision.of(as_classifier(model), "bfloat16", X)


class Centred(keras.Sequential):
    """Layers in a row, and a step of its own before them, which a copy made of its layers wouldn't have."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(2 * inputs - 1, training=training)


class Forgetful(keras.layers.Layer):
    """Its configuration doesn't say its factor."""

    factor = 1.0

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor


def centred() -> keras.Model:
    images = keras.Input(SHAPE)
    inner = Centred([keras.Input(SHAPE), keras.layers.Conv2D(4, 3), keras.layers.ReLU(), keras.layers.Flatten()])
    return keras.Model(images, keras.layers.Dense(4)(inner(images)))


def forgetful() -> keras.Model:
    layer = Forgetful()
    layer.factor = 3.0
    return keras.Sequential([keras.Input(SHAPE), layer, keras.layers.Flatten(), keras.layers.Dense(4)])


@pytest.mark.parametrize("make", [centred, forgetful])
def test_what_its_layers_do_not_tell_has_no_twin(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    clock(monkeypatch, [1.0, 0.1, 0.1])
    assert precision.chosen_precision(as_classifier(model), "auto", X) == "float32"
    for word in ("folded", "bfloat16"):
        with pytest.raises(InputError, match="Use float32"):
            precision.of(as_classifier(model), word, X[:0])
        with pytest.raises(InputError, match="Use float32"):
            training_precision(model, word)
    if make is centred:
        with pytest.raises(InputError, match="Centred"):
            with_precision(model, "mixed_bfloat16")


class Block(keras.layers.Layer):
    """Holds a model that it doesn't always use."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.way = keras.layers.Conv2D(4, 3)
        self.short = keras.Sequential([keras.layers.Conv2D(4, 1)])

    def call(self, inputs: Any) -> Any:
        return self.way(inputs)


def test_a_model_in_a_layer_that_was_never_called_is_no_hindrance() -> None:
    model = keras.Sequential([keras.Input(SHAPE), Block(), keras.layers.Flatten(), keras.layers.Dense(4)])
    twin = precision.of(as_classifier(model), "folded", X)
    np.testing.assert_allclose(twin.run(X), model(X), rtol=1e-4, atol=1e-4)


def test_what_has_no_twin_is_attacked_as_it_is(weights: Any) -> None:
    kernel, bias = weights
    for model in (lambda x: x[:, 0, :4, 0], Subclassed(kernel, bias)):
        classifier = as_classifier(model, image_shape=SHAPE)
        assert precision.chosen_precision(classifier, "auto", X) == "float32"


class Subclassed(keras.Model):
    def __init__(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.inner = linear_model(kernel, bias)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.inner(x)


@pytest.mark.parametrize("kind", ["float32", "folded", "bfloat16", "folded-xla", "bfloat16-xla"])
def test_verdicts_are_the_models_own(kind: str, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    result = PGD(epsilon=0.03, steps=5)(small, X, y, precision=kind, batch_size=8)
    np.testing.assert_array_equal(result.prediction_adv, np.asarray(small(result.x_adv)).argmax(axis=1))
    assert result.success.mean() > 0


def test_slack_is_how_far_the_margins_differ(small: keras.Model) -> None:
    classifier = as_classifier(small)
    exact, folded, rough = (precision.of(classifier, kind, X) for kind in ("float32", "folded", "bfloat16"))
    assert exact is classifier
    assert exact.slack == 0
    assert 0 < folded.slack < 1e-3 < rough.slack < 1
    ours, theirs = (np.sort(network.run(X), axis=1) for network in (classifier, rough))
    gaps = np.abs((ours[:, -1] - ours[:, -2]) - (theirs[:, -1] - theirs[:, -2]))
    assert gaps.max() <= rough.slack * (1 + 1e-6)


def test_success_in_bfloat16_is_success_in_float32(small: keras.Model) -> None:
    """An example is done when its lead is beyond the slack, so the model itself agrees."""
    y = labels_of(small, X, 0)
    exact, rough = (PGD(epsilon=0.02, steps=20)(small, X, y, precision=kind) for kind in ("float32", "bfloat16"))
    assert abs(int(exact.success.sum()) - int(rough.success.sum())) <= 1


@pytest.mark.parametrize("attack", [DeepFool(steps=10), FAB(steps=10)])
def test_the_nearest_example_is_looked_for_in_float32(attack: Any, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    one, other = (attack(small, X, y, precision=kind) for kind in ("folded", "bfloat16"))
    np.testing.assert_array_equal(one.x_adv, other.x_adv)
    assert one.precision == other.precision == "folded"


def test_an_evaluation_says_in_which_arithmetic_each_attack_ran(small: keras.Model) -> None:
    attacks = [PGD(epsilon=0.02, steps=2), DeepFool(steps=2)]
    found = evaluate(small, X, labels_of(small, X, 0), attacks=attacks, precision="bfloat16", audit=False)
    assert found.precision == "bfloat16, folded"
    assert [report.result.precision for report in found.attacks] == ["bfloat16", "folded"]


def test_a_randomized_network_has_twins_with_its_noise(small: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [1.0, 0.7, 0.9])
    model = randomize(small, 0.2)
    classifier = as_classifier(model)
    assert precision.chosen_precision(classifier, "auto", X) == "folded"
    assert precision.of(classifier, "folded", X).slack < 1e-3, "the same key gives the same noise"


def test_a_twin_of_probabilities_is_taken_by_their_logarithm(small: keras.Model) -> None:
    """A softmax that isn't seen as one: model and twin are attacked through the same logits."""
    model = keras.Model(small.inputs, keras.layers.Softmax(axis=-1, name="hidden")(small.outputs[0]) * 1.0)
    classifier = as_classifier(model)
    assert any(code == "softmax-output" for code, _ in classifier.warnings)
    twin = precision.of(classifier, "folded", X)
    np.testing.assert_allclose(twin.run(X), classifier.run(X), rtol=1e-3, atol=1e-3)
    assert float(twin.run(X).max()) <= 0


def test_a_twin_that_says_otherwise_is_not_taken(fresh: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer with a state that isn't among its weights comes back without it."""
    layer = Forgetful()
    layer.factor = -5.0
    model = keras.Sequential([keras.Input(SHAPE), fresh, layer])
    clock(monkeypatch, [1.0, 0.1, 0.1])
    assert precision.chosen_precision(as_classifier(model), "auto", X) == "float32"
