"""Run folders written by version 0.1.0 before the code was divided into folders: they open, list and resume as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli import ROOT

from kerasrobust import entries, records
from kerasrobust.commands import from_dict
from kerasrobust.errors import InputError
from kerasrobust.events import Row, RunFinished, RunStarted, from_json
from kerasrobust.runs import list_runs, open_run, read_json, state
from kerasrobust.settings import RunConfig
from kerasrobust.show.compare import figures
from kerasrobust.tail import Tail

RECORDINGS = Path(__file__).parent / "recordings"
STATES = {"attack": "done", "cancelled": "cancelled", "train": "done"}


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    shutil.copytree(RECORDINGS, tmp_path / "runs")
    return tmp_path / "runs"


def settings(folder: Path) -> RunConfig:
    return from_dict((read_json(folder / "config.json") or {}) | {"runs_dir": str(folder.parent)})


def test_they_are_listed_with_their_states(runs_dir: Path) -> None:
    assert {path.name: state(path) for path in list_runs(runs_dir)} == STATES


@pytest.mark.parametrize("name", STATES)
def test_every_event_is_read(name: str, runs_dir: Path) -> None:
    piece = Tail(runs_dir / name / "events.jsonl").read()
    assert piece.skipped == 0 and isinstance(piece.events[0], RunStarted)
    assert from_dict(piece.events[0].config).name == name
    assert isinstance(piece.events[-1], RunFinished)


def test_rows_of_a_study_had_their_noise_on_and_their_networks_no_names() -> None:
    line = (
        '{"schema":1,"type":"Row","time":1.0,"model":"convnet","training":"pgd","randomized":true,"attack":null,'
        '"norm":null,"epsilon":null,"steps":null,"eot":null,"accuracy":0.6,"interval":[0.5,0.7],'
        '"median_distance":null,"published":null}'
    )
    event = from_json(line)
    assert isinstance(event, Row) and (event.name, event.noise) == (None, "on")
    row = entries.Row.parse(vars(event))
    assert (row.network, row.noise) == ("convnet-random-pgd", "on")
    assert from_json(line.replace('"attack"', '"noise":"loud","attack"')) is None  # As of any word that isn't known.
    result = records.Result.parse(read_json(ROOT / "tests/tui/recordings/demo/result.json") or {})
    assert result.rows and {row.noise for row in result.rows} == {"on"} and result.verdict == ""
    assert result.measured == () and result.autoattack is None


def test_results_are_compared(runs_dir: Path) -> None:
    (attack,), (train,) = (list(figures(runs_dir / name)) for name in ("attack", "train"))
    assert (attack["model"], attack["attack"], attack["examples"], attack["epsilon"]) == ("train", "pgd", 8, 8 / 255)
    assert (train["model"], train["training"], train["split"]) == ("convnet", "standard", "test[:8]")
    with pytest.raises(InputError, match="no result yet"):
        list(figures(runs_dir / "cancelled"))


def test_a_finished_one_is_refused_and_an_unfinished_one_resumed(runs_dir: Path) -> None:
    for name in ("attack", "train"):
        with pytest.raises(InputError, match=f"Received: '{name}', a finished run"):
            open_run(settings(runs_dir / name))
    run = open_run(settings(runs_dir / "cancelled"))
    assert not run.is_new and (run.path / "events.jsonl").exists()
    run.close()
