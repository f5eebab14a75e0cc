"""Universal patch: its optimum on a linear model, and the same figure wherever it is laid on images again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import PIXELS, images, labels_of, linear_model

from kerasrobust.attacks import UniversalPatch, apply_patch, learning
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import as_classifier, classifier_of
from kerasrobust.show.examples import read_index, read_pair

pytest_plugins = ["cli_fixtures"]

X = images(20)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("size", "place"), [(3, (4, 1)), (8, (0, 0))])
def test_on_a_linear_model_it_is_the_sign_of_the_difference_of_weights(
    size: int, place: tuple[int, int], targeted: bool
) -> None:
    """Of images of class 0 beside a class 1: white where the weight of class 1 is larger, black where it is smaller."""
    kernel = np.random.default_rng(7).normal(size=(PIXELS, 2)).astype(np.float32) / 20
    model = linear_model(kernel, np.array([3, 0], np.float32))
    y = np.zeros(20, np.int64)
    attack = UniversalPatch(size=size, place=place, images=6, steps=40, targeted=targeted)
    result = attack(model, X, y, early_stop=False, **({"target": 1 - y} if targeted else {}))
    window = (slice(place[0], place[0] + size), slice(place[1], place[1] + size))
    best = ((kernel[:, 1] - kernel[:, 0]).reshape(8, 8, 3) > 0)[window]
    np.testing.assert_array_equal(result.patch, best)
    expected = X.copy()
    expected[(slice(None), *window)] = best
    np.testing.assert_array_equal(result.x_adv, expected)
    assert result.gradients == 6 * 40


def test_laid_on_other_images_it_gives_the_same_figure(small: keras.Model, tmp_path: Path) -> None:
    y, others = labels_of(small, X, 0), images(30, seed=9)
    labels = labels_of(small, others, 0)
    attack = UniversalPatch(size=4, place=(2, 3), steps=20)
    patch = attack(small, X, y, seed=1).patch
    assert patch is not None
    np.save(tmp_path / "patch.npy", patch)
    loaded = np.load(tmp_path / "patch.npy")
    again = UniversalPatch(size=4, place=(2, 3), pixels=loaded)(small, others, labels, early_stop=False)
    by_hand = others.copy()
    by_hand[:, 2:6, 3:7] = patch
    np.testing.assert_array_equal(again.x_adv, by_hand)
    np.testing.assert_array_equal(apply_patch(others, loaded, (2, 3)), by_hand)
    np.testing.assert_array_equal(again.success, np.asarray(small(by_hand)).argmax(axis=1) != labels)
    assert again.gradients == 0
    assert again.success.mean() > 0
    # It learned something: random pixels do less.
    random = np.random.default_rng(0).random(patch.shape, np.float32)
    assert (
        again.success.mean() > UniversalPatch(size=4, place=(2, 3), pixels=random)(small, others, labels).success.mean()
    )


def test_places_are_those_of_image_and_seed(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    one = UniversalPatch(size=3, steps=3)(small, X, y, early_stop=False, seed=1)
    again = UniversalPatch(size=3, pixels=one.patch)(small, X[5:12], y[5:12], early_stop=False, seed=1)
    np.testing.assert_array_equal(again.x_adv, one.x_adv[5:12])
    corners = np.array(
        [np.argwhere((x_adv != x).any(axis=-1)).min(axis=0) for x_adv, x in zip(one.x_adv, X, strict=True)]
    )
    assert len(np.unique(corners, axis=0)) >= 12
    np.testing.assert_array_equal(apply_patch(X, one.patch, corners), one.x_adv)


def test_it_is_traced_once_and_can_be_stopped(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    for seed, steps in enumerate((1, 2, 4)):
        UniversalPatch(size=5, steps=steps, images=steps + 3)(small, X, y, seed=seed)
    kept = {key: graph for key, (graph, _) in learning.KEPT[classifier_of(small)].items() if 5 in key[0]}
    assert [graph.traces for graph in kept.values()] == [1]
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    with pytest.raises(Cancelled):
        UniversalPatch(size=5, steps=50)(small, X, y, should_stop=should_stop)
    assert asked == 7


def test_its_training_resumes_where_it_was_stopped(small: keras.Model, tmp_path: Path) -> None:
    y = labels_of(small, X, 0)
    settings: dict[str, Any] = {"attacks": UniversalPatch(size=5, steps=9, images=7), "audit": False, "seed": 4}
    whole = evaluate(small, X, y, **settings)
    for limit in (3, 3, 3):
        asked = 0

        def should_stop(limit: int = limit) -> bool:
            nonlocal asked
            asked += 1
            return asked > limit + 1  # Once after the images as they are.

        with pytest.raises(Cancelled):
            evaluate(small, X, y, resume_dir=tmp_path, should_stop=should_stop, **settings)
    [saved] = tmp_path.rglob("lesson.npz")
    with np.load(saved) as file:
        assert 0 < file["steps"] < 9
        partly = file["learned"]
    again = evaluate(small, X, y, resume_dir=tmp_path, **settings)
    assert again.attacks[0].result.patch is not None and (again.attacks[0].result.patch != partly).any()
    np.testing.assert_array_equal(again.attacks[0].result.patch, whole.attacks[0].result.patch)
    np.testing.assert_array_equal(again.worst.x_adv, whole.worst.x_adv)
    assert again.attacks[0].result.gradients == whole.attacks[0].result.gradients


def test_without_anything_to_attack_there_is_no_patch(small: keras.Model) -> None:
    wrong = (labels_of(small, X, 0) + 1) % 10
    result = UniversalPatch(size=3)(small, X, wrong)
    assert result.patch is None and result.gradients == 0
    np.testing.assert_array_equal(result.x_adv, X)


def test_of_several_labels_the_patch_of_all_together_is_the_result() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "sigmoid")])
    classifier = as_classifier(model, outputs="multi-label")
    found = evaluate(
        classifier, X, (np.asarray(model(X)) > 0.5).astype(int), attacks=UniversalPatch(size=4, steps=5), audit=False
    )
    assert len(found.labels) == 2
    assert found.attacks[0].result.patch is not None


def test_the_command_line_saves_a_patch_and_lays_it_on_again(places: list[str], agreed: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def attack(name: str, split: str, *words: str | Path) -> dict[str, Any]:
        common = ["--model", "tiny", "--data", agreed, "--split", split, "--attack", "universal-patch", "--name", name]
        done = call("attack", *common, *words, *places)
        assert done.status == 0, done.err
        found: dict[str, Any] = json.loads((runs / name / "result.json").read_text())
        return found

    one = attack("a", "all[:30]", "--steps", "5", "--patch-size", "6")
    patch = np.load(runs / "a/patch.npy")
    assert patch.shape == (6, 6, 3)
    assert one["attacks"][0]["norm"] == "6x6 pixels"
    same = attack("b", "all[:30]", "--patch", runs / "a/patch.npy")
    assert same["robust_accuracy"] == one["robust_accuracy"]
    assert (one["attacks"][0]["gradients"], same["attacks"][0]["gradients"]) == (30 * 5, 0)
    np.testing.assert_array_equal(np.load(runs / "b/patch.npy"), patch)
    attack("c", "all[30:40]", "--patch", runs / "a/patch.npy")
    for place in np.flatnonzero(read_index(runs / "c/examples.h5").correct):
        x, x_adv = read_pair(runs / "c/examples.h5", int(place))
        rows, columns = np.nonzero((x != x_adv).any(axis=-1))
        assert np.abs(x_adv[rows.min() :, columns.min() :][:6, :6] - patch).max() < 1e-6


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["universal-patch", "--patch", "none.npy"], "file that holds one NumPy array"),
        (["universal-patch", "--patch", "{flat}"], "Expected a patch of shape (size, size, channels)"),
        (["universal-patch", "--patch", "{grey}"], "Expected a patch of 3 channels"),
        (["universal-patch", "--patch", "{grey}", "--patch-size", "5"], "as size=5 says"),
        (["patch", "--patch", "{grey}"], "Expected settings that 'patch' has. Received: --patch."),
        (["universal-patch", "--patch-size", "40"], "fits into images of 32x32. Received: size=40"),
        (["patch", "--patch-size", "40"], "fits into images of 32x32. Received: size=40"),
        (["pgd", "--patch-size", "5"], "Expected settings that 'pgd' has. Received: --patch-size."),
    ],
)
def test_files_that_are_no_patch_are_refused(
    words: list[str], line: str, places: list[str], agreed: Path, tmp_path: Path
) -> None:
    files = {"flat": np.zeros(9), "grey": np.zeros((4, 4, 1))}
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array)
    words = [word.format(**{name: tmp_path / f"{name}.npy" for name in files}) for word in words]
    done = call("attack", "--model", "tiny", "--data", agreed, "--split", "all[:4]", "--attack", *words, *places)
    assert line in done.message


def test_what_is_no_patch_is_refused() -> None:
    patch = np.zeros((3, 3, 3), np.float32)
    for settings in ({"images": 0}, {"step_size": 0.0}, {"size": 4, "pixels": patch}, {"size": 3, "pixels": patch + 2}):
        with pytest.raises(InputError, match=r"^Expected .* Received: "):
            UniversalPatch(**settings)  # type: ignore[arg-type]
    for wrong, where in ((patch[:2], (0, 0)), (patch[..., :1], (0, 0)), (patch, (6, 0)), (patch, (0, -1))):
        with pytest.raises(InputError, match=r"^Expected .* Received: "):
            apply_patch(X, wrong, where)
