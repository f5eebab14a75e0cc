"""Attacks on networks that are random: gradients are means over passes, and no lucky pass counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import APGDCE, APGDT, BIM, FGSM, PGD, Attack, DeepFool, network
from kerasrobust.attacks.network import Network, Passes
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout, noise_off

N = 22
X = np.random.default_rng(5).random((N, *SHAPE)).astype(np.float32)
MIDDLE = images(40)


@pytest.fixture(scope="module")
def labels(small: keras.Model) -> np.ndarray:
    return labels_of(small, X, 4)


@pytest.mark.parametrize("rows", [1, 64], ids=["one-by-one", "16-at-once"])
def test_eot_gradient_tends_to_its_expectation(rows: int) -> None:
    """With weights near 0 the softmax is constant, so the gradient is linear in the noise, and its mean is noise-free.

    One pass keeps a weight with probability 1 - r and scales it by 1 / (1 - r): a relative variance of r / (1 - r).
    """
    rate, passes = 0.3, 3000
    kernel = np.random.default_rng(0).choice([-1e-4, 1e-4], (PIXELS, 2)).astype(np.float32)
    kernel[:, 1] = -kernel[:, 0]
    network = as_classifier(linear_model(kernel, np.zeros(2, np.float32), RandomDropout(rate)))
    x, y = tf.constant(MIDDLE[:4]), tf.constant([0, 1, 0, 1], tf.int64)

    # For batches of any size: in a graph for one size, passes are made one by one.
    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE]), tf.TensorSpec([], tf.int32)])
    def averaged(x: tf.Tensor, eot: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return Network(network, tf.constant([1, 2]), Passes(eot, rows=rows)).gradient(x, y)

    slope, _, score = averaged(x, passes)
    with noise_off():
        expected, _, clean = Network(network, tf.constant([1, 2])).gradient(x, y)
    ratio = (slope / expected).numpy()
    spread = np.sqrt(rate / (1 - rate) / passes)
    assert np.abs(ratio - 1).max() < 5 * spread
    assert ratio.std() == pytest.approx(spread, rel=0.2)
    single = (averaged(x, 1)[0] / expected).numpy()
    assert (single == 0).mean() == pytest.approx(rate, abs=0.06)
    assert np.abs(score - clean).max() < 5 * 1e-4 * 2 * np.sqrt(PIXELS) * spread


def test_noise_differs_from_step_to_step(randomized: keras.Model) -> None:
    asked = Network(as_classifier(randomized), tf.constant([1, 2]))
    first, again, second = (asked.at(tf.constant(step)).logits(tf.constant(X)) for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - second) > 1e-3).any(axis=1).all()


@pytest.mark.parametrize("attack", [PGD(epsilon=0.05, steps=3, eot=4), FGSM(eot=4), DeepFool(steps=3, eot=4)])
def test_eot_counts_its_passes_and_repeats(attack: Attack, randomized: keras.Model, labels: np.ndarray) -> None:
    one, again = (attack(randomized, X, labels, early_stop=False, passes=3, seed=1, batch_size=8) for _ in range(2))
    np.testing.assert_array_equal(one.x_adv, again.x_adv)
    np.testing.assert_array_equal(one.passes, again.passes)
    if not attack.minimum_norm:
        assert one.gradients == N * attack.step_count() * 4
        # Nothing chooses between restarts, so nothing looks at where the steps ended.
        assert one.forwards == N * (3 + 3)
    assert one.passes.shape == (3, N)


@pytest.mark.parametrize("kind", [PGD, APGDCE])
def test_one_lucky_pass_does_not_end_the_attack_on_a_randomized_network(
    kind: Any, randomized: keras.Model, labels: np.ndarray
) -> None:
    result = kind(epsilon=0.1, steps=6, restarts=2)(randomized, X, labels, passes=20)
    assert result.gradients == int((result.clean_rate > 0).sum()) * 6 * 2


def test_unseeded_noise_is_attacked_too(weights: tuple[np.ndarray, np.ndarray]) -> None:
    def foreign(x: tf.Tensor) -> tf.Tensor:
        noisy = x + tf.random.normal(tf.shape(x), stddev=0.05)
        return tf.reshape(noisy, (-1, PIXELS)) @ weights[0] + weights[1]

    y = np.asarray(tf.reshape(MIDDLE, (-1, PIXELS)) @ weights[0] + weights[1]).argmax(axis=1)
    result = PGD(epsilon=0.1, steps=3, eot=2)(foreign, MIDDLE, y, passes=5)
    assert result.success.mean() > 0.9


def test_the_last_iterate_counts_on_a_randomized_network(randomized: keras.Model, labels: np.ndarray) -> None:
    """The best of noisy margins would be that of lucky noise; even the image itself could win."""
    best, last = (BIM(epsilon=0.05, steps=4, keep_best=keep)(randomized, X, labels, passes=3) for keep in (True, False))
    np.testing.assert_array_equal(best.x_adv, last.x_adv)


def test_noise_of_a_whole_batch_is_drawn_for_each_pass() -> None:
    """Random brightness is one draw for all images of a call: copies made at once would all get the same."""
    calls = tf.Variable(0)
    kernel = tf.random.stateless_normal((PIXELS, 3), (1, 2))

    def lit(x: tf.Tensor) -> tf.Tensor:
        calls.assign_add(1)
        return tf.reshape(x * tf.random.uniform((), 0.5, 1.0), [-1, PIXELS]) @ kernel

    network = as_classifier(lit, image_shape=SHAPE)  # Its probes are calls, too.
    counts = []
    for size in (N, 50 * N):
        before = int(calls)
        PGD(epsilon=0.05, steps=2, eot=10)(network, X, np.zeros(N, int), early_stop=False, batch_size=size, passes=2)
        counts.append(int(calls) - before)
    assert counts[0] == counts[1] > 2 * 10


@pytest.mark.parametrize(
    "attack",
    [PGD(norm="l2", epsilon=1, steps=3, eot=5), DeepFool(steps=2, eot=5), APGDT(norm="l2", epsilon=1, steps=4, eot=4)],
    ids=lambda attack: attack.name,
)
def test_passes_made_at_once_are_passes(attack: Attack, small: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is random, the mean over passes is one pass, however many are made at once.

    In L2, as there a step follows the gradient: in Linf it follows the signs, and near 0 rounding decides about those.
    Of APGD's four passes the mean isn't even rounded, as that could decide about its next step.
    """
    y = labels_of(small, MIDDLE, 0)
    copied: list[int] = []
    tile = network._copied

    def noted(values: tf.Tensor, copies: tf.Tensor | int) -> tf.Tensor:
        copied.append(0 if isinstance(copies, int) else 1)
        return tile(values, copies)

    monkeypatch.setattr(network, "_copied", noted)
    traced_anew = keras.models.clone_model(small)
    traced_anew.set_weights(small.get_weights())
    found = [
        one(traced_anew, MIDDLE, y, early_stop=False, precision="float32", batch_size=size).x_adv
        for one, size in ((replace(attack, eot=1), 100), (attack, 100), (attack, len(MIDDLE)), (attack, 9))
    ]
    assert 1 in copied
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-4)
