from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import ENGINE, GO_ON, recorded
from screen import shows, tells, text, told, until
from textual.pilot import Pilot
from textual.widgets import Input

from kerasrobust.config import AttackConfig, DemoConfig, TrainConfig
from kerasrobust.events import AttackProgress, Finding, Log, Progress, RunFinished, SystemSampled, to_json
from kerasrobust.records import Result
from kerasrobust.runs import is_locked, state
from kerasrobust.show.figures import format_accuracy
from tui.app import Lab
from tui.panes.status import Status, progress_line
from tui.read.measured import of_result
from tui.read.state import RunState, Stage
from tui.screens.monitor import MonitorScreen
from tui.widgets.chart import Chart

AddRun = Callable[..., Path]


async def opened(lab: Lab, pilot: Pilot[None], path: Path) -> MonitorScreen:
    await shows(pilot, path.name)
    lab.open_run(path)
    await until(pilot, lambda: isinstance(lab.screen, MonitorScreen) and lab.screen._caught_up)
    screen = lab.screen
    assert isinstance(screen, MonitorScreen)
    return screen


def chart(screen: MonitorScreen, name: str) -> Chart:
    return screen.query_one(f"#{name}", Chart)


def append(path: Path, *lines: str) -> None:
    with (path / "events.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


async def test_a_run_is_watched_from_start_to_end(lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Up to a step of the second epoch.
    units = [event.unit if isinstance(event, Progress) else "" for event in recorded("train")]
    monkeypatch.setenv("FAKE_STOP_AT", str(units.index("step", units.index("epoch")) + 1))
    async with lab.run_test(size=(100, 30)) as pilot:
        lab.start(TrainConfig(model="lenet", epochs=3, name="mine"))
        await shows(pilot, "● running", "epoch 2/3", "steps", "/s", "left")
        await pilot.press("x")
        await shows(pilot, "■ cancelled", "val")
        screen = lab.screen
        assert isinstance(screen, MonitorScreen)
        # Clean and robust accuracy, each while training and on validation images, in one chart.
        await until(
            pilot, lambda: {curve.label for curve in chart(screen, "accuracy").curves} >= {"clean", "clean val"}
        )
        assert [curve.label for curve in chart(screen, "loss").curves] == ["loss", "loss val"]


async def test_what_has_not_begun_yet_is_starting(runs_dir: Path, models_dir: Path) -> None:
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", "import time; time.sleep(60)"))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(DemoConfig(name="mine"))
        await shows(pilot, "◌ starting")
        await pilot.press("escape")
        await shows(pilot, "1 run,", "◌ starting", "mine")
        lab.session.runner.children[runs_dir / "mine"].process.kill()
        await tells(pilot, "killed by SIGKILL")
        await shows(pilot, "† died", "killed by SIGKILL")


@pytest.mark.parametrize(("kind", "words"), [
    ("attack", ["clean 45.0 % (38.3-51.9)", "robust 6.0 % (3.5-10.2) under PGD 8/255", "small, 200 images of shapes"]),
    ("train", ["clean 45.0 %", "robust 5.0 % (2.7-9.0)", "Everything is in runs/", "model in saved_models/small"]),
    ("demo", ["clean 91.5-97.2 %", "robust 2.2-78.8 %", "5 networks, 400 images of shapes test[:400]"]),
    ("corruptions", ["clean 48.3 %", "under corruptions"]),
    ("assess", ["convnet-gaussian: clean 54.4 % (51.3-57.5)", "robust 0.0 % (0.0-19.4) under", "2 networks"]),
])  # fmt: skip
async def test_a_run_begins_with_its_result(lab: Lab, add_run: AddRun, kind: str, words: list[str]) -> None:
    path = add_run(kind)
    async with lab.run_test(size=(100, 30)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "✓ done", *words)
        assert all(text(pilot).index(word) < text(pilot).index("Curves (m)") for word in words)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 48)])
async def test_the_worst_finding_is_first_and_whole(lab: Lab, add_run: AddRun, size: tuple[int, int]) -> None:
    path = add_run("train", events=15)
    long = " ".join(f"word{number}" for number in range(20))
    for severity in ("info", "warning", "info"):
        append(path, to_json(Finding(code="doubt", message=f"This {severity} has {long} too.", severity=severity)))
    async with lab.run_test(size=size) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "! warning (and 2 more: l): This warning")
        head = " ".join(text(pilot).split("Curves (m)")[0].split())
        assert f"{long} too. [doubt]" in head


async def test_long_lines_of_the_log_wrap_and_are_copied_whole(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train")
    long = " ".join(f"word{number}" for number in range(40))
    append(path, to_json(Log(level="warning", message=long)))
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("l")
        await shows(pilot, "warning: word0", "word39")
        await pilot.press("y")
        assert f"warning: {long}" in lab.clipboard
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: "word39" in text(pilot) and "word8 word9" in " ".join(text(pilot).split()))


async def test_the_report_opens_or_its_path_is_copied_and_so_is_the_command(
    lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add_run("demo")
    opened_pages: list[str] = []
    monkeypatch.setattr(lab, "open_url", lambda url, **_: opened_pages.append(url))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("o")
        await tells(pilot, "There is no report yet")
        (path / "report.html").write_text("<p>a report</p>")
        await pilot.press("o")
        assert opened_pages == [(path / "report.html").resolve().as_uri()]
        monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 22")
        await pilot.press("o")
        assert lab.clipboard == str((path / "report.html").resolve()) and len(opened_pages) == 1
        await pilot.press("y")
        assert lab.clipboard.startswith("python -m kerasrobust.run demo")
        await pilot.press("t")
        await pilot.press("y")  # A table takes it for itself.
        await until(pilot, lambda: not lab.clipboard.startswith("python"))
        await pilot.press("Y")
        assert lab.clipboard.startswith("python -m kerasrobust.run demo")


async def test_before_the_first_step_it_says_what_takes_the_time(
    runs_dir: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", "import time; time.sleep(60)"))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(DemoConfig(name="mine"))
        await shows(pilot, "◌ starting", "loading TensorFlow, ")
    lab.session.runner.children[runs_dir / "mine"].process.kill()
    monkeypatch.setenv("FAKE_STOP_AT", "4")
    lab = Lab(runs_dir, models_dir, ENGINE)
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(TrainConfig(name="his"))
        await shows(pilot, "● running", "compiling the first step, ")
        await pilot.press("x")
        await shows(pilot, "■ cancelled")


def test_only_what_computes_is_said_to_be_compiled() -> None:
    def line(name: str, status: Any = "running") -> str:
        return progress_line(RunState(), Stage(name=name, title="", began=time.time() - 5, status=status), bar=8)

    assert line("train") == line("attack-lenet") == "compiling the first step, 5.0 s"
    assert line("save") == line("prepare") == "5.0 s" and line("train", "done") == ""


def test_an_assessment_begins_with_its_union(tmp_path: Path) -> None:
    record = json.loads((Path(__file__).parent / "recordings/assess/result.json").read_text())
    union = next(row for row in record["rows"] if row["attack"] == "union")
    clean = record["rows"][0]
    figures = of_result(Result.parse(record)).figures
    name = clean["name"]
    assert figures.startswith(f"{name}: clean {format_accuracy(clean['accuracy'])} (")
    assert f"robust {format_accuracy(union['accuracy'])} (" in figures
    assert f"under the worst of {union['norm']}, {union['examples']:,} images" in figures


async def test_an_attack_opens_on_its_attacks_while_it_starts(runs_dir: Path, models_dir: Path) -> None:
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", "import time; time.sleep(60)"))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(AttackConfig(name="mine", model="convnet"))
        await shows(pilot, "◌ starting", "No attack yet.")
        lab.session.runner.children[runs_dir / "mine"].process.kill()


async def test_clean_and_robust_accuracy_are_in_one_chart(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(160, 48)) as pilot:
        screen = await opened(lab, pilot, path)
        accuracy = chart(screen, "accuracy")
        assert [(curve.label, curve.sign) for curve in accuracy.curves] == [
            ("clean", ""), ("clean val", "●"), ("robust", ""), ("robust val", "▲"),
        ]  # fmt: skip
        # The last measured figures of the last training stand above the chart.
        last = screen.state.series["train-convnet-random-pgd", "validation", "robust_accuracy"].ys[-1]
        await shows(pilot, f"▲ robust val {100 * last:.1f} %", "loss", "learning rate")
        await shows(pilot, "✓ Training lenet", "✓ Attacking convnet-random-pgd")


async def test_the_cursor_reads_values_and_the_view_zooms(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(100, 30)) as pilot:
        screen = await opened(lab, pilot, path)
        accuracy = chart(screen, "accuracy")
        plot = accuracy.query_one("Plot")
        plot.focus()
        whole = plot.span
        await pilot.press("left", "left")
        step = accuracy.cursor
        assert step is not None and whole[0] <= step <= whole[1]
        series = screen.state.series["train-convnet-random-pgd", "train", "accuracy"]
        near = min(range(len(series.xs)), key=lambda index: abs(series.xs[index] - step))
        await shows(pilot, f"step {step:,.6g}", f"clean {100 * series.ys[near]:.1f} %")
        await pilot.press("plus")
        assert plot.span[1] - plot.span[0] < whole[1] - whole[0]
        await pilot.press("0", "end")
        assert plot.span == whole and accuracy.cursor is None


async def test_smoothing_log_scale_and_the_training_are_chosen_by_keys(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(80, 24)) as pilot:
        screen = await opened(lab, pilot, path)
        await pilot.press("m")
        await pilot.press("s")
        await shows(pilot, "smoothing 0.6")
        await pilot.press("c", "v")
        await shows(pilot, "loss (log)")
        await pilot.press("right_square_bracket")
        await shows(pilot, "Training lenet", "training 1 of 5")
        assert chart(screen, "accuracy").logarithmic is False


async def test_the_mouse_reads_values_and_changes_tabs(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(100, 30)) as pilot:
        screen = await opened(lab, pilot, path)
        await pilot.hover("#accuracy Plot", offset=(40, 5))
        await until(pilot, lambda: chart(screen, "accuracy").cursor is not None)
        row = next(number for number, line in enumerate(text(pilot).splitlines()) if "Settings (i)" in line)
        column = text(pilot).splitlines()[row].index("Settings (i)")
        await pilot.click(offset=(column + 2, row))
        await shows(pilot, "python -m kerasrobust.run demo", "tensorflow")


async def test_the_log_is_searched_and_shows_the_console_too(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    append(path, to_json(Log(level="warning", message="something odd")))
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("l")
        await shows(pilot, "warning: something odd")
        await pilot.press("slash", *"deepfool", "enter")
        await until(pilot, lambda: "something odd" not in text(pilot))
        await shows(pilot, "deepfool", "with deepfool")
        await pilot.press("escape")
        await shows(pilot, "something odd")
        await pilot.press("w")
        await until(pilot, lambda: "Attacking" not in text(pilot))
        await shows(pilot, "something odd")
        await pilot.press("w", "k")
        await shows(pilot, "a warning of some library", "and its last line")
        assert not lab.screen.query_one("LogPane").query_one(Input).has_class("shown")


async def test_warnings_come_as_they_happen_and_old_ones_do_not_come_again(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train", events=15)
    append(path, to_json(Finding(code="old", message="An old doubt.", severity="warning")))
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "! warning: An old doubt. [old]")
        assert told(pilot) == ""
        append(path, to_json(Finding(code="new", message="A new doubt.", severity="warning")))
        await tells(pilot, "A new doubt.")
        await shows(pilot, "(and 1 more: l): A new doubt.")


async def test_pausing_holds_the_view_and_detaching_lets_the_run_go_on(
    lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "20")
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(TrainConfig(name="mine", epochs=3))
        await shows(pilot, "● running", "Training")
        await pilot.press("space")
        await shows(pilot, "view paused")
        await pilot.press("space")
        await until(pilot, lambda: "view paused" not in text(pilot))
        await pilot.press("escape")
        await shows(pilot, "1 run,", "● running")
        assert is_locked(runs_dir / "mine")
        await pilot.press("enter")
        await shows(pilot, "● running", "Curves (m)")
        await pilot.press("x")
        await shows(pilot, "■ cancelled")
    assert state(runs_dir / "mine") == "cancelled"


async def test_a_killed_child_shows_how_it_ended_and_its_last_words(
    lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "20")
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(TrainConfig(name="mine", epochs=3))
        await shows(pilot, "● running", "Training")
        os.kill(lab.session.runner.children[runs_dir / "mine"].process.pid, signal.SIGKILL)
        await shows(pilot, "† died", "killed by SIGKILL", "and its last line")
        await pilot.press("escape")
        await shows(pilot, "† died")


async def test_a_file_that_is_cut_in_mid_line_is_waited_for(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train")
    whole = (path / "events.jsonl").read_bytes()
    middle = len(whole) // 2
    (path / "events.jsonl").write_bytes(whole[:middle])
    async with lab.run_test(size=(80, 24)) as pilot:
        screen = await opened(lab, pilot, path)
        before = screen.state
        assert before.finished is None and before.skipped == 0
        with (path / "events.jsonl").open("ab") as file:
            file.write(whole[middle:])
        await shows(pilot, "✓ done")
        assert screen.state.skipped == 0
        # Cut short under our eyes, as by a disk that came back from a snapshot: read again from the start.
        with (path / "events.jsonl").open("r+b") as file:
            file.truncate(middle)
        await until(pilot, lambda: screen.state == dataclasses.replace(before, source=1))
        await shows(pilot, "† died")


async def test_a_folder_that_vanishes_is_a_message(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(100, 30)) as pilot:
        await opened(lab, pilot, path)
        shutil.rmtree(path)
        await shows(pilot, "is gone")
        for key in ("a", "g", "t", "l", "k", "i", "m"):
            await pilot.press(key)
            await pilot.pause(0.05)
        await pilot.press("escape")
        await shows(pilot, "No runs in")


ODD = [
    b"",
    b"not json at all\n" * 100,
    b"\0" * 3_000_000,
    b'{"schema":9,"type":"Oracle","time":1}\n',
    b'{"schema":1,"type":"Metrics","time":1e400,"step":"x","epoch":null,"values":3,"split":"test"}\n',
    b'{"schema":1,"type":"Metrics","stage":"s","time":1e200,"step":-5,"epoch":1,"values":{"loss":null},"split":"train"}\n',
    b'{"schema":1,"type":"AttackProgress","time":-1,"attack":"a","done":5,"total":0,"survivors":9,"step":0,"steps":0,'
    b'"gradients":0,"forwards":0}\n',
    b"[" * 200_000 + b"\n",
    b'{"schema":1,"type":"Log","time":1,"level":"info","message":"\x1b[31m[bold]\\u0000 [/nope]"}\n',
]
"""What a file of events may hold that no run has written."""


async def test_odd_files_of_events_are_a_message_at_most(lab: Lab, add_run: AddRun) -> None:
    paths = [add_run("train", f"odd-{number}") for number in range(len(ODD))]
    for path, content in zip(paths, ODD, strict=True):
        started = (path / "events.jsonl").read_bytes().splitlines(keepends=True)[:5]
        (path / "events.jsonl").write_bytes(b"".join(started) + content)
    async with lab.run_test(size=(80, 24)) as pilot:
        for path in paths:
            await opened(lab, pilot, path)
            for key in ("a", "g", "t", "l", "i", "m"):
                await pilot.press(key)
            await shows(pilot, "† died")
            append(path, "", to_json(RunFinished(status="done", seconds=1.0, message="It went on.")))
            await shows(pilot, "✓ done", "It went on.")
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(lab.screen, MonitorScreen))


async def test_lines_that_cannot_be_read_are_counted(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train")
    append(path, "torn", '{"schema":2,"type":"Prophecy"}')
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "2 lines can't be read")


async def test_the_view_survives_being_resized(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(160, 48)) as pilot:
        await opened(lab, pilot, path)
        for size in ((80, 24), (20, 5), (200, 60), (3, 2), (100, 30)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.05)
        await shows(pilot, "✓ done", "clean")


async def test_two_uis_watch_one_run(
    runs_dir: Path, models_dir: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "20")
    other = Lab(runs_dir, models_dir, lab.session.runner.engine)

    async def watch() -> None:
        async with other.run_test(size=(100, 30)) as second:
            await shows(second, "shared")
            other.open_run(runs_dir / "shared")
            await shows(second, "● running", "Curves (m)")
            (runs_dir / "shared" / GO_ON).touch()
            await shows(second, "✓ done")

    # In a task of its own, as an app is known by the context that it runs in.
    watching = asyncio.create_task(watch())
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(DemoConfig(name="shared"))
        await shows(pilot, "● running")
        await shows(pilot, "✓ done")
        await watching


async def test_the_machines_load_is_a_chart_where_the_run_keeps_it(lab: Lab, add_run: AddRun) -> None:
    add_run("train", "older")
    begun, *rest = recorded("train")
    samples = [
        SystemSampled(
            time=begun.time + 5 * n, cpu=10.0 * n, process_cpu=1.0, memory=1.0, memory_total=2.0, process_memory=1e9,
            gpus=[{"utilisation": 42.0}],
        )
        for n in (1, 2)
    ]  # fmt: skip
    folder = add_run("train", "newer")
    (folder / "events.jsonl").write_text("".join(f"{to_json(event)}\n" for event in [begun, *samples, *rest]))
    async with lab.run_test(size=(160, 48)) as pilot:
        lab.open_run(folder)
        await shows(pilot, "━ processor 20.0 %  ━ GPU 0 42.0 %", "learning rate", "loss")
        lab.open_run(folder.parent / "older")
        await shows(pilot, "learning rate")
        assert "processor" not in text(pilot) and "load" not in text(pilot)


async def test_the_attacks_are_a_live_table_with_their_survivors(
    lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded("demo")
    stages = [event.stage if isinstance(event, AttackProgress) else "" for event in events]
    running = stages.index("attack-convnet-random")
    monkeypatch.setenv("FAKE_STOP_AT", str(running + 1))
    async with lab.run_test(size=(160, 48)) as pilot:
        lab.start(DemoConfig(name="mine"))
        await shows(pilot, "● running", "Attacking convnet-random")
        await pilot.press("a")
        await shows(pilot, "● FGSM 2/255", "✓ PGD 4/255", "gradients", "survivors")
        screen = lab.screen
        assert isinstance(screen, MonitorScreen)
        line = screen.state.attacks[-1]
        await shows(pilot, f"{line.survivors:,}/{line.total:,}")
        finished = screen.state.attacks[-3]
        assert finished.interval is not None
        await shows(pilot, "-".join(f"{100 * bound:.1f}" for bound in finished.interval))
        assert "survivors" in str(screen.query_one(Status).render())


async def test_the_study_has_the_published_figures_beside(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("t")
        await shows(pilot, "Synthetic data", "lenet", "DeepFool", "publ.", "40 %")
        await pilot.press("y")
        assert lab.clipboard.count("\n") == len(lab.screen.state.rows)


async def test_help_names_every_key_of_the_place(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    async with lab.run_test(size=(160, 48)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("question_mark")
        await shows(pilot, "Keys", "Hold the view still; the run goes on", "Smooth the lines")
        await pilot.press("escape")
        await shows(pilot, "Curves (m)")
