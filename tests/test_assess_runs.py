"""The command `assess`: what it leaves behind, that a stopped run resumes to the same table, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from schemas import faults_of_run
from whole_runs import exported, unheard

from kerasrobust import runs
from kerasrobust.assessing import AssessConfig
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import Event, Log, Row, StageStarted
from kerasrobust.jobs import engine
from kerasrobust.jobs.assess import AssessJob, called
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.saving import save_model
from kerasrobust.records import Result
from kerasrobust.show.charts import result_panels
from kerasrobust.show.figures import by_network
from kerasrobust.show.pairs import pairs

pytest_plugins = ["cli_fixtures"]

COUNT = 12


def config(models_dir: Path, agreed: Path, runs_dir: Path, name: str) -> AssessConfig:
    places: dict[str, Any] = {"models_dir": models_dir, "runs_dir": runs_dir}
    return AssessConfig(model="tiny", data=str(agreed), split=f"test[:{COUNT}]", minutes=1_000, name=name, **places)


def test_a_run_that_was_stopped_resumes_to_one_table(models_dir: Path, agreed: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "l1":
            raise KeyboardInterrupt

    with pytest.raises(Cancelled):
        engine.run(config(models_dir, agreed, tmp_path, "one"), stop)
    assert runs.state(tmp_path / "one") == "cancelled"
    heard: list[Event] = []
    result = engine.run(config(models_dir, agreed, tmp_path, "one"), heard.append)
    assert runs.state(tmp_path / "one") == "done" and not (tmp_path / "one" / "batches").exists()
    written = json.loads((tmp_path / "one" / "result.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert faults_of_run(tmp_path / "one") == []
    files = exported(tmp_path / "one")
    assert files["threats.csv"].count("\n") == 9 and "union" in files["threats.tex"]
    assert files["classes.csv"].splitlines()[0] == "name,images,accuracy,interval_low,interval_high"
    counted = [line.split(",") for line in files["confusion.csv"].splitlines()[1:]]
    assert all(own == predicted for own, predicted, _ in counted) and sum(int(line[2]) for line in counted) == COUNT
    error = files["calibration.csv"].splitlines()[1].split(",")
    assert [float(value) for value in error] == [result["calibration_error"], *result["calibration_interval"]]
    assert sum(name.endswith(".svg") for name in files) >= 3
    known = Result.parse(written)
    threats = {row.attack or "clean": row for row in known.rows or ()}
    assert list(threats) == ["clean", "autoattack", "union", "spatial", "patch", "corruptions"]
    assert [row.norm for row in known.rows or () if row.attack == "autoattack"] == ["linf", "l2", "l1"]
    assert all(row.examples == COUNT for row in known.rows or ())
    assert threats["clean"].accuracy == known.clean_accuracy == 1
    lowest = min(row.accuracy or 0 for row in known.rows or () if row.attack == "autoattack")
    assert (threats["union"].accuracy or 0) <= lowest
    assert sum(entry.images or 0 for entry in known.by_class) == sum(map(sum, known.confusion)) == COUNT
    assert [item.norm for item in known.curves if item.curve] == ["linf", "l2", "l1"]
    assert [event.accuracy for event in heard if isinstance(event, Row)] == [row.accuracy for row in known.rows or ()]
    page = (tmp_path / "one" / "report.html").read_text()
    assert "Union: an image counts only where it withstands each of them" in page


def test_models_are_compared_on_the_same_images(models_dir: Path, agreed: Path, tmp_path: Path) -> None:
    keras.utils.set_random_seed(8)
    build_model("convnet", widths=(4, 8)).save(tmp_path / "other.keras")
    whole = config(models_dir, agreed, tmp_path, "two")
    asked = dataclasses.replace(whole, beside=str(tmp_path / "other.keras"), split="test[:8]")
    heard: list[Event] = []
    result = engine.run(asked, heard.append)
    assert faults_of_run(tmp_path / "two") == []
    known = Result.parse(json.loads((tmp_path / "two" / "result.json").read_text()))
    groups = by_network(known.rows or ())
    assert list(groups) == ["tiny", "other.keras"]
    assert [row.attack for row in groups["tiny"]] == [row.attack for row in groups["other.keras"]]
    assert result["beside"][0]["clean_accuracy"] == groups["other.keras"][0].accuracy
    stages = [event.stage for event in heard if isinstance(event, StageStarted)]
    assert {"tiny linf", "other.keras linf"} <= set(stages) and len(set(stages)) == len(stages)
    own, other = (dict(np.load(tmp_path / "two" / name)) for name in ("rates.npz", "rates-1.npz"))
    np.testing.assert_array_equal(own["checksum"], other["checksum"])
    lost = int(((own["linf"] == 0) & (other["linf"] > 0.5)).sum())
    (told,) = [words for words in known.compared if "L∞:" in words]
    said = [event.message for event in heard if isinstance(event, Log)]
    assert set(known.compared) <= set(said)
    assert {*(f"Not looked at: {reason}" for reason in known.left_out)} <= set(said)
    assert {reason.split(":")[0] for reason in known.left_out} == {"tiny", "other.keras"}
    # The same in figures, in the result and in the table that is exported.
    files = exported(tmp_path / "two")
    lines = list(csv.DictReader(io.StringIO(files["compared.csv"])))
    assert [line["comparison"] for line in lines] == list(known.compared) and list(lines[0])[-1] == "comparison"
    (line,) = [line for line in lines if line["threat"] == "linf"]
    assert line["comparison"] == told and (line["model"], line["other"]) == ("tiny", "other.keras")
    assert (line["images"], line["only_first"]) == ("8", str(lost))
    (pair,) = [pair for pair in known.pairs if pair.threat == "linf"]
    assert str(pair.difference) == line["difference"] and str(pair.p) == line["p"]
    assert pair.difference == own["linf"].mean() - other["linf"].mean()
    assert f"the same 8 images under L∞: {lost} only tiny gets wrong" in told
    page = (tmp_path / "two" / "report.html").read_text()
    assert "How fragile are tiny, other.keras?" in page and told.replace("'", "&#39;") in page
    # What is each one's own stands in report and export as the first one's does.
    assert [name for name, _ in known.models] == list(groups)
    for (name, one), file in zip(known.models, ("classes.csv", "classes-other-keras.csv"), strict=True):
        assert f"<h2>Unchanged images: {name} " in page
        lines = list(csv.DictReader(io.StringIO(files[file])))
        assert [line["accuracy"] for line in lines] == [
            "" if entry.accuracy is None else str(entry.accuracy) for entry in one.by_class
        ]
    (panel,) = [item for item in result_panels(known) if item.norm == "l2"]
    assert [line.label.split(", ")[0] for line in panel.lines] == list(groups)
    assert [line.series for line in panel.lines] == [0, 1]
    # Another run of one of them is compared with it from the files.
    by_file = pairs(tmp_path / "two", tmp_path / "two")
    assert [(pair.only_first, pair.difference) for pair in by_file] == [(0, 0)] * len(by_file) and len(by_file) == 7


def test_each_model_is_asked_by_the_classes_of_its_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards that name the classes in another order, and labels in words: both models are right on all images."""
    monkeypatch.chdir(tmp_path)
    x = np.zeros((8, 4, 4, 1), np.uint8)
    x[::2] = 250
    y = np.array(["light", "dark"] * 4)
    np.savez("some.npz", x=x, y=y)
    for name, classes in (("one", ["dark", "light"]), ("two", ["light", "dark"])):
        model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        sign = 1 if name == "one" else -1
        model.layers[-1].set_weights([np.array([[-sign, sign]], float), np.array([sign, -sign]) * 0.5])
        save_model(model, tmp_path / "models" / name, {"data": {"name": "some.npz", "classes": classes}})
    seen: list[AssessJob] = []
    monkeypatch.setattr(AssessJob, "run", lambda job: seen.append(job) or {})
    places = {"models_dir": tmp_path / "models", "runs_dir": tmp_path / "runs"}
    engine.run(AssessConfig(model="one", beside="two", data="some.npz", name="a", **places), unheard)
    assert len(seen[0].subjects) == 2
    for name, (classifier, data) in seen[0].subjects.items():
        assert (classifier.run(data.x).argmax(axis=1) == data.y).all(), name


def test_models_are_called_by_the_ends_of_their_paths_unless_others_end_so() -> None:
    assert called(["a/net", "tiny"]) == {"a/net": "net", "tiny": "tiny"}
    assert called(["a/model.keras", "b/model.keras"]) == {name: name for name in ("a/model.keras", "b/model.keras")}


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("tiny", "named twice. Name it once"), ("{models}/tiny", "named twice. Name it once"),
        ("other, other", "named twice. Name it once"), ("nobody", "nobody"),
    ],
)  # fmt: skip
def test_models_beside_it_are_others_that_are_there(
    models_dir: Path, agreed: Path, tmp_path: Path, beside: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        asked = config(models_dir, agreed, tmp_path, "a")
        engine.run(dataclasses.replace(asked, beside=beside.format(models=models_dir)), unheard)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_of_nothing_is_refused(models_dir: Path) -> None:
    with pytest.raises(InputError, match="Try 10"):
        AssessConfig(model="tiny", models_dir=models_dir, minutes=0)


def test_nothing_is_left_of_a_run_without_a_model(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        engine.run(AssessConfig(model="none", models_dir=models_dir, runs_dir=tmp_path), unheard)
    assert list(tmp_path.iterdir()) == []


def test_no_companion_is_no_run(models_dir: Path) -> None:
    with pytest.raises(InputError, match="Try --beside"):
        AssessConfig(model="tiny", models_dir=models_dir, beside=" , ")
