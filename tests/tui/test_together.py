"""The curves of several runs: what is drawn over what, whose is which, the filter, and runs that are under way."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import recorded
from screen import shows, tells, text, until
from textual.pilot import Pilot
from textual.widgets import DataTable

from kerasrobust.config import DemoConfig, TrainConfig
from kerasrobust.events import Event, Metrics, RunStarted, StageStarted, SystemSampled, to_json
from kerasrobust.runs import read_json, write_json
from kerasrobust.settings import to_dict
from tui.app import Lab
from tui.panes.choose import ChoosePane
from tui.panes.together import TogetherPane
from tui.read.state import RunState, advance
from tui.read.together import together
from tui.screens.compare import CompareScreen
from tui.widgets.chart import Chart

AddRun = Callable[..., Path]
ONE, TWO = Path("runs/one"), Path("runs/two")


def metrics(time: float, step: int, epoch: int, split: Any, **values: float) -> Metrics:
    return Metrics(time=time, stage="train", step=step, epoch=epoch, values=values, split=split)


def trained(began: float, seconds: float, steps: int = 10) -> list[Event]:
    """Returns a training of two epochs, with a step each `seconds`; the loss is 1 over the step."""
    begun = RunStarted(time=began, run="r", kind="train", config={}, command="", versions={}, devices=[], pid=1)
    events: list[Event] = [begun, StageStarted(time=began + 2, stage="train", title="Training")]
    for step in range(1, 2 * steps + 1):
        epoch = (step - 1) // steps + 1
        events.append(metrics(began + 2 + step * seconds, step, epoch, "train", loss=1 / step))
        if step % steps == 0:
            events.append(metrics(began + 2 + step * seconds, step, epoch, "validation", accuracy=epoch / 4))
    return events


def drawn(charts: Any, title: str) -> dict[Path, list[tuple[float, float]]]:
    chart = next(chart for chart in charts if chart.title == title)
    return {traced.run: list(zip(traced.xs, traced.ys, strict=True)) for traced in chart.traced}


def test_trainings_lie_over_steps_epochs_or_seconds_of_work() -> None:
    # Of different lengths and speeds; the second was resumed the next day, in the middle of its second epoch.
    one = advance(RunState(), trained(1000.0, 0.5))
    again = trained(5000.0, 2.0, steps=20)
    first, later = again[:32], again[32:]
    night = [dataclasses.replace(event, time=event.time + 80_000) for event in again[:2]]
    shift = night[-1].time - first[-1].time
    rest = [dataclasses.replace(event, time=event.time + shift) for event in later]
    two = advance(RunState(), [*first, *night, *rest])
    states = [(ONE, one), (TWO, two)]
    for axis, ends in {"step": (20, 40), "epoch": (2, 2), "second": (10, 80)}.items():
        losses = drawn(together(states, axis), "loss, training")
        assert losses[ONE][-1] == (pytest.approx(ends[0]), 1 / 20)
        assert losses[TWO][-1] == (pytest.approx(ends[1], abs=1e-9), 1 / 40), axis
        assert losses[ONE][0][0] == pytest.approx({"step": 1, "epoch": 0.1, "second": 0.5}[axis])
    assert drawn(together(states, "epoch"), "clean accuracy, validation")[TWO] == [(1.0, 0.25), (2.0, 0.5)]


def test_what_is_no_training_stays_over_seconds_and_only_what_is_there_has_a_chart() -> None:
    sample = SystemSampled(
        time=1010.0, cpu=50.0, process_cpu=1.0, memory=1.0, memory_total=2.0, process_memory=2.0**31, gpus=[]
    )
    states = [
        (ONE, advance(RunState(), [*trained(1000.0, 0.1), sample])),
        (TWO, advance(RunState(), recorded("attack"))),
    ]
    charts = together(states, "epoch")
    assert drawn(charts, "processor") == {ONE: [(10.0, 0.5)]}
    assert drawn(charts, "memory of the process in GiB") == {ONE: [(10.0, 2.0)]}
    survivors = [chart for chart in charts if chart.title.startswith("survivors of ")]
    assert survivors and all(chart.x_name == "second" and chart.traced[0].run == TWO for chart in survivors)
    assert len({chart.title for chart in charts}) == len(charts)
    assert together([(ONE, RunState())], "step") == []


async def go(pilot: Pilot[Any], *names: str) -> None:
    """Chooses runs, and opens their curves."""
    await pilot.press("4")
    await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
    await shows(pilot, *names)
    for name in names:
        await toggle(pilot, name)
    await pilot.press("m")
    await shows(pilot, "accuracy, ")


async def toggle(pilot: Pilot[Any], name: str) -> None:
    table = pilot.app.screen.query_one(ChoosePane).table
    table.focus()
    table.move_cursor(row=[str(table.get_row(row.key)[1]).strip() for row in table.ordered_rows].index(name))
    await pilot.pause()
    await pilot.press("space")


def legend(pilot: Pilot[Any]) -> list[tuple[str, ...]]:
    table = pilot.app.screen.query_one("TogetherPane DataTable", DataTable)
    return [tuple(str(cell).strip() for cell in table.get_row(row.key)) for row in table.ordered_rows]


def colours(pilot: Pilot[Any]) -> list[str]:
    table = pilot.app.screen.query_one("TogetherPane DataTable", DataTable)
    return [str(table.get_row(row.key)[0].style) for row in table.ordered_rows]


def all_charts(pilot: Pilot[Any]) -> list[Chart]:
    return list(pilot.app.screen.query("TogetherPane Chart").results(Chart))


def charts(pilot: Pilot[Any]) -> list[str]:
    return [chart.title for chart in all_charts(pilot) if chart.display and chart.is_on_screen]


def train_run(add_run: AddRun, name: str, **settings: Any) -> Path:
    folder = add_run("train", name)
    write_json(folder / "config.json", (read_json(folder / "config.json") or {}) | to_dict(TrainConfig(**settings)))
    return folder


async def test_each_run_keeps_its_colour_and_is_told_by_what_differs(lab: Lab, add_run: AddRun) -> None:
    for name, epochs in (("three", 3), ("five", 5), ("seven", 7)):
        train_run(add_run, name, model="lenet", epochs=epochs)
    async with lab.run_test(size=(160, 48)) as pilot:
        await go(pilot, "three", "five", "seven")
        assert legend(pilot) == [
            ("●", "★ three", "epochs 3"), ("▲", "five", "epochs 5"), ("■", "seven", "epochs 7"),
        ]  # fmt: skip
        before = colours(pilot)
        assert len({*before}) == 3
        await toggle(pilot, "three")
        await until(pilot, lambda: len(legend(pilot)) == 2)
        assert legend(pilot) == [("▲", "★ five", "epochs 5"), ("■", "seven", "epochs 7")]
        assert colours(pilot) == before[1:]
        # Equal curves: the reference's lies on top, and each chart says whose value is which.
        chart = next(iter(all_charts(pilot)))
        assert [curve.sign for curve in chart.curves] == ["■", "▲"]
        await toggle(pilot, "three")
        await until(pilot, lambda: len(legend(pilot)) == 3)
        assert {*colours(pilot)} == {*before}


async def test_the_filter_hides_charts_and_the_axis_changes(lab: Lab, add_run: AddRun) -> None:
    train_run(add_run, "one", model="lenet")
    async with lab.run_test(size=(160, 48)) as pilot:
        await go(pilot, "one")
        pilot.app.screen.query_one("TogetherPane DataTable").focus()
        every = charts(pilot)
        await pilot.press("slash", *"loss", "enter")
        await until(pilot, lambda: charts(pilot) == ["loss, training", "loss, validation"])
        await shows(pilot, f"over steps, x changes, {len(every) - 2} of {len(every)} charts hidden")
        await pilot.press("x")
        await shows(pilot, "over epochs, x changes")
        chart = next(chart for chart in all_charts(pilot) if chart.title == "loss, validation")
        assert list(chart.curves[0].xs) == pytest.approx(range(1, len(chart.curves[0].xs) + 1))
        await pilot.press("x", "s")
        await shows(pilot, "over seconds, x changes, smoothing 0.6")


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (220, 60)])
async def test_charts_have_room_at_any_size(lab: Lab, add_run: AddRun, size: tuple[int, int]) -> None:
    add_run("demo")
    train_run(add_run, "one", model="lenet")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "demo", "one")
        seen = [chart for chart in all_charts(pilot) if chart.is_on_screen]
        assert seen and all(chart.size.width >= 40 and chart.size.height >= 10 for chart in seen)


async def test_a_run_under_way_has_curves_and_no_figures(
    lab: Lab, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded("demo")
    first = next(place for place, event in enumerate(events) if isinstance(event, Metrics))
    monkeypatch.setenv("FAKE_STOP_AT", str(first + 40))
    async with lab.run_test(size=(160, 48)) as pilot:
        lab.start(DemoConfig(name="live"))
        await shows(pilot, "● running")
        await pilot.press("escape")
        await go(pilot, "live")
        await tells(pilot, "live is under way: it has curves (m), and no figures yet.")
        await pilot.press("f")
        assert "Traceback" not in text(pilot)
        await pilot.press("m")
        chart = next(chart for chart in all_charts(pilot) if chart.title == "loss, training")
        before = chart.curves[0].xs[-1]
        with (runs_dir / "live" / "events.jsonl").open("a") as file:
            stage = next(event for event in events if isinstance(event, Metrics)).stage
            further = Metrics(stage=stage, step=10**6, epoch=9, values={"loss": 0.5}, split="train")
            file.write(to_json(further) + "\n")
        await until(pilot, lambda: chart.curves[0].xs[-1] > before)


async def test_models_and_vanished_runs_have_no_curves(lab: Lab, add_run: AddRun, models_dir: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "saved_models" / "convnet", models_dir / "convnet")
    one, two = (train_run(add_run, name, model="lenet") for name in ("one", "two"))
    async with lab.run_test(size=(160, 48)) as pilot:
        await go(pilot, "one", "two")
        shutil.rmtree(two)
        await until(pilot, lambda: len(legend(pilot)) == 1)
        await toggle(pilot, "convnet")
        await toggle(pilot, "one")
        await shows(pilot, "Nothing to draw: those chosen have no curves.")
        assert pilot.app.screen.query_one(TogetherPane).display and one.exists()
