"""From the form to the gallery with the real engine: a small network is trained, and found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from screen import shows, text, until
from textual.pilot import Pilot
from textual.widgets import Input

from kerasrobust.runs import read_card, state
from tui.app import Lab
from tui.widgets.picture import Picture


async def fill(pilot: Pilot[None], name: str, value: str) -> None:
    """Types a value into a field of the form."""
    field = pilot.app.screen.query_one(f"#field-{name} Input", Input)
    field.focus()
    field.value = ""
    await pilot.press(*value)


async def test_a_training_is_started_in_the_form_watched_looked_at_and_found_again(
    runs_dir: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    lab = Lab(runs_dir, models_dir)
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "No runs in")
        await pilot.press("n")
        await shows(pilot, "Settings of train")
        for name, value in {
            "model": "lenet", "split": "train[:600]", "test_split": "test[:60]", "epochs": "2", "name": "tiny",
            "epsilon": "4/255", "batch_size": "64",
        }.items():  # fmt: skip
            await fill(pilot, name, value)
        await pilot.press("ctrl+y")
        asked = "--model lenet --split 'train[:600]' --test-split 'test[:60]' --epochs 2 --epsilon 4/255"
        assert asked in lab.clipboard
        await pilot.press("ctrl+s")
        await shows(pilot, "● running", "Training tiny", seconds=60)
        await shows(pilot, "✓ done", "val", seconds=120)
        assert state(runs_dir / "tiny") == "done"
        await pilot.press("g")
        await shows(pilot, "original", "perturbation ×", "of 60", seconds=20)
        # Original, perturbation and adversarial image of each example that the room takes.
        assert len(lab.screen.query(Picture)) in range(3, 19, 3)
    card = read_card(models_dir / "tiny")
    assert card is not None
    again = Lab(runs_dir, models_dir)
    async with again.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "✓ done", "tiny", f"{100 * card['clean_accuracy']:.1f} %")
        await pilot.press("enter")
        await shows(pilot, "✓ done", "Training tiny", "val")
        await pilot.press("escape", "3")
        await shows(pilot, "tiny", "lenet")
        await until(pilot, lambda: f"{100 * card['clean_accuracy']:.1f} %" in text(pilot))
