"""What the machine is doing: processor and memory by psutil, GPUs by NVML. No Textual here.

The GPU figures are tested against a stand-in for NVML; `benchmarks/gpu.py` asks a real one.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from kerasrobust.runs import list_runs, owner

HISTORY = 300
"""Samples that are kept."""
LOOK_SECONDS = 5.0
"""Between two looks at the runs folder for runs that are under way."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU at one moment, with its name as the driver calls it; None for an unknown figure.

    Utilisation is the percentage of the time in which it computed. Memory is in bytes, and used by everybody; the
    temperature is in degrees Celsius, power in watts.
    """

    name: str
    utilisation: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None


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
        self._nvml: _Nvml | None = None
        self._running: list[tuple[str, int]] = []
        self._looked = -LOOK_SECONDS
        self._followed: dict[int, psutil.Process] = {}

    def sample(self) -> Sample:
        """Takes a sample, adds it to the history and returns it. May take some milliseconds; the first one longer."""
        if self._nvml is None:
            self._nvml = _Nvml()
            self.problem = self._nvml.problem
        cores, memory = _ask(lambda: psutil.cpu_percent(percpu=True)) or [], _ask(psutil.virtual_memory)
        # Where there is no folder of runs yet, it will be made in the nearest one above.
        home = next((path for path in (self._runs_dir, *self._runs_dir.resolve().parents) if path.exists()), Path("."))
        disk = _ask(lambda: psutil.disk_usage(str(home)))
        first = not self.history  # The first answer is about no time at all.
        sample = Sample(
            cpu=None if first or not cores else sum(cores) / len(cores),
            cores=() if first else tuple(cores),
            memory_used=None if memory is None else float(memory.total - memory.available),
            memory_total=None if memory is None else float(memory.total),
            disk_used=None if disk is None else float(disk.used),
            disk_total=None if disk is None else float(disk.total),
            load=_ask(lambda: psutil.getloadavg()[0]),
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


def _ask(figure: Callable[[], Any]) -> Any:
    """Returns a figure of this machine, or None if the system doesn't give it."""
    try:
        return figure()
    except (psutil.Error, OSError, NotImplementedError):
        return None


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


class _Nvml:
    """NVIDIA's management library, where there is one.

    Attributes:
        problem: why there are no GPUs; empty where there are.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._gpus: list[tuple[str, object]] = []
        try:
            self._library: ModuleType = importlib.import_module("pynvml")
        except ImportError:
            self.problem = "no GPU figures (nvidia-ml-py is not installed)"
            return
        try:
            self._library.nvmlInit()
            for index in range(self._library.nvmlDeviceGetCount()):
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
                name = self._figure(partial(self._library.nvmlDeviceGetName, handle))
                self._gpus.append((name or "GPU", handle))
        except self._library.NVMLError as error:
            self.problem = f"no GPU ({error})"
        else:
            self.problem = "" if self._gpus else "no GPU"

    def _figure(self, ask: Callable[[], Any]) -> Any:
        """Returns a figure, or None where this GPU or its driver doesn't give it (any more)."""
        try:
            return ask()
        except self._library.NVMLError:
            return None

    def read(self) -> tuple[Gpu, ...]:
        return tuple(self._gpu(name, handle) for name, handle in self._gpus)

    def _gpu(self, name: str, handle: object) -> Gpu:
        nvml = self._library
        memory = self._figure(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return Gpu(
            name=name,
            utilisation=self._figure(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            memory_used=None if memory is None else float(memory.used),
            memory_total=None if memory is None else float(memory.total),
            temperature=self._figure(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            # The library gives milliwatts.
            power=self._figure(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            power_limit=self._figure(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        )
