"""Networks of several labels an image, held to plain TensorFlow: each label alone, and all of them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images
from keras import layers as L

import kerasrobust as kr
from kerasrobust.attacks import BIM, PGD, DeepFool, Square
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.events import AttackProgress, Event, LabelFinished, StageFinished, StageStarted
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout

EPSILON = 4 / 255
LEVELS = (0.06, 0.03, 0.015)
"""By how much each label brightens or darkens its colour: the last one is hard to see, and easy to flip."""


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, (count, 3))
    x = 0.5 + 0.08 * draw.normal(size=(count, *SHAPE)) + ((2 * y - 1) * LEVELS)[:, None, None]
    return np.clip(x, 0, 1).astype(np.float32), y


X, Y = drawn(120, 1)


def trained(*before: L.Layer, scale: float = 1.0) -> keras.Model:
    """Returns a network of random filters, with least squares on top, for pixels from 0 to `scale`."""
    keras.utils.set_random_seed(0)
    last = L.Dense(3, activation="sigmoid")
    model = keras.Sequential([keras.Input(SHAPE), *before, L.Conv2D(12, 3, activation="relu"), L.Flatten(), last])
    x, y = drawn(2000, 0)
    seen = keras.Model(model.inputs[0], model.layers[-2].output)(x * scale, training=False).numpy()
    seen = np.hstack([seen, np.full((len(seen), 1), scale)])
    weights = np.linalg.solve(seen.T @ seen + 0.3 * scale**2 * np.eye(seen.shape[1]), seen.T @ (8.0 * y - 4.0))
    last.set_weights([weights[:-1], weights[-1] * scale])
    return model


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return trained()


@pytest.fixture(scope="module")
def found(network: keras.Model) -> Evaluation:
    return evaluate(network, X, Y, attacks="pgd", epsilon=EPSILON)


def logits_of(model: keras.Model) -> keras.Model:
    """Returns the same network up to its logits, with the very weights."""
    last = model.layers[-1]
    plain = L.Dense(last.units)
    logits = keras.Model(model.inputs, plain(model.layers[-2].output))
    plain.set_weights(last.get_weights())
    return logits


def right(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Which labels of `X` are right, by plain Keras: bool (N, L)."""
    return (model.predict(x, verbose=0) > 0.5) == Y[: len(x)]


def by_hand(logits: keras.Model, y: np.ndarray, epsilon: float, steps: int, columns: list[int]) -> np.ndarray:
    """Which images stay right under BIM on the sum of the binary cross-entropies of some labels, bool (N,)."""
    x, target = tf.constant(X), tf.constant(y[:, columns], tf.float32)
    now, left = x, np.ones(len(X), bool)
    for step in range(steps + 1):
        with tf.GradientTape() as tape:
            tape.watch(now)
            z = tf.gather(logits(now), columns, axis=1)
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(target, z))
        left &= ((z.numpy() > 0) == (y[:, columns] == 1)).all(axis=1)
        if step < steps:
            now = now + epsilon / 4 * tf.sign(tape.gradient(loss, now))
            now = tf.clip_by_value(tf.clip_by_value(now, x - epsilon, x + epsilon), 0.0, 1.0)
    return left


# How outputs are read.


def test_clean_accuracies_are_those_of_predict(network: keras.Model, found: Evaluation) -> None:
    hits = right(network, X)
    assert found.clean_accuracy == pytest.approx(hits.all(axis=1).mean())
    assert [label.clean_accuracy for label in found.labels] == pytest.approx(list(hits.mean(axis=0)))
    assert [label.share for label in found.labels] == pytest.approx(list(Y.mean(axis=0)))
    assert [label.name for label in found.labels] == ["0", "1", "2"]
    assert found.conventions == {"outputs": "multi-label"}


def test_verdicts_are_those_of_predict_on_the_examples(network: keras.Model, found: Evaluation) -> None:
    x_adv = found.worst.x_adv
    assert np.abs(x_adv - X).max() <= EPSILON + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
    np.testing.assert_array_equal(found.per_example == 1, right(network, x_adv).all(axis=1))
    assert 0 < found.robust_accuracy < found.clean_accuracy
    assert found.attacks[0].robust_accuracy == found.robust_accuracy


@pytest.mark.parametrize("label", [0, 1, 2])
def test_each_label_is_the_network_of_that_output_alone(network: keras.Model, found: Evaluation, label: int) -> None:
    last = network.layers[-1]
    alone = L.Dense(1, activation="sigmoid")
    model = keras.Model(network.inputs, alone(network.layers[-2].output))
    alone.set_weights([last.kernel.numpy()[:, label : label + 1], last.bias.numpy()[label : label + 1]])
    expected = evaluate(model, X, Y[:, label], attacks="pgd", epsilon=EPSILON, audit=False)
    ours = found.labels[label]
    np.testing.assert_array_equal(ours.per_example, expected.per_example)
    assert (ours.clean_accuracy, ours.interval) == (expected.clean_accuracy, expected.interval)
    assert ours.attacks[0]["gradients"] == expected.attacks[0].result.gradients


def test_all_labels_are_right_where_no_attack_on_any_of_them_succeeds(network: keras.Model) -> None:
    """BIM by hand, on the sum of the losses and on each label's, says the same of every image."""
    logits, attack = logits_of(network), BIM(epsilon=EPSILON, steps=8, step_size=EPSILON / 4)
    alone = [by_hand(logits, Y, EPSILON, 8, [label]) for label in range(3)]
    together = by_hand(logits, Y, EPSILON, 8, [0, 1, 2])
    ours = evaluate(network, X, Y, attacks=attack, audit=False)
    for label, expected in zip(ours.labels, alone, strict=True):
        np.testing.assert_array_equal(label.per_example == 1, expected)
    np.testing.assert_array_equal(ours.per_example == 1, together & np.all(alone, axis=0))
    np.testing.assert_array_equal(attack(network, X, Y).success, ~together)


def test_what_flips_one_label_counts_for_all_though_the_sum_of_losses_looks_elsewhere() -> None:
    """Two labels on one pixel each; the steps of a sum follow the larger gradient, and miss the nearer boundary."""
    kernel = np.zeros((192, 2), np.float32)
    kernel[0] = 40.0, -1.0
    logits = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(2)])
    logits.layers[-1].set_weights([kernel, np.array([-17.0, 0.51], np.float32)])
    x = np.full((1, *SHAPE), 0.5, np.float32)  # Logits 3 and 0.01: up flips the second, and down helps it.
    model = as_classifier(logits, outputs="multi-label")
    attack = BIM(epsilon=0.05, steps=3)
    assert not attack(model, x, np.array([[1, 1]])).success[0]
    ours = evaluate(model, x, np.array([[1, 1]]), attacks=attack, audit=False)
    assert [label.robust_accuracy for label in ours.labels] == [1, 0] and ours.robust_accuracy == 0
    z = logits(ours.worst.x_adv).numpy()[0]
    assert z[0] > 0 > z[1]


def test_the_nearest_example_is_that_of_the_nearest_label(network: keras.Model) -> None:
    """For a linear network the distance to the nearest pattern is that to the nearest label's plane, in closed form."""
    draw = np.random.default_rng(0)
    kernel, bias = draw.normal(size=(192, 3)).astype(np.float32), np.zeros(3, np.float32)
    linear = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(3, activation="sigmoid")])
    linear.layers[-1].set_weights([kernel, bias])
    x = images(24)
    z = x.reshape(24, -1) @ kernel
    ours = evaluate(linear, x, z > 0, attacks=DeepFool(norm="l2"), audit=False)
    distances = np.abs(z) / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(ours.worst.distance, distances.min(axis=1), rtol=0.05, atol=2e-3)
    medians = [label.attacks[0]["median_distance"] for label in ours.labels]
    np.testing.assert_allclose(medians, np.median(distances, axis=0), rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("attacks", [AutoAttack(epsilon=EPSILON / 2, attacks=("fgsm", "pgd")), ["fgsm", "pgd"]])
def test_all_together_is_never_above_a_label(network: keras.Model, attacks: Any) -> None:
    ours = evaluate(network, X[:40], Y[:40], attacks=attacks, epsilon=EPSILON / 2, audit=False)
    for label in ours.labels:
        assert (ours.per_example <= label.per_example).all()
    np.testing.assert_array_equal(ours.per_example == 1, right(network, ours.worst.x_adv).all(axis=1))
    if isinstance(attacks, list):  # Each by itself: what PGD finds isn't FGSM's.
        for place, report in enumerate(ours.attacks):
            assert report.robust_accuracy <= min(label.attacks[place]["robust_accuracy"] for label in ours.labels)
        assert ours.attacks[1].robust_accuracy <= ours.attacks[0].robust_accuracy


def test_a_twin_reads_its_outputs_the_same_way() -> None:
    model = trained(L.BatchNormalization())
    plain, folded = (
        evaluate(model, X[:60], Y[:60], attacks="pgd", epsilon=EPSILON, precision=precision, audit=False)
        for precision in ("float32", "folded")
    )
    assert (plain.precision, folded.precision) == ("float32", "folded")
    for ours, other in zip([plain, *plain.labels], [folded, *folded.labels], strict=True):
        assert np.mean(ours.per_example != other.per_example) <= 0.02


def test_a_randomized_network_is_judged_by_fresh_passes() -> None:
    model = trained(RandomDropout(0.1))
    ours = evaluate(model, X[:40], Y[:40], attacks=PGD(epsilon=EPSILON, steps=5, eot=2), passes=8, audit=False)
    assert ours.randomized and ours.worst.passes.shape == (8, 40) and 0 < ours.per_example.mean() < 1
    for label in ours.labels:  # Noise, and no more: fresh passes judge each.
        assert ours.robust_accuracy <= label.robust_accuracy + 0.05


# How it is chosen.


def test_a_call_with_several_labels_leaves_later_ones_alone(network: keras.Model, found: Evaluation) -> None:
    one = Y.sum(axis=1) == 1
    classes = evaluate(network, X[one], Y[one].argmax(axis=1), epsilon=EPSILON, audit=False)
    expected = network.predict(X[one], verbose=0).argmax(axis=1) == Y[one].argmax(axis=1)
    assert classes.labels == [] and classes.clean_accuracy == pytest.approx(expected.mean())
    rows = evaluate(network, X[one], Y[one], epsilon=EPSILON, audit=False)
    assert rows.labels == [] and rows.robust_accuracy == classes.robust_accuracy


def test_rows_of_a_single_one_are_labels_where_it_is_said(network: keras.Model, found: Evaluation) -> None:
    one = np.flatnonzero(Y.sum(axis=1) == 1)
    said = as_classifier(trained(), outputs="multi-label")
    ours = evaluate(said, X[one], Y[one], epsilon=EPSILON, audit=False)
    assert ours.clean_accuracy == pytest.approx(right(network, X)[one].all(axis=1).mean())
    assert len(ours.labels) == 3 and ours.conventions == {"outputs": "multi-label"}
    with pytest.raises(InputError, match=r"Expected labels of 0 and 1, \(2, L\)"):
        evaluate(said, X[:2], np.array([0, 1]))


@pytest.mark.parametrize("form", ["function", "logits"])
def test_other_forms_of_a_model(network: keras.Model, found: Evaluation, form: str) -> None:
    logits = logits_of(network)
    model = as_classifier(logits, outputs="multi-label") if form == "logits" else lambda x: network(x, training=False)
    ours = evaluate(model, X, Y.astype(bool), attacks="pgd", epsilon=EPSILON, audit=False)
    np.testing.assert_array_equal(ours.worst.clean_rate == 1, right(network, X).all(axis=1))
    assert ours.robust_accuracy == pytest.approx(found.robust_accuracy, abs=0.01)


def test_a_black_box_of_numpy() -> None:
    kernel = np.random.default_rng(0).normal(size=(192, 3)).astype(np.float32)

    def sigmoids(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(x - 0.5).reshape(len(x), -1) @ kernel))

    y = (X[:12] - 0.5).reshape(12, -1) @ kernel > 0
    ours = evaluate(sigmoids, X[:12], y, attacks=Square(epsilon=EPSILON, queries=100), audit=False)
    assert ours.clean_accuracy == 1 and len(ours.labels) == 3
    np.testing.assert_array_equal(ours.per_example == 1, ((sigmoids(ours.worst.x_adv) > 0.5) == y).all(axis=1))


def test_data_sets_of_several_labels(network: keras.Model, found: Evaluation, tmp_path: Path) -> None:
    pairs = tf.data.Dataset.from_tensor_slices((X, Y.astype(np.float32)))
    for data in (pairs, pairs.batch(32)):
        ours = evaluate(network, data, epsilon=EPSILON, audit=False)
        assert ours.robust_accuracy == found.robust_accuracy
    np.savez(tmp_path / "own.npz", x=X, y=Y)
    data = kr.load_dataset(str(tmp_path / "own.npz"), "all")
    np.testing.assert_array_equal(data.y, Y)
    assert data.classes == 3
    one = np.flatnonzero(Y.sum(axis=1) == 1)[:6]  # A part where each image has one: still labels by themselves.
    assert len(evaluate(network, data[one], epsilon=EPSILON, audit=False).labels) == 3


def test_the_range_of_pixels_is_found_out_as_for_classes(found: Evaluation) -> None:
    model = trained(scale=255.0)
    ours = evaluate(model, X, Y, epsilon=EPSILON, audit=False)
    assert ours.conventions["input_range"] == "0,255" and len(ours.labels) == 3
    assert ours.clean_accuracy == pytest.approx(right(model, X * 255).all(axis=1).mean())


def plain(width: int, activation: str | None = None) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(width, activation=activation)], name="theirs")


@pytest.mark.parametrize(
    ("model", "y", "part"),
    [
        (lambda: plain(3), Y, "no sigmoids. Received: several labels an image.*--outputs multi-label"),
        (lambda: plain(3, "softmax"), Y, "no sigmoids"),
        (lambda: plain(5, "sigmoid"), Y, "Expected labels of 5 columns.*Received: .*3 columns"),
        (lambda: plain(1, "sigmoid"), Y, "Expected labels of 1 columns"),
        (lambda: plain(11, "sigmoid"), np.ones((120, 11)), r"at most 10 labels.*with 11.*\[:, k : k \+ 1\]"),
        (lambda: plain(3, "sigmoid"), Y * 0.5, "one-hot labels, of 0 and 1"),
        (lambda: plain(3, "sigmoid"), 2 * Y - 1, "one-hot labels, of 0 and 1"),
        (lambda: plain(3, "sigmoid"), Y[:7], "for each of 120 images|one row an image"),
        (lambda: as_classifier(plain(3, "softmax"), outputs="multi-label"), Y, "ends in softmax"),
        (lambda: as_classifier(plain(3), outputs="multi-label"), Y * 0.5, "with other numbers"),
        (lambda: as_classifier(plain(3), outputs="multi-label"), np.full((120, 3), np.nan), "with other numbers"),
        (lambda: as_classifier(plain(12), outputs="multi-label"), Y, "at most 10 labels"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model: Any, y: np.ndarray, part: str) -> None:
    with pytest.raises(InputError, match=part) as error:
        evaluate(model(), X, y)
    assert "\n" not in str(error.value) and "Received" in str(error.value)


def test_the_way_out_of_too_many_labels_works() -> None:
    many = plain(12, "sigmoid")
    y = np.random.default_rng(0).integers(0, 2, (6, 12))
    some = keras.Model(many.inputs, many.outputs[0][:, :10])
    ours = evaluate(some, X[:6], y[:, :10], attacks="fgsm", audit=False)
    expected = (many.predict(X[:6], verbose=0) > 0.5) == y
    assert [label.clean_accuracy for label in ours.labels] == pytest.approx(list(expected.mean(axis=0)[:10]))
    one = as_classifier(keras.Model(many.inputs, many.outputs[0][:, 11:12]), input_range="0,1")
    assert evaluate(one, X[:6], y[:, 11], audit=False).clean_accuracy == pytest.approx(expected[:, 11].mean())


def test_a_sound_network_raises_no_doubt(found: Evaluation) -> None:
    assert {finding.code for finding in found.findings} <= {"conventions", "rounding"}
    assert found.audit is not None and "at-chance" in found.audit.checked


def test_a_network_that_always_says_the_same_is_at_chance() -> None:
    y = (np.random.default_rng(0).random((60, 3)) < 0.2).astype(int)
    constant = plain(3, "sigmoid")
    constant.layers[-1].set_weights([np.full((192, 3), 1e-5), np.full(3, -2.0)])
    ours = evaluate(constant, X[:60], y, epsilon=EPSILON)
    at_chance = [finding for finding in ours.findings if finding.code == "at-chance"]
    assert len(at_chance) == 1 and "It says no label of every image" in at_chance[0].message
    assert at_chance[0].severity == "error"


def test_a_label_without_gradient_is_named_though_the_others_have_one(network: keras.Model) -> None:
    logits = logits_of(network)

    def blind(x: tf.Tensor) -> tf.Tensor:
        z = logits(x)
        return tf.sigmoid(tf.concat([z[:, :2], tf.stop_gradient(z[:, 2:])], axis=1))

    ours = evaluate(blind, X[:8], Y[:8], epsilon=EPSILON, audit=False)
    messages = {finding.code: finding.message for finding in ours.findings}
    assert messages["black-box-only"].startswith("Label 2: No gradient of 'blind'")
    assert [entry["name"] for entry in ours.labels[2].attacks] == ["square", "hopskipjump"]
    assert ours.labels[2].robust_accuracy < ours.labels[2].clean_accuracy
    assert (ours.per_example <= ours.labels[2].per_example).all()


def test_stages_say_which_label_is_attacked(network: keras.Model, found: Evaluation) -> None:
    log: list[Event] = []
    evaluate(network, X, Y, epsilon=EPSILON, audit=False, emit=log.append)
    titles = [event.title for event in log if isinstance(event, StageStarted)]
    alone = [f"Attacking label {j} alone ({j + 1} of 3)" for j in range(3)]
    assert titles == [*alone, "Attacking all 3 labels together"]
    ended = [event.stage for event in log if isinstance(event, StageFinished)]
    assert len(set(ended)) == 4 and {event.stage for event in log if isinstance(event, AttackProgress)} == set(ended)
    labels = [event for event in log if isinstance(event, LabelFinished)]
    assert [label.robust_accuracy for label in labels] == [label.robust_accuracy for label in found.labels]


def test_it_resumes_within_a_label(network: keras.Model, found: Evaluation, tmp_path: Path) -> None:
    log: list[Event] = []
    settings: dict[str, Any] = {"epsilon": EPSILON, "resume_dir": tmp_path, "audit": False}
    with pytest.raises(Cancelled):
        evaluate(
            network, X, Y, emit=log.append, **settings,
            should_stop=lambda: sum(isinstance(event, StageStarted) for event in log) == 3,
        )  # fmt: skip
    assert sum(isinstance(event, LabelFinished) for event in log) == 2
    ours = evaluate(network, X, Y, **settings)
    np.testing.assert_array_equal(ours.per_example, found.per_example)
    for one, other in zip(ours.labels, found.labels, strict=True):
        np.testing.assert_array_equal(one.per_example, other.per_example)
    with pytest.raises(InputError, match="another in data"):
        evaluate(network, X, 1 - Y, **settings)
