"""When a model counts as right: one pass where it is deterministic, the majority of many where it is random."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import images, labels_of, linear_model

from kerasrobust.attacks import FGSM
from kerasrobust.attacks.verdict import Verdict, judge, judge_again
from kerasrobust.errors import Cancelled
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout

X = images(21)


def scripted(passes: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array(passes, np.int64)
    return found, (found == 0).mean(axis=0)


def test_majority_and_ties_by_hand() -> None:
    """Labels 0: right in 3, 2, 1 and 0 of 4 passes. Half is a tie, and a tie counts as wrong."""
    found, rate = scripted([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 2, 1], [1, 1, 3, 1]])
    verdict = Verdict(passes=found, prediction=np.zeros(4), correct_rate=rate, confidence=np.zeros(4))
    np.testing.assert_array_equal(verdict.correct_rate, [0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(verdict.wrong, [False, True, True, True])
    assert verdict.accuracy == pytest.approx(0.375)


def test_deterministic_network(linear: keras.Model) -> None:
    y = labels_of(linear, X, 5)
    verdict = judge(as_classifier(linear), X, y, batch_size=4)
    logits = np.asarray(linear(X), np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_array_equal(verdict.prediction, logits.argmax(axis=1))
    np.testing.assert_allclose(verdict.confidence, p.max(axis=1) / p.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(verdict.wrong, np.arange(21) < 5)
    assert verdict.accuracy == pytest.approx(16 / 21)
    assert verdict.passes.shape == (1, 21)


def test_only_what_is_asked_about_is_judged_again(linear: keras.Model) -> None:
    classifier = as_classifier(linear)
    y = labels_of(linear, X, 5)
    before = judge(classifier, X, y)
    changed = np.arange(21) % 3 == 0
    x = np.where(changed[:, None, None, None], 1 - X, X)
    whole, asked = judge(classifier, x, y), []
    for name, value in vars(judge_again(classifier, before, changed, x, y)).items():
        np.testing.assert_allclose(value, vars(whole)[name], rtol=1e-6)
    judge_again(classifier, before, changed & False, x, y, should_stop=lambda: asked.append(1) or True)
    assert not asked, "the network isn't asked at all"


def test_an_attack_that_claims_success_is_not_believed(linear: keras.Model) -> None:
    """It returns the images themselves, with scores of success: the model still gets them right."""

    class Boasting(FGSM):
        def found(self, state: Any, numbers: Any) -> tuple[tf.Tensor, tf.Tensor]:
            return state.x_adv, tf.fill(tf.shape(state.score), -1.0)

    y = labels_of(linear, X, 5)
    result = Boasting(epsilon=0.0)(linear, X, y)
    np.testing.assert_array_equal(result.success, np.arange(21) < 5)
    np.testing.assert_array_equal(result.success, np.asarray(linear(result.x_adv)).argmax(axis=1) != y)


def test_of_equally_frequent_classes_the_lowest_is_the_prediction() -> None:
    count = tf.Variable(0)

    def alternating(x: tf.Tensor) -> tf.Tensor:
        """Says 2, 1, 2, 1, ..."""
        label = 1 + count.assign_add(1) % 2
        return tf.repeat(tf.one_hot([label], 3), tf.shape(x)[0], axis=0) + 0 * tf.reduce_sum(x)

    classifier = as_classifier(alternating, image_shape=X.shape[1:])
    verdict = judge(classifier, X, np.ones(21, np.int64), passes=4)
    assert {tuple(column) for column in verdict.passes.T} <= {(1, 2, 1, 2), (2, 1, 2, 1)}
    np.testing.assert_array_equal(verdict.prediction, 1)
    assert verdict.wrong.all()


def coin(share: float) -> keras.Model:
    """A network that says 1 with this probability, else 0, whatever it sees."""
    seen = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(seen)
    one = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones")(flat)
    kept = RandomDropout(1 - share)(one)
    return keras.Model(seen, keras.layers.Concatenate()([0 * one + 0.5, kept]))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_mean_over_passes_is_the_expected_accuracy(share: float) -> None:
    y, passes = np.ones(21, np.int64), 400
    verdict = judge(as_classifier(coin(share)), X, y, passes=passes, batch_size=8)
    spread = np.sqrt(share * (1 - share) / passes)
    assert np.abs(verdict.correct_rate - share).max() < 5 * spread
    assert verdict.accuracy == pytest.approx(share, abs=5 * spread / np.sqrt(21))
    assert (verdict.wrong == (share < 0.5)).all()
    np.testing.assert_allclose(verdict.correct_rate, (verdict.passes == 1).mean(axis=0))


def test_passes_are_fresh_and_repeat_by_seed(randomized: keras.Model) -> None:
    classifier, y = as_classifier(randomized), np.zeros(21, np.int64)
    one, again, other = (judge(classifier, X, y, passes=6, seed=[seed, 1], batch_size=8) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.passes, again.passes)
    np.testing.assert_array_equal(one.confidence, again.confidence)
    assert not np.array_equal(one.passes, other.passes)
    assert len({row.tobytes() for row in one.passes}) > 1


def test_noise_differs_between_batches_and_images() -> None:
    same = np.repeat(X[:1], 64, axis=0)
    verdict = judge(as_classifier(coin(0.5)), same, np.zeros(64, np.int64), passes=3, batch_size=16)
    batches = verdict.passes.reshape(3 * 4, 16)
    assert len({row.tobytes() for row in batches}) == 12


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 23])
def test_every_image_is_judged_whatever_the_batches(count: int, weights: tuple[np.ndarray, np.ndarray]) -> None:
    model = linear_model(*weights)
    x = images(count, seed=4)
    y = labels_of(model, x, 0)
    sizes = set()

    def function(images: tf.Tensor) -> tf.Tensor:
        sizes.add(images.shape[0])
        return model(images)

    for one in (model, function):
        classifier = as_classifier(one, image_shape=x.shape[1:])
        sizes.clear()
        np.testing.assert_array_equal(judge(classifier, x, y, batch_size=8).prediction, y)
    assert sizes == {min(count, 8)}, "the rest is padded, as some code is made for one size"


def test_cancelling_between_batches(linear: keras.Model) -> None:
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        judge(as_classifier(linear), X, np.zeros(21, np.int64), batch_size=4, should_stop=should_stop)
    assert len(asked) == 3
