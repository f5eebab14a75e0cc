"""DeepFool against the closed form: on a linear model the distance to the nearest boundary is min |f| / |w|_q."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import DeepFool, Step

X = images(30)
DUAL = {"linf": 1, "l2": 2}


def nearest(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Returns min over k of |f_k - f_y| / |w_k - w_y|_q in float64, (N,)."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    found = np.full(len(x), np.inf)
    for label in range(kernel.shape[1]):
        gap = np.abs(logits[:, label] - logits[np.arange(len(x)), y])
        speed = np.linalg.norm((kernel[:, [label]] - kernel[:, y]).astype(np.float64), ord=DUAL[norm], axis=0)
        found = np.minimum(found, np.where(y == label, np.inf, gap / np.where(speed == 0, 1, speed)))
    return found


@pytest.mark.parametrize("settings", [{}, {"steps": 1}, {"candidates": 3}, {"overshoot": 0.1}])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_boundary_is_reached_in_one_step(
    norm: Any, settings: dict[str, Any], linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    y = labels_of(linear, X, 0)
    result = DeepFool(norm=norm, **settings)(linear, X, y)
    exact = nearest(*weights, X, y, norm)
    overshoot = settings.get("overshoot", 0.02)
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    # Besides the overshoot: the nudge across the boundary, and float32's rounding of images.
    assert (result.distance <= exact * (1 + overshoot) + 3e-4 * (1 if norm == "l2" else 0.02)).all()
    assert result.median_distance == pytest.approx(float(np.median(exact)) * (1 + overshoot), rel=0.02)


def test_one_step_is_enough_and_a_second_sees_it(linear: keras.Model) -> None:
    y = labels_of(linear, X, 0)
    told: list[Step] = []
    result = DeepFool()(linear, X, y, progress=told.append)
    # Three rivals of each image, twice: the second Jacobian finds that the label has flipped.
    assert result.gradients == 30 * 3 * 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_batches_of_many_and_few_candidates_agree(norm: Any, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    every, three = (DeepFool(norm=norm, candidates=count)(small, X, y) for count in (None, 3))
    np.testing.assert_allclose(every.x_adv, three.x_adv, atol=1e-5)
    nearest_only = DeepFool(norm=norm, candidates=1)(small, X, y)
    assert nearest_only.success.all()
    assert nearest_only.median_distance >= every.median_distance * 0.9
    assert nearest_only.gradients < every.gradients


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_network_is_fooled_just_behind_its_boundary(norm: Any, small: keras.Model) -> None:
    """A tenth less of the perturbation is not enough: the attack doesn't overshoot by more than it says."""
    y = labels_of(small, X, 0)
    result = DeepFool(norm=norm)(small, X, y)
    assert result.success.all()
    assert (labels_of(small, X + 0.9 * (result.x_adv - X), 0) == y).mean() >= 0.9


def test_what_is_wrong_already_has_distance_0(linear: keras.Model) -> None:
    y = labels_of(linear, X, 10)
    for early_stop in (True, False):
        result = DeepFool()(linear, X, y, early_stop=early_stop)
        np.testing.assert_array_equal(result.distance[:10], 0)
        assert (result.distance[10:] > 0).all()
        assert result.success.all()


def test_ties_count_as_the_boundary_and_are_crossed(weights: tuple[np.ndarray, np.ndarray]) -> None:
    kernel = weights[0][:, :2].copy()
    kernel[:, 1] = -kernel[:, 0]

    shift = (0.5 * kernel[:, 0].sum()).astype(np.float32)
    model = linear_model(kernel, np.array([-shift, shift], np.float32))
    grey = np.full((1, *SHAPE), 0.5, np.float32)
    y = labels_of(model, grey, 0)
    result = DeepFool()(model, grey, y)
    assert result.success.all()
    assert result.distance[0] < 1e-3


def test_boundary_behind_the_edge_of_the_box_is_not_reached() -> None:
    """f = x_0 - 1.2 has its boundary outside of [0, 1]: the attack fails, and its distance counts as infinite."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = DeepFool()(model, X, np.zeros(30, np.int64))
    assert not result.success.any()
    assert np.isinf(result.median_distance)
    assert result.x_adv.max() <= 1


def test_a_flat_network_is_left_alone() -> None:
    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reshape(x, (-1, PIXELS))[:, :3])

    y = X.reshape(30, -1)[:, :3].argmax(axis=1)
    result = DeepFool()(flat, X, y)
    np.testing.assert_array_equal(result.x_adv, X)
    assert not result.success.any()


def test_eot_averages_the_linearisation(weights: tuple[np.ndarray, np.ndarray], randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    result = DeepFool(norm="l2", eot=8, steps=10)(randomized, X, y, passes=10)
    before, after = result.clean_rate.mean(), result.correct_rate.mean()
    assert after < before - 0.15
