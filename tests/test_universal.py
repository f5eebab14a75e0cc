"""Universal perturbations: the optimum on a linear model, and the same figure wherever one is added to images again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import PGD, Universal, learning
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import classifier_of
from kerasrobust.show.examples import read_index, read_pair

pytest_plugins = ["cli_fixtures"]

X = images(20)
KERNEL = np.random.default_rng(7).normal(size=(PIXELS, 2)).astype(np.float32) / 20


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_goes_along_the_difference_of_weights(norm: Any, targeted: bool) -> None:
    """Of images of class 0 beside a class 1 the best is epsilon sign(w) in Linf, and epsilon w / |w| in L2."""
    model = linear_model(KERNEL, np.array([3, 0], np.float32))
    y = np.zeros(20, np.int64)
    epsilon = {"linf": 0.05, "l2": 0.5}[norm]
    attack = Universal(norm=norm, epsilon=epsilon, images=6, steps=40, targeted=targeted)
    result = attack(model, X, y, early_stop=False, **({"target": 1 - y} if targeted else {}))
    w = (KERNEL[:, 1] - KERNEL[:, 0]).astype(np.float64).reshape(SHAPE)
    best = epsilon * (np.sign(w) if norm == "linf" else w / np.linalg.norm(w))
    assert result.learned is not None
    np.testing.assert_allclose(result.learned, best, atol=1e-6 if norm == "linf" else 1e-4)
    np.testing.assert_array_equal(result.x_adv, np.clip(X + result.learned, 0, 1))
    assert result.gradients == 6 * 40


def test_where_images_pull_apart_it_goes_with_most_of_them() -> None:
    """A third of the images pulls to the other side: no perturbation fools all, so it goes with two thirds."""
    x = np.full((30, *SHAPE), 0.5, np.float32)
    y = np.repeat([0, 1], [20, 10])
    # Class 0 leads on the first, class 1 on the last; along +1 all go to class 1, along -1 all to class 0.
    x[y == 0] -= 0.02
    x[y == 1] += 0.02
    kernel = np.stack([np.full(PIXELS, -1.0), np.full(PIXELS, 1.0)], axis=1).astype(np.float32) / 4
    model = linear_model(kernel, np.array([1, -1], np.float32) * PIXELS / 8)
    np.testing.assert_array_equal(labels_of(model, x, 0), y)
    result = Universal(epsilon=0.04, limit=1.0, steps=30)(model, x, y)
    np.testing.assert_array_equal(result.success, y == 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_added_to_other_images_it_gives_the_same_figure(norm: Any, small: keras.Model, tmp_path: Path) -> None:
    y, others = labels_of(small, X, 0), images(60, seed=9)
    labels = labels_of(small, others, 0)
    epsilon = {"linf": 0.06, "l2": 0.6}[norm]
    found = Universal(norm=norm, epsilon=epsilon, steps=30)(small, X, y, seed=1).learned
    assert found is not None
    np.save(tmp_path / "perturbation.npy", found)
    loaded = np.load(tmp_path / "perturbation.npy")
    again = Universal(norm=norm, epsilon=epsilon, perturbation=loaded)(small, others, labels, early_stop=False)
    by_hand = np.clip(others + found, 0, 1)
    np.testing.assert_array_equal(again.x_adv, by_hand)
    np.testing.assert_array_equal(again.success, np.asarray(small(by_hand)).argmax(axis=1) != labels)
    assert again.gradients == 0
    # It learned something that holds for images it wasn't made of: a random one of that size does less.
    noise = np.random.default_rng(0).normal(size=SHAPE)
    noise = np.sign(noise) if norm == "linf" else noise / np.linalg.norm(noise)
    random = Universal(norm=norm, epsilon=epsilon, perturbation=noise * epsilon)(small, others, labels)
    assert again.success.mean() >= random.success.mean() + 0.2
    # And one for all can't do more than one for each.
    own = PGD(norm=norm, epsilon=epsilon)(small, others, labels)
    assert again.success.mean() <= own.success.mean()


def test_seeds_repeat_and_what_is_wrong_already_teaches_nothing(small: keras.Model) -> None:
    y = labels_of(small, X, 4)
    attack = Universal(steps=5, images=7)
    one, again, other = (attack(small, X, y, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.learned, again.learned)
    assert (one.learned != other.learned).any()  # type: ignore[operator]
    np.testing.assert_array_equal(one.learned, attack(small, X[4:], y[4:], seed=3).learned)
    assert attack(small, X[:4], y[:4]).learned is None


def test_other_radii_and_numbers_of_steps_take_the_same_graph(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    for steps, epsilon in ((1, 0.01), (2, 0.02), (4, 0.03)):
        Universal(epsilon=epsilon, steps=steps, images=steps + 3, limit=float(steps))(small, X, y, seed=steps)
    kept = learning.KEPT[classifier_of(small)]
    assert [graph.traces for key, (graph, _) in kept.items() if key[0] == Universal().structure()] == [1]


def test_its_training_resumes_where_it_was_stopped(small: keras.Model, tmp_path: Path) -> None:
    y = labels_of(small, X, 0)
    settings: dict[str, Any] = {"attacks": Universal(steps=7, images=7), "audit": False, "seed": 4}
    whole = evaluate(small, X, y, **settings)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with pytest.raises(Exception, match=r"^$"):
        evaluate(small, X, y, resume_dir=tmp_path, should_stop=should_stop, **settings)
    [saved] = tmp_path.rglob("lesson.npz")
    with np.load(saved) as file:
        assert 0 < file["steps"] < 7
    again = evaluate(small, X, y, resume_dir=tmp_path, **settings)
    np.testing.assert_array_equal(again.attacks[0].result.learned, whole.attacks[0].result.learned)
    assert again.attacks[0].result.gradients == whole.attacks[0].result.gradients


def test_the_box_cuts_off_what_has_no_gradient() -> None:
    """White pixels can't be made brighter: only the image whose pixel isn't white says where that pixel is to go."""

    def network(x: tf.Tensor) -> tf.Tensor:
        lead = tf.reduce_sum(tf.reshape(x, [-1, 2]) * [1.0, 1.0], axis=1) - 1.7
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    x = np.array([[1, 0.5], [1, 0.6]], np.float32).reshape(2, 2, 1, 1)
    result = Universal(epsilon=0.1, steps=20)(network, x, np.zeros(2, np.int64))
    assert result.learned is not None
    assert result.learned.ravel()[1] == pytest.approx(0.1)
    np.testing.assert_array_equal(result.x_adv.ravel()[::2], [1, 1])


def test_the_command_line_saves_a_perturbation_and_adds_it_again(
    places: list[str], agreed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"

    def attack(name: str, split: str, *words: str | Path) -> dict[str, Any]:
        common = ["--model", "tiny", "--data", agreed, "--split", split, "--attack", "universal", "--name", name]
        done = call("attack", *common, *words, *places)
        assert done.status == 0, done.err
        found: dict[str, Any] = json.loads((runs / name / "result.json").read_text())
        return found

    one = attack("a", "all[:30]", "--steps", "5")
    known = np.load(runs / "a/perturbation.npy")
    assert np.abs(known).max() == pytest.approx(8 / 255)
    same = attack("b", "all[:30]", "--perturbation", runs / "a/perturbation.npy")
    assert same["robust_accuracy"] == one["robust_accuracy"]
    assert (one["attacks"][0]["gradients"], same["attacks"][0]["gradients"]) == (30 * 5, 0)
    np.testing.assert_array_equal(np.load(runs / "b/perturbation.npy"), known)
    attack("c", "all[30:40]", "--perturbation", runs / "a/perturbation.npy")
    for place in np.flatnonzero(read_index(runs / "c/examples.h5").correct):
        x, x_adv = read_pair(runs / "c/examples.h5", int(place))
        assert np.abs(x_adv - np.clip(x + known, 0, 1)).max() < 1e-6


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["universal", "--perturbation", "none.npy"], "Expected a perturbation in a file that holds one NumPy array"),
        (["universal", "--perturbation", "{flat}"], "Expected a perturbation of shape (H, W, channels)"),
        (["universal", "--perturbation", "{grey}"], "Expected a perturbation of shape (32, 32, 3), as the images"),
        (["universal", "--perturbation", "{large}"], "norm at most epsilon, 0.0313725. Received: 0.5 in linf"),
        (["pgd", "--perturbation", "{grey}"], "Expected settings that 'pgd' has. Received: --perturbation."),
    ],
)
def test_files_that_are_no_perturbation_are_refused(
    words: list[str], line: str, places: list[str], agreed: Path, tmp_path: Path
) -> None:
    files = {"flat": np.zeros(9), "grey": np.zeros((32, 32, 1)), "large": np.full((32, 32, 3), 0.5)}
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array)
    words = [word.format(**{name: tmp_path / f"{name}.npy" for name in files}) for word in words]
    done = call("attack", "--model", "tiny", "--data", agreed, "--split", "all[:4]", "--attack", *words, *places)
    assert line in done.message


def test_bad_settings_are_refused() -> None:
    for settings in ({"images": 0}, {"steps": 0}, {"step_size": 0.0}, {"limit": 0.0}, {"norm": "l1"}):
        with pytest.raises(InputError, match=r"^Expected .* Received: "):
            Universal(**settings)  # type: ignore[arg-type]
    for wrong in (np.zeros(3), np.full((8, 8, 3), np.nan)):
        with pytest.raises(InputError, match=r"^Expected .* Received: "):
            Universal(perturbation=wrong)
