"""Runs a task: its contenders in turn, round by round, each with the settings that are fastest for it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import machine
import numpy as np
from protocol import Measurement, PeerError
from tasks import Contender, Task

PAUSE = 0.3
"""Seconds between two measurements, in which the threads of the last one go to sleep."""

SLACK = 0.05
"""Seconds of processor time that others may use in any measurement: the kernel counts in hundredths."""

REPEATS, WAIT = 3, 5.0
"""How often a measurement that others have disturbed is made again, and the seconds before each."""

LONGEST = 60.0
"""Seconds of a measurement above which it isn't made again; the table tells how disturbed it was."""

BRIEF = 5.0
"""Seconds below which a measurement follows an unmeasured call at once: systems take memory from idle processes."""

LONG = 10.0
"""Seconds of a warm-up above which it counts as the trial itself: tracing is a small part of it."""


class Caller(Protocol):
    """What runs functions in a process of its own."""

    def call(self, function: str, arguments: dict[str, Any], save: Path | None = None) -> Measurement: ...


class Failed:
    """Stands for a worker that could not be started: says why whenever it is called."""

    def __init__(self, error: str) -> None:
        self.error = error

    def call(self, function: str, arguments: dict[str, Any], save: Path | None = None) -> Measurement:
        raise PeerError(self.error)


SCRIPTS = {
    "start": """
import json, sys
import numpy as np
import kerasrobust as kr
model = kr.load_model(sys.argv[1])
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
result = kr.attacks.PGD(epsilon=8 / 255, steps=20)(model, x, y, seed=0)
print(json.dumps({"robust": 1 - result.success.mean()}), flush=True)
""",
    # What the model needs is there after an attack on one batch; from then on the kernel notes the highest mark.
    "memory": """
import json, sys
import kerasrobust as kr
def kibibytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))
model = kr.load_model(sys.argv[1])
attack = kr.attacks.PGD(epsilon=8 / 255, steps=20)
attack(model, *kr.load_data("cifar10", split="test[:256]"), early_stop=False)
needed = kibibytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
result = attack(model, *kr.load_data("cifar10", split=f"test[:{sys.argv[4]}]"), early_stop=False)
more = (kibibytes("VmHWM") - needed) / 2**20
print(json.dumps({"robust": 1 - result.success.mean(), "memory": more}), flush=True)
""",
}
"""Programs of the new processes, by function."""


class NewProcess:
    """Starts a new process for each call, and measures until it prints its result."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder

    def call(self, function: str, arguments: dict[str, Any], save: Path | None = None) -> Measurement:
        images, labels = self.folder / "cold-x.npy", self.folder / "cold-y.npy"
        with np.load(self.folder / "data.npz") as stored:
            np.save(images, stored["x"][: arguments["count"]])
            np.save(labels, stored["y"][: arguments["count"]])
        words = [str(self.root / "saved_models" / "convnet-pgd"), str(images), str(labels), str(arguments["count"])]
        environment = os.environ | {"PYTHONPATH": str(self.root), "CUDA_VISIBLE_DEVICES": ""}
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPTS[function], *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        ) as process:  # fmt: skip
            assert process.stdout and process.stderr
            line = process.stdout.readline()
            seconds = time.perf_counter() - began
            errors = process.stderr.read()
        if process.returncode or not line:
            raise PeerError(f"the process ended with {process.returncode}:\n{errors[-1500:]}")
        return Measurement(seconds, figures=json.loads(line))


@dataclass
class Outcome:
    """What a contender did in a task.

    Attributes:
        contender: who.
        chosen: the arguments it ran with beyond those that all have.
        tried: seconds of each option; None where an option failed.
        seconds: of each round.
        scale: what the seconds were multiplied by, above 1 where only some of the images were attacked.
        figures: of each round: the worker's and the referee's.
        broken: which images fell in each round.
        others: share of the machine that other processes took during each measurement.
        repeated: measurements that were thrown away because others disturbed them.
        errors: what went wrong: with an option, or at last with the contender itself.
        failed: whether the contender was dropped.
        brief: whether a call comes before each measurement.
    """

    contender: Contender
    chosen: dict[str, Any] = field(default_factory=dict)
    tried: list[tuple[dict[str, Any], float | None]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scale: float = 1.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    broken: list[np.ndarray] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    repeated: int = 0
    errors: list[str] = field(default_factory=list)
    failed: bool = False
    brief: bool = False

    def median(self, name: str) -> float | None:
        """Returns the median over the rounds of a figure, None where there is none of that name."""
        values = [figures[name] for figures in self.figures if name in figures]
        return statistics.median(values) if values else None

    def ratios(self, base: Outcome, by_work: bool) -> list[float]:
        """Returns the seconds over the base's, round by round, by unit of work where that is asked for."""
        growth = self.contender.work / base.contender.work if by_work else 1.0
        return [
            mine / other / growth for mine, other in zip(self.seconds, base.seconds, strict=False)
        ]  # A contender that failed has fewer rounds.


class Bench:
    """Runs tasks with the workers there are.

    Args:
        workers: by name; `ours` is the referee too.
        folder: for the images that go from one worker to another.
        tell: told what goes on.
        disturbed: share of the machine taken by other processes above which a measurement is made again. OpenMP, and
            so PyTorch, waits in a loop for threads that have no processor, and takes 30 times as long then.
    """

    def __init__(
        self, workers: Mapping[str, Caller], folder: Path, tell: Callable[[str], None], disturbed: float
    ) -> None:
        self.workers, self.folder, self.tell, self.disturbed = workers, folder, tell, disturbed

    def run(self, task: Task, rounds: int) -> list[Outcome]:
        """Returns what the contenders of a task did, in their order."""
        self.tell(f"== {task.title}")
        outcomes = [Outcome(contender) for contender in task.contenders]
        for outcome in outcomes:
            self._guard(outcome, partial(self._prepare, outcome))
        for number in range(1, (task.rounds or rounds) + 1):
            for outcome in outcomes:
                if not outcome.failed:
                    self._guard(outcome, partial(self._round, task, outcome, number))
        return outcomes

    def _guard(self, outcome: Outcome, work: Callable[[], None]) -> None:
        """Does some work of a contender, and drops it from the task where that fails."""
        try:
            work()
        except PeerError as error:
            self.tell(f"   {outcome.contender.label}: {error}")
            outcome.errors.append(str(error))
            outcome.failed = True

    def _prepare(self, outcome: Outcome) -> None:
        """Chooses the contender's options and warms it up."""
        contender = outcome.contender
        worker = self.workers[contender.worker]
        function = contender.trial or contender.function
        whole = contender.arguments.get("count", 0)
        few = min(contender.probe or whole, whole)
        fewer = {"count": few} if few else {}
        for option in contender.options:
            arguments = self._arguments(contender, 0, option) | ({} if contender.trial else fewer)
            try:
                measured, _, repeated = self._measured(worker, function, arguments, None)
                outcome.repeated += repeated
                if measured.seconds <= LONG:
                    measured, _, repeated = self._measured(worker, function, arguments, None)
                    outcome.repeated += repeated
                seconds = measured.seconds
            except PeerError as error:
                outcome.errors.append(f"{option}: {error}")
                outcome.tried.append((option, None))
                self.tell(f"   {contender.label}: {option} failed: {error}")
                continue
            outcome.tried.append((option, seconds))
            self.tell(f"   {contender.label}: {option} {seconds:.3f} s")
        if contender.options:
            working = [(seconds, number) for number, (_, seconds) in enumerate(outcome.tried) if seconds is not None]
            if not working:
                raise PeerError("none of its ways of being run works")
            seconds, number = min(working)
            outcome.chosen = dict(outcome.tried[number][0])
        if not contender.options or contender.trial:
            warm = self._arguments(contender, 0, outcome.chosen) | fewer
            seconds = worker.call(contender.function, warm).seconds
            if seconds <= LONG:  # The second call may still trace something.
                seconds = worker.call(contender.function, warm).seconds
        if contender.limit and few and seconds * whole / few > contender.limit:
            outcome.chosen["count"], outcome.scale = few, whole / few
        if few and outcome.scale == 1:
            seconds *= whole / few
        outcome.brief = contender.worker != "new" and seconds <= BRIEF

    def _measured(
        self, worker: Caller, function: str, arguments: dict[str, Any], save: Path | None
    ) -> tuple[Measurement, float, int]:
        """Returns a measurement, the share of the machine that others took meanwhile, and how many were thrown away."""
        for repeated in range(REPEATS + 1):
            time.sleep(WAIT if repeated else PAUSE)
            busy, used, began = machine.busy(), self._used(worker), time.perf_counter()
            measured = worker.call(function, arguments, save)
            spent = max(0.0, (machine.busy() - busy) - (self._used(worker) - used))
            elapsed = (time.perf_counter() - began) * (os.cpu_count() or 1)
            quiet = spent <= max(SLACK, self.disturbed * elapsed)
            if quiet or measured.seconds > LONGEST or isinstance(worker, NewProcess):
                break
        return measured, spent / elapsed, repeated

    def _arguments(self, contender: Contender, number: int, more: dict[str, Any]) -> dict[str, Any]:
        seed = {} if contender.worker == "new" else {"seed": number}
        return contender.arguments | seed | more

    def _round(self, task: Task, outcome: Outcome, number: int) -> None:
        """Measures one contender once, and lets the referee judge what it made."""
        contender = outcome.contender
        worker = self.workers[contender.worker]
        arguments = self._arguments(contender, number, outcome.chosen)
        save = self.folder / f"{contender.worker}.npz"
        if outcome.brief:
            worker.call(contender.function, arguments)
        measured, others, repeated = self._measured(worker, contender.function, arguments, save if task.norm else None)
        figures = dict(measured.figures)
        if task.norm and "x_adv" in measured.arrays:
            asked = {"model": arguments["model"], "count": arguments["count"], "file": str(save), "norm": task.norm}
            verdict = self.workers["ours"].call("judge", asked, self.folder / "verdict.npz")
            figures |= verdict.figures
            outcome.broken.append(verdict.arrays["broken"])
        outcome.seconds.append(measured.seconds * outcome.scale)
        outcome.figures.append(figures)
        if contender.worker != "new":  # Whose processes are gone, and their time with them.
            outcome.others.append(others)
            outcome.repeated += repeated
        found = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float))
        self.tell(f"   round {number}  {contender.label}: {measured.seconds:.3f} s  others {others:.0%}  {found}")

    def _used(self, worker: Caller) -> float:
        process = getattr(worker, "process", None)
        return 0.0 if process is None or process.poll() is not None else machine.used(process.pid)
