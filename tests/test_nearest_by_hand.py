"""The first steps of the attacks that look for the nearest example, against steps computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerasrobust.attacks import DDN, FMN, PDPGD, SigmaZero
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
