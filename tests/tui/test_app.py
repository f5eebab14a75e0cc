from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from screen import shows, tells, text, told, until

from kerasrobust.config import DemoConfig
from tui.app import Lab
from tui.keys import bindings, owners
from tui.screens.base import PLACES

ROOT = Path(__file__).parents[2]
AddRun = Callable[..., Path]

# What each place shows with nothing in it.
WORDS = {
    "runs": "No runs in",
    "new": "Settings of train",
    "models": "No models",
    "compare": "Compare",
    "system": "no GPU",
}


def test_every_binding_says_what_it_does_and_can_be_rebound() -> None:
    found = [(f"{owner.__name__} {binding.key}", binding) for owner in owners() for binding in bindings(owner)]
    assert len(found) > 40
    assert [where for where, binding in found if not binding.tooltip or not binding.id] == []
    ids = Counter(binding.id for _, binding in found)
    assert [name for name, count in ids.items() if count > 1] == []


def test_a_ui_that_was_used_has_taken_no_tensorflow(tmp_path: Path) -> None:
    code = """
import asyncio, json, sys
from pathlib import Path
from tui.app import Lab

async def main():
    app = Lab(Path(sys.argv[1]) / "runs", Path(sys.argv[1]) / "models")
    async with app.run_test() as pilot:
        for key in "123451?":
            await pilot.press(key)
        app.open_run(Path(sys.argv[1]) / "runs" / "none")
        for key in "agtlim":
            await pilot.press(key)

asyncio.run(main())
print(json.dumps([name for name in ("tensorflow", "keras", "tensorflow_datasets") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_start_takes_neither_numpy_nor_plots() -> None:
    late = ("numpy", "textual_plot", "h5py", "pynvml")
    code = f"import sys, tui.app; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_paints_in_a_terminal_of_its_own(tmp_path: Path) -> None:
    """How soon it does is measured by `benchmarks/ui.py`."""
    import pty
    import select

    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tui", "--runs-dir", str(tmp_path)],
            os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        painted = b""
        while b"1 Runs" not in painted:
            assert select.select([terminal], [], [], 60)[0], painted
            painted += os.read(terminal, 2**16)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


async def test_every_place_is_reached_by_its_number_and_by_the_mouse(lab: Lab) -> None:
    async with lab.run_test(size=(80, 24)) as pilot:
        for number, place in enumerate(PLACES, start=1):
            await pilot.press("escape", str(number))
            await shows(pilot, WORDS[place])
        for name, place in [(name, place) for place, name in PLACES.items()]:
            column = text(pilot).splitlines()[0].index(name)
            await pilot.click(offset=(column, 0))
            await shows(pilot, WORDS[place])


async def test_the_palette_offers_what_has_a_key_here(lab: Lab, add_run: AddRun) -> None:
    add_run("attack")
    async with lab.run_test(size=(100, 30)) as pilot:
        await shows(pilot, "attack")
        await pilot.press("ctrl+p")
        await pilot.press(*"delete")
        await shows(pilot, "Delete the run's folder")
        await pilot.press("enter")
        await shows(pilot, "Delete the folder")


async def test_the_end_of_a_run_is_heard_and_said_wherever_one_is_but_on_its_own_screen(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[int] = []
    monkeypatch.setattr(lab, "bell", lambda: rings.append(1))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(DemoConfig(name="watched"))
        await shows(pilot, "✓ done")
        await until(pilot, lambda: lab.session.runner.children[lab.session.runs_dir / "watched"].settled)
        assert not rings and "watched" not in told(pilot)
        lab.start(DemoConfig(name="other"))
        await pilot.press("3")
        await tells(pilot, "other: done.")
        monkeypatch.setenv("FAKE_STOP_AT", "5")
        lab.start(DemoConfig(name="stopped"))
        await shows(pilot, "● running")
        await pilot.press("escape", "x")
        await tells(pilot, "stopped: cancelled.")
        assert len(rings) == 2


async def test_the_theme_changes_between_light_and_dark(lab: Lab) -> None:
    async with lab.run_test() as pilot:
        assert lab.current_theme.dark
        await pilot.press("f3")
        assert not lab.current_theme.dark
        await pilot.press("f3")
        assert lab.current_theme.dark


async def test_a_screenshot_is_a_file(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with lab.run_test() as pilot:
        await shows(pilot, "No runs in")
        await pilot.press("f12")
        await until(pilot, lambda: list(tmp_path.glob("*.svg")))
    (picture,) = tmp_path.glob("*.svg")
    assert "No&#160;runs" in picture.read_text()


async def test_without_colours_states_are_words(
    runs_dir: Path, models_dir: Path, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    path = add_run("demo")
    add_run("train", events=12)
    lab = Lab(runs_dir, models_dir)
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✓ done", "† died")
        for place in "23451":
            await pilot.press("escape", place)
        lab.open_run(path)
        await shows(pilot, "val", "✓ done")
        for tab, word in {
            "a": "survivors",
            "g": "perturbation",
            "t": "publ.",
            "l": "events",
            "i": "seed",
            "m": "val",
        }.items():
            await pilot.press(tab)
            await shows(pilot, word)
        colours = {
            colour.triplet
            for strip in lab.screen._compositor.render_strips()
            for segment in strip
            if segment.style
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour is not None and colour.triplet is not None
        }
        assert all(red == green == blue for red, green, blue in colours)


async def test_sixteen_colours_are_the_terminals_own(
    runs_dir: Path, models_dir: Path, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "linux")
    monkeypatch.delenv("COLORTERM")
    path = add_run("demo")
    lab = Lab(runs_dir, models_dir)
    async with lab.run_test(size=(80, 24)) as pilot:
        assert lab.theme == "ansi-dark"
        await shows(pilot, "demo")
        lab.open_run(path)
        await shows(pilot, "val", "✓ done")
        await pilot.press("f3")
        assert lab.theme == "ansi-light"
