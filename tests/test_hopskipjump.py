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
from kerasrobust.classifier import as_classifier
from kerasrobust.errors import InputError

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
    assert np.median(result.distance[3:] / exact[3:]) < 1.1
    assert result.gradients == 0


@pytest.mark.parametrize("norm", NORMS)
def test_more_queries_come_nearer(norm: Any, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]) -> None:
    y = labels_of(linear, X, 0)
    few, more, many = (HopSkipJump(norm=norm, steps=steps)(linear, X, y) for steps in (1, 3, 8))
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
    result = HopSkipJump(norm=norm, steps=2)(small, X, y)
    assert result.success.all()
    assert (labels_of(small, X + 0.99 * (result.x_adv - X), 0) == y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_gradients_is_fooled(norm: Any, small: keras.Model) -> None:
    def rounded(x: tf.Tensor) -> tf.Tensor:
        return small(tf.round(x * 32) / 32)

    y = labels_of(rounded, X, 0)  # type: ignore[arg-type]
    one, six = (HopSkipJump(norm=norm, steps=steps)(rounded, X, y) for steps in (1, 6))
    assert six.success.all()
    assert six.median_distance < 0.9 * one.median_distance


@pytest.mark.parametrize("norm", NORMS)
def test_equal_seeds_give_equal_results_in_any_batch(norm: Any, linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = HopSkipJump(norm=norm, steps=2, initial_queries=30)
    whole, again, other = (attack(linear, X, y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    assert not np.array_equal(whole.x_adv, other.x_adv)
    parts = attack(linear, X[::-1], y[::-1], seed=1, batch_size=7)
    # The logits of a smaller batch may be rounded otherwise, and a decision at the boundary with them.
    np.testing.assert_allclose(whole.distance, parts.distance[::-1], rtol=0.02)
    apart = np.abs(whole.x_adv - parts.x_adv[::-1]).max(axis=(1, 2, 3))
    assert np.median(apart) < 1e-5


def test_directions_of_two_examples_are_unlike(two_classes: tuple[keras.Model, np.ndarray, np.ndarray]) -> None:
    """With one random direction in one step, the way of each example shows which one that was."""
    model, *_ = two_classes
    y = labels_of(model, X, 0)
    result = HopSkipJump(steps=1, initial_queries=1)(model, X, y)
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
    as_classifier(counted, image_shape=SHAPE)
    seen[0] = 0
    told: list[Step] = []
    attack = HopSkipJump(norm=norm, steps=2, initial_queries=20, eot=eot)
    result = attack(counted, X, y, progress=told.append)
    assert result.forwards == seen[0]
    # 20 + 28 directions; three searches of 12 halvings (192^1.5 is above 2^11); the image, at least one start and two
    # steps, what `finish` asks; the verdicts aside.
    each = result.forwards / 16 - 2
    assert eot * (48 + 36 + 1 + 1 + 2 + 1) <= each < eot * (48 + 36 + 30)
    assert told[-1].forwards == result.forwards


def test_defaults_stay_within_5000_queries(linear: keras.Model) -> None:
    y = labels_of(linear, X, 0)
    assert HopSkipJump()(linear, X, y).forwards / len(X) < 5000


def test_noise_that_is_one_class_leaves_coarser_noise() -> None:
    """Class 1 where pixels side by side are unlike, so that only an image of large squares is of class 0."""

    def rough(x: tf.Tensor) -> tf.Tensor:
        edges = tf.reduce_mean(tf.abs(x[:, :, 1:] - x[:, :, :-1]), axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(edges), edges - 0.05], axis=1)

    y = np.ones(16, np.int64)
    result = HopSkipJump(norm="l2", steps=1)(rough, X, y)
    assert result.success.all()


def test_what_nothing_fools_is_returned_as_it_is() -> None:
    """f = x_0 - 1.2 has its boundary outside of the box: no start is found, and the queries for one are all it costs."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = HopSkipJump()(model, X, np.zeros(16, np.int64))
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)
    assert np.isinf(result.median_distance)
    assert result.forwards < 16 * 80


def test_an_image_without_a_start_does_not_disturb_others(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """Class 2 is never left: images that claim to be of it stay, the others are fooled."""

    def model(x: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(x, [-1, PIXELS])
        sure = tf.cast(flat[:, :1] < 2, tf.float32) * 100 * tf.cast(tf.reduce_mean(flat[:, :96]) > -1, tf.float32)
        lead = flat @ tf.constant(weights[0][:, :1] - weights[0].mean())
        return tf.concat([lead - 0.5, -lead, sure * 0 - 100], axis=1)

    y = labels_of(model, X, 0)  # type: ignore[arg-type]
    result = HopSkipJump(norm="l2", steps=3)(model, X, y)
    assert result.success.all()


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_is_wrong_already_has_distance_0(early_stop: bool, linear: keras.Model) -> None:
    y = labels_of(linear, X, 5)
    result = HopSkipJump(steps=1)(linear, X, y, early_stop=early_stop)
    np.testing.assert_array_equal(result.distance[:5], 0)
    assert (result.distance[5:] > 0).all()
    assert result.success.all()


def test_decisions_of_a_randomized_network_are_means(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    result = HopSkipJump(norm="l2", steps=3, initial_queries=30, eot=4)(randomized, X, y, passes=10)
    assert np.isfinite(result.x_adv).all()
    assert result.correct_rate.mean() < result.clean_rate.mean() - 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "step"),
        ({"initial_queries": 0}, "query"),
        ({"norm": "l1"}, "linf, l2"),
        ({"targeted": True}, "targeted=False"),
        ({"eot": 0}, "EOT"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HopSkipJump(**settings)
