"""What the machine is doing: processor and memory by psutil, GPUs by NVML. No TensorFlow here.

The GPU figures are tested against a stand-in for NVML; `benchmarks/gpu.py` asks a real one.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import psutil

from kerasrobust.events import SystemSampled

PERIOD = 5.0
"""Seconds between two samples of a run."""


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


def ask(figure: Callable[[], Any]) -> Any:
    """Returns a figure of this machine, or None if the system doesn't give it."""
    try:
        return figure()
    except (psutil.Error, OSError, NotImplementedError):
        return None


class Nvml:
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


class RunSampler:
    """Samples this process and its machine, so that a run keeps what it took.

    It has no thread of its own: whoever makes events asks it, and while none are made there is nothing to add.

    Example:
        >>> sampler = RunSampler()
        >>> sampler.sample() is None  # Not before `PERIOD` has passed.
        True
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._nvml = Nvml()
        self._figures()  # Shares of the processor are those since the question before.
        self._last = time.monotonic()

    def sample(self) -> SystemSampled | None:
        """Returns what was taken since the sample before, if that is `PERIOD` seconds ago; None otherwise."""
        now = time.monotonic()
        if now - self._last < PERIOD:
            return None
        self._last = now
        return self._figures()

    def _figures(self) -> SystemSampled:
        memory = ask(psutil.virtual_memory)
        held = ask(self._process.memory_info)
        return SystemSampled(
            cpu=ask(psutil.cpu_percent),
            process_cpu=ask(self._process.cpu_percent),
            memory=None if memory is None else float(memory.total - memory.available),
            memory_total=None if memory is None else float(memory.total),
            process_memory=None if held is None else float(held.rss),
            gpus=[dataclasses.asdict(gpu) for gpu in self._nvml.read()],
        )
