"""HopSkipJump against the closed form: on a linear model the distance to the nearest boundary is min |f| / |w|_q."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import Step
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier

X = images(16)
NORMS: list[Any] = ["linf", "l2"]
DUAL = {"linf": 1, "l2": 2}


def nearest(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Returns min over k of |f_k - f_y| / |w_k - w_y|_q in float64, (N,)."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    gaps = np.abs(logits - logits[np.arange(len(x)), y][:, None])
    slopes = kernel.T[None].astype(np.float64) - kernel.T[y][:, None]
    speeds = np.linalg.norm(slopes, ord=DUAL[norm], axis=2)
    return np.where(speeds > 0, gaps / np.maximum(speeds, 1e-30), np.inf).min(axis=1)


@pytest.fixture(scope="module")
def two_classes(weights: tuple[np.ndarray, np.ndarray]) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A linear model with one boundary, near to all of `X`: its kernel and bias as well."""
    kernel = weights[0][:, :2]
    bias = np.array([-0.5 * (kernel[:, 0] - kernel[:, 1]).sum(), 0], np.float32)
    return linear_model(kernel, bias), kernel, bias


@pytest.mark.parametrize("norm", NORMS)
def test_the_linear_boundary_is_found(norm: Any, two_classes: tuple[keras.Model, np.ndarray, np.ndarray]) -> None:
    model, kernel, bias = two_classes
    y = labels_of(model, X, 3)
    result = HopSkipJump(norm=norm)(model, X, y)
    exact = nearest(kernel, bias, X, y, norm)
    exact[:3] = 0  # Wrong from the start.
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    np.testing.assert_array_equal(result.distance[:3], 0)
    # Signs of an estimate waste more of it than its direction does.
    assert (result.distance[3:] <= exact[3:] * (1.08 if norm == "l2" else 1.2)).all()
    assert result.gradients == 0


@pytest.mark.parametrize("norm", NORMS)
def test_more_queries_come_nearer(norm: Any, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]) -> None:
    y = labels_of(linear, X, 0)
    few, more, many = (HopSkipJump(norm=norm, queries=queries)(linear, X, y) for queries in (200, 500, 1_500))
    for result in (few, more, many):
        assert result.success.all()
        assert (result.distance >= nearest(*weights, X, y, norm) * 0.9999).all()
    # The nearest of all points is kept, so no step takes anything back.
    assert (more.distance <= few.distance).all()
    assert (many.distance <= more.distance).all()
    assert many.median_distance < 0.7 * few.median_distance


@pytest.mark.parametrize("norm", NORMS)
def test_the_result_lies_just_behind_the_boundary(norm: Any, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    result = HopSkipJump(norm=norm, queries=400)(small, X, y)
    assert result.success.all()
    assert (labels_of(small, X + 0.99 * (result.x_adv - X), 0) == y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_gradients_is_fooled(norm: Any, small: keras.Model) -> None:
    def rounded(x: tf.Tensor) -> tf.Tensor:
        return small(tf.round(x * 32) / 32)

    y = np.asarray(rounded(tf.constant(X))).argmax(axis=1)
    network = as_classifier(rounded, image_shape=SHAPE)
    few, many = (HopSkipJump(norm=norm, queries=queries)(network, X, y) for queries in (200, 1_500))
    assert many.success.all()
    assert many.median_distance < 0.9 * few.median_distance


@pytest.mark.parametrize("norm", NORMS)
def test_equal_seeds_give_equal_results_in_any_batch(norm: Any, linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = HopSkipJump(norm=norm, queries=150, initial_queries=30)
    whole, again, other = (attack(linear, X, y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    assert not np.array_equal(whole.x_adv, other.x_adv)
    parts = attack(linear, X[::-1], y[::-1], seed=1, batch_size=7)
    # The logits of a smaller batch may be rounded otherwise, and a decision at the boundary with them.
    np.testing.assert_allclose(whole.distance, parts.distance[::-1], rtol=0.02)
    apart = np.abs(whole.x_adv - parts.x_adv[::-1]).max(axis=(1, 2, 3))
    assert np.median(apart) < 1e-5


def test_directions_of_two_examples_are_unlike(two_classes: tuple[keras.Model, np.ndarray, np.ndarray]) -> None:
    """With two random directions in one round, the way of each example shows which ones those were."""
    model, *_ = two_classes
    y = labels_of(model, X, 0)
    result = HopSkipJump(queries=30, initial_queries=2)(model, X, y)
    ways = np.sign(result.x_adv - X).reshape(16, -1)
    likeness = ways @ ways.T / PIXELS - np.eye(16)
    assert np.abs(likeness).max() < 0.5


@pytest.mark.parametrize(("norm", "eot"), [("linf", 1), ("l2", 1), ("l2", 3)])
def test_queries_told_are_those_that_a_network_sees(norm: Any, eot: int, small: keras.Model) -> None:
    seen = [0]

    def count(x: np.ndarray) -> np.ndarray:
        seen[0] += len(x)
        return x

    def counted(x: tf.Tensor) -> tf.Tensor:
        return small(tf.ensure_shape(tf.numpy_function(count, [x], tf.float32), x.shape))

    y = labels_of(small, X, 0)
    network = as_classifier(counted, image_shape=SHAPE, input_range=(0, 1), colors="rgb")
    seen[0] = 0
    told: list[Step] = []
    attack = HopSkipJump(norm=norm, queries=150, initial_queries=20, eot=eot)
    result = attack(network, X, y, progress=told.append)
    assert result.forwards == seen[0]
    assert told[-1].forwards == result.forwards


def test_noise_that_is_one_class_leaves_coarser_noise() -> None:
    """Class 1 where pixels side by side are unlike, so that only an image of large squares is of class 0."""

    def rough(x: tf.Tensor) -> tf.Tensor:
        edges = tf.reduce_mean(tf.abs(x[:, :, 1:] - x[:, :, :-1]), axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(edges), edges - 0.05], axis=1)

    y = np.ones(16, np.int64)
    result = HopSkipJump(norm="l2", queries=200)(rough, X, y)
    assert result.success.all()


def test_what_nothing_fools_is_returned_as_it_is() -> None:
    """f = x_0 - 1.2 has its boundary outside of the box: no start is found."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = HopSkipJump(queries=200)(model, X, np.zeros(16, np.int64))
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)
    assert np.isinf(result.median_distance)


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_is_wrong_already_has_distance_0(early_stop: bool, linear: keras.Model) -> None:
    y = labels_of(linear, X, 5)
    result = HopSkipJump(queries=200)(linear, X, y, early_stop=early_stop)
    np.testing.assert_array_equal(result.distance[:5], 0)
    assert (result.distance[5:] > 0).all()
    assert result.success.all()


def test_what_a_randomized_network_never_surely_misclassifies_is_left_alone(randomized: keras.Model) -> None:
    """Noise blocks are of class 0 to it in most passes, and of another in some."""
    y = labels_of(randomized, X, 0)
    result = HopSkipJump(norm="l2", queries=300, initial_queries=30, eot=20)(randomized, X, y, passes=100)
    moved = result.distance > 0
    assert 0 < moved.sum() < 8 and result.success[moved].all()
    np.testing.assert_array_equal(result.x_adv[~moved], X[~moved])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "query"),
        ({"gamma": 0.0}, "gamma"),
        ({"initial_queries": 0}, "queries"),
        ({"norm": "l1"}, "linf, l2"),
        ({"targeted": True}, "takes targets"),
        ({"eot": 0}, "EOT"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HopSkipJump(**settings)
