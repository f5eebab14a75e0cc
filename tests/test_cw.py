"""Carlini and Wagner's attack against closed forms on linear models, and its search for the price by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, labels_of, linear_model, soft

from kerasrobust.attacks import DeepFool
from kerasrobust.attacks.cw import CW
from kerasrobust.errors import InputError

X = images(20)


def boundaries(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, lead: float = 0.0) -> np.ndarray:
    """Returns the L2 distance at which each class wins over the label by `lead`, (N, K), infinite for the label."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    gaps = logits[np.arange(len(x)), y][:, None] - logits + lead
    speeds = np.linalg.norm(kernel.T[None].astype(np.float64) - kernel.T[y][:, None], axis=2)
    return np.where(speeds > 0, np.maximum(gaps, 0) / np.maximum(speeds, 1e-30), np.inf)


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_linear_boundaries_are_found(
    confidence: float, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    y = labels_of(linear, X, 0)
    result = CW(confidence=confidence)(linear, X, y)
    exact = boundaries(*weights, X, y, confidence).min(axis=1)
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    assert float(np.median(result.distance / exact)) <= 1.01
    assert (result.distance <= exact * 1.03 + 1e-3).all()
    assert result.gradients == 20 * 9 * CW().steps


def test_targets_are_reached_at_their_own_boundaries(weights: tuple[np.ndarray, np.ndarray]) -> None:
    kernel, bias = soft(weights)
    # Of two classes besides a hopeless third one: what is between the image and its target is the target's boundary.
    model = linear_model(kernel[:, :3], np.array([bias[0], bias[1], -50], np.float32))
    y = labels_of(model, X, 0)
    target = 1 - y
    result = CW(targeted=True, initial_c=1.0)(model, X, y, target=target)
    exact = boundaries(kernel[:, :2], bias[:2], X, y)[np.arange(20), target]
    np.testing.assert_array_equal(result.prediction_adv, target)
    assert float(np.median(result.distance / exact)) <= 1.01
    assert (result.distance >= exact * 0.9999).all()


def one_pixel(x: tf.Tensor) -> tf.Tensor:
    """Returns the logits 0 and x - 0.7 of an image of one pixel."""
    lead = tf.reshape(x, [-1]) - 0.7
    return tf.stack([tf.zeros_like(lead), lead], axis=1)


@pytest.mark.parametrize(
    ("prices", "initial_c", "found"),
    [
        # At 0.5 the price of staying is 0.2 c, and |d|^2 + c (0.2 - d) is least at d = c / 2: fooled where c > 0.4.
        (1, 0.3, False),
        (1, 0.5, True),
        # 0.03, then 0.3, then 3.
        (2, 0.03, False),
        (3, 0.03, True),
        # 3 fools, and half of it as well; then 0.75 and 0.375, which doesn't.
        (4, 3.0, True),
    ],
)
def test_prices_by_hand(prices: int, initial_c: float, found: bool) -> None:
    x, y = np.full((1, 1, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    # Steps of this size don't reach past c / 2 on their way.
    result = CW(binary_steps=prices, initial_c=initial_c, steps=400, learning_rate=0.005)(one_pixel, x, y)
    assert bool(result.success[0]) == found
    if found:
        assert result.distance[0] == pytest.approx(0.2, abs=0.005)


def test_first_step_by_hand() -> None:
    """Adam's first step is the learning rate in w, whatever the gradient: x = (tanh(0 + 0.1) + 1) / 2."""
    x, y = np.full((1, 1, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)

    def nearly(x: tf.Tensor) -> tf.Tensor:
        return one_pixel(x + 0.16)

    # Of the two iterates that are looked at, 0.5 and 0.549834, the second one is beyond 0.54.
    result = CW(steps=1, binary_steps=1, learning_rate=0.1)(nearly, x, y)
    assert result.x_adv.item() == pytest.approx((np.tanh(0.1) + 1) / 2, abs=3e-6)


def test_images_of_black_and_white_stay_in_the_box_and_move(linear: keras.Model) -> None:
    """They begin where tanh is almost flat: 7.25 away from grey in w, which takes long steps."""
    x = X.round()
    y = labels_of(linear, x, 0)
    result = CW(steps=60, learning_rate=0.5)(linear, x, y)
    assert result.success.all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert (result.distance < np.linalg.norm((0.5 - x).reshape(20, -1), axis=1)).all()


def test_distances_are_not_above_those_of_deepfool(small: keras.Model) -> None:
    y = labels_of(small, X[:8], 0)
    rough = DeepFool(norm="l2")(small, X[:8], y)
    result = CW()(small, X[:8], y)
    assert result.success.all()
    assert result.median_distance <= rough.median_distance * 1.02


def test_boundary_outside_of_the_box_is_not_reached() -> None:
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = CW(steps=10)(model, X, np.zeros(20, np.int64))
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_is_wrong_already_has_distance_0(early_stop: bool, linear: keras.Model) -> None:
    y = labels_of(linear, X, 8)
    result = CW(steps=20)(linear, X, y, early_stop=early_stop)
    np.testing.assert_allclose(result.distance[:8], 0, atol=1e-4)
    assert (result.distance[8:] > 0.01).all()


def test_repeats_and_does_not_depend_on_the_batch(linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = CW(steps=10, learning_rate=0.05, initial_c=0.1)
    whole, again = (attack(linear, X, y, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    parts = attack(linear, X[::-1], y[::-1], batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv[::-1], atol=1e-4)


def test_eot_averages_what_a_randomized_network_says(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    attack = CW(eot=6, steps=30, binary_steps=4, initial_c=0.3, learning_rate=0.05)
    results = [attack(randomized, X, y, passes=50, early_stop=False, seed=seed) for seed in (0, 1, 2)]
    assert all(np.isfinite(result.x_adv).all() for result in results)
    assert np.mean([result.clean_rate.mean() - result.correct_rate.mean() for result in results]) > 0.15
    assert results[0].gradients == 20 * 120 * 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "step"),
        ({"binary_steps": 0}, "binary"),
        ({"initial_c": 0.0}, "initial_c"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"confidence": -0.1}, "confidence"),
        ({"norm": "linf"}, "l2"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CW(**settings)
