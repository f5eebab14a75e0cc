"""One output that was trained towards the numbers 0 and 1, held to the network's own threshold of 0.5."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from keras import layers as L

import kerasrobust as kr
from kerasrobust.attacks import FGSM
from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.adapters.regression import as_regression
from kerasrobust.networks.making import as_classifier, classifier_of

SHAPE = (8, 8, 1)
EPSILON = 0.06


def drawn(count: int, spread: float = 0.06) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of two classes, which differ in brightness: 0.4 and 0.6 in the mean."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, count)
    bright = 0.4 + 0.2 * y + draw.normal(0, spread, count)
    x = bright[:, None, None, None] + draw.normal(0, 0.02, (count, *SHAPE))
    return np.clip(x, 0, 1).astype(np.float32), y


X, Y = drawn(300)


def linear(slope: float, at: float, *before: L.Layer, low: float = 0.0, high: float = 1.0) -> keras.Model:
    """Returns slope * (brightness - 0.5) + at, for pixels from `low` to `high`."""
    last = L.Dense(1)
    model = keras.Sequential([keras.Input(SHAPE), *before, L.Flatten(), last])
    size = np.prod(SHAPE)
    wide = high - low
    last.set_weights([np.full((size, 1), slope / size / wide), np.array([at - slope * (0.5 + low / wide)])])
    return model


def robust(x: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    """Returns the share of images that stay right if each pixel moves by epsilon: exact for a monotone network."""
    bright = x.mean(axis=(1, 2, 3), dtype=np.float64)
    return float(np.where(y == 1, bright - epsilon > 0.5, bright + epsilon <= 0.5).mean())


@pytest.mark.parametrize(
    ("before", "low", "high"),
    [((), 0, 1), ((), -1, 1), ((), 0, 255), ((L.Rescaling(1 / 255),), 0, 255)],
    ids=["0,1", "-1,1", "0,255", "rescaling"],
)
def test_its_threshold_is_found_in_every_range(before: tuple[L.Layer, ...], low: float, high: float) -> None:
    # A Rescaling inside takes the pixels to [0, 1] itself.
    inside = (0.0, 1.0) if before else (low, high)
    model = linear(3.0, 0.5, *before, low=inside[0], high=inside[1])
    found = kr.evaluate(model, X, Y, attacks=FGSM(epsilon=EPSILON), audit=False)
    own = model.predict(X * (high - low) + low, verbose=0)[:, 0] > 0.5
    assert found.clean_accuracy == (own == Y).mean() > 0.9
    assert found.robust_accuracy == pytest.approx(robust(X, Y, EPSILON))
    assert found.conventions["outputs"] == "regression"
    assert "one number, near 0 or 1" in found.findings[0].message


def test_callables_are_read_alike() -> None:
    model = linear(3.0, 0.5)
    for function in (tf.function(lambda x: model(x)), lambda x: model(x)[:, 0]):
        found = understood(as_classifier(function, image_shape=SHAPE), X, Y)
        assert found.conventions.outputs == "regression"
        np.testing.assert_array_equal(found.run(X).argmax(axis=1), model(X).numpy()[:, 0] > 0.5)


@pytest.mark.parametrize(
    ("slope", "at"),
    [(40.0, 0.0), (4.0, 0.0), (10.0, 0.0), (1.0, 0.0), (0.0, 0.5)],
    ids=["logit", "weak logit", "hinge", "weaker logit", "constant"],
)
def test_a_logit_stays_one(slope: float, at: float) -> None:
    """Also where few of its values are beyond 1: what counts is at which threshold it is right."""
    found = understood(as_classifier(linear(slope, at), input_range="0,1"), X, Y)
    assert found.conventions.outputs == "auto"


def test_images_sorted_by_class_are_mixed_first() -> None:
    x, y = drawn(1000)
    order = np.argsort(y, kind="stable")
    found = understood(as_classifier(linear(3.0, 0.5)), x[order], y[order])
    assert found.conventions.said() == {"outputs": "regression"}


def test_training_changes_what_was_found_out_of_an_untrained_network() -> None:
    model = linear(3.0, 0.5)
    trained = model.get_weights()
    x, y = drawn(400)
    model.set_weights([np.zeros_like(weights) for weights in trained])
    kr.evaluate(model, x, y, attacks=FGSM(epsilon=EPSILON), audit=False)
    model.set_weights(trained)
    found = kr.evaluate(model, x, y, attacks=FGSM(epsilon=EPSILON), audit=False)
    assert found.conventions["outputs"] == "regression"


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_few_images_make_no_regression_of_a_logit(count: int) -> None:
    for start in range(0, 200, 20):
        some = slice(start, start + count)
        found = understood(as_classifier(linear(3.0, 0.3), input_range="0,1"), X[some], Y[some])
        assert found.conventions.outputs == "auto"


def test_one_class_alone_shows_nothing() -> None:
    ones = Y == 1
    # Nor the range: large pixels make that class of every image.
    with pytest.raises(InputError, match=r"images of several classes.* % of \d+ images are right in \[0, 1\]"):
        understood(as_classifier(linear(3.0, 0.5)), X[ones], Y[ones])
    said = as_classifier(linear(3.0, 0.5), input_range="0,1")
    assert understood(said, X[ones], Y[ones]).conventions.outputs == "auto"


def dim(x: tf.Tensor) -> tf.Tensor:
    """Returns a logit from 0.1 to 0.4, also of pixels far outside [0, 1]: class 1 of every image."""
    return 0.1 + 0.3 * tf.sigmoid(tf.reduce_mean(x, axis=(1, 2, 3)))[:, None]


@pytest.mark.parametrize("arrays", [True, False])
def test_of_one_class_a_logit_that_looks_like_a_probability_is_asked_about(arrays: bool) -> None:
    """Read as a probability it is right about none of the images, and the model about all."""
    given = {"predict": lambda x: dim(tf.constant(x)).numpy()} if arrays else {"model": dim}
    ones = np.ones(40, int)
    with pytest.raises(InputError, match=r"0\.0 % are right if it is a probability.*--outputs logits") as caught:
        understood(as_classifier(**given, image_shape=SHAPE), X[:40], ones)
    assert "\n" not in str(caught.value)
    for outputs, right in (("logits", 1.0), ("sigmoid", 0.0)):
        said = understood(as_classifier(**given, image_shape=SHAPE, outputs=outputs), X[:40], ones)
        assert (said.run(X[:40]).argmax(axis=1) == 1).mean() == right
    # Of both classes it is one or the other, and of few images too little is known.
    for count, y in ((40, Y), (40, 0 * Y), (5, 0 * Y + 1)):
        understood(as_classifier(**given, image_shape=SHAPE), X[:count], y[:count])


def test_probabilities_that_are_right_are_not_asked_about() -> None:
    bright = X[Y == 1]
    found = understood(as_classifier(lambda x: tf.sigmoid(40 * (tf.reduce_mean(x, (1, 2, 3)) - 0.45))[:, None],
                                     image_shape=SHAPE), bright, np.ones(len(bright), int))  # fmt: skip
    assert found.probed.outputs == "sigmoid" and (found.run(bright).argmax(axis=1) == 1).mean() > 0.95


def test_what_was_said_is_taken() -> None:
    model = linear(3.0, 0.5)
    x, y = X[:5], Y[:5]
    said = as_classifier(model, outputs="regression")
    np.testing.assert_array_equal(understood(said, x, y).run(x).argmax(axis=1), model(x).numpy()[:, 0] > 0.5)
    assert understood(as_classifier(model, outputs="logits", input_range="0,1"), X, Y).conventions.outputs == "logits"
    three = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(3)])
    with pytest.raises(InputError, match=r"Expected one output, as regression.*with 3"):
        as_classifier(three, outputs="regression")


def test_the_command_line_finds_it_and_training_on_asks(tmp_path: Path) -> None:
    file = tmp_path / "tall.keras"
    linear(3.0, 0.5).save(file)
    np.savez(tmp_path / "own.npz", x=X, y=Y)
    common = ["--model", file, "--data", tmp_path / "own.npz", "--runs-dir", tmp_path / "runs"]
    done = call("attack", *common, "--attack", "fgsm", "--epsilon", str(EPSILON))
    assert done.status == 0 and "gives one number, near 0 or 1" in " ".join(done.out.split())
    refused = call("train", *common, "--split", "all[:200]", "--test-split", "all[200:]", "--epochs", "1")
    assert "Rescaling(4, offset=-2)" in refused.message


def test_it_is_asked_again_of_other_weights() -> None:
    """As a logit, brightness has its threshold at 0; as a number near 0 or 1, at 0.5."""
    number, logit = linear(3.0, 0.5), linear(30.0, 0.0)
    model = linear(3.0, 0.5)
    for network, outputs in ((number, "regression"), (logit, "auto"), (number, "regression")):
        model.set_weights(network.get_weights())
        kept = understood(classifier_of(model), X, Y)
        assert kept.conventions.outputs == outputs and kept is classifier_of(model)
        right = network(X).numpy()[:, 0] > (0.5 if outputs == "regression" else 0)
        np.testing.assert_array_equal(kept.run(X).argmax(axis=1), right)
    # Images of one class tell nothing, and what was found stays.
    model.set_weights(linear(3.1, 0.5).get_weights())
    assert as_regression(kept, X[Y == 1], Y[Y == 1]) is kept
