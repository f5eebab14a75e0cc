from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from screen import shows, tells, text, told, until
from textual.widgets import DataTable

from kerasrobust.config import AttackConfig, DemoConfig, TrainConfig
from kerasrobust.events import Finding, to_json
from kerasrobust.records import Result
from kerasrobust.runs import is_locked, state, write_json
from kerasrobust.settings import to_dict
from tui.app import Lab
from tui.panes.runs import RunsTable, fitting
from tui.read.overview import Overviews, accuracies

AddRun = Callable[..., Path]


def names(lab: Lab) -> list[str]:
    """The runs in the order of the table."""
    table = lab.screen.query_one("#runs", DataTable)
    column = next(index for index, key in enumerate(table.columns) if key.value == "run")
    return [table.get_row_at(row)[column].plain for row in range(table.row_count)]


async def test_at_the_first_start_the_demo_is_a_key_away_and_asks_before_minutes_of_work(
    lab: Lab, runs_dir: Path
) -> None:
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "No runs in", "Press d to run the demo")
        await pilot.press("d")
        await shows(pilot, "about five minutes", "Run it (y)", "Not now (n)")
        await pilot.press("n")
        await until(pilot, lambda: len(lab.screen_stack) == 1)
        assert not runs_dir.exists() and not lab.session.runner.children
        await pilot.press("d", "y")
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


NEEDS = {"state": 11, "run": 20, "model": 18, "data": 9, "clean": 11, "robust": 11, "at work": 13, "age": 6}


@pytest.mark.parametrize(
    ("room", "columns"),
    [
        (40, ["state", "run", "model"]),
        (60, ["state", "run", "model", "robust"]),
        (80, ["state", "run", "model", "clean", "robust"]),
        (96, ["state", "run", "model", "clean", "robust", "at work"]),
        (110, list(NEEDS)),
    ],
)
def test_columns_fit_the_room_in_order_of_worth_and_names_are_cut_last(room: int, columns: list[str]) -> None:
    order = ["state", "run", "model", "data", "clean", "robust", "at work", "age"]
    widths = fitting(NEEDS, room)
    assert list(widths) == [name for name in order if name in columns]
    assert sum(widths.values()) + len(widths) <= room
    if room >= 80:
        assert all(widths[name] == NEEDS[name] for name in widths)
    for long in (fitting(NEEDS | {"run": 60}, room), fitting(NEEDS | {"model": 60}, room)):
        assert sum(long.values()) + len(long) <= room
    # Nothing of less worth stands beside a name that is cut.
    assert "age" not in fitting(NEEDS | {"run": 44}, 110)


@pytest.mark.parametrize("width", [60, 80, 100, 119, 120, 142, 150, 160, 220])
async def test_names_and_models_are_whole_or_end_in_an_ellipsis_at_every_width(
    lab: Lab, add_run: AddRun, runs_dir: Path, width: int
) -> None:
    for name, model in (("live", "convnet-random-pgd"), ("attack-20261128-014812", "convnet-random")):
        write_json(add_run("attack", name) / "config.json", to_dict(AttackConfig(model=model)))
    add_run("demo")
    async with lab.run_test(size=(width, 24)) as pilot:
        await shows(pilot, "3 runs", "demo")
        lines = [line.split("│")[0] for line in text(pilot).splitlines()]
        (live,) = (line for line in lines if " live " in line)
        (other,) = (line for line in lines if "attack-20261128" in line)
        assert "convnet-random-pgd" in live or "…" in live, live
        assert ("attack-20261128-014812" in other and "convnet-random " in other) or "…" in other, other
        assert width < 80 or "convnet-random-pgd" in live
        assert "6.0 %" in live


async def test_a_wide_list_has_result_finding_chart_and_settings_beside(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train", began=3000.0)
    add_run("attack", began=2000.0)
    with (path / "events.jsonl").open("a") as file:
        for severity in ("warning", "info"):
            words = f"A {severity} " + " ".join(f"word{number}" for number in range(30)) + " at its end."
            file.write(to_json(Finding(code="doubt", message=words, severity=severity)) + "\n")
    async with lab.run_test(size=(120, 40)) as pilot:
        await shows(
            pilot,
            "2 runs",
            "Clean accuracy:",
            "5.0 % (2.7-9.0 %)",
            "! warning",
            "A warning",
            "at its end.",
            "● clean val",
        )
        await shows(pilot, "batch size  256", "model  lenet")
        await pilot.press("down")
        await shows(pilot, "PGD 8/255 L∞")


async def test_progress_has_a_column_only_while_something_is_under_way(
    lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run("attack", "before", began=1000.0)
    monkeypatch.setenv("FAKE_STOP_AT", "5")
    async with lab.run_test(size=(100, 24)) as pilot:
        await shows(pilot, "before", "age")
        assert "at work" not in text(pilot)
        lab.start(DemoConfig(name="mine"))
        await pilot.press("escape")
        await shows(pilot, "● running", "at work")


async def test_curves_beside_the_list_say_whose_they_are(lab: Lab, add_run: AddRun) -> None:
    add_run("demo")
    async with lab.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Training convnet-random-pgd, the", "of 5 trainings", "● clean val", "▲ robust v")
        assert "━ clean" not in text(pilot)


async def test_the_cursor_follows_the_run_that_was_started(
    lab: Lab, add_run: AddRun, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run("attack", "before", began=1000.0)
    add_run("train", "stopped", events=12, began=500.0)
    monkeypatch.setenv("FAKE_STOP_AT", "5")
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "2 runs")
        lab.start(DemoConfig(name="mine"))
        await shows(pilot, "● running")
        await pilot.press("escape")
        await shows(pilot, "3 runs")
        table = lab.screen.query_one(RunsTable)
        await until(pilot, lambda: table.at_cursor is not None and table.at_cursor.path.name == "mine")
        await pilot.press("x")
        await shows(pilot, "■ cancelled")
        assert state(runs_dir / "mine") == "cancelled"
        # One that is opened by other ways, too.
        lab.open_run(runs_dir / "stopped")
        await pilot.press("escape")
        await until(pilot, lambda: table.at_cursor is not None and table.at_cursor.path.name == "stopped")


async def test_a_refused_run_leaves_a_line_that_says_why(runs_dir: Path, models_dir: Path) -> None:
    words = "import sys; sys.exit('kerasrobust: Expected a saved model. Received: convnet42.')"
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", words))
    async with lab.run_test(size=(120, 30)) as pilot:
        lab.start(TrainConfig(name="mine", model="convnet42"))
        await shows(pilot, "✗ refused", "mine", "train convnet42", "Expected a saved model. Received: convnet42.")
        await pilot.press("e")
        await shows(pilot, "kerasrobust.run train", "--name mine", "--model convnet42")
        await pilot.press("escape", "escape")
        await shows(pilot, "✗ refused")
        await pilot.press("delete")
        await shows(pilot, "No runs in")


async def test_a_run_that_is_cancelled_while_it_starts_is_cancelled(runs_dir: Path, models_dir: Path) -> None:
    # Where the tests run in the background of a shell, an interrupt is ignored until a process says otherwise.
    ready = runs_dir.parent / "ready"
    code = f"import pathlib, signal, time; signal.signal(2, signal.SIG_DFL); pathlib.Path({str(ready)!r}).touch(); "
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", f"{code}time.sleep(60)"))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(DemoConfig(name="mine"))
        await pilot.press("escape")
        await shows(pilot, "1 run,", "◌ starting", "loading TensorFlow")
        await until(pilot, ready.exists)
        await pilot.press("x")
        await shows(pilot, "■ cancelled", "Cancelled before it began.")
        assert "SIGINT" not in told(pilot)


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
        await shows(pilot, "A run is under way.", "Leave running (y)", "Stop it (s)", "Stay (n)")
        for stay in ("escape", "n"):
            await pilot.press(stay)
            await until(pilot, lambda: len(lab.screen_stack) == 1)
            assert lab.is_running
            await pilot.press("q")
        await pilot.press("enter")
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
        await pilot.press("d", "y")
        await tells(pilot, "Expected a folder for runs that can be written")
        # The message goes away, the line in the list stays.
        await shows(pilot, "✗ refused", "Expected a folder for runs")


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
