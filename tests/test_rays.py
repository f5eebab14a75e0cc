"""RayS against the paper's algorithm in plain Python, one image at a time, and the closed form on a linear model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import HopSkipJump, RayS, make_attack
from kerasrobust.attacks.rays import CUT
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import as_classifier

X = images(16)
EPSILON = 0.05


def by_hand(
    fools: Callable[[np.ndarray], bool], x: np.ndarray, queries: int, tolerance: float
) -> list[tuple[float, np.ndarray]]:
    """Returns the distance of the nearest example after each query, and that example; channels come first."""
    nearest: list[tuple[float, np.ndarray]] = []
    best, found = np.inf, x

    def ask(signs: np.ndarray, radius: float) -> bool:
        nonlocal best, found
        query = np.clip(x + np.float32(radius) * signs.reshape(SHAPE[2], *SHAPE[:2]).transpose(1, 2, 0), 0, 1)
        fooled = fools(query)
        if fooled and np.abs(query - x).max() < best:
            best, found = float(np.abs(query - x).max()), query
        nearest.append((best, found))
        return fooled

    signs, level, block = np.ones(PIXELS, np.float32), -1, 0
    while len(nearest) < queries:
        tried = signs.copy()
        # Before level 0 the ray towards white is tried as it is.
        count = 2 ** max(level, 0)
        side = -(-PIXELS // count)
        if level >= 0:
            tried[block * side : (block + 1) * side] *= -1
        cut = 0.5 if best == np.inf else CUT
        if ask(tried, min(best, 1)):
            signs, low = tried, 0.0
            while best - low > tolerance * best:
                middle = (low + best) / 2 if low else best * (1 - cut)
                cut = min(2 * cut, 0.5)
                if not ask(signs, middle):
                    low = middle
        block += 1
        if level < 0 or block * side >= PIXELS:
            level, block = (0 if side == 1 else level + 1), 0
    return nearest[:queries]


@pytest.fixture(scope="module")
def y(small: keras.Model) -> np.ndarray:
    return labels_of(small, X, 0)


@pytest.mark.parametrize(("tolerance", "most"), [(0.01, 250), (0.5, 700)])
def test_it_is_the_papers_algorithm(tolerance: float, most: int, small: keras.Model, y: np.ndarray) -> None:
    chosen = slice(0, 2)
    ask = tf.function(lambda x: small(x, training=False))
    known = [
        by_hand(lambda x, own=own: int(np.argmax(ask(x[None])[0])) != own, x, most, tolerance)  # type: ignore[misc]
        for x, own in zip(X[chosen], y[chosen], strict=True)
    ]
    for queries in (1, 2, 3, 40, most):
        result = RayS(queries=queries, tolerance=tolerance)(small, X[chosen], y[chosen], precision="float32")
        for number, example in enumerate(known):
            distance, image = example[queries - 1]
            if np.isfinite(distance):
                assert result.distance[number] == pytest.approx(distance, rel=1e-5)
                np.testing.assert_allclose(result.x_adv[number], image, atol=1e-6)
            else:
                assert not result.success[number]
    assert all(example[-1][0] < 0.3 * example[5][0] for example in known)


def test_the_linear_boundary_is_found(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """Signs along the weights are the nearest way, |f| / |w|_1; turning single values finds them all."""
    kernel = weights[0][:, :2]
    slope = (kernel[:, 0] - kernel[:, 1]).astype(np.float64)
    model = linear_model(kernel, np.array([-0.5 * slope.sum(), 0], np.float32))
    y = labels_of(model, X, 3)
    lead = (X.reshape(16, -1) - 0.5) @ slope
    exact = np.abs(lead) / np.abs(slope).sum()
    result = RayS(queries=5_000, tolerance=0.002)(model, X, y)
    assert result.success.all() and result.gradients == 0
    np.testing.assert_array_equal(result.distance[:3], 0)  # Wrong from the start.
    assert (result.distance[3:] >= exact[3:] * 0.9999).all()
    assert (result.distance[3:] <= exact[3:] * 1.01).all()
    few = RayS(queries=150)(model, X, y)
    assert (few.distance[3:] > exact[3:] * 1.1).all()


def test_few_queries_come_nearer_than_those_of_hopskipjump(small: keras.Model, y: np.ndarray) -> None:
    ours, theirs = (kind(norm="linf", queries=300)(small, X, y) for kind in (RayS, HopSkipJump))
    assert ours.median_distance < 0.8 * theirs.median_distance


def test_queries_are_counted_until_an_example_is_within_epsilon(small: keras.Model, y: np.ndarray) -> None:
    y = labels_of(small, X, 2)
    whole = RayS(queries=400, epsilon=EPSILON)(small, X, y)
    assert whole.queries is not None
    np.testing.assert_array_equal(whole.queries > 0, (whole.distance <= EPSILON) & (np.arange(16) >= 2))
    assert len(np.unique(whole.queries)) > 5
    for count in (20, 80, 200):
        # One of them asks about the image itself.
        part = RayS(queries=count - 1, epsilon=EPSILON)(small, X, y)
        np.testing.assert_array_equal(part.queries, np.where(whole.queries <= count, whole.queries, 0))
    # Counting changes nothing.
    free = RayS(queries=400)(small, X, y)
    assert free.queries is None
    np.testing.assert_array_equal(free.x_adv, whole.x_adv)


def test_they_are_the_calls_of_a_black_box(small: keras.Model, y: np.ndarray) -> None:
    fell: list[bool] = []
    number = int(np.flatnonzero(np.asarray(RayS(queries=80, epsilon=EPSILON)(small, X, y).queries) > 20)[0])

    def predict(x: np.ndarray) -> np.ndarray:
        logits = np.asarray(small(x, training=False))
        near = np.abs(x - X[number]).max(axis=(1, 2, 3)) <= EPSILON
        fell.extend((logits.argmax(axis=1) != y[number]) & near)
        return logits

    box = as_classifier(predict=predict, image_shape=SHAPE, input_range="0,1", colors="rgb")
    fell.clear()
    found = RayS(queries=80, epsilon=EPSILON)(box, X[number : number + 1], y[number : number + 1])
    # The first call judges the image as it is, the last one what was found.
    assert found.queries is not None and found.queries[0] == fell.index(True)
    assert found.forwards == len(fell) == 83


def test_an_evaluation_has_curves_over_radius_and_queries(small: keras.Model, y: np.ndarray) -> None:
    attack = make_attack("rays", epsilon=EPSILON, queries=200)
    entry = evaluate(small, X, y, attacks=attack, epsilon=EPSILON, audit=False).attacks[0].entry()
    direct = RayS(queries=200, epsilon=EPSILON)(small, X, y)
    assert entry["robust_accuracy"] == np.mean(direct.distance > EPSILON)
    assert entry["query_curve"][-1][1] == entry["robust_accuracy"] and len(entry["curve"]) == 25
    assert entry["median_distance"] == direct.median_distance


def test_equal_results_in_any_batch(small: keras.Model, y: np.ndarray) -> None:
    whole = RayS(queries=100)(small, X, y)
    parts = RayS(queries=100)(small, X[::-1], y[::-1], seed=5, batch_size=7)
    # Nothing is drawn; but logits of a smaller batch may be rounded otherwise, and a decision at the boundary too.
    np.testing.assert_allclose(whole.distance, parts.distance[::-1], rtol=0.02)


def test_what_nothing_fools_is_returned_as_it_is() -> None:
    """f = x_0 - 1.2 has its boundary outside of the box."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = RayS(queries=600)(model, X, np.zeros(16, np.int64))
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)
    assert np.isinf(result.median_distance)


def test_where_white_and_black_fool_nothing_halves_are_turned() -> None:
    """Of class 1 where one half of the rows is brighter than the other, which no image of one colour is."""

    def uneven(x: tf.Tensor) -> tf.Tensor:
        upper, lower = (tf.reduce_mean(part, axis=[1, 2, 3]) for part in tf.split(x, 2, axis=1))
        return tf.stack([tf.zeros_like(upper), tf.abs(upper - lower) - 0.2], axis=1)

    result = RayS(queries=600)(uneven, X, np.zeros(16, np.int64))
    # Each half has to move by 0.1, but for how much they differ already.
    assert result.success.all() and (np.abs(result.distance - 0.1) < 0.02).all()


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_is_wrong_already_has_distance_0(early_stop: bool, small: keras.Model) -> None:
    result = RayS(queries=50)(small, X, labels_of(small, X, 5), early_stop=early_stop)
    np.testing.assert_array_equal(result.distance[:5], 0)
    assert (result.distance[5:] > 0).all() and result.success.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "query"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"norm": "l2"}, "linf"),
        ({"targeted": True}, "takes targets"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayS(**settings)
