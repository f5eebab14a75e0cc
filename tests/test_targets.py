"""Targeted attacks: which class each image is driven to, and how many get there, held to the model's own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import PIXELS, images, linear_model
from schemas import faults

import kerasrobust as kr
from kerasrobust.attacks import CW, FGSM, PGD, Square
from kerasrobust.attacks.targets import NOWHERE, targets_of
from kerasrobust.attacks.task import Task
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier
from kerasrobust.show.examples import read_index, read_pair

EPSILON = 0.02
KERNEL = np.random.default_rng(1).normal(size=(PIXELS, 5))
X = images(40, seed=4)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return linear_model(KERNEL, -KERNEL.sum(axis=0) / 2)


@pytest.fixture(scope="module")
def y(model: keras.Model) -> np.ndarray:
    """The model's own answers, but for every fifth image."""
    said = model.predict(X, verbose=0).argmax(axis=1)
    return np.where(np.arange(40) % 5 == 0, (said + 2) % 5, said)


def said(model: keras.Model) -> Any:
    return as_classifier(model, input_range="0,1", colors="rgb")


def test_words_say_which_class(model: keras.Model, y: np.ndarray) -> None:
    task = Task.checked(said(model), X, y, seed=3)
    np.testing.assert_array_equal(targets_of(task, "next"), [(label + 1) % 5 for label in y])
    chosen = targets_of(task, "random")
    assert (chosen != y).all() and set(chosen) == set(range(5))
    np.testing.assert_array_equal(chosen, targets_of(task, "random"))
    logits = model.predict(X, verbose=0)
    others = [
        min((k for k in range(5) if k != label), key=row.__getitem__) for row, label in zip(logits, y, strict=True)
    ]
    np.testing.assert_array_equal(targets_of(task, "least-likely"), others)
    np.testing.assert_array_equal(targets_of(task, 2), np.where(y == 2, NOWHERE, 2))
    np.testing.assert_array_equal(targets_of(task, (y + 3) % 5), (y + 3) % 5)


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("nxt", "'next'"),
        (5, r"0\.\.4.*Received: 5\."),
        (-1, r"Received: -1\."),
        (1.5, "float64"),
        ([1, 2], r"shape \(2,\)"),
    ],
)
def test_other_targets_are_refused_in_one_line(target: Any, part: str, model: keras.Model, y: np.ndarray) -> None:
    with pytest.raises(InputError, match=part) as caught:
        kr.evaluate(said(model), X, y, attacks="fgsm", epsilon=EPSILON, target=target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "mifgsm", "square", "cw"])
def test_those_that_get_there_are_counted_by_the_models_own_answers(
    attack: str, model: keras.Model, y: np.ndarray
) -> None:
    settings: dict[str, Any] = {"norm": "l2", "epsilon": 0.1} if attack == "cw" else {"epsilon": EPSILON}
    found = kr.evaluate(said(model), X, y, attacks=attack, target=1, **settings)
    (report,) = found.attacks
    now = model.predict(report.result.x_adv, verbose=0).argmax(axis=1)
    moved = np.sqrt(((report.result.x_adv - X) ** 2).sum(axis=(1, 2, 3))) <= 0.1 if attack == "cw" else True
    assert report.reached is not None
    assert report.reached.accuracy == pytest.approx(((now == 1) & moved)[y != 1].mean())
    assert report.reached.interval[0] < report.reached.accuracy < report.reached.interval[1]
    np.testing.assert_array_equal(report.result.x_adv[y == 1], X[y == 1])
    assert found.robust_accuracy < found.clean_accuracy
    plain = kr.evaluate(said(model), X, y, attacks=attack, **settings)
    assert report.reached.accuracy <= 1 - plain.robust_accuracy and plain.attacks[0].reached is None


def test_the_median_distance_is_of_those_that_had_a_target(model: keras.Model, y: np.ndarray) -> None:
    right = np.where(y == model.predict(X, verbose=0).argmax(axis=1))[0]
    found = kr.evaluate(said(model), X[right], y[right], attacks="ddn", norm="l2", target=1)
    others = y[right] != 1
    assert 0 < others.mean() < 1
    distances = np.sqrt(((found.worst.x_adv - X[right]) ** 2).sum(axis=(1, 2, 3)))[others]
    assert found.attacks[0].entry()["median_distance"] == pytest.approx(np.median(distances), rel=1e-5)
    alone = kr.evaluate(said(model), X[right][~others], y[right][~others], attacks="pgd", epsilon=EPSILON, target=1)
    assert alone.attacks[0].reached is None and "reached" not in alone.attacks[0].entry()


def test_one_step_goes_where_the_gradient_of_the_targets_loss_points() -> None:
    """With two classes that is the sign of the difference of their weights, whatever the image."""
    kernel = np.random.default_rng(2).normal(size=(PIXELS, 2))
    model = linear_model(kernel, -kernel.sum(axis=0) / 2)
    labels = model.predict(X, verbose=0).argmax(axis=1)
    found = kr.evaluate(said(model), X, labels, attacks=FGSM(epsilon=EPSILON, targeted=True), target="next")
    step = EPSILON * np.sign(kernel[:, 1] - kernel[:, 0]).reshape(X.shape[1:])
    wanted = np.clip(X + np.where(labels[:, None, None, None] == 0, step, -step), 0, 1)
    np.testing.assert_allclose(found.worst.x_adv, wanted, atol=1e-6)


def test_attacks_and_targets_go_together(model: keras.Model, y: np.ndarray) -> None:
    for attacks, target in (("deepfool", 1), ("autoattack", 1), (PGD(), 1), (PGD(targeted=True), None)):
        with pytest.raises(InputError):
            kr.evaluate(said(model), X, y, attacks=attacks, target=target)
    blind = as_classifier(predict=lambda x: x.reshape(len(x), -1) @ KERNEL, image_shape=X.shape[1:], input_range="0,1")
    found = kr.evaluate(blind, X, y, attacks=Square(epsilon=0.1, queries=20, targeted=True), target="next")
    assert found.attacks[0].reached is not None
    found = kr.evaluate(blind, X, y, attacks=CW(targeted=True), target="next")
    assert [item.attack.name for item in found.attacks] == ["square"] and found.attacks[0].attack.targeted


def test_an_unfinished_evaluation_knows_its_targets(model: keras.Model, y: np.ndarray, tmp_path: Path) -> None:
    whole = kr.evaluate(said(model), X, y, attacks="pgd", epsilon=EPSILON, target="next", resume_dir=tmp_path)
    again = kr.evaluate(said(model), X, y, attacks="pgd", epsilon=EPSILON, target="next", resume_dir=tmp_path)
    assert again.attacks[0].reached == whole.attacks[0].reached
    with pytest.raises(InputError, match="another in target"):
        kr.evaluate(said(model), X, y, attacks="pgd", epsilon=EPSILON, target="random", resume_dir=tmp_path)
    with pytest.raises(InputError, match=r"another in .*target"):
        kr.evaluate(said(model), X, y, attacks="pgd", epsilon=EPSILON, resume_dir=tmp_path)


def test_on_the_command_line(model: keras.Model, y: np.ndarray, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    names = np.array(["ape", "bear", "cat", "dog", "elk"])
    np.savez(tmp_path / "own.npz", x=X, y=y, classes=names)
    words = ["--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    common = ("attack", *words, "--epsilon", str(EPSILON), "--runs-dir", tmp_path / "runs")
    found = {}
    for name, target in (("word", "bear"), ("number", "1"), ("next", "next")):
        outcome = call(*common, "--attack", "pgd", "--target", target, "--name", name)
        assert outcome.status == 0, outcome.err
        found[name] = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        assert "Taken for their target" in " ".join(outcome.out.split()) and "target reached" in outcome.out
        assert found[name]["target"] == target
    assert found["word"]["attacks"][0]["reached"] == found["number"]["attacks"][0]["reached"]
    assert found["word"]["attacks"][0]["reached"] != found["next"]["attacks"][0]["reached"]
    index = read_index(tmp_path / "runs" / "word" / "examples.h5")
    now = model.predict(np.stack([read_pair(tmp_path / "runs" / "word" / "examples.h5", i)[1] for i in range(40)]))
    np.testing.assert_array_equal(index.success, now.argmax(axis=1) != y)  # Wrong, whatever the target was.
    plain = call(*common, "--attack", "pgd", "--name", "plain")
    assert plain.status == 0
    compared = call("compare", "word", "plain", "--runs-dir", tmp_path / "runs")
    assert "bear" in compared.out and "McNemar" not in compared.out
    lines = json.loads(call("compare", "word", "plain", "--json", "--runs-dir", tmp_path / "runs").out)
    assert [line["target"] for line in lines] == ["bear", None]
    assert "McNemar" in call("compare", "word", "word", "--runs-dir", tmp_path / "runs").out
    assert "Did you mean 'bear'?" in call(*common, "--attack", "pgd", "--target", "baer").message
    assert "takes targets" in call(*common, "--attack", "autoattack", "--target", "bear").message
    assert "Received: deepfool" in call(*common, "--attack", "deepfool", "--target", "bear").message


def test_several_radii_on_the_command_line(model: keras.Model, y: np.ndarray, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "own.npz", x=X, y=y)
    words = [tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    common = ("attack", *words, "--runs-dir", tmp_path / "runs", "--attack")
    radii = ("--epsilons", "4/255", "1/255", "2/255")
    outcome = call(*common, "pgd", *radii, "--name", "several")
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "runs" / "several"
    found = json.loads((folder / "result.json").read_text())
    assert faults("result", found) == []
    (curve,) = found["curves"]
    assert [round(255 * point[0]) for point in curve["curve"]] == [0, 1, 2, 4]
    assert curve["curve"][0][1] == found["clean_accuracy"] and curve["curve"][-1][1] == found["robust_accuracy"]
    assert "By radius: " in outcome.out and " at 4/255" in outcome.out
    assert "within each radius" in (folder / "report.html").read_text()
    # Every example that is saved lies within the largest.
    index = read_index(folder / "examples.h5")
    assert index.distance.max() <= 4 / 255 + 1e-6 and {block.epsilon for block in index.blocks()} == {4 / 255}
    again = call("compare", "several", "--runs-dir", tmp_path / "runs")
    assert again.status == 0 and "4/255" in again.out
    assert "one run of which says all radii" in call(*common, "fmn", *radii).message
    assert "--epsilons without --epsilon" in call(*common, "pgd", *radii, "--epsilon", "1/255").message
    assert "no --epsilons with sparse-rs" in call(*common, "sparse-rs", *radii).message
