"""A run's folder: whole files, one process at a time, nothing lost or replaced unasked, readable while it grows."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import ROOT, read_events
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust import runs
from kerasrobust.commands import from_dict
from kerasrobust.config import AttackConfig, ModelsConfig, StudyConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.events import Log, RunFinished, Status, from_json, to_json
from kerasrobust.fields import Epsilon
from kerasrobust.runs import (
    Run,
    is_locked,
    list_models,
    list_runs,
    open_run,
    read_card,
    read_json,
    state,
    write_json,
)

LOG = Log(level="info", message="hello")


@pytest.fixture
def config(tmp_path: Path) -> AttackConfig:
    return AttackConfig(model="m", name="one", runs_dir=tmp_path / "runs")


def changed(config: AttackConfig, **values: Any) -> AttackConfig:
    return AttackConfig(**{**vars(config), **values})


def finished(status: Status = "done") -> RunFinished:
    return RunFinished(status=status, seconds=1.0, message="")


def left(config: AttackConfig, *events: Any, **files: str) -> Path:
    """Makes the folder of a run that is over."""
    run = open_run(config)
    for event in events:
        run.write(event)
    for name, text in files.items():
        (run.path / name.replace("_", ".")).write_text(text)
    run.close()
    return run.path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Files.


def test_json_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"accuracy": 0.5, "bad": float("nan"), "name": "caf\udce9"})
    assert read_json(path) == {"accuracy": 0.5, "bad": None, "name": "caf\udce9"}
    before = path.read_bytes()

    def half(self: Path, text: str, **_: Any) -> int:
        with open(self, "w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"accuracy": 0.9})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "3", "\udcff", '{"a": 1}x'])
def test_what_is_no_json_object_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_json(path) is None


# Opening.


def test_a_new_folder_says_what_runs_in_it(config: AttackConfig) -> None:
    run = open_run(config)
    assert run.is_new and run.name == "one" and run.path == config.runs_dir / "one"
    assert from_dict(read_json(run.path / "config.json") or {}) == config
    assert (run.path / "lock").read_text().split()[0] == str(os.getpid())
    assert state(run.path) == "running"
    run.close()
    assert sorted(contents(run.path)) == ["config.json", "lock"]


def test_runs_without_a_name_get_one_each_also_in_the_same_second(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20230214-120000")
    opened = [open_run(changed(config, name=None)) for _ in range(3)]
    assert len({run.path for run in opened}) == 3
    assert all(run.is_new and run.name.startswith("attack-20230214-120000") for run in opened)
    for run in opened:
        run.close()


def test_an_unfinished_run_is_taken_up(config: AttackConfig) -> None:
    path = left(config, LOG, finished("cancelled"))
    # Where it lies and how it is shown may differ; what is computed may not.
    run = open_run(changed(config, quiet=True, json=True))
    assert not run.is_new
    run.write(finished())
    run.close()
    assert read_events(path / "events.jsonl")[0][::2] == [LOG, read_events(path / "events.jsonl")[0][2]]
    assert state(path) == "done"


@pytest.mark.parametrize("change", [{"epsilon": Epsilon("4/255")}, {"seed": 3}, {"model": "n"}, {"steps": 7}])
def test_other_settings_under_the_same_name_are_refused(config: AttackConfig, change: dict[str, Any]) -> None:
    path = left(config, LOG, finished("cancelled"))
    before = contents(path)
    with pytest.raises(InputError, match=rf"that run 'one' was started with\. Received: other {next(iter(change))}\."):
        open_run(changed(config, **change))
    assert contents(path) == before


def test_another_command_under_the_same_name_is_refused(config: AttackConfig) -> None:
    left(config)
    with pytest.raises(InputError, match=r"Received: other .*kind"):
        open_run(TrainConfig(name="one", runs_dir=config.runs_dir))


def test_a_finished_run_is_refused_and_a_finished_study_taken_up(config: AttackConfig) -> None:
    path = left(config, finished(), result_json="{}")
    before = contents(path)
    with pytest.raises(InputError, match=r"Received: 'one', a finished run.*--overwrite"):
        open_run(config)
    assert contents(path) == before
    study = StudyConfig(name="study", runs_dir=config.runs_dir)
    open_run(study).close()
    (config.runs_dir / "study" / "result.json").write_text("{}")
    run = open_run(study)
    assert not run.is_new
    run.close()


@pytest.mark.parametrize("change", [{}, {"epsilon": Epsilon("4/255")}])
def test_overwriting_waits_until_the_new_run_is_under_way(config: AttackConfig, change: dict[str, Any]) -> None:
    path = left(config, LOG, finished(), result_json="{}")
    before = contents(path)
    again = changed(config, overwrite=True, **change)
    run = open_run(again)
    assert run.is_new and not run.is_settled and sorted(contents(path)) == ["config.json", "lock"]
    assert list_runs(config.runs_dir) == [path]
    run.discard()
    assert contents(path) == before and state(path) == "done"
    assert [item.name for item in config.runs_dir.iterdir()] == ["one"]
    run = open_run(again)
    run.settle()
    run.write(LOG)
    run.close()
    assert [item.name for item in config.runs_dir.iterdir()] == ["one"]
    assert sorted(contents(path)) == ["config.json", "events.jsonl", "lock"]


def test_what_a_killed_process_put_aside_comes_back_or_goes_once_there_is_other_work(config: AttackConfig) -> None:
    path = left(config, LOG, finished(), result_json="{}")
    before = contents(path)
    again = changed(config, overwrite=True)
    open_run(again)._lock.close()  # As the end of its process would.
    assert len(list(config.runs_dir.iterdir())) == 2
    run = open_run(again)
    assert not run.is_new and run.replaces
    run.close()
    assert [item.name for item in config.runs_dir.iterdir()] == ["one"] and contents(path) == before

    open_run(again)._lock.close()
    (path / "batches").mkdir()
    run = open_run(again)
    assert not run.is_new and not run.replaces
    run.close()
    assert [item.name for item in config.runs_dir.iterdir()] == ["one"] and (path / "batches").is_dir()


def test_what_was_put_aside_for_another_run_is_left_alone(config: AttackConfig) -> None:
    left(config, LOG, finished("cancelled"))
    others = [config.runs_dir / name for name in (".one.two.77", "77", ".oneself.77")]
    for other in others:
        other.mkdir()
    run = open_run(config)
    assert not run.replaces
    run.close()
    assert all(other.is_dir() for other in others)


def test_overwriting_goes_on_with_a_run_that_was_cancelled(config: AttackConfig) -> None:
    path = left(config, LOG, finished("cancelled"), note_txt="kept")
    run = open_run(changed(config, overwrite=True))
    assert not run.is_new and (path / "note.txt").exists()
    run.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(config: AttackConfig, overwrite: bool) -> None:
    folder = config.runs_dir / "one"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="which holds something else"):
        open_run(changed(config, overwrite=overwrite))
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_taken(config: AttackConfig) -> None:
    (config.runs_dir / "one").mkdir(parents=True)
    run = open_run(config)
    assert not run.is_new
    run.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_use_is_refused(config: AttackConfig, overwrite: bool) -> None:
    run = open_run(config)
    with pytest.raises(InputError, match=f"free. Received: .*one, in use by process {os.getpid()}. Wait for it"):
        open_run(changed(config, overwrite=overwrite))
    assert run.path.is_dir()
    run.close()
    open_run(config).close()


def test_a_process_that_is_killed_leaves_its_folder_free(config: AttackConfig) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys\nfrom pathlib import Path\nfrom kerasrobust.config import AttackConfig\n"
            "from kerasrobust.runs import open_run\n"
            "run = open_run(AttackConfig(model='m', name='one', runs_dir=Path(sys.argv[1])))\n"
            "print('locked', flush=True)\nsys.stdin.read()",
            str(config.runs_dir),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        path = config.runs_dir / "one"
        assert is_locked(path) and state(path) == "running"
        with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
            open_run(config)
        holder.kill()
    assert not is_locked(path) and state(path) == "died"
    run = open_run(config)
    assert not run.is_new
    run.close()


def test_a_reader_that_asks_for_the_state_does_not_get_in_the_way(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left(config)
    with (path / "lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        monkeypatch.setattr(runs.time, "sleep", lambda seconds: fcntl.flock(reader, fcntl.LOCK_UN))
        open_run(config).close()


@pytest.mark.parametrize("place", ["a file", "under a file", "the name is a file", "/proc/nope"])
def test_a_place_that_cannot_be_written_is_refused(config: AttackConfig, tmp_path: Path, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    where = {"a file": file, "under a file": file / "runs", "the name is a file": tmp_path}.get(place, Path(place))
    name = "file" if place == "the name is a file" else "one"
    with pytest.raises(InputError, match=r"Expected a folder for runs that can be written. Received: .*--runs-dir"):
        open_run(changed(config, runs_dir=where, name=name))
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_disk_that_is_full_leaves_nothing_behind(config: AttackConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    path = left(changed(config, name="old"), finished(), result_json="{}")
    before = contents(path)
    monkeypatch.setattr(runs, "write_json", full)
    for name in ("old", "new"):
        with pytest.raises(InputError, match="No space left on device"):
            open_run(changed(config, name=name, overwrite=True))
    assert [item.name for item in config.runs_dir.iterdir()] == ["old"] and contents(path) == before


def test_a_run_that_never_began_is_removed(config: AttackConfig) -> None:
    run = open_run(config)
    run.write(LOG)
    run.discard()
    assert list(config.runs_dir.iterdir()) == []


# Events.


def test_what_comes_after_a_torn_line_is_not_lost_with_it(config: AttackConfig) -> None:
    path = left(config, LOG)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"schema":1,"type":"Log","ti')
    run = open_run(config)
    run.write(finished())
    run.close()
    assert [type(event).__name__ for event in read_events(path / "events.jsonl")[0]] == ["Log", "RunFinished"]


@given(st.lists(st.text(max_size=5), max_size=6), st.lists(st.integers(0, 400), max_size=8), st.data())
def test_a_file_that_grows_is_read_without_loss_or_repetition(
    tmp_path_factory: pytest.TempPathFactory, messages: list[str], cuts: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "growing.jsonl"
    written = [Log(level="info", message=message) for message in messages]
    # Lines of other programs and other versions in between.
    foreign = data.draw(st.lists(st.sampled_from(["", "{}", '{"type":"Newer"}', "no json"]), max_size=3))
    lines = data.draw(st.permutations([*foreign, *map(to_json, written)]))
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(b"")
    found, offset = [], 0
    for cut in [*sorted(cuts), len(text)]:
        path.write_bytes(text[:cut])
        events, offset = read_events(path, offset)
        found += events
        assert text[:offset].endswith(b"\n") or offset == 0
    assert found == [event for event in map(from_json, lines) if event is not None]
    assert len(found) == len(written) and offset == len(text)


# States.


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_a_run_that_ended_says_how(config: AttackConfig, status: Status) -> None:
    assert state(left(config, LOG, finished(status))) == status


def test_a_run_that_did_not_say_how_it_ended_has_died(config: AttackConfig) -> None:
    assert state(left(config)) == "died"
    assert state(left(changed(config, name="two"), finished("cancelled"), LOG)) == "died"
    assert state(config.runs_dir / "none") == "died"


def test_runs_are_listed_the_newest_first(config: AttackConfig) -> None:
    assert list_runs(config.runs_dir) == []
    for age, name in enumerate(("b", "c", "a")):
        path = left(changed(config, name=name))
        os.utime(path / "config.json", (time.time() - age, time.time() - age))
    (config.runs_dir / "empty").mkdir()
    (config.runs_dir / "file").write_text("")
    hidden = config.runs_dir / ".put-aside"
    hidden.mkdir()
    (hidden / "config.json").write_text("{}")
    assert [path.name for path in list_runs(config.runs_dir)] == ["b", "c", "a"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    for name in ("zebra", "ape"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        write_json(folder / "card.json", {"name": name})
    (tmp_path / "models" / "no-card").mkdir()
    yield tmp_path / "models"


def test_models_are_listed_by_name(store: Path) -> None:
    assert [path.name for path in list_models(store)] == ["ape", "zebra"]
    assert list_models(store / "none") == []
    assert read_card(store / "ape") == {"name": "ape"} and read_card(store / "no-card") is None


def test_runs_and_models_are_found_by_name_and_by_path(store: Path, config: AttackConfig) -> None:
    path = left(config)
    where = ModelsConfig(runs_dir=config.runs_dir, models_dir=store)
    assert runs.find("one", where) == runs.find(str(path), where) == path
    assert runs.find("ape", where) == store / "ape"
    with pytest.raises(InputError, match=r"a run or model that exists \(ape, one, zebra\).*Did you mean 'zebra'\?"):
        runs.find("zebre", where)


def test_an_event_can_be_read_as_soon_as_it_is_written(config: AttackConfig) -> None:
    """Also by the UI that watches, and after the process was killed: nothing waits in a buffer."""
    run = open_run(config)
    for count in (1, 2):
        run.write(LOG)
        assert (run.path / "events.jsonl").read_text() == f"{to_json(LOG)}\n" * count
    run.close()


def test_events_are_lines_of_json(config: AttackConfig) -> None:
    path = left(config, LOG, finished())
    lines = (path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["Log", "RunFinished"]


def test_closing_on_a_full_disk_still_lets_go_of_the_folder(config: AttackConfig, tmp_path: Path) -> None:
    run = open_run(config)
    with Path("/dev/full").open("w") as full:
        full_run = Run(path=run.path, is_new=True, _lock=run._lock, _events=full)
        with pytest.raises(OSError, match="No space"):
            full_run.write(LOG)
        with pytest.raises(OSError, match="No space"):
            full_run.close()
    assert not is_locked(run.path)
