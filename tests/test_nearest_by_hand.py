"""The first steps of the attacks that look for the nearest example, against steps computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerasrobust.attacks import DDN, FMN, PDPGD, SigmaZero
from kerasrobust.attacks.fmn import sparse
from kerasrobust.networks.making import as_classifier


def pixels(*kernel: float, bias: float) -> Any:
    """Returns a network of images (K, 1, 1) with the logits 0 and <kernel, x> + bias."""

    def network(x: tf.Tensor) -> tf.Tensor:
        lead = tf.linalg.matvec(tf.reshape(x, [-1, len(kernel)]), tf.constant(kernel, tf.float32)) + bias
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    return as_classifier(network, image_shape=(len(kernel), 1, 1))  # A bare function would be traced anew in each call.


def test_ddn_by_hand() -> None:
    """f = 3a + 4b - 4.4 is -0.9 at (0.5, 0.5); the boundary is 0.18 away, along (0.6, 0.8).

    The radius begins at 0.2: not fooled, 0.2 * 1.1 = 0.22; fooled there, 0.198; again, 0.1782, which is too short;
    0.19602 is enough, and is seen by the look after four steps.
    """
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    network = pixels(3, 4, bias=-4.4)
    for steps, distance in ((1, 0.22), (2, 0.198), (3, 0.198), (4, 0.19602)):
        attack = DDN(gamma=0.1, first_radius=0.2, steps=steps)
        result = attack(network, x, y)
        assert result.distance[0] == pytest.approx(distance, abs=1e-6)
        np.testing.assert_allclose((result.x_adv - x).ravel(), distance * np.array([0.6, 0.8]), atol=1e-6)
        assert result.gradients == steps


@pytest.mark.parametrize(
    ("norm", "distances"),
    [
        # 0.9 / |(3, 4)|_q and a tenth more; then 0.0505 less, the middle of 0.1 and 0.001.
        ("linf", (0.9 / 7 * 1.1, 0.9 / 7 * 1.1 * 0.9495)),
        ("l2", (0.9 / 5 * 1.1, 0.9 / 5 * 1.1 * 0.9495)),
        # (0.6, 0.8) projected: (0.02375, 0.22375), enough as 3 * 0.02375 + 4 * 0.22375 > 0.9.
        ("l1", (0.9 / 4 * 1.1, 0.9 / 4 * 1.1 * 0.9495)),
        # 1 and 1 more is both pixels; one less is the second one, whose 0.5 bring 2.
        ("l0", (2, 1)),
    ],
)
def test_fmn_by_hand(norm: Any, distances: tuple[float, float]) -> None:
    """f = 3a + 4b - 4.4 is -0.9 at (0.5, 0.5)."""
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    network = pixels(3, 4, bias=-4.4)
    for steps, distance in enumerate(distances, 1):
        result = FMN(norm=norm, gamma=0.1, steps=steps)(network, x, y)
        assert result.success.all()
        assert result.distance[0] == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize(("norm", "near", "far"), [("linf", 0.2, 0.4), ("l2", 0.2 * 2**0.5, 0.4)])
def test_fmn_begins_at_the_nearest_boundary_and_not_at_that_of_the_runner_up(
    norm: Any, near: float, far: float
) -> None:
    """The second class is 0.4 behind, of 1 a unit along the first axis; the third one 2, of 5 along two others."""
    kernel, bias = tf.constant([[0, 1, 0], [0, 0, 5], [0, 0, 5]], tf.float32), tf.constant([0, -0.9, -7.0])
    network = as_classifier(lambda x: tf.reshape(x, [-1, 3]) @ kernel + bias, image_shape=(3, 1, 1))
    x, y = np.full((1, 3, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    for candidates, distance in ((None, near), (9, near), (1, far)):
        result = FMN(norm=norm, steps=60, candidates=candidates)(network, x, y)
        assert result.distance[0] == pytest.approx(distance, rel=0.01)
        assert result.gradients == 60 + (0 if candidates == 1 else 2)
    aimed = FMN(norm=norm, steps=60, targeted=True)(network, x, y, target=y + 1)
    assert aimed.gradients == 60 and aimed.distance[0] == pytest.approx(far, rel=0.01)


def test_fmn_in_l1_moves_the_largest_entries_and_those_that_differ() -> None:
    slope = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    kept = np.zeros(slope.shape, bool)
    kept[:, 0, :5] = True
    largest = abs(slope) >= np.sort(abs(slope).reshape(2, -1))[:, -96].reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(sparse(tf.constant(slope), tf.constant(kept)), np.where(largest | kept, slope, 0))
    # Of small images more, and all of the smallest.
    small = slope[:, :5, :5, :2]
    assert (
        np.count_nonzero(sparse(tf.constant(small), tf.zeros(small.shape, tf.bool)), axis=(1, 2, 3)).tolist()
        == [32] * 2
    )
    np.testing.assert_array_equal(sparse(tf.constant(small[:, :2]), tf.zeros([2, 2, 5, 2], tf.bool)), small[:, :2])


def test_pdpgd_by_hand() -> None:
    """f = 3a + 4b - 4 is -0.5 at (0.5, 0.5), where the loss has the slope -(3, 4) sigmoid(0.5) = -(1.86738, 2.48984).

    Adam's first step is 0.1 for both, and the norm, with a hundredth of the margin's weight, takes 0.001 / slope back.
    """
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    result = PDPGD(steps=1)(pixels(3, 4, bias=-4), x, y)
    np.testing.assert_allclose(result.x_adv.ravel(), [0.6 - 0.001 / 1.86738, 0.6 - 0.001 / 2.48984], atol=1e-6)
    assert result.success.all() and result.gradients == 1


def test_sigma_zero_by_hand() -> None:
    """f as before. Adam's first step is the step size, 1, for both: to the corner, (0.5, 0.5), the threshold 0.39.

    There the count alone has a gradient, the same for both: 1 after the division by the largest. The moments before
    were those of (-3/4, -1): the moves are (0.1 - 0.0675) / 0.19 / sqrt((0.000561938 + 0.001) / 0.001999) = 0.193515
    and (0.1 - 0.09) / 0.19 = 0.052632, the step is 0.55, the threshold 0.3955: the first change is dropped.
    """
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    network = pixels(3, 4, bias=-4.4)
    for steps, x_adv in ((1, (1, 1)), (2, (0.5, 0.971053))):
        result = SigmaZero(steps=steps, threshold=0.4)(network, x, y)
        np.testing.assert_allclose(result.x_adv.ravel(), x_adv, atol=1e-5)
        assert result.distance[0] == 3 - steps
