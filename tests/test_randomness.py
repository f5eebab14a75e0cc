"""Is the randomness real? Networks whose noise is known to defend nothing, or to do nothing, are told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks.verdict import predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.randomness import Randomness, Trial, judgement, probe_randomness
from kerasrobust.evaluation.steered import can_be_steered, steered
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout, noise_off

X = images(24, seed=2)


@pytest.fixture(scope="module")
def noisy() -> keras.Model:
    kernel = np.random.default_rng(4).normal(size=(PIXELS, 3)).astype(np.float32)
    return linear_model(kernel, -kernel.sum(axis=0) / 2, RandomDropout(0.3))


@pytest.fixture(scope="module")
def labels(noisy: keras.Model) -> np.ndarray:
    with noise_off():
        return labels_of(noisy, X, 0)


@pytest.fixture(scope="module")
def found(noisy: keras.Model, labels: np.ndarray) -> Randomness:
    return probe_randomness(noisy, X, labels, epsilon=0.1, gradients=100, passes=10)


def test_all_attacks_cost_the_same(found: Randomness) -> None:
    assert [line.name for line in found.trials] == [
        "pgd-frozen", "pgd-eot-1", "pgd-eot-5", "pgd-eot-20", "pgd-eot-50", "pgd-transfer",
    ]  # fmt: skip
    assert [line.steps * line.eot for line in found.trials] == [100] * 6
    assert len({line.gradients for line in found.trials}) == 1
    for line in found.trials:
        assert abs(line.x_adv - X).max() <= 0.1 + 1e-6
        assert line.interval[0] <= line.accuracy <= line.interval[1]


def test_noise_before_a_linear_layer_defends_nothing(found: Randomness) -> None:
    """Its mean gradient is that of the network without noise, so every one of these attacks gets through."""
    assert found.clean_accuracy > found.strongest.accuracy + 0.2
    assert found.strongest.accuracy <= 0.05
    assert found.verdict.startswith("No: ")
    assert found.findings[0].code == "noise-defends-nothing"
    assert set(found.findings[0].evidence) == {line.name for line in found.trials}


def test_frozen_noise_is_a_network_of_its_own(noisy: keras.Model) -> None:
    classifier = as_classifier(noisy)
    assert can_be_steered(classifier)
    one, other, same, off = (
        steered(classifier, "frozen", SHAPE, 3), steered(classifier, "frozen", SHAPE, 4),
        steered(classifier, "frozen", SHAPE, 3), steered(classifier, "off", SHAPE),
    )  # fmt: skip
    assert not one.randomized and not off.randomized
    np.testing.assert_array_equal(predict(one, X[:6]), predict(same, X[:6]))
    assert abs(predict(one, X[:6]) - predict(other, X[:6])).max() > 0.1
    # The same noise for every image, wherever it stands in a batch.
    np.testing.assert_allclose(predict(one, X[:6])[::-1], predict(one, X[5::-1]), rtol=1e-5, atol=1e-5)
    with noise_off():
        clean = np.asarray(noisy(X[:6]))
    assert abs(predict(one, X[:6]) - clean).max() > 0.1
    np.testing.assert_allclose(predict(off, X[:6]), clean, rtol=1e-5, atol=1e-5)
    # Of the same weights: those that it has when it is asked.
    weights = noisy.get_weights()
    noisy.set_weights([2 * value for value in weights])
    np.testing.assert_allclose(predict(off, X[:6]), 2 * clean, rtol=1e-5, atol=1e-5)
    noisy.set_weights(weights)


def line(name: str, rates: Any, **more: Any) -> Trial:
    rates = np.array(rates, float)
    return Trial(
        name=name, eot=1, steps=1, rates=rates, accuracy=rates.mean(), interval=(0, 1), own_accuracy=None,
        x_adv=np.zeros(1), gradients=1, forwards=1, seconds=1.0, **more,
    )  # fmt: skip


def test_verdicts_by_hand() -> None:
    rates = np.tile([0.2, 0.4, 0.6, 0.8], 25)
    plain = line("pgd-eot-1", rates)
    assert judgement([plain, line("pgd-eot-20", rates * 0.02)])[0] == "noise-defends-nothing"
    code, told = judgement([plain, replace(line("pgd-eot-20", rates - 0.15), eot=20)])
    # 50 % - 35 %, alike on every example: no chance.
    assert code == "noisy-gradients" and "50.0 %" in told and "35.0 %" in told and "15.0 points" in told
    code, told = judgement([plain, line("pgd-transfer", rates + 0.1)])
    assert code is None and told.startswith("Yes")
    # Less by 2 points in the mean, but up and down by ten times that from example to example: chance.
    wild = np.clip(rates - 0.02 + np.tile([0.2, -0.2], 50), 0, 1)
    assert judgement([plain, line("pgd-eot-5", wild)])[0] is None


def test_foreign_noise_is_attacked_without_its_twin(labels: np.ndarray) -> None:
    kernel = np.random.default_rng(4).normal(size=(PIXELS, 3)).astype(np.float32)

    def foreign(x: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(x, (-1, PIXELS))
        return (flat * tf.cast(tf.random.uniform(tf.shape(flat)) > 0.3, tf.float32) - 0.35) @ kernel

    result = probe_randomness(foreign, X, labels, epsilon=0.1, gradients=50, passes=4)
    assert [item.name for item in result.trials] == ["pgd-eot-1", "pgd-eot-5", "pgd-eot-20", "pgd-eot-50"]
    assert "twin-left-out" in {finding.code for finding in result.findings}


def test_what_cannot_be_asked(linear: keras.Model, noisy: keras.Model, labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="randomized network"):
        probe_randomness(linear, X, labels)
    with pytest.raises(InputError, match="at least 50"):
        probe_randomness(noisy, X, labels, gradients=10)
