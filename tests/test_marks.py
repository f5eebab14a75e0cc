"""Tags, notes, stars and the archive: a file of a person's in a run's folder, which no work of the engine loses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cli import call
from schemas import faults

from kerasrobust.config import AttackConfig
from kerasrobust.errors import InputError
from kerasrobust.events import Log, RunFinished
from kerasrobust.marks import Marks, mark_at_start, read_marks, tags_of, write_marks
from kerasrobust.runs import Run, list_runs, open_run, state

pytest_plugins = ["cli_fixtures"]

SAID = Marks(tags=("baseline", "my thesis"), note="too high a rate", starred=True)


@pytest.fixture
def config(tmp_path: Path) -> AttackConfig:
    return AttackConfig(model="m", name="one", runs_dir=tmp_path / "runs")


def begun(config: AttackConfig, **changes: Any) -> Run:
    config = dataclasses.replace(config, **changes)
    run = open_run(config)
    mark_at_start(run, config)
    return run


def ended(config: AttackConfig, *, result: bool = False, **changes: Any) -> Path:
    run = begun(config, **changes)
    run.write(RunFinished(status="done" if result else "cancelled", seconds=1.0, message=""))
    if result:
        (run.path / "result.json").write_text("{}")
    run.settle()
    run.close()
    return run.path


def test_they_are_written_as_a_whole_and_read_again_while_the_run_is_under_way(config: AttackConfig) -> None:
    run = begun(config)
    assert read_marks(run.path) == Marks() and not (run.path / "marks.json").exists()
    write_marks(run.path, SAID)
    assert read_marks(run.path) == SAID and state(run.path) == "running"
    assert faults("marks", json.loads((run.path / "marks.json").read_text())) == []
    run.write(Log(level="info", message="on"))
    run.close()
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "events.jsonl", "lock", "marks.json"]
    assert list_runs(config.runs_dir) == [run.path]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tags": "a", "note": 3, "starred": 1, "archived": "yes"}'])
def test_a_file_that_is_damaged_says_nothing(config: AttackConfig, text: str) -> None:
    path = ended(config)
    (path / "marks.json").write_text(text)
    assert read_marks(path) == Marks()


def test_what_a_foreign_file_says_cannot_command_a_terminal(config: AttackConfig) -> None:
    path = ended(config)
    (path / "marks.json").write_text(json.dumps({"tags": ["a\x1b[31m", 3, ""], "note": "red \x1b[31m"}))
    assert read_marks(path) == Marks(tags=("a[31m",), note="red [31m")


def test_only_a_run_is_marked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a run's folder to mark"):
        write_marks(tmp_path, SAID)
    assert list(tmp_path.iterdir()) == []


def test_tags_are_words_with_commas_between() -> None:
    assert tags_of(" a, my  thesis,,a ") == ("a", "my thesis") and tags_of(None) == ()


def test_resuming_keeps_what_was_said_meanwhile_and_brings_it_back_from_the_archive(config: AttackConfig) -> None:
    path = ended(config, tags="draft,baseline", note="first")
    assert read_marks(path) == Marks(tags=("draft", "baseline"), note="first")
    write_marks(path, dataclasses.replace(SAID, archived=True))
    # The same command, as one takes it from the shell's history.
    ended(config, tags="draft,baseline", note="first")
    assert read_marks(path) == SAID
    # Another one that says nothing, and one that says something else.
    ended(config, tags="new", note="first")
    assert read_marks(path) == dataclasses.replace(SAID, tags=("new",))


def test_a_run_that_takes_the_place_of_another_keeps_its_marks(config: AttackConfig) -> None:
    path = ended(config, result=True, tags="draft")
    write_marks(path, dataclasses.replace(SAID, archived=True))
    ended(config, steps=3, overwrite=True, tags="draft", note="anew")
    assert read_marks(path) == dataclasses.replace(SAID, note="anew")


def test_a_run_that_never_got_under_way_leaves_those_of_the_one_before(config: AttackConfig) -> None:
    path = ended(config, result=True)
    write_marks(path, SAID)
    run = begun(config, steps=3, overwrite=True, tags="other")
    assert read_marks(path).tags == ("other",)
    run.close()
    assert read_marks(path) == SAID and (path / "result.json").exists()


def test_a_process_that_was_killed_while_it_replaced_a_run_does_not_lose_that(config: AttackConfig) -> None:
    """What it left beside a file of marks is no work of its own."""
    path = ended(config, result=True)
    write_marks(path, SAID)
    run = begun(config, steps=3, overwrite=True)
    run._lock.close()  # As the end of its process does.
    run = open_run(dataclasses.replace(config, steps=3))
    assert run.replaces
    run.close()
    assert (path / "result.json").exists() and read_marks(path) == SAID


def test_a_command_says_them_and_the_report_repeats_them(tmp_path: Path, places: list[str], agreed: Path) -> None:
    words = ["--model", "noisy", "--data", agreed, "--split", "all[:6]", "--attack", "fgsm", "--name", "one", *places]
    assert call("attack", *words, "--tags", "thesis,baseline", "--note", "the <first> one").status == 0
    (path,) = tmp_path.rglob("marks.json")
    assert read_marks(path.parent) == Marks(tags=("thesis", "baseline"), note="the <first> one")
    page = (path.parent / "report.html").read_text()
    assert "thesis, baseline" in page and page.count("the &lt;first&gt; one") == 1
    assert "Expected words for --tags" in call("attack", *words, "--overwrite", "--tags", " ,").message
