"""What a run has found, in the monitor and the comparison: threats, the map of corruptions, certificates, curves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import recorded
from hypothesis import given
from hypothesis import strategies as st
from screen import shows, text, until
from textual.pilot import Pilot
from textual.widgets import DataTable, TabbedContent

from kerasrobust.events import Certified, CorruptionFinished, Row, RunFinished, RunStarted, to_json
from kerasrobust.records import Result
from kerasrobust.runs import read_json
from tui.app import Lab
from tui.panes.results.heat import HeatPane
from tui.panes.results.pane import ResultPane
from tui.panes.results.panes import RESULTS, ResultPanes
from tui.panes.results.radius import CertifiedPane, CurvesOverPane
from tui.panes.results.study import StudyPane
from tui.panes.results.threats import ThreatsPane
from tui.read.measured import Measured, ResultFile, of_events, of_result
from tui.read.state import RunState, advance
from tui.screens.monitor import MonitorScreen
from tui.widgets.chart import Chart

AddRun = Callable[..., Path]

KINDS = {
    "demo": (StudyPane, "Study"),
    "assess": (ThreatsPane, "Threats"),
    "corruptions": (HeatPane, "Corruptions"),
    "certify": (CertifiedPane, "Certified accuracy"),
}
"""Recorded runs, and the pane that shows what each has found."""


def result(path: Path) -> dict[str, Any]:
    return read_json(path / "result.json") or {}


def shown(pilot: Pilot[None]) -> ResultPane | None:
    return pilot.app.screen.query_one(ResultPanes).shown


def cells(pilot: Pilot[None]) -> list[list[str]]:
    pane = shown(pilot)
    assert pane is not None
    table = pane.query_one(DataTable)
    return [[str(cell).strip() for cell in table.get_row(row.key)] for row in table.ordered_rows]


async def opened(lab: Lab, pilot: Pilot[None], path: Path) -> MonitorScreen:
    await shows(pilot, path.name)
    lab.open_run(path)
    await until(pilot, lambda: isinstance(lab.screen, MonitorScreen) and lab.screen._caught_up, 30)
    screen = lab.screen
    assert isinstance(screen, MonitorScreen)
    return screen


def append(path: Path, *events: Any) -> None:
    with (path / "events.jsonl").open("a") as file:
        file.writelines(f"{to_json(event)}\n" for event in events)


def written(value: float) -> str:
    return f"{100 * value:.1f}"


@pytest.mark.parametrize("kind", KINDS)
def test_events_and_result_tell_the_same(kind: str, add_run: AddRun) -> None:
    path = add_run(kind)
    after, live = of_result(Result.parse(result(path))), of_events(advance(RunState(), recorded(kind)))
    assert live.rows == after.rows and live.summary == ""
    assert live.synthetic is after.synthetic is (kind == "demo")
    panes = [pane for pane in RESULTS if pane().pages(after)]
    assert panes[0] is KINDS[kind][0] and KINDS[kind][0]().pages(live) == [KINDS[kind][1]]
    if kind == "assess":  # It tells its rows as they come, and all else at the end.
        assert panes[1:] == [HeatPane, CertifiedPane, CurvesOverPane]
        assert live.corruptions is live.certificate is None
        return
    assert panes[1:] == [] and live.certificate == after.certificate
    if after.corruptions is None:
        assert live.corruptions is None
    else:
        assert live.corruptions is not None and live.corruptions.cells == after.corruptions.cells


def test_what_was_under_way_is_void_once_a_run_is_resumed() -> None:
    events = recorded("corruptions")
    state = advance(RunState(), [*events[:-1], *recorded("certify")[-5:-1]])
    assert len(state.cells) == 95 and state.certified is not None
    started = next(event for event in events if isinstance(event, RunStarted))
    again = advance(state, [started])
    assert not again.cells and again.certified is None and again.finished is None
    # The state before stays as it was.
    assert len(state.cells) == 95


async def test_the_map_of_corruptions_has_each_accuracy_and_interval(lab: Lab, add_run: AddRun) -> None:
    path = add_run("corruptions")
    found = {(cell["kind"], cell["severity"]): cell for cell in result(path)["corruptions"]["cells"]}
    async with lab.run_test(size=(80, 24)) as pilot:
        screen = await opened(lab, pilot, path)
        # It goes to the tab with something to see by itself.
        await until(pilot, lambda: screen.query_one(TabbedContent).active == "study" and shown(pilot) is not None)
        rows = cells(pilot)
        assert len(rows) == 19 and [row[0] for row in rows[:2]] == ["Gaussian noise", "shot noise"]
        fog = next(row for row in rows if row[0] == "fog")
        own = [found["fog", severity]["accuracy"] for severity in range(1, 6)]
        assert fog[1:7] == [*map(written, own), written(sum(own) / 5)]
        others = [found["fog", severity]["reference"] for severity in range(1, 6)]
        assert fog[7] == f"{100 * sum(1 - a for a in own) / sum(1 - a for a in others):.1f} %"
        await pilot.press("right")
        low, high = found["gaussian_noise", 1]["interval"]
        other = written(found["gaussian_noise", 1]["reference"])
        await shows(pilot, f"({written(low)}-{written(high)} %), convnet {other} %")
        # No column is cut off.
        assert all(f" {written(own[4])} " in line for line in text(pilot).splitlines() if line.startswith("fog"))
        await pilot.press("y")
        assert "accuracy in %, under\t1\t2\t3\t4\t5\tmean\tCE" in pilot.app.clipboard


async def test_the_map_fills_while_it_is_measured(lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded("corruptions")
    places = [place for place, event in enumerate(events) if isinstance(event, CorruptionFinished)]
    path = add_run("corruptions", events=places[0])
    for module in ("tui.read.overview", "tui.screens.monitor"):
        monkeypatch.setattr(f"{module}.is_locked", lambda path: True)
    async with lab.run_test(size=(80, 24)) as pilot:
        screen = await opened(lab, pilot, path)
        assert shown(pilot) is None
        append(path, *events[places[0] : places[6] + 1])
        await until(pilot, lambda: shown(pilot) is not None and len(cells(pilot)) == 2)
        assert screen.query_one(TabbedContent).active == "study"
        first, second = cells(pilot)
        assert all(first) and second[3:6] == ["", "", ""] and second[6]
        await pilot.press("down", "right", "right", "right")
        append(path, *events[places[6] + 1 : places[8] + 1])
        await until(pilot, lambda: cells(pilot)[1][4])
        # The cursor stays, and tells of the cell that has come.
        await shows(pilot, "shot noise, severity 3: ")
        # Whoever has gone elsewhere stays there.
        await pilot.press("l")
        append(path, *events[places[8] + 1 : places[9] + 1])
        await until(pilot, lambda: len(screen.state.cells) == 10)
        assert screen.query_one(TabbedContent).active == "log"


async def test_a_certificate_is_a_curve_with_its_points(lab: Lab, add_run: AddRun) -> None:
    path = add_run("certify")
    certificate = result(path)["certificate"]
    async with lab.run_test(size=(160, 48)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "L2 radius", "certified, sigma 0.12", "confidence 99.9 %")
        assert [row[0] for row in cells(pilot)] == [f"{point[0]:.4g}" for point in certificate["points"]]
        assert [row[1] for row in cells(pilot)] == [f"{written(point[1])} %" for point in certificate["points"]]
        pane = shown(pilot)
        assert isinstance(pane, CertifiedPane)
        low, high, own = pane.query_one(Chart).curves
        assert own.xs == [point[0] for point in certificate["curve"]]
        assert list(zip(own.ys, low.ys, high.ys, strict=True)) == [tuple(point[1:]) for point in certificate["curve"]]


async def test_a_certificate_of_nothing_has_a_table_without_a_curve(lab: Lab, add_run: AddRun) -> None:
    path = add_run("certify", events=3)
    entry = {
        "noise": "gaussian", "sigma": 0.5, "norm": "l2", "samples": 100, "confidence": 0.999, "abstained": 1.0,
        "counted": 9, "points": [[0.0, 0.0, 0.0, 0.1]], "curve": [[0.0, 0.0, 0.0, 0.1]],
    }  # fmt: skip
    append(path, Certified(clean_accuracy=0.0, clean_interval=[0.0, 0.1], certificate=entry))
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await until(pilot, lambda: shown(pilot) is not None)
        assert cells(pilot) == [["0", "0.0 %", "0.0-10.0"]]
        pane = shown(pilot)
        assert pane is not None and not pane.query_one(Chart).display


async def test_an_assessment_has_each_threat_and_its_union(lab: Lab, add_run: AddRun) -> None:
    path = add_run("assess")
    rows = result(path)["rows"]
    async with lab.run_test(size=(100, 60)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "union", "L∞, L2 or L1", "Not looked at:")
        threats = ["clean", "AutoAttack", "AutoAttack", "AutoAttack", "union", "Spatial", "Patch", "common corruptions"]
        certified = "certified, smoothed"
        # Each model is named above its rows.
        assert [row[0] for row in cells(pilot)] == ["convnet-gaussian", *threats, certified, "convnet-pgd", *threats]
        assert [row[2:5] for row in cells(pilot) if row[1] or row[0] == "clean"] == [
            [f"{written(row['accuracy'])} %", "-".join(map(written, row["interval"])), f"{row['examples']:,}"]
            for row in rows
        ]
        for name in ("convnet-gaussian", "convnet-pgd"):
            own = {(row["attack"], row["norm"]): row["accuracy"] for row in rows if row["name"] == name}
            assert own["union", "L∞, L2 or L1"] <= min(own["autoattack", norm] for norm in ("linf", "l2", "l1"))


def curve(norm: str, radius: float) -> dict[str, Any]:
    points = [[radius * step / 20, 0.9 - step / 25, 0.85 - step / 25, 0.95 - step / 25] for step in range(21)]
    return {"name": "fmn", "norm": norm, "curve": points}


async def test_a_run_of_several_results_has_a_page_each(lab: Lab, add_run: AddRun) -> None:
    path = add_run("assess", name="everything")
    async with lab.run_test(size=(100, 30)) as pilot:
        await opened(lab, pilot, path)
        await shows(pilot, "Threats  (1 of 6; n or a click here: next)")
        for title, kind in (
            ("Corruptions  (2 of 6", HeatPane), ("Certified accuracy  (3 of 6", CertifiedPane),
            ("over epsilon L∞  (4 of 6", CurvesOverPane), ("over epsilon L2  (5 of 6", CurvesOverPane),
            ("over epsilon L1  (6 of 6", CurvesOverPane),
        ):  # fmt: skip
            await pilot.press("n")
            await shows(pilot, title)
            assert isinstance(shown(pilot), kind)
            # The keys of what is shown work at once.
            pane = shown(pilot)
            assert pane is not None and pane.has_focus_within
        at, accuracy, low, high = result(path)["curves"][-1]["curve"][0]
        assert at == 0 and cells(pilot)[0][1:] == ["0", f"{written(accuracy)} %", f"{written(low)}-{written(high)}"]
        assert cells(pilot)[0][0].startswith("FMN")
        await pilot.press("left")
        await pilot.press("n")
        await shows(pilot, "Threats  (1 of 6")


async def test_grey_levels_are_the_unit_in_linf(lab: Lab, add_run: AddRun) -> None:
    path = add_run("attack", name="nearest")
    (path / "result.json").write_text(json.dumps(result(path) | {"attacks": [curve("linf", 10 / 255)]}))
    async with lab.run_test(size=(100, 30)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("t")
        await shows(pilot, "epsilon L∞", "0.5/255")
        assert cells(pilot)[-1][1] == "10/255"
        pane = shown(pilot)
        assert pane is not None and pane.query_one(Chart).curves[-1].xs[-1] == pytest.approx(10)


async def test_the_comparison_shows_them_too(lab: Lab, add_run: AddRun) -> None:
    for kind in KINDS:
        add_run(kind)
    async with lab.run_test(size=(160, 48)) as pilot:
        await pilot.press("4")
        await shows(pilot, "0 of 4 chosen", "certify")
        table = pilot.app.screen.query_one("#subjects", DataTable)
        for place in range(table.row_count):
            table.move_cursor(row=place)
            await pilot.pause()
            await pilot.press("space")
        await shows(pilot, "4 of 4 chosen")
        await pilot.press("t")
        await shows(pilot, "of 9; n or a click here: next")
        seen = set()
        for number in range(1, 10):
            await shows(pilot, f"({number} of 9; n")
            seen.add(type(shown(pilot)))
            await pilot.press("n")
        assert seen == {pane for pane, _ in KINDS.values()} | {CurvesOverPane}


async def test_what_is_no_accuracy_is_shown_as_far_as_it_goes(lab: Lab, add_run: AddRun) -> None:
    path = add_run("corruptions")
    odd = [{"kind": "rain[/]", "severity": 9, "accuracy": 7}, {"kind": "fog", "severity": -1, "accuracy": -3}]
    (path / "result.json").write_text(json.dumps({"corruptions": {"cells": odd, "reference": "[b]", "mce": "x"}}))
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await until(pilot, lambda: shown(pilot) is not None)
        assert cells(pilot) == [["rain[/]", "", "700.0", "700.0"], ["fog", "-300.0", "", "-300.0"]]


async def test_a_damaged_result_leaves_what_the_events_tell(lab: Lab, add_run: AddRun) -> None:
    path = add_run("corruptions")
    (path / "result.json").write_text('{"corruptions": {"cells": [{"kind": "fog"}], "kinds": 3}, "rows": [7]}')
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await until(pilot, lambda: shown(pilot) is not None)
        assert len(cells(pilot)) == 19
        await shows(pilot, "✓ done")


async def test_without_results_it_says_what_comes(lab: Lab, add_run: AddRun) -> None:
    path = add_run("train")
    async with lab.run_test(size=(80, 24)) as pilot:
        await opened(lab, pilot, path)
        await pilot.press("t")
        await shows(pilot, "Nothing yet: the rows of a study")
        assert shown(pilot) is None
        await pilot.press("n", "y")


def test_a_result_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    file = ResultFile(tmp_path)
    assert file.read() is None
    (tmp_path / "result.json").write_text('{"kind": "assess", "left_out": ["all"]}')
    first = file.read()
    assert first is not None and first.left_out == ("all",) and file.read() is first
    (tmp_path / "result.json").write_text('{"kind": "assess", "left_out": ["all of it"]}')
    assert file.read() != first


NUMBER = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
POINTS = NUMBER | st.lists(NUMBER | st.lists(NUMBER, min_size=3, max_size=5), max_size=3)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "clean_accuracy": NUMBER,
        "rows": NUMBER
        | st.lists(
            st.dictionaries(st.sampled_from(["attack", "norm", "epsilon", "accuracy", "examples", "model"]), NUMBER),
            max_size=3,
        ),
        "certificate": NUMBER
        | st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("noise", "sigma", "norm", "samples", "confidence", "abstained"), NUMBER)
            | {"points": POINTS, "curve": POINTS},
        ),
        "corruptions": NUMBER
        | st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("mce", "mean_accuracy", "reference", "counted", "interval"), NUMBER)
            | {"cells": NUMBER | st.lists(
                st.dictionaries(st.sampled_from(["kind", "severity", "accuracy", "interval", "reference"]), NUMBER),
                max_size=3,
            )},
        ),
        "curves": NUMBER | st.lists(st.fixed_dictionaries({}, optional={"norm": NUMBER, "curve": POINTS}), max_size=2),
        "left_out": POINTS,
    },
)  # fmt: skip


@given(ODD)
def test_no_result_breaks_what_is_read_of_it(record: dict[str, Any]) -> None:
    found = of_result(Result.parse(json.loads(json.dumps(record))))
    assert isinstance(found.summary, str)
    assert all(isinstance(title, str) for pane in RESULTS for title in pane().pages(found))


def test_rows_are_of_an_assessment_where_each_has_its_number_of_images() -> None:
    row = Row(model="m", training="", randomized=False, accuracy=0.5, interval=[0.4, 0.6])
    study = of_events(advance(RunState(), [row]))
    assert not study.is_assessment and not Measured().is_assessment
    assert of_events(advance(RunState(), [dataclasses.replace(row, examples=5)])).is_assessment
    assert of_events(advance(RunState(), [RunFinished(status="done", seconds=1.0, message="")])) == Measured()
