"""Examples leave the batch when they are done and others join it: nothing changes but the work."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from conftest import images, labels_of

from kerasrobust.attacks import APGDCE, FABT, PGD, DeepFool, Patch, SparseRS, Spatial, Square, batch
from kerasrobust.attacks.batch import Batch

X = images(37, seed=4)
ATTACKS = [
    PGD(epsilon=0.02, steps=12),
    PGD(norm="l2", epsilon=0.3, steps=12),
    APGDCE(epsilon=0.015, steps=20),
    FABT(steps=12, targets=2, epsilon=0.02),
    Square(epsilon=0.05, queries=60),
    DeepFool(steps=20),
    Patch(size=3, steps=12),
    Spatial(rotations=5, translations=3),
    SparseRS(budget=8, queries=60),
]


@pytest.fixture(scope="module")
def y(small: keras.Model) -> np.ndarray:
    return labels_of(small, X, 1)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{attack.norm}")
def test_an_example_fares_the_same_whoever_is_beside_it(attack: Any, small: keras.Model, y: np.ndarray) -> None:
    whole = attack(small, X, y, batch_size=64)
    for size in (1, 8, 16):
        part = attack(small, X, y, batch_size=size)
        np.testing.assert_array_equal(whole.success, part.success)
        np.testing.assert_allclose(whole.x_adv, part.x_adv, atol=2e-3)
    assert whole.success.mean() > 0


def test_what_is_done_costs_nothing_more(small: keras.Model, y: np.ndarray) -> None:
    attack = PGD(epsilon=0.05, steps=40)
    alone = sum(
        attack(small, X[i : i + 1], y[i : i + 1], batch_size=1, early_stop=True).gradients for i in range(len(X))
    )
    together = attack(small, X, y, batch_size=16)
    assert together.success.mean() > 0.9
    # Up to an eighth of the batch waits for company.
    assert alone <= together.gradients <= 2 * alone
    assert together.gradients < attack(small, X, y, batch_size=16, early_stop=False).gradients / 2


def test_the_clock_decides_nothing(small: keras.Model, y: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chunks and long ones: the same batches, the same cost, the same examples bit by bit."""
    attack = APGDCE(epsilon=0.015, steps=20)
    found = []
    packed: list[int] = []
    pack = Batch._pack

    def noted(self: Batch, anew: bool) -> None:
        pack(self, anew)
        packed.append(len(self.rows))

    monkeypatch.setattr(Batch, "_pack", noted)
    for seconds in (1e-9, 1e-3, 10.0):
        monkeypatch.setattr(batch, "CHUNK_SECONDS", seconds)
        packed.clear()
        found.append((attack(small, X, y, batch_size=16), list(packed)))
    for result, sizes in found[1:]:
        np.testing.assert_array_equal(result.x_adv, found[0][0].x_adv)
        assert result.gradients == found[0][0].gradients
        assert sizes == found[0][1]
    assert len(set(found[0][1])) > 2, "the batch shrank"


def test_a_graph_of_one_size_gets_that_size(weights: Any) -> None:
    """A plain function may be compiled for one shape: each call sees a whole batch."""
    import tensorflow as tf

    kernel, bias = weights
    sizes: set[Any] = set()

    def network(x: tf.Tensor) -> tf.Tensor:
        sizes.add(x.shape[0])
        return tf.reshape(x, [x.shape[0], -1]) @ kernel + bias

    y = np.asarray(network(tf.constant(X))).argmax(axis=1)
    sizes.clear()
    result = PGD(epsilon=0.01, steps=5)(network, X, y, batch_size=16)
    assert result.success.any()
    assert None not in sizes
    assert sizes <= {8, 16, 37}  # The probes' size, the batch's, and none besides.
