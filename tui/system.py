"""What the machine and the runs on it are doing now. No Textual here."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import psutil

from kerasrobust.machine import Gpu, Nvml, ask
from kerasrobust.runs import list_runs, owner

HISTORY = 300
"""Samples that are kept."""
LOOK_SECONDS = 5.0
"""Between two looks at the runs folder for runs that are under way."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """The process of a run that is under way.

    Attributes:
        run: the run's name.
        cpu: percent of one core since the sample before; None in the first one.
        rss: bytes of memory that it holds.
    """

    run: str
    pid: int
    cpu: float | None
    rss: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The machine at one moment; None for an unknown figure.

    Attributes:
        cpu: percent of all cores since the sample before; None in the first one.
        cores: the same of each core.
        memory_used: bytes that aren't available to new programs, of `memory_total`.
        disk_used: bytes that are taken where the runs are, of `disk_total`.
        load: processes that ran or waited, over the last minute.
        gpus: always in the same order.
    """

    cpu: float | None = None
    cores: tuple[float, ...] = ()
    memory_used: float | None = None
    memory_total: float | None = None
    disk_used: float | None = None
    disk_total: float | None = None
    load: float | None = None
    gpus: tuple[Gpu, ...] = ()
    processes: tuple[Process, ...] = ()


class Sampler:
    """Takes samples and keeps the last of them. Not for two threads at once.

    Args:
        runs_dir: folder of all runs.

    Attributes:
        history: the last samples, the newest at the end.
        problem: why there is no figure of a GPU; empty where there are some, and before the first sample.

    Example:
        >>> sampler = Sampler(Path("runs"))
        >>> sampler.sample().gpus, sampler.problem  # doctest: +SKIP
        ((), 'no GPU (NVML Shared Library Not Found)')
    """

    def __init__(self, runs_dir: Path) -> None:
        self.history: deque[Sample] = deque(maxlen=HISTORY)
        self.problem = ""
        self._runs_dir = runs_dir
        self._nvml: Nvml | None = None
        self._running: list[tuple[str, int]] = []
        self._looked = -LOOK_SECONDS
        self._followed: dict[int, psutil.Process] = {}

    def sample(self) -> Sample:
        """Takes a sample, adds it to the history and returns it. May take some milliseconds; the first one longer."""
        if self._nvml is None:
            self._nvml = Nvml()
            self.problem = self._nvml.problem
        cores, memory = ask(lambda: psutil.cpu_percent(percpu=True)) or [], ask(psutil.virtual_memory)
        # Where there is no folder of runs yet, it will be made in the nearest one above.
        home = next((path for path in (self._runs_dir, *self._runs_dir.resolve().parents) if path.exists()), Path("."))
        disk = ask(lambda: psutil.disk_usage(str(home)))
        first = not self.history  # The first answer is about no time at all.
        sample = Sample(
            cpu=None if first or not cores else sum(cores) / len(cores),
            cores=() if first else tuple(cores),
            memory_used=None if memory is None else float(memory.total - memory.available),
            memory_total=None if memory is None else float(memory.total),
            disk_used=None if disk is None else float(disk.used),
            disk_total=None if disk is None else float(disk.total),
            load=ask(lambda: psutil.getloadavg()[0]),
            gpus=self._nvml.read(),
            processes=self._processes(),
        )
        self.history.append(sample)
        return sample

    def _processes(self) -> tuple[Process, ...]:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._running = _running(self._runs_dir)
        before, self._followed = self._followed, {}
        found = []
        for run, pid in self._running:
            with contextlib.suppress(psutil.Error, OSError):  # It has ended.
                process = self._followed[pid] = before.get(pid) or psutil.Process(pid)
                busy, held = process.cpu_percent(), process.memory_info().rss
                found.append(Process(run=run, pid=pid, cpu=busy if pid in before else None, rss=float(held)))
        return tuple(found)


def _running(runs_dir: Path) -> list[tuple[str, int]]:
    """Returns name and process of each run that is under way; a process in another machine's folder isn't found."""
    found = []
    try:
        for path in list_runs(runs_dir):
            if (pid := owner(path)) is not None:
                found.append((path.name, pid))
    except OSError:  # A folder vanished meanwhile, or can't be read; others say so.
        pass
    return found
