"""Several labels an image on the command line: what is attacked, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from cli import Outcome, call, events
from keras import layers as L

from kerasrobust.data.dataset import Dataset
from kerasrobust.events import LabelFinished
from kerasrobust.networks.saving import save_model
from kerasrobust.records import Result
from kerasrobust.show.summaries import summarize

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three sigmoids and the same up to its logits, with data whose labels it gives, but for some."""
    made = tmp_path_factory.mktemp("labels")
    keras.utils.set_random_seed(0)
    seen = keras.Input((8, 8, 3))
    z = L.Dense(3)(L.Flatten()(seen))
    keras.Model(seen, z).save(made / "logits.keras")
    model = keras.Model(seen, L.Activation("sigmoid")(z))
    model.save(made / "sigmoids.keras")
    y = (model.predict(PIXELS / 255, verbose=0) > 0.5).astype(int)
    y[:5, 1] ^= 1
    np.savez(made / "own.npz", x=PIXELS, y=y)
    with h5py.File(made / "own.h5", "w") as file:
        file["x"], file["y"] = PIXELS, y.astype(np.float32)
    np.savez(made / "classes.npz", x=PIXELS, y=y.argmax(axis=1))
    np.savez(made / "rows.npz", x=PIXELS, y=np.eye(3)[y.argmax(axis=1)])
    return made


def attack(folder: Path, runs: Path, *words: str) -> Outcome:
    said = [word if word.startswith("--") or not (folder / word).exists() else str(folder / word) for word in words]
    return call("attack", *said, "--epsilon", "1/255", "--steps", "3", "--runs-dir", runs, "--name", "one")


def result_of(runs: Path) -> dict[str, Any]:
    return json.loads((runs / "one" / "result.json").read_text())


@pytest.mark.parametrize("data", ["own.npz", "own.h5"])
def test_labels_of_a_file_are_attacked_one_by_one_and_together(folder: Path, tmp_path: Path, data: str) -> None:
    outcome = attack(folder, tmp_path, "--model", "sigmoids.keras", "--data", data)
    assert outcome.status == 0, outcome.err
    result, y = result_of(tmp_path), np.load(folder / "own.npz")["y"]
    assert result["conventions"] == {"outputs": "multi-label"}
    assert [label["name"] for label in result["labels"]] == ["0", "1", "2"]
    assert [label["clean_accuracy"] for label in result["labels"]] == [1, 35 / 40, 1]
    assert [label["share"] for label in result["labels"]] == pytest.approx(list(y.mean(axis=0)))
    assert result["clean_accuracy"] == 35 / 40
    assert result["robust_accuracy"] <= min(label["robust_accuracy"] for label in result["labels"])
    # The same figures in the events, the console's table and the report.
    said = [event for event in events(tmp_path / "one") if isinstance(event, LabelFinished)]
    assert [label.robust_accuracy for label in said] == [label["robust_accuracy"] for label in result["labels"]]
    page = (tmp_path / "one" / "report.html").read_text()
    assert "<h2>Labels " in page and "Each label was attacked alone" in page
    assert "Attacking label 2 alone (3 of 3)" in outcome.out and "that have it" in outcome.out
    rows = [line for line in outcome.out.splitlines() if line.startswith("pgd ")]
    assert len(rows) == 1, "the table of attacks is that of all labels together"
    assert "Clean accuracy (all 3 labels right): 87.5 %" in summarize(Result.parse(result))


def test_examples_have_the_patterns_as_classes(folder: Path, tmp_path: Path) -> None:
    attack(folder, tmp_path, "--model", "sigmoids.keras", "--data", "own.npz")
    y = np.load(folder / "own.npz")["y"]
    with h5py.File(tmp_path / "one" / "examples.h5") as file:
        names = [name.decode() for name in file.attrs["class_names"]]
        assert names == ["none", "0", "1", "0, 1", "2", "0, 2", "1, 2", "0, 1, 2"]
        np.testing.assert_array_equal(file["y"][()], y @ [1, 2, 4])
        model = keras.models.load_model(folder / "sigmoids.keras")
        said = (model.predict(file["x_adv"][()], verbose=0) > 0.5) @ [1, 2, 4]
        np.testing.assert_array_equal(file["prediction_adv"][()], said)


def test_logits_and_rows_of_a_single_one_have_to_be_said(folder: Path, tmp_path: Path) -> None:
    assert "--outputs multi-label" in attack(folder, tmp_path, "--model", "logits.keras", "--data", "own.npz").message
    said = ("--outputs", "multi-label")
    assert attack(folder, tmp_path, "--model", "logits.keras", "--data", "own.npz", *said).status == 0
    whole = result_of(tmp_path)
    assert attack(folder, tmp_path / "b", "--model", "sigmoids.keras", "--data", "rows.npz").status == 0
    assert "labels" not in result_of(tmp_path / "b")
    assert attack(folder, tmp_path / "c", "--model", "sigmoids.keras", "--data", "rows.npz", *said).status == 0
    assert len(result_of(tmp_path / "c")["labels"]) == 3 and len(whole["labels"]) == 3


def test_an_import_with_such_data_keeps_what_it_found_out(folder: Path, tmp_path: Path) -> None:
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    words = ("import", "--model", folder / "sigmoids.keras", "--name", "theirs", "--data", folder / "own.npz")
    outcome = call(*words, "--split", "all", *places)
    assert outcome.status == 0, outcome.err
    card = json.loads((tmp_path / "models" / "theirs" / "card.json").read_text())
    assert card["conventions"]["outputs"] == "multi-label" and card["classes"] == 3
    outcome = call("attack", "--model", "theirs", "--data", folder / "rows.npz", "--attack", "fgsm", *places)
    assert outcome.status == 0 and "label 2: clean accuracy" in outcome.out


@pytest.mark.parametrize("where", ["own.npz", "own.h5", "the card", "the card, in another order"])
def test_labels_have_the_names_of_the_classes(where: str, folder: Path, tmp_path: Path) -> None:
    """From an array `classes` beside the labels, or from the model's card, whose order counts."""
    names, with_names = ("owl", "ant", "bee"), {}
    pixels, y = PIXELS, np.load(folder / "own.npz")["y"]
    model: Path | str = folder / "sigmoids.keras"
    if where.startswith("the card"):
        save_model(keras.models.load_model(model), tmp_path / "models/named", {"data": {"classes": list(names)}})
        model = "named"
    if where == "the card, in another order":
        y, with_names = y[:, [1, 2, 0]], {"classes": np.array(["ant", "bee", "owl"])}
    elif where != "the card":
        with_names = {"classes": np.array(names, dtype="S")}
    if where == "own.h5":
        with h5py.File(tmp_path / "own.h5", "w") as file:
            file["x"], file["y"], file["classes"] = pixels, y, with_names["classes"]
    else:
        np.savez(tmp_path / "own.npz", x=pixels, y=y, **with_names)
    data = tmp_path / ("own.h5" if where == "own.h5" else "own.npz")
    outcome = attack(
        folder, tmp_path, "--model", str(model), "--data", str(data), "--models-dir", str(tmp_path / "models")
    )
    assert outcome.status == 0, outcome.err
    result = result_of(tmp_path)
    assert [label["name"] for label in result["labels"]] == list(names)
    assert [label["clean_accuracy"] for label in result["labels"]] == [1, 35 / 40, 1]
    assert "label ant: clean accuracy" in outcome.out
    with h5py.File(tmp_path / "one" / "examples.h5") as file:
        assert [name.decode() for name in file.attrs["class_names"]][:4] == ["none", "owl", "ant", "owl, ant"]


def test_other_commands_refuse_them_in_one_line(folder: Path, tmp_path: Path) -> None:
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    own = ("--data", folder / "own.npz", "--split", "all", *places)
    assert "AdversarialModel takes them" in call("train", "--test-split", "all", *own).message
    words = ("--model", folder / "sigmoids.keras", "--outputs", "multi-label", "--data", folder / "classes.npz")
    parts = ("--split", "all[:30]", "--test-split", "all[30:]", "--validation-share", "0.2")
    assert "with labels by themselves" in call("train", *words, *parts, *places).message
    assert "attack, which takes several" in call("randomness", "--model", folder / "sigmoids.keras", *own).message


def test_patterns_are_named_by_the_labels_that_they_hold() -> None:
    data = Dataset(
        name="own", split="all", images=PIXELS[:2], labels=np.array([[1, 1], [0, 0]]), class_names=("cat", "dog")
    ).of_patterns()
    assert data.class_names == ("none", "cat", "dog", "cat, dog") and data.y.tolist() == [3, 0]
