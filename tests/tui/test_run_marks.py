"""Tags, notes, stars and the archive in the list of runs, and in a run's own screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from screen import shows, tells, text, until
from textual.widgets import DataTable

from kerasrobust.marks import Marks, read_marks, write_marks
from kerasrobust.runs import state
from tui.app import Lab
from tui.panes.runs import RunsTable
from tui.screens.dialogs import Ask
from tui.screens.monitor import MonitorScreen

AddRun = Callable[..., Path]


def names(lab: Lab) -> list[str]:
    """The runs in the order of the table, with their stars."""
    table = lab.screen.query_one("#runs", DataTable)
    return [table.get_row_at(row)[1].plain for row in range(table.row_count)]


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_a_run_is_starred_and_annotated(lab: Lab, add_run: AddRun, size: tuple[int, int]) -> None:
    folder = add_run("attack", "mine")
    async with lab.run_test(size=size) as pilot:
        await shows(pilot, "✓ done", "mine")
        await pilot.press("asterisk")
        await until(pilot, lambda: names(lab) == ["★ mine"])
        await pilot.press("number_sign")
        await shows(pilot, "What is to be said of mine?", "Tags, with commas between them")
        assert not lab.screen.query_one(".error").display
        await pilot.press(*"a,b", "tab", *"slow")
        await pilot.press("enter")
        await shows(pilot, "#a #b slow")
        assert read_marks(folder) == Marks(tags=("a", "b"), note="slow", starred=True)
        # What is there is changed, not typed again; escape leaves it.
        await pilot.press("number_sign", "c", "escape")
        await until(pilot, lambda: not isinstance(lab.screen, Ask))
        await pilot.press("number_sign", "c", "enter", "asterisk")
        await shows(pilot, "#a #bc slow")
        await until(pilot, lambda: names(lab) == ["mine"])


async def test_a_run_is_marked_on_its_own_screen_while_it_is_under_way(lab: Lab, add_run: AddRun) -> None:
    folder = add_run("train", "mine", events=12)
    async with lab.run_test(size=(100, 30)) as pilot:
        await shows(pilot, "mine")
        lab.open_run(folder)
        await until(pilot, lambda: isinstance(lab.screen, MonitorScreen) and lab.screen._caught_up)
        await pilot.press("i", "asterisk", "number_sign", *"thesis", "tab", *"slow", "enter")
        await shows(pilot, "│ ★ mine #thesis", "tags              thesis", "note              slow")
        assert read_marks(folder) == Marks(tags=("thesis",), note="slow", starred=True)


async def test_what_is_archived_is_left_out_until_it_is_asked_for(lab: Lab, add_run: AddRun) -> None:
    old, _ = add_run("attack", "old", began=2000.0), add_run("demo", "new", began=1000.0)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "2 runs")
        await pilot.press("a")
        await until(pilot, lambda: names(lab) == ["new"])
        await shows(pilot, "1 run, 1 archived")
        await tells(pilot, "old: archived; f shows it.")
        assert read_marks(old).archived and (old / "result.json").exists()
        await pilot.press("f", "f")
        await shows(pilot, "only archived, 1 run,")
        assert names(lab) == ["old"]
        await pilot.press("a")
        await until(pilot, lambda: sorted(names(lab)) == ["new", "old"])
        assert not read_marks(old).archived


async def test_tags_and_notes_are_found_and_runs_stand_by_tag(lab: Lab, add_run: AddRun) -> None:
    for age, (name, marks) in enumerate(
        {
            "plain": Marks(),
            "later": Marks(tags=("thesis",), note="a rate too high"),
            "first": Marks(tags=("baseline", "thesis"), starred=True),
            "last": Marks(tags=("thesis",)),
        }.items()
    ):
        write_marks(add_run("attack", name, began=9000.0 - age), marks)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "4 runs, newest first")
        for words, found in {
            "thesis": ["later", "★ first", "last"],
            "too rate": ["later"],
            "starred": ["★ first"],
        }.items():
            await pilot.press("slash", *words)
            await until(pilot, lambda found=found: names(lab) == found)
            await pilot.press("escape")
        while "by tag" not in text(pilot):
            await pilot.press("s")
            await pilot.pause()
        # Each with the tag that it stands under.
        assert names(lab) == ["★ first #baseline", "later #thesis", "last #thesis", "plain"]


async def test_a_run_that_goes_on_or_is_done_anew_takes_its_marks_along(
    lab: Lab, add_run: AddRun, runs_dir: Path
) -> None:
    write_marks(add_run("attack", "mine"), Marks(tags=("thesis", "best"), note="too high"))
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "#thesis #best")
        await pilot.press("r")
        await until(pilot, lambda: len(list(runs_dir.iterdir())) == 2)
        (anew,) = (path for path in runs_dir.iterdir() if path.name != "mine")
        marks = Marks(tags=("thesis", "best"), note="too high")
        await until(pilot, lambda: read_marks(anew) == marks)
        # What was said since it began stays when it goes on.
        stopped = add_run("train", "stopped", events=12, began=1000.0)
        write_marks(stopped, Marks(tags=("later",), starred=True))
        lab.action_show("runs")
        await shows(pilot, "† died")
        while (run := lab.screen.query_one(RunsTable).at_cursor) is None or run.path != stopped:
            await pilot.press("down")
            await pilot.pause()
        await pilot.press("r")
        await until(pilot, lambda: state(stopped) == "done")
        assert read_marks(stopped) == Marks(tags=("later",), starred=True)
