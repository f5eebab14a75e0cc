"""Draws the documentation's pictures anew: `python docs/pictures.py RUNS`.

RUNS is a folder for the runs that are shown. Those of `COMMANDS` that it lacks are made first, about half an hour of
work for two cores; CIFAR-10 is looked for as `kerasrobust` does. The terminal UI is drawn as it is at that size, charts
are those of `kerasrobust export`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kerasrobust.run import main as kerasrobust  # noqa: E402
from tui.app import Lab  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
SIZE = (120, 34)
COMMANDS = {
    "demo": "demo",
    "within": "attack convnet-pgd --attack autoattack --epsilons 2/255 4/255 8/255 --split test[:300]",
    "curve": "attack convnet-pgd --attack fmn --split test[:500]",
    "foggy": "corruptions convnet --split test[:500]",
    "hard": "train --data shapes --training pgd --steps 3 --epochs 6 --split train[:5000]",
    "plain": "train --data shapes --epochs 6 --split train[:5000]",
    "hard-pgd": "attack hard --data shapes --attack pgd,square --split test[:300]",
    "plain-pgd": "attack plain --data shapes --attack pgd,square --split test[:300]",
}
"""By the name of a run, what makes it."""
SCREENS: dict[str, tuple[str, str]] = {
    "runs": ("", ""),
    "monitor": ("hard", ""),
    "attacks": ("within", "a"),
    "gallery": ("within", "g"),
    "system": ("within", "5"),
    "compare": ("", "4 space down space f"),
    "curves": ("", "4 down down space down space m"),
    "models": ("", "3"),
    "form": ("", "2"),
}
"""By the picture's name, the run that is opened, and the keys pressed then."""
CHARTS = {
    "within": ("within", "within-each-radius-linf-over-epsilon"),
    "confusion": ("within", "confusion-under-attack"),
    "nearest": ("curve", "smallest-distance-linf-over-epsilon"),
    "corruptions": ("foggy", "corruptions"),
    "study": ("demo", "pgd-linf-over-epsilon"),
}
"""By the picture's name, a run, and the name of a chart that it is exported with."""
PAUSE = 3.0
"""Seconds in which a screen reads what it shows."""


async def screen(runs: Path, models: Path, run: str, keys: str) -> str:
    """Returns a screen of the terminal UI as SVG."""
    lab = Lab(runs, models)
    async with lab.run_test(size=SIZE) as pilot:
        await pilot.pause(PAUSE)
        if run:
            lab.open_run(runs / run)
            await pilot.pause(PAUSE)
        for key in keys.split():
            await pilot.press(key)
            await pilot.pause(PAUSE)
        # Fonts of elsewhere are never loaded in a picture of a page.
        return re.sub(r"@font-face \{[^}]*\}\s*", "", lab.export_screenshot())


def make(runs: Path, models: Path) -> None:
    """Makes the runs that are missing, or goes on with them; the models that they train lie beside those shipped."""
    if not models.exists():
        shutil.copytree(ROOT / "saved_models", models)
    for name, words in COMMANDS.items():
        if not (runs / name / "result.json").exists():
            where = ["--name", name, "--runs-dir", str(runs), "--models-dir", str(models)]
            subprocess.run([sys.executable, "-m", "kerasrobust.run", *words.split(), *where], cwd=ROOT, check=True)


def draw(runs: Path, models: Path) -> None:
    """Writes all pictures."""
    for name, (run, keys) in SCREENS.items():
        (PICTURES / f"{name}.svg").write_text(asyncio.run(screen(runs, models, run, keys)))
    for name, (run, chart) in CHARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            words = ["export", str(runs / run), "--format", "svg", "--to", f"{folder}/svg", "--runs-dir", str(runs)]
            if status := kerasrobust([*words, "--quiet"]):
                sys.exit(status)
            (PICTURES / f"{name}.svg").write_text((Path(folder) / "svg" / f"{chart}.svg").read_text())


if __name__ == "__main__":
    os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    os.environ.pop("NO_COLOR", None)
    folder = Path(sys.argv[1]).resolve()
    make(folder, folder.parent / "models")
    draw(folder, folder.parent / "models")
