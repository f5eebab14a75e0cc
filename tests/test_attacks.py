"""Every attack against rules that hold for all, and against closed forms on linear models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from attack_table import NOISY, TABLE
from conftest import PIXELS, SHAPE, images, labels_of, linear_model, same, soft

from kerasrobust.attacks import (
    ATTACKS,
    FGSM,
    PGD,
    AttackResult,
    Step,
    batch,
)
from kerasrobust.errors import Cancelled
from kerasrobust.networks.making import as_classifier, classifier_of

N, WRONG, BATCH = 22, 4, 8
X = np.random.default_rng(5).random((N, *SHAPE)).astype(np.float32)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


@pytest.fixture(scope="module")
def models(linear: keras.Model, small: keras.Model, randomized: keras.Model) -> dict[str, Any]:
    def function(x: tf.Tensor) -> tf.Tensor:
        return linear(x, training=False)

    # A bare function would be traced anew in each call.
    return {
        "convnet": small,
        "randomized": randomized,
        "callable": as_classifier(function, image_shape=SHAPE),
    }


@pytest.fixture(scope="module")
def labels(linear: keras.Model, small: keras.Model) -> dict[str, np.ndarray]:
    found = labels_of(small, X, WRONG)
    return {"convnet": found, "randomized": found, "callable": labels_of(linear, X, WRONG)}


def predicted(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False) if isinstance(model, keras.Model) else model(x)).argmax(axis=1)


def norm_of(result: AttackResult, x: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm((result.x_adv.astype(np.float64) - x).reshape(len(x), -1), ord=ORDER[norm], axis=1)


def test_the_table_holds_every_attack() -> None:
    assert {made.make().name for made in TABLE.values()} == set(ATTACKS)
    assert {TABLE[name].make().name for name in NOISY} == set(ATTACKS)


@pytest.mark.parametrize(
    ("name", "model_name"),
    [
        *((name, "convnet") for name in TABLE),
        *((name, "randomized") for name in NOISY),
        *((name, "callable") for name in ("pgd-linf", "deepfool-l2")),
    ],
)
def test_rules_for_all(name: str, model_name: str, models: dict[str, Any], labels: dict[str, np.ndarray]) -> None:
    """One test for all rules, as they share one trace."""
    model, y, attack = models[model_name], labels[model_name], TABLE[name].make()
    random = model_name == "randomized"
    settings: dict[str, Any] = {"batch_size": BATCH, "precision": "float32", "passes": 8}
    result = attack(model, X, y, seed=3, **settings)
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.shape == X.shape
    assert np.isfinite(result.x_adv).all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    np.testing.assert_allclose(result.distance, norm_of(result, X, attack.norm), rtol=1e-6, atol=1e-9)
    if attack.radius() is not None:
        assert result.distance.max() <= attack.radius() + 1e-6
    # Success is what the model says about the result, and nothing else.
    if random:
        np.testing.assert_allclose(result.correct_rate, (result.passes == y).mean(axis=0))
        np.testing.assert_array_equal(result.success, result.correct_rate <= 0.5)
    else:
        np.testing.assert_array_equal(result.prediction_adv, predicted(model, result.x_adv))
        np.testing.assert_array_equal(result.prediction, predicted(model, X))
        np.testing.assert_array_equal(result.success, result.prediction_adv != y)
        np.testing.assert_array_equal(result.correct_rate, ~result.success)
    # What was wrong from the start (in all passes) is left alone, and counts as success; the others are attacked.
    wrong = result.clean_rate == 0
    assert wrong[:WRONG].all() or random
    np.testing.assert_array_equal(result.x_adv[wrong], X[wrong])
    assert result.success[wrong].all() or random
    # A minimum-norm attack leaves where they are what it found no way for.
    assert (result.distance[~wrong & (result.success | (not attack.minimum_norm))] > 0).all()
    same(result, attack(model, X, y, seed=3, **settings))
    if attack.minimum_norm and model_name != "convnet":
        return
    whole = attack(model, X, y, seed=3, early_stop=False, **settings)
    if not attack.minimum_norm:
        assert (whole.distance > 0).all()
        assert whole.gradients == N * TABLE[name].gradients
    if model_name != "convnet":
        return
    # Noise follows the seed, where there is any.
    other = attack(model, X, y, seed=4, early_stop=False, **settings)
    assert np.array_equal(whole.x_adv, other.x_adv) != TABLE[name].random
    if not attack.minimum_norm and attack.in_ball:
        nothing = TABLE[name].make(epsilon=0)(model, X, y, early_stop=False, **settings)
        np.testing.assert_array_equal(nothing.x_adv, X)
        np.testing.assert_array_equal(nothing.success, np.arange(N) < WRONG)


class Counting(keras.layers.Layer):
    """Counts the images that pass forth, and those whose gradients pass back."""

    def __init__(self) -> None:
        super().__init__()
        self.forth = self.back = 0

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        def note(name: str, values: tf.Tensor) -> tf.Tensor:
            def count(array: np.ndarray) -> np.ndarray:
                setattr(self, name, getattr(self, name) + len(array))
                return array

            return tf.ensure_shape(tf.numpy_function(count, [values], values.dtype), values.shape)

        @tf.custom_gradient
        def counted(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return note("forth", x), lambda slope: note("back", slope)

        return counted(inputs)


@pytest.fixture
def counted(weights: tuple[np.ndarray, np.ndarray]) -> tuple[Counting, Any, np.ndarray]:
    """A layer that counts, the model around it, and its predictions; anew, as a kept graph of verdicts is compared
    with the model in each call, which the network sees as well."""
    counter = Counting()
    model = linear_model(*weights, counter)
    # Of a range that is said, as finding it out asks the network, too.
    return counter, as_classifier(model, input_range=(0, 1), colors="rgb"), labels_of(model, X, 0)


ASKING = [name for name, made in TABLE.items() if name.endswith(made.make().norms[0])]


@pytest.mark.parametrize(
    ("name", "eot"),
    # With several passes one attack for each way of asking.
    [(name, 1) for name in ASKING] + [(f"{name}-linf", 3) for name in ("pgd", "deepfool", "apgd-t", "fab", "square")],
)
def test_the_cost_is_what_the_network_sees(name: str, eot: int, counted: tuple[Counting, Any, np.ndarray]) -> None:
    """Forward passes beyond those of gradients, and gradients, one per class where all are asked for at once."""
    counter, classifier, y = counted
    attack = TABLE[name].make(eot=eot)
    counter.forth = counter.back = 0
    result = attack(classifier, X, y, early_stop=False, batch_size=BATCH, precision="float32")
    at_once = 3 if name.split("-")[0] in ("deepfool", "superdeepfool", "fab") and "-t-" not in name else 1
    assert counter.back == result.gradients
    # FMN takes three gradients at once to begin with, and one a step.
    shared = 2 * N if name == "fmn-linf" else 0
    assert counter.forth == result.forwards + result.gradients / at_once - shared
    if eot > 1 and not attack.minimum_norm:
        assert result.gradients == eot * N * TABLE[name].gradients


@pytest.mark.parametrize(
    "name", ["pgd-l2", "pgd restarts-linf", "fgsm-rs-linf", "apgd-t-linf", "patch-l0", "spatial-l0", "sparse-rs-l0"]
)
def test_an_examples_attack_does_not_depend_on_its_place(
    name: str, small: keras.Model, labels: dict[str, np.ndarray]
) -> None:
    """Without early stop, some of the images in another order; test_batch has those that leave and join."""
    attack, y = TABLE[name].make(), labels["convnet"]
    together = attack(small, X, y, batch_size=N, early_stop=False)
    order = np.random.default_rng(0).permutation(N)[:13]
    some = attack(small, X[order], y[order], batch_size=7, early_stop=False)
    np.testing.assert_array_equal(some.success, together.success[order])
    np.testing.assert_allclose(some.x_adv, together.x_adv[order], atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_of_an_image_is_the_same_alone_and_in_a_batch(norm: str) -> None:
    """On a model without gradient an attack stays where it starts."""

    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reshape(x, (-1, PIXELS))[:, :3])

    attack, model = PGD(norm=norm, epsilon=0.1, steps=1, keep_best=False), as_classifier(flat, image_shape=SHAPE)
    y = np.zeros(5, np.int64)
    together = attack(model, X[:5], y, early_stop=False).x_adv
    alone = [attack(model, X[i : i + 1], y[:1], early_stop=False).x_adv[0] for i in range(5)]
    np.testing.assert_array_equal(together, alone)
    assert len({part.tobytes() for part in together - X[:5]}) == 5


def test_padding_of_the_last_batch_is_harmless(small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    y = labels["convnet"]
    attack = PGD(epsilon=0.05, steps=4)
    padded = attack(small, X[:5], y[:5], batch_size=4, early_stop=False)
    full = attack(small, X[:4], y[:4], batch_size=4, early_stop=False)
    np.testing.assert_array_equal(padded.x_adv[:4], full.x_adv)
    assert padded.gradients == 5 * 4


MIDDLE = images(40)


@pytest.mark.parametrize("name", [name for name, made in TABLE.items() if made.targeted])
def test_targets_are_reached(name: str, weights: tuple[np.ndarray, np.ndarray]) -> None:
    model = linear_model(*soft(weights))
    y = labels_of(model, MIDDLE, 0)
    target = (y + 1 + np.arange(40) % 3) % 4
    attack = TABLE[name].make(epsilon=0.3 if name.endswith("linf") else 6.0, targeted=True)
    result = attack(model, MIDDLE, y, target=target)
    np.testing.assert_array_equal(result.prediction_adv, target)
    assert result.success.all()
    # Success means the target: another wrong class is none. What says it already stays as it is.
    nothing = TABLE[name].make(epsilon=0.0, targeted=True)
    assert not nothing(model, MIDDLE, y, target=target).success.any()
    already = attack(model, MIDDLE, (y + 1) % 4, target=y)
    np.testing.assert_array_equal(already.x_adv, MIDDLE)
    assert already.success.all()


def margins(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    logits = np.asarray(model(x, training=False))
    others = np.where(np.eye(logits.shape[1], dtype=bool)[y], -np.inf, logits).max(axis=1)
    return logits[np.arange(len(y)), y] - others


def test_more_restarts_are_never_worse(small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    y = labels["convnet"]
    found = [
        margins(small, PGD(epsilon=0.02, steps=2, restarts=restarts)(small, X, y, early_stop=False).x_adv, y)
        for restarts in (1, 2, 6)
    ]
    assert (found[1] <= found[0] + 1e-5).all()
    assert (found[2] <= found[1] + 1e-5).all()
    assert (found[2] < found[0] - 1e-3).any()


def test_the_best_iterate_is_never_worse_than_the_last(small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    y = labels["convnet"]
    # Steps so long that the loss swings.
    settings: dict[str, Any] = {"epsilon": 0.05, "steps": 6, "step_size": 0.08}
    best = PGD(**settings)(small, X, y, early_stop=False).x_adv
    last = PGD(**settings, keep_best=False)(small, X, y, early_stop=False).x_adv
    assert (margins(small, best, y) <= margins(small, last, y) + 1e-5).all()
    assert (margins(small, best, y) < margins(small, last, y) - 1e-3).any()


def test_early_stop_saves_gradients_and_not_successes(small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    y = labels["convnet"]
    attack = PGD(epsilon=0.1, steps=20, restarts=3)
    early, whole = (attack(small, X, y, early_stop=early, batch_size=BATCH) for early in (True, False))
    assert whole.gradients == N * 60
    assert early.gradients < whole.gradients / 2
    np.testing.assert_array_equal(early.success, whole.success)


def test_clean_verdict_given_is_not_computed_again(small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    from kerasrobust.attacks.verdict import judge

    y = labels["convnet"]
    clean = judge(classifier_of(small), X, y)
    given, own = FGSM()(small, X, y, clean=clean), FGSM()(small, X, y)
    same(given, own)
    assert given.forwards == own.forwards - N


# Around the attack.


@pytest.mark.parametrize(
    "name",
    [
        "pgd restarts-linf",
        "mifgsm-l2",
        "deepfool-linf",
        "ddn-l2",
        "patch-l0",
        "universal-patch-l0",
        "spatial-l0",
        "sparse-rs-l0",
    ],
)
@pytest.mark.parametrize("early_stop", [True, False])
def test_progress_moves_forward_and_ends_at_the_total(
    name: str, early_stop: bool, small: keras.Model, labels: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "EMIT_SECONDS", 0.0)  # Otherwise the clock decides how much of it is seen.
    told: list[Step] = []
    result = TABLE[name].make()(
        small, X, labels["convnet"], batch_size=BATCH, progress=told.append, early_stop=early_stop
    )
    assert len(told) >= 3
    for before, after in pairwise(told):
        assert after.done >= before.done
        assert after.gradients >= before.gradients
        assert after.forwards >= before.forwards
        assert after.survivors <= before.survivors
    assert {step.total for step in told} == {N}
    assert all(0 <= step.step <= step.steps and step.done <= N for step in told)
    last = told[-1]
    assert (last.done, last.gradients, last.forwards) == (N, result.gradients, result.forwards)
    assert last.survivors == int((~result.success).sum())


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_cancelling_between_chunks(after: int, small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    with pytest.raises(Cancelled):
        PGD(steps=50)(small, X, labels["convnet"], batch_size=4, should_stop=should_stop, early_stop=False)
    assert asked == after + 1


@pytest.mark.parametrize("name", ["pgd-linf", "deepfool-l2"])
def test_bfloat16_gradients_with_float32_verdicts(name: str, small: keras.Model, labels: dict[str, np.ndarray]) -> None:
    y = labels["convnet"]
    exact, fast = (TABLE[name].make()(small, X, y, precision=kind) for kind in ("float32", "bfloat16"))
    np.testing.assert_array_equal(fast.prediction_adv, predicted(small, fast.x_adv))
    assert not np.array_equal(exact.x_adv, fast.x_adv)
    assert abs(float(fast.success.mean()) - float(exact.success.mean())) < 0.3
    same(exact, TABLE[name].make()(small, X, y, precision="auto"))


def test_bfloat16_follows_weights_that_change(weights: tuple[np.ndarray, np.ndarray]) -> None:
    model = linear_model(*soft(weights))
    y = np.zeros(40, np.int64)
    attack = FGSM(epsilon=0.1)
    before = attack(model, MIDDLE, y, precision="bfloat16", early_stop=False).x_adv
    model.set_weights([-part for part in model.get_weights()])
    after = attack(model, MIDDLE, y, precision="bfloat16", early_stop=False).x_adv
    fresh = attack(linear_model(*model.get_weights()), MIDDLE, y, precision="bfloat16", early_stop=False).x_adv
    np.testing.assert_array_equal(after, fresh)
    assert not np.array_equal(before, after)
