"""Sparse-RS against the best of all choices of pixels of a linear model, and against the schedule of its authors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images, labels_of

from kerasrobust.attacks import SparseRS
from kerasrobust.attacks.sparse_rs import exchanged
from kerasrobust.errors import InputError


def changed_pixels(x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (x_adv != x).any(axis=3)


def lowest_margins(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: int, budget: int) -> np.ndarray:
    """The lowest margin of class y of two that pixels of any colour reach: by those that lower it most."""
    slope = (weight[:, y] - weight[:, 1 - y]).reshape(x.shape[1:])
    margin = (x * slope).sum(axis=(1, 2, 3)) + bias[y] - bias[1 - y]
    gain = np.where(slope > 0, x * slope, (x - 1) * slope).sum(axis=3)  # Each channel to 0 or 1, as suits it.
    return margin - np.sort(gain.reshape(len(x), -1))[:, -budget:].sum(axis=1)


@pytest.mark.parametrize("budget", [1, 3])
def test_it_finds_the_best_pixels_of_a_linear_model(budget: int) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(36, 2)).astype(np.float32), np.array([20.0, 0.0], np.float32)
    head = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), head])
    head.set_weights([weight, bias])
    x = rng.random((6, 6, 6, 1)).astype(np.float32)
    found = SparseRS(budget=budget, queries=2_000)(model, x, np.zeros(6, np.int64), early_stop=False)
    logits = model.predict(found.x_adv, verbose=0)
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], lowest_margins(weight, bias, x, 0, budget), atol=1e-4)


def test_what_it_may_do(small: keras.Model) -> None:
    x = images(40)
    y = labels_of(small, x, 0)
    x[:20] = np.round(x[:20])  # Pixels that are corners of the colour cube themselves.
    found = SparseRS(budget=7, queries=40)(small, x, y, early_stop=False)
    changed = changed_pixels(found.x_adv, x)
    np.testing.assert_array_equal(changed.sum(axis=(1, 2)), 7)
    assert set(np.unique(found.x_adv[changed])) <= {0.0, 1.0}
    np.testing.assert_array_equal(found.distance, (found.x_adv != x).sum(axis=(1, 2, 3)))
    assert found.success.mean() >= SparseRS(budget=2, queries=40)(small, x, y, early_stop=False).success.mean()


def test_more_queries_and_restarts_never_do_worse(small: keras.Model) -> None:
    x = images(40)
    y = labels_of(small, x, 0)
    counts = [
        SparseRS(budget=6, queries=queries, restarts=restarts, rescale=False)(small, x, y).success.sum()
        for queries, restarts in ((1, 1), (30, 1), (120, 1), (120, 3))
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_targets(linear: keras.Model) -> None:
    x = images(60)
    y = labels_of(linear, x, 0)
    target = (y + 1) % 3
    found, few = (
        SparseRS(budget=budget, queries=200, targeted=True)(linear, x, y, target=target) for budget in (30, 1)
    )
    np.testing.assert_array_equal(found.success, linear.predict(found.x_adv, verbose=0).argmax(axis=1) == target)
    assert found.success.mean() > few.success.mean() + 0.3


def test_the_schedule_is_the_authors() -> None:
    """`p_selection` of their program with a budget of 1,000 and p_init 0.3, whose counts they round down."""
    queries = {1: 150, 50: 150, 51: 75, 200: 75, 201: 60, 500: 60, 501: 50, 1000: 50, 1001: 37, 2001: 30, 4001: 25}
    queries |= {6000: 25, 6001: 20, 8001: 15, 9999: 15}
    found = exchanged(tf.constant(list(queries)), 1_000, 0.3, 1.0)
    np.testing.assert_array_equal(found, list(queries.values()))
    np.testing.assert_array_equal(exchanged(tf.constant([25, 26, 100]), 1_000, 0.3, 2.0), [150, 75, 75])
    np.testing.assert_array_equal(exchanged(tf.constant([1, 9999]), 3, 0.3, 1.0), [1, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "Received: 0, 5000 and 1"),
        ({"queries": 0}, "Received: 24, 0 and 1"),
        ({"p_init": 1.5}, "Received: p_init=1.5"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseRS(**settings)


def test_more_than_half_the_pixels_are_refused(small: keras.Model) -> None:
    height, width, _ = SHAPE
    with pytest.raises(InputError, match=f"at most half the pixels of images of {height}x{width}"):
        SparseRS(budget=height * width // 2 + 1)(small, images(2), np.zeros(2, np.int64))
