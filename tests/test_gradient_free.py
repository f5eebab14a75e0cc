"""Models without gradients: NumPy functions and graphs for predictions only are recognised, and attacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, linear_model

from kerasrobust.attacks import Attack
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.attacks.square import Square
from kerasrobust.attacks.verdict import predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.saving import load_model

X = images(9)


@pytest.fixture(scope="module")
def matrix(weights: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return weights[0].astype(np.float64), weights[1].astype(np.float64)


def logits_of(matrix: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64) @ matrix[0] + matrix[1]


class Estimator:
    """What scikit-learn's classifiers are like: an object with methods on 2-D arrays, and checks of its own."""

    def __init__(self, matrix: tuple[np.ndarray, np.ndarray]) -> None:
        self.matrix = matrix

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2:
            raise ValueError(f"Found array with dim {x.ndim}. Estimator expected 2.")
        powers = np.exp(x @ self.matrix[0] + self.matrix[1])
        return powers / powers.sum(axis=1, keepdims=True)

    def of_images(self, x: np.ndarray) -> np.ndarray:
        return self.predict_proba(x.reshape(len(x), -1))


def test_a_numpy_function_is_recognised(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    kinds: list[Any] = []

    def model(x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray):  # As a library without TensorFlow would say.
            raise TypeError(f"expected np.ndarray (got {type(x).__name__})")
        kinds.append((x.dtype, x.shape[1:]))
        return logits_of(matrix, x)

    classifier = as_classifier(model, image_shape=SHAPE)
    assert (classifier.name, classifier.classes, classifier.arrays) == ("model", 4, True)
    assert (classifier.randomized, classifier.warnings) == (False, [])
    found = predict(classifier, X, batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits_of(matrix, X), rtol=1e-5, atol=1e-5)
    assert set(kinds) == {(np.dtype(np.float32), SHAPE)}
    asked = len(kinds)
    assert not has_gradient(classifier)
    assert as_classifier(classifier) is classifier
    assert len(kinds) == asked
    assert classifier(tf.constant(X)).shape == (9, 4)
    assert len(as_classifier(classifier, image_shape=SHAPE).shapes) == 1


def test_its_shape_is_guessed_where_nobody_says_it() -> None:
    classifier = as_classifier(lambda x: np.asarray(x[:, 40, 40]) if x.shape[1] > 40 else np.empty((0, 0))[1])
    assert classifier.arrays
    assert classifier.shapes == {(96, 96, 3)}


def test_an_estimators_method_gives_probabilities(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    classifier = as_classifier(Estimator(matrix).of_images, image_shape=SHAPE)
    probabilities = tf.nn.softmax(classifier.run(X)).numpy()
    np.testing.assert_allclose(probabilities, Estimator(matrix).of_images(X), atol=1e-5)
    # The warning is about gradients, which aren't there anyway.
    assert classifier.warnings == []


def test_a_function_may_change_its_argument(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    def model(x: np.ndarray) -> np.ndarray:
        x -= 0.5
        np.multiply(x, 4, out=x)
        return logits_of(matrix, x)

    kept = X.copy()
    y = logits_of(matrix, (X - 0.5) * 4).argmax(axis=1)
    result = Square(epsilon=0.02, queries=20)(model, X, y)
    np.testing.assert_array_equal(X, kept)
    assert result.correct.all()
    assert result.distance.max() <= 0.02 + 1e-6


@pytest.mark.parametrize("attack", [Square(epsilon=0.02, queries=200), HopSkipJump(queries=400)])
def test_black_box_attacks_find_what_they_find_in_tensorflow(
    attack: Attack, matrix: tuple[np.ndarray, np.ndarray]
) -> None:
    y = logits_of(matrix, X).argmax(axis=1)

    def plain(x: np.ndarray) -> np.ndarray:
        return np.array([image.reshape(-1) @ matrix[0] for image in x]) + matrix[1]

    one = attack(plain, X, y, precision="auto")
    other = attack(linear_model(matrix[0].astype(np.float32), matrix[1].astype(np.float32)), X, y)
    np.testing.assert_array_equal(one.success, other.success)
    # Where the boundary is met within rounding the ways part a little.
    np.testing.assert_allclose(one.distance, other.distance, rtol=0.1, atol=1e-6)
    np.testing.assert_array_equal(logits_of(matrix, one.x_adv).argmax(axis=1), one.prediction_adv)


def test_labels_as_rows_are_enough_for_hopskipjump(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    def labels_only(x: np.ndarray) -> np.ndarray:
        return np.eye(4, dtype=int)[logits_of(matrix, x).argmax(axis=1)]

    y = logits_of(matrix, X).argmax(axis=1)
    classifier = as_classifier(labels_only, image_shape=SHAPE)
    few, many = (HopSkipJump(queries=queries)(classifier, X, y) for queries in (100, 1_000))
    assert many.success.all()
    assert many.median_distance < 0.8 * few.median_distance


def test_noise_of_a_numpy_function_is_found_and_averaged(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    draw = np.random.default_rng(0)

    def noisy(x: np.ndarray) -> np.ndarray:
        return logits_of(matrix, x) + draw.normal(size=(len(x), 4))

    y = logits_of(matrix, X).argmax(axis=1)
    classifier = as_classifier(noisy, image_shape=SHAPE)
    assert (classifier.randomized, classifier.seedable) == (True, False)
    assert [code for code, _ in classifier.warnings] == ["unseeded-noise"]
    result = Square(epsilon=0.1, queries=50, eot=3)(classifier, X, y, passes=4)
    assert result.forwards <= 9 * (4 + 4 + 3 * (2 * 50 + 1))
    assert result.correct_rate.mean() < result.clean_rate.mean()


class Service:
    """A remote model that is down."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x.tolist()
        raise RuntimeError("503\nno such endpoint: resnet")


BAD = {
    "labels": (lambda x: x.reshape(len(x), -1).argmax(axis=1), r"\(N, classes\).*\(8,\) for 8 images.*classes=K"),
    "one row": (lambda x: x.reshape(len(x), -1)[0, :5], r"\(N, classes\)"),
    "fewer rows": (lambda x: x.reshape(len(x), -1)[:3], r"\(3, 192\) for 8 images"),
    "NaN": (lambda x: x.reshape(len(x), -1)[:, :4] * np.nan, "NaN"),
    "own error": (Service(), "RuntimeError: 503 no such endpoint: resnet"),
    "words": (lambda x: np.array([["cat", "dog"]] * len(np.asarray(x))), "could not convert string to float: .*cat"),
    "wrong shape": (lambda x: x.reshape(len(x), 100), "cannot reshape array of size 1536"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_function_does_wrong_is_told_in_one_line(name: str) -> None:
    model, part = BAD[name]
    with pytest.raises(InputError, match=part) as caught:
        as_classifier(model, image_shape=SHAPE)
    assert "\n" not in str(caught.value)


def test_tensorflow_code_with_an_error_of_its_own_shows_that(weights: tuple[np.ndarray, np.ndarray]) -> None:
    def model(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, PIXELS]) @ weights[0]

    with pytest.raises(InputError, match=r"fails on a batch of \(9, 9, 3\) images"):
        as_classifier(model, image_shape=(9, 9, 3))


class Rounded(tf.Module):
    """A network for predictions only, as an edge device has it: weights of 8 bits and quantized images."""

    def __init__(self, kernel: np.ndarray, how: str) -> None:
        super().__init__()
        self.how = how
        self.kernel = tf.Variable(np.round(kernel * 20).astype(np.int8))

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])
    def logits(self, x: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(x, [-1, PIXELS])
        if self.how == "integers":
            sums = tf.matmul(tf.cast(tf.round(flat * 255), tf.int32), tf.cast(self.kernel, tf.int32))
            return tf.cast(sums, tf.float32) / 5000
        if self.how == "quantized":
            flat, low, high = tf.quantization.quantize(flat, 0.0, 1.0, tf.quint8)
            flat = tf.quantization.dequantize(flat, low, high)
        else:
            flat = tf.ensure_shape(
                tf.py_function(lambda part: np.round(part.numpy(), 2), [flat], tf.float32), flat.shape
            )
        return flat @ tf.cast(self.kernel, tf.float32) / 20


@pytest.mark.parametrize("how", ["integers", "quantized", "python"])
def test_a_saved_model_for_predictions_only_is_attacked(
    how: str, tmp_path: Path, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    module = Rounded(weights[0], how)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.logits)
    classifier = as_classifier(load_model(tmp_path / "m"), image_shape=SHAPE)
    assert not classifier.arrays
    assert not has_gradient(classifier)
    y = classifier.run(X).argmax(axis=1)
    for attack in (Square(epsilon=0.1, queries=100), HopSkipJump(queries=300)):
        result = attack(classifier, X, y)
        assert result.success.all()
        np.testing.assert_array_equal(classifier.run(result.x_adv).argmax(axis=1), result.prediction_adv)


@pytest.mark.parametrize("hiding", ["area", "decoded"])
def test_gradients_that_fail_are_not_asked_for_by_attacks_on_a_constant_network(hiding: str) -> None:
    """No attack changes its mind, but asking for the gradient raises, which a network without any doesn't."""

    def constant(x: tf.Tensor) -> tf.Tensor:
        if hiding == "area":
            x = tf.image.resize(x, (4, 4), "area")
        else:
            x = tf.py_function(lambda part: tf.constant(part.numpy()), [x], tf.float32)
        return tf.concat([tf.reduce_mean(x, axis=(1, 2, 3))[:, None] * 1e-9 + 1, tf.zeros([tf.shape(x)[0], 1])], axis=1)

    y = np.array([0] * 6 + [1] * 3)
    found = evaluate(as_classifier(constant, image_shape=SHAPE), X, y, attacks=["pgd", "deepfool"], audit=False)
    assert found.robust_accuracy == 6 / 9 == found.clean_accuracy
    assert "black-box-only" in [finding.code for finding in found.findings]
