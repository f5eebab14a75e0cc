"""What isn't clear of a model is a warning, wherever it is told."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from cli import call
from conftest import Data

from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.choosing import Choice
from kerasrobust.networks.remarks import Doubt, by_severity


@pytest.fixture
def unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it unclear of any model which range it takes."""
    choice = Choice(("0,255", "rgb"), (("0,1", "rgb"),), (0.4, 0.41), clear=False)
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)


@pytest.fixture
def words(tmp_path: Path, coloured: Data, colour_network: keras.Model) -> list[str | Path]:
    """The options of a model and its images as files, which loading makes new of each."""
    colour_network.save(tmp_path / "m.keras")
    np.savez(tmp_path / "own.npz", x=coloured[0][:60], y=coloured[1][:60])
    return ["--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--runs-dir", tmp_path / "runs"]


@pytest.mark.usefixtures("unclear")
def test_a_doubt_is_told_where_little_is(tmp_path: Path, words: list[str | Path]) -> None:
    done = call("attack", *words, "--attack", "fgsm", "--name", "one", "--quiet")
    assert done.status == 0, done.err
    (line,) = [line for line in done.out.splitlines() if "takes pixels in [0, 1] isn't clear" in line]
    assert line.startswith("  warning: Whether ") and "It was taken to" in line
    found = json.loads((tmp_path / "runs/one/result.json").read_text())["warnings"]
    (doubt,) = [item for item in found if "isn't clear" in item["message"]]
    assert doubt["severity"] == "warning"


@pytest.mark.usefixtures("unclear")
def test_an_import_tells_a_doubt(tmp_path: Path, words: list[str | Path]) -> None:
    done = call("import", *words, "--name", "kept", "--models-dir", tmp_path / "models", "--quiet")
    assert done.status == 0, done.err
    assert "warning: Whether " in done.out


@pytest.mark.usefixtures("unclear")
def test_a_doubt_is_a_finding(coloured: Data, colour_network: keras.Model) -> None:
    model = keras.models.clone_model(colour_network)
    model.set_weights(colour_network.get_weights())
    found = evaluate(model, coloured[0][:60], coloured[1][:60], attacks="fgsm", audit=False)
    (doubt,) = [item for item in found.findings if "isn't clear" in item.message]
    assert doubt.severity == "warning"


def test_other_notes_inform() -> None:
    notes = ["One.", Doubt("Two."), "Three.", Doubt("Four.")]
    assert by_severity(notes) == {"info": "One. Three.", "warning": "Two. Four."}
    assert by_severity([]) == {}
