"""Balls and steps: projection, steepest direction, random start, each against geometry done by hand or in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kerasrobust.ops import balls, draws

SHAPE = (3, 4, 4, 3)
NORMS = ["linf", "l2"]
unit = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
anything = arrays(np.float32, SHAPE, elements=st.floats(-3, 3, width=32))
epsilons = st.sampled_from([0.0, 1e-6, 8 / 255, 0.3, 1.0])
norms = st.sampled_from(NORMS)
ORDER = {"linf": np.inf, "l2": 2}


def norm_of(perturbation: np.ndarray, norm: str) -> np.ndarray:
    flat = np.asarray(perturbation, np.float64).reshape(len(perturbation), -1)
    return np.linalg.norm(flat, ord=ORDER[norm], axis=1)


def test_distance_by_hand() -> None:
    perturbation = np.zeros((2, 2, 2, 1), np.float32)
    perturbation[0, 0, 0, 0], perturbation[0, 1, 1, 0] = 3, -4
    np.testing.assert_array_equal(balls.distance(perturbation, "l2"), [5, 0])
    np.testing.assert_array_equal(balls.distance(perturbation, "linf"), [4, 0])


@settings(deadline=None, max_examples=60)
@given(x=unit, shift=anything, epsilon=epsilons, norm=norms)
def test_projection_ends_in_ball_and_box_and_moves_nothing_that_was_there(
    x: np.ndarray, shift: np.ndarray, epsilon: float, norm: balls.Norm
) -> None:
    once = balls.project(x + shift, x, epsilon, norm).numpy()
    assert (norm_of(once.astype(np.float64) - x, norm) <= epsilon + 1e-6).all()
    assert once.min() >= 0
    assert once.max() <= 1
    np.testing.assert_allclose(balls.project(once, x, epsilon, norm), once, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(x=unit, shift=anything, epsilon=epsilons)
def test_linf_projection_is_the_nearest_point(x: np.ndarray, shift: np.ndarray, epsilon: float) -> None:
    low, high = np.maximum(x.astype(np.float64) - epsilon, 0), np.minimum(x.astype(np.float64) + epsilon, 1)
    expected = np.clip((x + shift).astype(np.float64), low, high)
    np.testing.assert_allclose(balls.project(x + shift, x, epsilon, "linf"), expected, atol=1e-6)


def test_l2_projection_scales_by_hand() -> None:
    x = np.full((2, 2, 2, 1), 0.5, np.float32)
    shift = np.zeros_like(x)
    shift[0, 0, 0, 0], shift[0, 0, 1, 0] = 0.3, 0.4  # Length 0.5, to become 0.1.
    shift[1, 0, 0, 0] = 0.05  # Inside already.
    found = balls.project(x + shift, x, 0.1, "l2") - x
    np.testing.assert_allclose(found[0, 0, :, 0], [0.06, 0.08], atol=1e-7)
    np.testing.assert_allclose(found[1], shift[1], atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 10.0, 40.0])
def test_l2_projection_holds_the_ball_on_large_images(epsilon: float) -> None:
    draw = np.random.default_rng(0)
    x = draw.random((16, 64, 64, 3), np.float32)
    moved = x + draw.normal(size=x.shape).astype(np.float32)
    found = balls.project(moved, x, epsilon, "l2").numpy()
    assert (norm_of(found.astype(np.float64) - x, "l2") <= epsilon + 1e-6).all()


@settings(deadline=None, max_examples=40)
@given(gradient=anything, norm=norms, scale=st.sampled_from([1.0, 1e-30, 1e30]))
def test_steepest_gains_the_dual_norm_at_unit_length(gradient: np.ndarray, norm: balls.Norm, scale: float) -> None:
    gradient = gradient * np.float32(scale)
    gradient[np.abs(gradient) < 1e-36] = 0  # TensorFlow flushes what is below float32's normal range.
    step = balls.steepest(gradient, norm).numpy().astype(np.float64)
    flat = gradient.astype(np.float64).reshape(len(gradient), -1)
    dual = np.linalg.norm(flat, ord=1 if norm == "linf" else 2, axis=1)
    gain = (step.reshape(len(step), -1) * flat).sum(axis=1)
    np.testing.assert_allclose(gain, dual, rtol=1e-5)
    np.testing.assert_allclose(norm_of(step, norm), (dual > 0).astype(float), atol=1e-5)


def keys(count: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).integers(0, 2**31, (count, 2)).astype(np.int32))


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Returns the largest gap between the values' distribution and the uniform one on [0, 1]."""
    values = np.sort(values)
    steps = np.arange(1, len(values) + 1) / len(values)
    return float(np.max(np.maximum(steps - values, values - steps + 1 / len(values))))


@pytest.mark.parametrize("per_example", [True, False])
def test_linf_start_is_uniform_in_the_cube(per_example: bool) -> None:
    x = np.full((200, 8, 8, 3), 0.5, np.float32)
    start = balls.random_start(keys(200) if per_example else keys(1)[0], x, 0.1, "linf").numpy()
    values = ((start - x) / 0.2 + 0.5).ravel()
    assert kolmogorov_smirnov(values) < 1.95 / np.sqrt(values.size)  # The 0.1 % point of the test.
    assert abs(np.corrcoef(start.reshape(200, -1)[:, :2].T)[0, 1]) < 0.3


@pytest.mark.parametrize("per_example", [True, False])
def test_l2_start_is_uniform_in_the_ball(per_example: bool) -> None:
    """In d dimensions (r / epsilon) ** d is uniform, and a coordinate of the direction has mean 0, variance 1/d."""
    x = np.full((1500, 2, 2, 3), 0.5, np.float32)
    start = balls.random_start(keys(1500) if per_example else keys(1)[0], x, 0.4, "l2").numpy()
    radius = norm_of(start.astype(np.float64) - x, "l2")
    assert radius.max() <= 0.4 + 1e-6
    assert kolmogorov_smirnov((radius / 0.4) ** 12) < 1.95 / np.sqrt(1500)
    direction = (start - x).reshape(1500, -1) / radius[:, None]
    np.testing.assert_allclose(direction.mean(axis=0), 0, atol=4 / np.sqrt(12 * 1500))
    np.testing.assert_allclose(direction.var(axis=0), 1 / 12, rtol=0.2)


@settings(deadline=None, max_examples=30)
@given(x=unit, epsilon=epsilons, norm=norms, seed=st.integers(0, 100))
def test_start_lies_in_ball_and_box(x: np.ndarray, epsilon: float, norm: balls.Norm, seed: int) -> None:
    start = balls.random_start(keys(len(x), seed), x, epsilon, norm).numpy()
    assert (norm_of(start.astype(np.float64) - x, norm) <= epsilon + 1e-6).all()
    assert start.min() >= 0
    assert start.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_noise_of_an_example_is_its_keys_whatever_the_batch(norm: balls.Norm) -> None:
    x = np.random.default_rng(0).random((6, 4, 4, 3), np.float32)
    together = balls.random_start(keys(6), x, 0.1, norm).numpy()
    order = [4, 1, 5]
    some = balls.random_start(tf.gather(keys(6), order), x[order], 0.1, norm).numpy()
    np.testing.assert_array_equal(some, together[order])
    assert len(np.unique((together - x).round(5), axis=0)) == 6


def test_folded_keys_differ_and_repeat() -> None:
    one = keys(5)
    assert not np.any(np.all(draws.fold(one, 1) == draws.fold(one, 2), axis=1))
    np.testing.assert_array_equal(draws.fold(one, 1)[3], draws.fold(one[3], 1))


def test_uses_of_a_key_are_independent() -> None:
    """Noise, its starts' radius and later queries of one image must not be the same numbers."""
    many, shape = keys(4000), tf.constant([4000, 2, 1, 1])
    drawn = {
        "uniform": draws.uniform(many, shape),
        "normal": draws.normal(many, shape),
        "folded": draws.uniform(draws.fold(many, 1), shape),
        "folded normal": draws.normal(draws.fold(many, 1), shape),
        "query": draws.hashed_uniform(many, tf.constant(0), 2),
        "later query": draws.hashed_uniform(many, tf.constant(1), 2),
    }
    table = np.concatenate([np.reshape(values, (4000, 2)) for values in drawn.values()], axis=1)
    # An angle shows in the magnitude of what it makes, too.
    table = np.concatenate([table, np.abs(table - table.mean(axis=0))], axis=1)
    found = np.abs(np.corrcoef(table.T) - np.eye(24))
    # Of each column's own magnitude with itself nothing is said.
    found[range(12), range(12, 24)] = found[range(12, 24), range(12)] = 0
    assert found.max() < 6 / np.sqrt(4000)


def test_normal_noise_is_normal() -> None:
    drawn = np.sort(np.reshape(draws.normal(keys(1000), tf.constant([1000, 5, 4, 3])), -1))
    quantiles = {-1.959964: 0.025, -0.6744898: 0.25, 0.0: 0.5, 1.2815516: 0.9, 2.3263479: 0.99}  # Of tables.
    for value, share in quantiles.items():
        assert abs(np.searchsorted(drawn, value) / len(drawn) - share) < 5 * np.sqrt(share * (1 - share) / len(drawn))


def test_in_few_dimensions_a_start_is_uniform_too() -> None:
    """Of 1 x 1 x 1 images a start in the ball of radius r is uniform in [x - r, x + r]."""
    x = np.full((4000, 1, 1, 1), 0.5, np.float32)
    starts = balls.random_start(keys(4000), x, 0.4, "l2").numpy().ravel()
    counts = np.histogram(starts, bins=8, range=(0.1, 0.9))[0]
    assert abs(counts - 500).max() < 5 * np.sqrt(500)
