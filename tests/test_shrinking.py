"""APGD in shrinking L1 balls against a plain NumPy version of the paper's algorithm."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import images, labels_of, linear_model

from kerasrobust.attacks import APGDCE
from kerasrobust.attacks.algorithm import Images
from kerasrobust.attacks.network import Network
from kerasrobust.attacks.shrinking import Shrinking, stages
from kerasrobust.errors import InputError
from kerasrobust.ops import losses

X = images(6, seed=5)
STEPS, EPSILON = 20, 3.0


def projected(far: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Returns the point of ball and box nearest to `far`, by bisection in float64."""
    gap = far - x

    def pulled(back: float) -> np.ndarray:
        return np.clip(x + np.sign(gap) * np.maximum(np.abs(gap) - back, 0), 0, 1)

    if np.abs(pulled(0.0) - x).sum() <= radius:
        return pulled(0.0)
    low, high = 0.0, float(np.abs(gap).max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.abs(pulled(middle) - x).sum() > radius else (low, middle)
    return pulled(high)


class Plain:
    """Croce and Hein 2021, algorithm 1 in balls of 3, 2 and 1 epsilon, for one image and a linear network."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: int) -> None:
        self.kernel, self.bias, self.x, self.y = kernel, bias, x, y
        self.visited: list[np.ndarray] = []

    def asked(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the cross-entropy and its gradient."""
        self.visited.append(z)
        logits = z @ self.kernel + self.bias
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        slope = self.kernel @ (shares - np.eye(len(shares))[self.y])
        return -np.log(shares[self.y]), slope

    def ball(self, start: np.ndarray, radius: float, steps: int) -> np.ndarray:
        """Returns the point of the largest loss that so many steps find."""
        size, full, count = radius, radius, len(self.x)
        old = np.count_nonzero(start - self.x)
        share = old / count / 1.5
        z = best = start
        loss, slope = self.asked(z)
        best_loss, best_slope = loss, slope
        period = max(int(0.04 * steps), 1)
        for step in range(1, steps + 1):
            threshold = np.sort(np.abs(slope))[int(np.clip((1 - share) * count, 0, count - 1))]
            signs = np.where(np.abs(slope) >= threshold, np.sign(slope), 0)
            z = projected(z + size * signs / np.abs(signs).sum(), self.x, radius)
            loss, slope = self.asked(z)
            if loss > best_loss:
                best, best_loss, best_slope = z, loss, slope
            if step % period == 0:
                now = np.count_nonzero(best - self.x)
                fewer = now / old < 0.95
                size = full if fewer else np.clip(size / 1.5, full / 10, full)
                share, old = now / count / 1.5, now
                if fewer:
                    z, slope = best, best_slope
        return best


def test_it_takes_the_papers_steps(weights: tuple[np.ndarray, np.ndarray]) -> None:
    kernel, bias = weights[0] / 3, weights[1] / 3
    model = linear_model(kernel, bias)
    y = labels_of(model, X, 0)
    attack = APGDCE(norm="l1", epsilon=EPSILON, steps=STEPS, multi_radius=True)
    search = attack.resolved(False).algorithm  # type: ignore[attr-defined]
    assert isinstance(search, Shrinking)
    assert search.step_count() == STEPS + 2
    numbers = {name: tf.constant(value) for name, value in search.numbers().items()}
    numbers |= {"run": tf.constant(0), "slack": tf.constant(0.0)}
    keys = tf.stack([tf.range(6), tf.zeros(6, tf.int32)], axis=1)
    given = Images(tf.constant(X), tf.constant(y), keys)
    network = Network(lambda x, _: model(x), tf.constant([0, 0]), classes=4)
    state = search.begin(network, given, numbers)
    visited, scores = [state.x_adv.numpy()], []
    for step in range(search.step_count()):
        state = search.step(network.at(tf.constant(step)), given, state, numbers)
        visited.append(state.x_adv.numpy())
        scores.append(state.score.numpy())
    for number in range(6):
        flat = [point[number].reshape(-1).astype(np.float64) for point in visited]
        plain = Plain(
            kernel.astype(np.float64), bias.astype(np.float64), X[number].reshape(-1).astype(np.float64), y[number]
        )
        start, sizes = flat[0], stages(STEPS)
        assert sizes == (6, 6, 8)
        for times, steps in zip((3, 2, 1), sizes, strict=True):
            best = plain.ball(start, times * EPSILON, steps)
            start = projected(best, plain.x, max(times - 1, 1) * EPSILON)
        assert len(flat) == len(plain.visited)
        np.testing.assert_allclose(flat, plain.visited, atol=2e-4)
        away = np.abs(np.array(flat) - plain.x).sum(axis=1)
        assert away[0] == pytest.approx(3 * EPSILON, rel=1e-3)
        assert (away[14:] <= EPSILON).all()
    # Nothing counts that is found outside of the ball; what is looked at in a step was reached in the one before.
    assert np.isinf(scores[:14]).all()
    margins = losses.margin(model(visited[14]), tf.constant(y))
    np.testing.assert_allclose(scores[14], margins, atol=1e-5)


def test_it_breaks_more_than_one_ball(small: keras.Model) -> None:
    x = images(60, seed=9)
    y = labels_of(small, x, 0)

    def broken(**more: Any) -> float:
        return float(APGDCE(norm="l1", epsilon=0.6, steps=30, **more)(small, x, y).success.mean())

    plain, wider = broken(), broken(multi_radius=True)
    assert 0.1 < plain < wider < 0.95


def test_it_is_for_l1_only() -> None:
    with pytest.raises(InputError, match="norm l1 only"):
        APGDCE(multi_radius=True)
