"""Transfer: gradients of one model, verdicts of another, held to NumPy and to the models' own answers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

import kerasrobust as kr
from kerasrobust.attacks import FGSM, PGD, make_attack
from kerasrobust.errors import InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.events import AttackProgress
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier

EPSILON = 0.01
X = images(40, seed=4)
DRAW = np.random.default_rng(8)
KERNEL = DRAW.normal(size=(PIXELS, 4)) / 4
OTHER = KERNEL + DRAW.normal(size=(PIXELS, 4)) / 3
"""The surrogate's: alike, but not the same."""
BIASES = -KERNEL.sum(axis=0) / 2, -OTHER.sum(axis=0) / 2


def said(model: Any) -> Classifier:
    return as_classifier(model, input_range="0,1", colors="rgb")


@pytest.fixture(scope="module")
def model() -> Classifier:
    return said(linear_model(KERNEL, BIASES[0]))


@pytest.fixture(scope="module")
def other() -> Classifier:
    return said(linear_model(OTHER, BIASES[1]))


def logits(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64) @ kernel + bias


Y = logits(X, KERNEL, BIASES[0]).argmax(axis=1)
Y[::5] = (Y[::5] + 1) % 4


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the surrogate's cross-entropy, (softmax - one-hot) times its weights."""
    found = logits(x, OTHER, BIASES[1])
    shares = np.exp(found - found.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return ((shares - np.eye(4)[y]) @ OTHER.T).reshape(x.shape)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_follows_the_surrogate_and_is_judged_by_the_model(
    norm: Any, model: Classifier, other: Classifier
) -> None:
    epsilon = EPSILON if norm == "linf" else 10 * EPSILON
    found = kr.evaluate(model, X, Y, attacks=FGSM(norm=norm, epsilon=epsilon), surrogate=other)
    (report,) = found.attacks
    wrong = np.arange(40) % 5 == 0
    step = slope(X, Y)
    step = np.sign(step) if norm == "linf" else step / np.linalg.norm(step.reshape(40, -1), axis=1)[:, None, None, None]
    wanted = np.where(wrong[:, None, None, None], X, X + epsilon * step)
    np.testing.assert_allclose(report.result.x_adv, wanted, atol=2e-6)
    fallen = logits(wanted, KERNEL, BIASES[0]).argmax(axis=1) != Y
    np.testing.assert_array_equal(report.result.success, fallen)
    assert found.clean_accuracy == 0.8 and found.robust_accuracy == pytest.approx(1 - fallen.mean())
    own = logits(wanted, OTHER, BIASES[1]).argmax(axis=1) != Y
    assert 0 < fallen[~wrong].mean() < own[~wrong].mean()  # Or the two couldn't be told apart.
    assert report.entry()["surrogate"] == "linear" and report.entry()["gradients"] == 32
    assert found.audit is None


def test_the_same_by_a_call_of_the_attack(model: Classifier, other: Classifier) -> None:
    result = FGSM(epsilon=EPSILON)(model, X, Y, surrogate=other, early_stop=False)
    np.testing.assert_allclose(result.x_adv, X + EPSILON * np.sign(slope(X, Y)), atol=1e-6)
    np.testing.assert_array_equal(result.prediction_adv, logits(result.x_adv, KERNEL, BIASES[0]).argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "norm", "settings"),
    [
        ("pgd", "linf", {"restarts": 3, "steps": 4}), ("apgd-t", "linf", {"steps": 6}),
        ("fab-t", "linf", {"steps": 6}), ("cw", "l2", {"steps": 6}), ("deepfool", "l2", {}),
    ],
)  # fmt: skip
def test_a_model_as_its_own_surrogate_says_the_same(
    name: str, norm: Any, settings: dict[str, Any], small: keras.Model
) -> None:
    x = images(24, seed=2)
    y = labels_of(small, x, 3)
    epsilon = {"linf": 0.02, "l2": 0.2}[norm]
    attack = make_attack(name, norm=norm, epsilon=epsilon, **settings)
    plain = kr.evaluate(small, x, y, attacks=attack, epsilon=epsilon, audit=False)
    through = kr.evaluate(small, x, y, attacks=attack, epsilon=epsilon, surrogate=small)
    np.testing.assert_array_equal(through.per_example, plain.per_example)
    assert 0 < plain.robust_accuracy < plain.clean_accuracy
    if attack.minimum_norm and attack.search_radius() is None:
        np.testing.assert_array_equal(through.worst.x_adv, plain.worst.x_adv)
        assert through.attacks[0].entry()["median_distance"] == plain.attacks[0].entry()["median_distance"]


def test_of_several_restarts_one_counts_that_fools_the_model(model: Classifier, other: Classifier) -> None:
    """The first of them are the same whatever their number, and each is on those that none before has broken."""
    results = []
    for restarts in (1, 2, 3, 4):
        # A short step from a random start ends in another place each time.
        attack = PGD(epsilon=0.03, steps=1, step_size=0.004, restarts=restarts)
        result = kr.evaluate(model, X, Y, attacks=attack, surrogate=other).worst
        np.testing.assert_array_equal(result.success, logits(result.x_adv, KERNEL, BIASES[0]).argmax(axis=1) != Y)
        results.append(result)
    for fewer, more in pairwise(results):
        assert (more.success | ~fewer.success).all()
        assert more.gradients - fewer.gradients == (~fewer.success).sum()
    assert results[-1].success.sum() > results[0].success.sum() + 2


def test_what_fools_the_surrogate_alone_goes_on(model: Classifier, other: Classifier) -> None:
    """Every image takes all steps, so that the best is far inside: the surrogate's margin is the lowest there."""
    attack = PGD(epsilon=EPSILON, steps=5, random_start=False)
    result = attack(model, X, Y, surrogate=other)
    assert result.gradients == 5 * 32
    alone = attack(other, X, Y)
    right = np.arange(40) % 5 != 0
    found, early = (logits(item.x_adv, OTHER, BIASES[1]) for item in (result, alone))
    place = np.arange(40), Y
    assert (found[place] - found.max(axis=1))[right].mean() < (early[place] - early.max(axis=1))[right].mean()


def test_a_model_without_gradients_falls_to_a_surrogate(other: Classifier) -> None:
    blind = as_classifier(
        predict=lambda x: logits(x, KERNEL, BIASES[0]), image_shape=SHAPE, input_range="0,1", classes=4
    )
    found = kr.evaluate(blind, X, Y, attacks="fgsm", epsilon=EPSILON, surrogate=other)
    assert [report.attack.name for report in found.attacks] == ["fgsm"]
    fallen = logits(found.worst.x_adv, KERNEL, BIASES[0]).argmax(axis=1) != Y
    assert found.robust_accuracy == pytest.approx(1 - fallen.mean()) and fallen.mean() > 0.2


def test_targets_are_reached_where_the_model_says_so(model: Classifier, other: Classifier) -> None:
    found = kr.evaluate(
        model, X, Y, attacks=PGD(epsilon=2 * EPSILON, steps=5, restarts=2, targeted=True), target="next",
        surrogate=other,
    )  # fmt: skip
    there = logits(found.worst.x_adv, KERNEL, BIASES[0]).argmax(axis=1) == (Y + 1) % 4
    assert found.attacks[0].reached is not None and found.attacks[0].reached.accuracy == there.mean() > 0.2


@pytest.mark.parametrize("which", ["model", "surrogate"])
def test_a_randomized_network_on_either_side(which: str, small: keras.Model, randomized: keras.Model) -> None:
    x = images(16, seed=2)
    y = labels_of(small, x, 2)
    pair = (randomized, small) if which == "model" else (small, randomized)
    attack = PGD(epsilon=0.05, steps=3, restarts=2, eot=1 if which == "model" else 3)
    one, again = (
        kr.evaluate(pair[0], x, y, attacks=attack, surrogate=pair[1], passes=6, seed=3) for _ in range(2)
    )  # fmt: skip
    np.testing.assert_array_equal(one.worst.x_adv, again.worst.x_adv)
    assert one.randomized == (which == "model") and one.robust_accuracy < one.clean_accuracy


def test_an_ensemble_of_gradient_attacks_goes_on_with_what_the_model_has_left(
    model: Classifier, other: Classifier
) -> None:
    parts = AutoAttack(epsilon=0.012, attacks=(PGD(epsilon=0.012, steps=3), "apgd-ce"))
    found = kr.evaluate(model, X, Y, attacks=parts, surrogate=other)
    left = logits(found.attacks[0].result.x_adv, KERNEL, BIASES[0]).argmax(axis=1) == Y
    np.testing.assert_array_equal(found.attacks[1].attacked, left)
    result = parts(model, X, Y, surrogate=other)
    np.testing.assert_array_equal(result.x_adv, found.worst.x_adv)


def test_what_makes_no_sense_is_refused_in_one_line(model: Classifier, other: Classifier) -> None:
    large = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(4)], name="large")
    five = linear_model(np.zeros((PIXELS, 5)), np.zeros(5))
    flat = as_classifier(
        lambda x: tf.round(10 * x)[:, 0, :4, 0], image_shape=SHAPE, classes=4, input_range="0,1", colors="rgb"
    )
    arrays = as_classifier(predict=lambda x: logits(x, KERNEL, BIASES[0]), image_shape=SHAPE, input_range="0,1")
    several = as_classifier(linear_model(KERNEL, BIASES[0]), input_range="0,1", colors="rgb", outputs="multi-label")
    for attacks, surrogate, part in (
        ("pgd", large, "16x16x3 for 'large'.*as the surrogate"),
        ("pgd", five, "surrogate of 4 classes.*with 5"),
        ("pgd", flat, "gradients reach the images"),
        ("pgd", arrays, "gradients reach the images"),
        ("pgd", several, "one label an image"),
        ("square", other, "Received: square"),
        ("hopskipjump", other, "Received: hopskipjump"),
        ("autoattack", other, "Received: square.*apgd-ce,apgd-t,fab-t"),
        (["pgd", "square"], other, "Received: square"),
    ):
        with pytest.raises(InputError, match=part) as caught:
            kr.evaluate(model, X, Y, attacks=attacks, epsilon=EPSILON, surrogate=surrogate)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="Received: square"):
        make_attack("square", epsilon=EPSILON)(model, X, Y, surrogate=other)
    with pytest.raises(InputError, match="gradients reach"):
        FGSM()(model, X, Y, surrogate=arrays)


def test_an_unfinished_evaluation_knows_its_surrogate(
    model: Classifier, other: Classifier, tmp_path: Path
) -> None:  # fmt: skip
    attack = PGD(epsilon=EPSILON, steps=4, restarts=2)
    whole = kr.evaluate(model, X, Y, attacks=attack, surrogate=other, resume_dir=tmp_path)
    again = kr.evaluate(model, X, Y, attacks=attack, surrogate=other, resume_dir=tmp_path)
    np.testing.assert_array_equal(again.worst.x_adv, whole.worst.x_adv)
    assert again.attacks[0].result.gradients == whole.attacks[0].result.gradients
    assert again.attacks[0].result.forwards == whole.attacks[0].result.forwards
    for surrogate in (None, model):
        with pytest.raises(InputError, match="another in surrogate"):
            kr.evaluate(model, X, Y, attacks=attack, surrogate=surrogate, resume_dir=tmp_path)


def test_a_cancelled_attack_on_a_surrogate_goes_on_where_it_was(
    model: Classifier, other: Classifier, tmp_path: Path
) -> None:
    attack = PGD(epsilon=0.012, steps=6, restarts=3)
    settings: dict[str, Any] = {"attacks": attack, "surrogate": other, "batch_size": 8, "seed": 2}
    seen: list[AttackProgress] = []
    whole = kr.evaluate(model, X, Y, progress=lambda _, event: seen.append(event), **settings)
    assert [event.done for event in seen] == sorted(event.done for event in seen) and seen[-1].done == 40
    assert seen[-1].survivors == (~whole.worst.success).sum()
    for most in (4, 12, 20):  # In the first run, between runs, and in a later one.
        asked = iter(range(1000))
        with pytest.raises(kr.Cancelled):
            kr.evaluate(
                model,
                X,
                Y,
                resume_dir=tmp_path,
                should_stop=lambda asked=asked, most=most: next(asked) >= most,
                **settings,
            )
    again = kr.evaluate(model, X, Y, resume_dir=tmp_path, **settings)
    np.testing.assert_array_equal(again.worst.x_adv, whole.worst.x_adv)
    cost, before = again.attacks[0].result, whole.attacks[0].result
    assert (cost.gradients, cost.forwards) == (before.gradients, before.forwards)


def test_on_the_command_line(model: Classifier, other: Classifier, tmp_path: Path) -> None:
    model.model.save(tmp_path / "m.keras")
    other.model.save(tmp_path / "twin.keras")
    np.savez(tmp_path / "own.npz", x=X, y=Y)
    words = ["--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    runs = tmp_path / "runs"
    common = ("attack", *words, "--epsilon", str(EPSILON), "--runs-dir", runs)
    twin = ("--surrogate", tmp_path / "twin.keras")
    outcome = call(*common, *twin, "--attack", "fgsm", "--name", "moved")
    assert outcome.status == 0, outcome.err
    result = json.loads((runs / "moved" / "result.json").read_text())
    assert result["surrogate"] == str(tmp_path / "twin.keras") and result["audit"] is None
    (entry,) = result["attacks"]
    moved = X + EPSILON * np.sign(slope(X, Y))
    fallen = (logits(moved, KERNEL, BIASES[0]).argmax(axis=1) != Y)[np.arange(40) % 5 != 0]
    assert entry["surrogate"] == "twin.keras" and entry["robust_accuracy"] == pytest.approx(0.8 * (1 - fallen.mean()))
    said_so = " ".join(outcome.out.split())
    assert "Robust accuracy under FGSM at 0.01 L∞, made on twin.keras" in said_so
    assert "fgsm, made on twin.keras" in said_so  # The table.
    page = (runs / "moved" / "report.html").read_text()
    assert "<td>FGSM, made on twin.keras</td>" in page and "Transfer: gradients are those of twin.keras" in page
    assert call(*common, "--attack", "fgsm", "--name", "plain").status == 0
    compared = call("compare", "moved", "plain", "--runs-dir", runs)
    assert "made" in compared.out and "McNemar" in compared.out
    lines = json.loads(call("compare", "moved", "plain", "--json", "--runs-dir", runs).out)
    assert [line["surrogate"] for line in lines] == ["twin.keras", None]
    for wrong in (("--attack", "square"), ("--attack", "autoattack"), ("--attack", "fgsm,hopskipjump")):
        refused = call(*common, *twin, *wrong, "--name", "refused")
        assert refused.status == 2 and "asks the attacked model itself" in refused.message
        assert not (runs / "refused").exists()
    keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(7)]).save(tmp_path / "7.keras")
    assert "surrogate of 4 classes" in call(*common, "--surrogate", tmp_path / "7.keras", "--attack", "fgsm").message


def test_a_surrogate_whose_range_is_asked_for_is_imported_first(tmp_path: Path) -> None:
    """Its images were changed by their own mean and deviation, and --input-range is about the attacked model."""
    x = images(300, seed=5) * np.array([1.0, 0.6, 0.3], np.float32)
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))
    every = np.tile(deviation, 64)[:, None]
    kernel, bias = KERNEL / every, -(np.tile(mean, 64)[:, None] * KERNEL / every).sum(axis=0)
    linear_model(kernel, bias).save(tmp_path / "m.keras")
    linear_model(KERNEL, np.zeros(4)).save(tmp_path / "own.keras")  # The same function of other pixels.
    y = logits(x, kernel, bias).argmax(axis=1)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    words = ["--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    words += ["--epsilon", "0.002", "--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models"]
    refused = call("attack", *words, "--attack", "fgsm", "--surrogate", tmp_path / "own.keras", "--name", "refused")
    assert refused.status == 2 and "Expected the range of pixels that 'own.keras' takes" in refused.message
    assert "--input-range" in refused.message and "options of an attack are about the attacked model" in refused.message
    assert "kerasrobust import --model FILE --name NAME), then give --surrogate NAME" in refused.message
    said = "/".join(",".join(f"{value:.5f}" for value in part) for part in (mean, deviation))
    imported = call(
        "import", "--model", tmp_path / "own.keras", "--input-range", said, "--colors", "rgb", "--name", "kept",
        "--models-dir", tmp_path / "models", "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    assert imported.status == 0, imported.err
    done = call("attack", *words, "--attack", "fgsm", "--surrogate", "kept", "--name", "done")
    assert done.status == 0, done.err
    found = logits(x, kernel, bias)
    shares = np.exp(found - found.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    slopes = ((shares - np.eye(4)[y]) @ kernel.T).reshape(x.shape)
    right = (logits(x + 0.002 * np.sign(slopes), kernel, bias).argmax(axis=1) == y).mean()
    (entry,) = json.loads((tmp_path / "runs/done/result.json").read_text())["attacks"]
    assert 0.05 < right < 0.95
    assert (entry["surrogate"], entry["robust_accuracy"]) == ("kept", pytest.approx(right, abs=0.007))


@pytest.mark.parametrize("which", ["model", "surrogate"])
def test_what_is_said_of_a_surrogate_leads_on(which: str) -> None:
    """An option that a note names is about the attacked model alone."""
    pair = {"model": said(linear_model(KERNEL, BIASES[0])), "surrogate": said(linear_model(OTHER, BIASES[1]))}
    pair[which].notes = ["It isn't clear; say so by --input-range."]
    found = kr.evaluate(pair["model"], X, Y, attacks=FGSM(epsilon=EPSILON), surrogate=pair["surrogate"])
    (note,) = [item.message for item in found.findings if item.code == "conventions"]
    assert note.startswith(pair[which].notes[0])
    assert ("import the surrogate with this option first" in note) is (which == "surrogate")
