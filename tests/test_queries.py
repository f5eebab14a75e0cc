"""Queries after which images fall: against shorter runs, counted calls, and medians and curves worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from conftest import SHAPE, images, labels_of

from kerasrobust.attacks import PGD, Attack, HopSkipJump, SparseRS, Spatial, Square
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.outcome import query_curve, report
from kerasrobust.networks.making import as_classifier

X = images(40, seed=2)
WRONG = 3


@pytest.fixture(scope="module")
def y(small: keras.Model) -> np.ndarray:
    return labels_of(small, X, WRONG)


SEARCHES: dict[str, Callable[[int], Attack[Any]]] = {
    "square": lambda count: Square(epsilon=0.08, queries=count - 1),
    "square in l2": lambda count: Square(norm="l2", epsilon=0.4, queries=count - 1),
    "sparse-rs": lambda count: SparseRS(budget=6, queries=count - 1, rescale=False),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_run_of_so_many_queries_breaks_what_the_longer_one_says(name: str, small: keras.Model, y: np.ndarray) -> None:
    whole = SEARCHES[name](100)(small, X, y)
    assert whole.queries is not None and whole.queries.dtype == np.int64
    np.testing.assert_array_equal(whole.queries > 0, whole.success & (np.arange(len(X)) >= WRONG))
    assert whole.queries.max() <= 100 and len(np.unique(whole.queries)) > 5
    for count in (2, 10, 40):
        part = SEARCHES[name](count)(small, X, y)
        np.testing.assert_array_equal(part.queries, np.where(whole.queries <= count, whole.queries, 0))


def test_restarts_add_up(small: keras.Model, y: np.ndarray) -> None:
    once, twice = (Square(epsilon=0.08, queries=39, restarts=count)(small, X, y).queries for count in (1, 2))
    assert once is not None and twice is not None
    np.testing.assert_array_equal(twice[once > 0], once[once > 0])
    later = twice[(once == 0) & (twice > 0)]
    assert len(later) and later.min() > 40 and later.max() <= 80


def test_they_are_the_calls_of_a_black_box(small: keras.Model, y: np.ndarray) -> None:
    """An image alone, asked about until it falls: each call but those of the verdicts is a query."""
    fell: list[bool] = []
    number = 0

    def predict(x: np.ndarray) -> np.ndarray:
        logits = np.asarray(small(x, training=False))
        fell.extend(logits.argmax(axis=1) != y[number])
        return logits

    box = as_classifier(predict=predict, image_shape=SHAPE, input_range="0,1", colors="rgb")
    known = Square(epsilon=0.08, queries=60)(small, X, y).queries
    assert known is not None
    number = int(np.flatnonzero(known > 5)[0])
    fell.clear()
    found = Square(epsilon=0.08, queries=60)(box, X[number : number + 1], y[number : number + 1])
    assert found.queries is not None
    # The first call judges the image as it is.
    assert found.queries[0] == known[number] == fell.index(True)


def test_median_and_curve(small: keras.Model, y: np.ndarray) -> None:
    attack = Square(epsilon=0.08, queries=100)
    found = attack(small, X, y)
    assert found.queries is not None
    points = query_curve(found)
    assert points[0][:2] == (0, 37 / 40)
    for queries, accuracy, low, high in points:
        right = np.sum((found.queries == 0) | (found.queries > queries)) - WRONG
        assert accuracy == right / 40 and low <= accuracy <= high
    assert points[-1].accuracy == pytest.approx(1 - found.success.mean()) and points[-1].queries == found.queries.max()
    entry = report(attack, found, 0.08, False).entry()
    ordered = sorted(count or np.inf for count in found.queries[WRONG:].tolist())
    assert entry["median_queries"] == ordered[18]  # Of 37.
    assert entry["query_curve"] == [list(point) for point in points]


def test_spatial_counts_places_of_its_grid(small: keras.Model, y: np.ndarray) -> None:
    found = Spatial(rotations=3, translations=3)(small, X, y).queries
    assert found is not None and 1 <= found.max() <= 27


def test_who_does_not_count_says_nothing(small: keras.Model, randomized: keras.Model, y: np.ndarray) -> None:
    for model, attack in ((small, PGD(steps=2)), (small, HopSkipJump(queries=5)), (randomized, Square(queries=5))):
        found = attack(model, X[:6], y[:6])
        assert found.queries is None and query_curve(found) == []
    entry = evaluate(small, X, y, attacks=PGD(steps=2), audit=False).attacks[0].entry()
    assert not {"median_queries", "query_curve"} & set(entry)
