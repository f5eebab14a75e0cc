"""Which recipe of adversarial training spends two cores best: short trainings, one after another, judged alike.

    python benchmarks/recipes.py                     # all that aren't done yet; Ctrl-C, and the same command goes on
    python benchmarks/recipes.py base adr --jobs 2   # some, two at a time, each on a core of its own
    python benchmarks/recipes.py --table             # what there is so far

Each recipe is trained by `kerasrobust train` on the first 48,000 training images of CIFAR-10, and judged by
`kerasrobust attack --attack apgd-ce,apgd-t` on the last 2,000. No test image is looked at. What a training has spent is
counted in passes through the network; minutes are those of a machine that may have done other things.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

LEARNED, JUDGED = "train[:48000]", "train[48000:]"

BASE = (
    "--data cifar10 --model convnet --training pgd --steps 2 --epochs 20 --batch-size 128 --warmup-epochs 8 "
    "--weight-decay 3e-3 --average 0.998"
)

RECIPES = {
    "base": "",
    "adr": "--training adr",
    "no-average": "--average 0",
    "decay-3e-4": "--weight-decay 3e-4",
    "decay-1e-3": "--weight-decay 1e-3",
    "decay-6e-3": "--weight-decay 6e-3",
    "smooth-0.1": "--label-smoothing 0.1",
    "no-ramp": "--warmup-epochs 0",
    "ramp-all": "--warmup-epochs 20",
    "steps-1": "--steps 1 --epochs 30 --warmup-epochs 12",
    "steps-3": "--steps 3 --epochs 15 --warmup-epochs 6",
    "steps-7": "--steps 7 --epochs 8 --warmup-epochs 3",
    "nfgsm": "--training nfgsm --epochs 30 --warmup-epochs 12",
    "late-steps": "--steps-by-epoch 0:1 6:2 17:5",
    "margin": "--attack-loss margin",
    "epsilon-10": "--epsilon 10/255",
    "epsilon-12": "--epsilon 12/255",
    "silu": "--activation silu",
    "one-cycle": "--schedule one-cycle --learning-rate 0.2",
    "rate-0.05": "--learning-rate 0.05",
    "rate-0.2": "--learning-rate 0.2",
    "batch-256": "--batch-size 256 --learning-rate 0.2 --average 0.996",
    "trades-3": "--training trades --beta 3",
    "trades-6": "--training trades --beta 6",
    "alp": "--training alp --beta 1 --epochs 15 --warmup-epochs 6",
    "mart": "--training mart --epochs 15 --warmup-epochs 6",
    "lenet": "--model lenet --learning-rate 0.05 --weight-decay 0 --epochs 30 --warmup-epochs 12",
    "lenet-decay": "--model lenet --learning-rate 0.05 --weight-decay 5e-4 --epochs 30 --warmup-epochs 12",
    "lenet-margin": "--model lenet --learning-rate 0.05 --weight-decay 0 --epochs 30 --warmup-epochs 12 "
    "--attack-loss margin",
    "awp": "--awp 0.005 --epochs 15 --warmup-epochs 6",
}
"""Names and what each changes of `BASE`. Those with dearer steps have fewer epochs, for about equal time."""


@dataclass(frozen=True)
class Judged:
    """What a recipe has come to, on the held-out training images."""

    name: str
    options: str
    clean: float
    robust: float
    interval: tuple[float, float]
    passes: int
    minutes: float


def run(name: str, folder: Path, core: int | None) -> None:
    """Trains a recipe and judges it, as far as that isn't done."""
    common = ["--runs-dir", folder / "runs", "--models-dir", folder / "models"]
    options = shlex.split(f"{BASE} {RECIPES[name]}")
    train = ["train", "--name", name, *options, "--split", LEARNED, "--test-split", JUDGED, *common]
    judge = [
        *("attack", "--name", f"{name}-judged", "--model", name, "--data", "cifar10", "--split", JUDGED),
        *("--attack", "apgd-ce,apgd-t", *common),
    ]
    for command, done in ((train, folder / "models" / name), (judge, folder / "runs" / f"{name}-judged/result.json")):
        if done.exists():
            continue
        print(f"{time.strftime('%H:%M')} {shlex.join(map(str, command))}", flush=True)
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        with (folder / f"{name}.log").open("a") as log:
            subprocess.run(
                [*pinned, sys.executable, "-m", "kerasrobust.run", *map(str, command)],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )


def judged(name: str, folder: Path) -> Judged | None:
    """Returns what a recipe has come to, None if it isn't done."""
    path = folder / "runs" / f"{name}-judged/result.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    events = [json.loads(line) for line in (folder / "runs" / name / "events.jsonl").read_text().splitlines()]
    seconds = sum(
        event["seconds"] for event in events if event["type"] == "StageFinished" and event["stage"] == "train"
    )
    low, high = found["interval"]
    passes = json.loads((folder / "models" / name / "card.json").read_text())["passes"]
    right = found["clean_accuracy"], found["robust_accuracy"]
    return Judged(name, RECIPES[name], *right, (low, high), passes, seconds / 60)


def table(folder: Path) -> str:
    """Returns all that are done as a table, the most robust first."""
    done = sorted(filter(None, (judged(name, folder) for name in RECIPES)), key=lambda item: -item.robust)
    rows = [
        f"| {item.name} | `{item.options or BASE}` | {item.clean:.1%} | {item.robust:.1%} "
        f"({item.interval[0]:.1%} to {item.interval[1]:.1%}) | {item.passes / 1e6:.1f} M | {item.minutes:.0f} |"
        for item in done
    ]
    head = ["| recipe | changes | clean | apgd-ce,apgd-t | passes | minutes |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what was named, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all without any")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"), help="where runs and models lie")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, each on one core if several")
    parser.add_argument("--table", action="store_true", help="print what is done, and train nothing")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in RECIPES]:
        parser.error(f"expected recipes of {', '.join(RECIPES)}; received {', '.join(unknown)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    if not given.table:
        cores: Queue[int | None] = Queue()
        for number in range(given.jobs):
            cores.put(None if given.jobs == 1 else number % (os.cpu_count() or 1))

        def one(name: str) -> None:
            core = cores.get()
            try:
                run(name, given.folder, core)
            finally:
                cores.put(core)

        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(one, given.names or list(RECIPES)))
    print(table(given.folder))


if __name__ == "__main__":
    main()
