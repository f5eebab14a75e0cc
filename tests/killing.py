"""Kills an evaluation by SIGKILL at chosen and at random moments, starts it again, and compares what comes out.

`python tests/killing.py 20` does so twenty times on a model of its own and prints what was killed when;
`test_resume.py` does it a few times. The process that is killed is this file too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: dict[str, Any] = {
    "model": "tiny", "attack": "pgd,apgd-t,square", "queries": 60, "split": "test[:60]", "batch_size": 16,
    "restarts": 2, "name": "killed", "precision": "bfloat16",
}  # fmt: skip
COMPARED = ("x_adv", "prediction_adv", "success", "correct_rate", "distance", "attack")


def child(models_dir: Path, runs_dir: Path, moment: dict[str, Any]) -> None:
    """Runs the evaluation in this process, which dies at its moment."""
    from kerasrobust.attacks import batch, checkpoint
    from kerasrobust.config import AttackConfig
    from kerasrobust.events import AttackStarted, Event
    from kerasrobust.jobs import engine

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    # Small pieces, so that there is an inside of a batch to die in.
    batch.SAVE_SECONDS, batch.CHUNK_SECONDS = 0.0, 0.001  # type: ignore[misc]
    left = moment.get("at", 0)
    if moment["kind"] == "batch":
        save = batch.Batch._save

        def save_and_die(self: Any, *arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left % 2:  # Now before the state is saved, now after.
                save(self, *arguments)
            if left <= 0:
                die()

        batch.Batch._save = save_and_die  # type: ignore[method-assign]
    elif moment["kind"] == "write":
        save = np.savez

        def save_half_and_die(file: Any, **arrays: Any) -> None:
            nonlocal left
            left -= 1
            save(file, **arrays)
            if left <= 0:
                file.flush()
                os.ftruncate(file.fileno(), file.tell() // 2)
                die()

        checkpoint.np.savez = save_half_and_die  # type: ignore[assignment]
    timer = threading.Timer(moment.get("seconds", 0.0), die)

    def emit(event: Event) -> None:
        # From the first attack on, so that the moment isn't one of TensorFlow's loading.
        if moment["kind"] == "time" and isinstance(event, AttackStarted) and not timer.is_alive():
            timer.start()

    engine.run(AttackConfig(models_dir=models_dir, runs_dir=runs_dir, **SETTINGS), emit)


def start(models_dir: Path, runs_dir: Path, moment: dict[str, Any]) -> int:
    """Runs the evaluation in a process of its own; returns its exit status, -9 where it was killed."""
    words = [sys.executable, __file__, "child", str(models_dir), str(runs_dir), json.dumps(moment)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(done.stderr[-2000:])
    return done.returncode


def outcome(runs_dir: Path) -> dict[str, Any]:
    """Returns what an evaluation found, without the times."""
    import h5py

    folder = runs_dir / SETTINGS["name"]
    with h5py.File(folder / "examples.h5") as file:
        found = {name: file[name][()] for name in COMPARED}
    result = json.loads((folder / "result.json").read_text())
    found["accuracies"] = [(item["name"], item["robust_accuracy"], item["gradients"]) for item in result["attacks"]]
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in COMPARED) and one["accuracies"] == other["accuracies"]


def main(count: int) -> int:
    import keras

    from kerasrobust.networks.architectures import build_model
    from kerasrobust.networks.saving import save_model
    from kerasrobust.runs import state

    keras.utils.set_random_seed(1)
    draw = random.Random(0)
    moments: list[dict[str, Any]] = [{"kind": "batch", "at": draw.randrange(1, 40)} for _ in range(count // 4)]
    moments += [{"kind": "write", "at": draw.randrange(1, 40)} for _ in range(count // 10)]
    moments += [{"kind": "time", "seconds": draw.uniform(0, 5)} for _ in range(count - len(moments))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(build_model("convnet", widths=(4, 8)), folder / "models" / "tiny", {"name": "tiny"})
        start(folder / "models", folder / "whole", {"kind": "never"})
        whole = outcome(folder / "whole")
        alike = 0
        for number, moment in enumerate(moments):
            runs = folder / str(number)
            status = start(folder / "models", runs, moment)
            kept = len(list((runs / SETTINGS["name"]).rglob("*.npz"))) if runs.exists() else 0
            if state(runs / SETTINGS["name"]) != "done":  # Else it was killed after its end, or not at all.
                start(folder / "models", runs, {"kind": "never"})
            equal = same(whole, outcome(runs))
            alike += equal
            print(f"{moment}: killed {status == -9}, {kept} files kept, identical {equal}", flush=True)
    print(f"{alike} of {count} identical")
    return 0 if alike == count else 1


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        sys.exit(main(int(sys.argv[1])))
