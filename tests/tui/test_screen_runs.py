from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from screen import shows, tells, text, until
from textual.widgets import DataTable

from kerasrobust.config import DemoConfig, TrainConfig
from kerasrobust.records import Result
from kerasrobust.runs import is_locked, state, write_json
from tui.app import Lab
from tui.read.overview import Overviews, accuracies

AddRun = Callable[..., Path]


def names(lab: Lab) -> list[str]:
    """The runs in the order of the table."""
    table = lab.screen.query_one("#runs", DataTable)
    column = next(index for index, key in enumerate(table.columns) if key.value == "run")
    return [table.get_row_at(row)[column].plain for row in range(table.row_count)]


async def test_at_the_first_start_one_key_runs_the_demo(lab: Lab, runs_dir: Path) -> None:
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "No runs in", "Press d to run the demo")
        await pilot.press("d")
        await shows(pilot, "✓ done", "Training convnet-random-pgd")
        assert [(path.name[:5], state(path)) for path in runs_dir.iterdir()] == [("demo-", "done")]


async def test_every_run_is_there_with_its_state_and_figures(lab: Lab, add_run: AddRun) -> None:
    add_run("demo", began=3000.0)
    add_run("attack", began=2000.0)
    add_run("train", "unfinished", events=12, began=1000.0)
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "3 runs", "✓ done", "† died", "five networks", "shapes *")
        assert names(lab) == ["demo", "attack", "unfinished"]
        result = json.loads((Path(__file__).parent / "recordings/attack/result.json").read_text())
        (line,) = (line for line in text(pilot).splitlines() if " attack " in line and "✓ done" in line)
        assert f"{100 * result['clean_accuracy']:.1f} %" in line and f"{100 * result['robust_accuracy']:.1f} %" in line


async def test_a_run_that_somebody_else_starts_shows_up_and_moves(
    lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "30")
    from tui.runner import Runner

    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "No runs in")
        other = Runner(lab.session.runner.engine)
        other.start(TrainConfig(name="theirs", runs_dir=runs_dir))
        await shows(pilot, "● running", "theirs", "%")
        await pilot.press("x")
        await shows(pilot, "■ cancelled")
        await until(pilot, lambda: state(runs_dir / "theirs") == "cancelled")


async def test_search_filter_and_order(lab: Lab, add_run: AddRun) -> None:
    add_run("demo", "zebra", began=3000.0)
    add_run("attack", "ape", began=2000.0)
    add_run("train", "mole", events=12, began=1000.0)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "3 runs, newest first")
        assert names(lab) == ["zebra", "ape", "mole"]
        await pilot.press("s")
        assert names(lab) == ["ape", "mole", "zebra"]
        await pilot.press("slash", *"lenet")
        await until(pilot, lambda: names(lab) == ["mole"])
        await shows(pilot, "2 hidden")
        await pilot.press("escape")
        await until(pilot, lambda: len(names(lab)) == 3)
        await pilot.press("f")
        await until(pilot, lambda: names(lab) == ["mole"])
        await shows(pilot, "only died")
        await pilot.press("f", "f")
        assert len(names(lab)) == 3


async def test_a_click_on_a_heading_orders_by_it(lab: Lab, add_run: AddRun) -> None:
    add_run("demo", "zebra", began=3000.0)
    add_run("attack", "ape", began=2000.0)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "zebra")
        column = text(pilot).splitlines()[1].index("run")
        await pilot.click("#runs", offset=(column, 0))
        await until(pilot, lambda: names(lab) == ["ape", "zebra"])


async def test_deleting_asks_first(lab: Lab, add_run: AddRun) -> None:
    folder = add_run("attack")
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "attack")
        await pilot.press("delete")
        await shows(pilot, "Delete the folder", "Keep (n)", "Delete (y)")
        await pilot.press("enter")
        await until(pilot, lambda: len(lab.screen_stack) == 1)
        assert folder.is_dir()
        await pilot.press("delete", "y")
        await shows(pilot, "No runs in")
        assert not folder.exists() and list(folder.parent.iterdir()) == []


async def test_a_running_run_is_not_deleted(lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "5")
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.session.runner.start(DemoConfig(name="mine", runs_dir=runs_dir))
        await shows(pilot, "● running")
        await pilot.press("delete", "y")
        await tells(pilot, "which is running. Cancel it first.")
        assert (runs_dir / "mine/config.json").exists()


async def test_what_has_stopped_goes_on_under_its_name_and_what_is_done_is_done_anew(
    lab: Lab, add_run: AddRun, runs_dir: Path
) -> None:
    add_run("train", "stopped", events=12)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "† died")
        await pilot.press("r")
        await until(pilot, lambda: state(runs_dir / "stopped") == "done")
        assert [path.name for path in runs_dir.iterdir()] == ["stopped"]
        await pilot.press("escape")
        await shows(pilot, "✓ done")
        await pilot.press("r")
        await until(pilot, lambda: len(list(runs_dir.iterdir())) == 2)
        await until(pilot, lambda: all(state(path) == "done" for path in runs_dir.iterdir()))


async def test_settings_of_a_run_open_in_the_form(lab: Lab, add_run: AddRun) -> None:
    add_run("attack")
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "attack")
        await pilot.press("e")
        await shows(pilot, "kerasrobust.run attack", "--model small --steps 10")


async def test_the_table_is_copied_with_tabs(lab: Lab, add_run: AddRun) -> None:
    add_run("attack")
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "attack")
        await pilot.press("y")
        head, line = lab.clipboard.splitlines()
        assert head.split("\t")[:3] == ["state", "run", "model"]
        assert line.split("\t")[:3] == ["✓ done", "attack", "small"]


async def test_foreign_folders_and_files_break_nothing(lab: Lab, add_run: AddRun, runs_dir: Path) -> None:
    add_run("attack", "good")
    for name, files in {
        "torn": {"config.json": '{"kind": "tra', "events.jsonl": '{"type": "RunSt'},
        "odd": {"config.json": '{"kind": 3, "data": [1]}', "result.json": '{"rows": [3], "attacks": 4}'},
        "binary": {"config.json": "\0\1\2", "events.jsonl": "\0" * 1000},
        "rows": {"config.json": "{}", "result.json": '{"rows": [{"model": "m", "accuracy": "x"}]}'},
        "deep": {"config.json": "[" * 100_000, "result.json": "[" * 100_000},
    }.items():
        (runs_dir / name).mkdir()
        for file, content in files.items():
            (runs_dir / name / file).write_text(content)
        last = '{"schema":1,"type":"RunFinished","time":1,"status":"done","seconds":1,"message":"m"}\n'
        with (runs_dir / name / "events.jsonl").open("a") as events:
            events.write("\n" + last)
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "6 runs", "good")
        for _ in range(6):
            await pilot.press("down")
        for _ in range(6):
            await pilot.press("up")
        await shows(pilot, "good")


def test_what_has_not_changed_is_not_read_again(
    add_run: AddRun, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run("attack")
    add_run("train", events=5)
    overviews = Overviews(runs_dir)
    first = overviews.read()
    monkeypatch.setattr("tui.read.overview.overview", None)
    assert overviews.read() == first


def test_a_study_is_summed_up_by_the_range_of_its_networks_at_the_usual_radius() -> None:
    def row(model: str, attack: str | None, epsilon: float | None, accuracy: float) -> dict[str, object]:
        norm = "linf" if attack else None
        return {"model": model, "attack": attack, "epsilon": epsilon, "norm": norm, "accuracy": accuracy}

    rows = [
        row("a", None, None, 0.9), row("a", "fgsm", 8 / 255, 0.3), row("a", "pgd", 8 / 255, 0.1),
        row("a", "pgd", 16 / 255, 0.0), row("b", None, None, 0.8), row("b", "pgd", 8 / 255, 0.5),
    ]  # fmt: skip
    assert accuracies(Result.parse({"rows": rows})) == ((0.8, 0.9), (0.1, 0.5))
    assert accuracies(Result.parse({"clean_accuracy": 0.7, "robust_accuracy": 0.2})) == ((0.7,), (0.2,))


async def test_quitting_asks_and_runs_go_on(lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "5")
    async with lab.run_test(size=(80, 24)) as pilot:
        child = lab.session.runner.start(DemoConfig(name="mine", runs_dir=runs_dir))
        await until(pilot, lambda: is_locked(child.path))
        await pilot.press("q")
        await shows(pilot, "Quit and leave the run running?", "Quit (y)", "Stop (s)")
        await pilot.press("escape")
        assert lab.is_running
        await pilot.press("q", "enter")
        await until(pilot, lambda: lab._exit)
    assert not child.ended and is_locked(child.path)


async def test_quitting_stops_runs_where_asked_to(lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "5")
    async with lab.run_test(size=(80, 24)) as pilot:
        child = lab.session.runner.start(DemoConfig(name="mine", runs_dir=runs_dir))
        await until(pilot, lambda: (child.path / "events.jsonl").exists())
        await pilot.press("q", "s")
        await until(pilot, lambda: child.ended)
    assert state(child.path) == "cancelled"


async def test_a_full_disk_is_one_message(lab: Lab, runs_dir: Path, models_dir: Path) -> None:
    runs_dir.parent.mkdir(exist_ok=True)
    runs_dir.write_text("a file where the folder should be")
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "No runs in")
        await pilot.press("d")
        await tells(pilot, "Expected a folder for runs that can be written")
        await shows(pilot, "No runs in")


def test_the_state_of_a_run_whose_process_number_was_given_away_is_told_by_its_lock(add_run: AddRun) -> None:
    folder = add_run("train", events=12)
    (folder / "lock").write_text(f"{os.getpid()} 0\n")
    (overview,) = Overviews(folder.parent).read()
    assert overview.state == "died"


def test_a_config_of_a_newer_version_is_listed(runs_dir: Path) -> None:
    (runs_dir / "new").mkdir(parents=True)
    write_json(runs_dir / "new/config.json", {"kind": "certify", "data": "cifar10", "model": "convnet"})
    (overview,) = Overviews(runs_dir).read()
    assert (overview.kind, overview.model, overview.state) == ("certify", "convnet", "died")
