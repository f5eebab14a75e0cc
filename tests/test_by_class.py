"""Each class by itself under attack, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import PIXELS, images, labels_of, linear_model
from exports import export, lines, write_run
from schemas import faults
from test_report import ATTACK, Page, written

from kerasrobust.evaluation.by_class import by_class
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.show.confusion import draw_confusion
from kerasrobust.stats import wilson

X = images(40, seed=5)
NAMES = ["ape", "bear", "cat", "dog"]
CLASSES = [
    {"name": "ape", "images": 3, "accuracy": 1.0, "interval": [0.4, 1.0], "robust_accuracy": 1 / 3,
     "robust_interval": [0.1, 0.8]},
    {"name": "bear <b>", "images": 2, "accuracy": 0.5, "interval": [0.1, 0.9], "robust_accuracy": 0.0,
     "robust_interval": [0.0, 0.6]},
]  # fmt: skip
MORE: dict[str, Any] = {
    "by_class": CLASSES, "confusion": [[3, 0], [1, 1]], "confusion_under_attack": [[1, 2], [2, 0]],
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return linear_model(np.random.default_rng(2).normal(size=(PIXELS, 4)), np.zeros(4))


@pytest.mark.parametrize(("attack", "norm"), [("pgd", "linf"), ("deepfool", "l2"), (["fmn", "deepfool"], "l2")])
def test_classes_are_counted_within_the_radius(attack: Any, norm: str, model: keras.Model) -> None:
    y = labels_of(model, X, 3)
    found = evaluate(model, X, y, attacks=attack, norm=norm, epsilon=0.02 if norm == "linf" else 0.2, audit=False)
    told = by_class(found, y, NAMES, 4)
    clean = model.predict(X, verbose=0).argmax(axis=1)
    inside = found.worst.distance <= 0.2 if norm == "l2" else np.ones(40, bool)
    after = np.where(inside, model.predict(found.worst.x_adv, verbose=0).argmax(axis=1), clean)
    for number, entry in enumerate(told["by_class"]):
        own = y == number
        assert (entry["name"], entry["images"]) == (NAMES[number], own.sum())
        if not own.any():
            continue
        assert entry["accuracy"] == pytest.approx((clean == y)[own].mean())
        assert entry["robust_accuracy"] == pytest.approx((after == y)[own].mean())
        assert entry["robust_interval"] == pytest.approx(wilson(int((after == y)[own].sum()), int(own.sum())))
    for name, predicted in (("confusion", clean), ("confusion_under_attack", after)):
        assert told[name] == [[int(((y == a) & (predicted == b)).sum()) for b in range(4)] for a in range(4)]
    assert np.trace(told["confusion_under_attack"]) / 40 == pytest.approx(found.robust_accuracy)
    assert 0 < found.robust_accuracy < found.clean_accuracy


def test_a_class_without_images_has_no_accuracy_and_many_classes_no_confusion(model: keras.Model) -> None:
    found = evaluate(model, X, np.zeros(40, int), attacks="fgsm", epsilon=0.01, audit=False)
    told = by_class(found, np.zeros(40, int), ["ape"], 101)
    assert set(told) == {"by_class"} and told["by_class"][100] == {"name": "100", "images": 0}


def test_a_report_has_classes_and_what_they_are_taken_for(tmp_path: Path) -> None:
    page = Page(written(tmp_path, ATTACK | MORE))
    rows = [cells for cells in page.cells if cells and cells[0] in ("ape", "bear <b>")]
    assert [[cell.strip() for cell in cells] for cells in rows] == [
        ["ape", "3", "100.0 %", "40.0-100.0", "33.3 %", "10.0-80.0", "bear <b> (2)"],
        ["bear <b>", "2", "50.0 %", "10.0-90.0", "0.0 %", "0.0-60.0", "ape (2)"],
    ]
    assert "Under attack" in page.text and "ape taken for bear <b>: 2 images of 3" in page.text
    assert sum(tag == "svg" and "heat" in (attributes.get("class") or "") for tag, attributes in page.tags) == 2


def test_maps_are_shares_of_rows() -> None:
    drawn = draw_confusion(["a", "a name that is far too long"], [[3, 1], [0, 0]])
    assert drawn.count("<rect") == 8 and ">75</text>" in drawn and ">25</text>" in drawn
    assert "a name that is fa\N{HORIZONTAL ELLIPSIS}</text>" in drawn and "0 images of 0" in drawn


def test_classes_are_exported(tmp_path: Path) -> None:
    files = {path.name: path for path in export(write_run(tmp_path / "run", **MORE), "csv")}
    assert [line["robust_accuracy"] for line in lines(files["classes.csv"])] == [str(1 / 3), "0.0"]
    assert [list(line.values()) for line in lines(files["confusion-under-attack.csv"])] == [
        ["ape", "ape", "1"], ["ape", "bear <b>", "2"], ["bear <b>", "ape", "2"],
    ]  # fmt: skip
    names = {path.name for path in export(tmp_path / "run", "svg")}
    assert {"confusion.svg", "confusion-under-attack.svg"} <= names


def test_an_attack_writes_them(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "own.npz", x=X, y=labels_of(model, X, 3), classes=np.array(NAMES))
    words = [tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    outcome = call("attack", *words, "--attack", "fgsm", "--runs-dir", tmp_path, "--name", "a")
    assert outcome.status == 0, outcome.err
    found = json.loads((tmp_path / "a" / "result.json").read_text())
    assert faults("result", found) == [] and [entry["name"] for entry in found["by_class"]] == NAMES
    assert sum(map(sum, found["confusion_under_attack"])) == 40
