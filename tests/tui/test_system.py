from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from screen import shows, text, until
from textual.app import App, ComposeResult

from kerasrobust.config import TrainConfig
from kerasrobust.events import RunStarted, SystemSampled, to_json
from kerasrobust.settings import to_dict
from tui.app import Lab
from tui.screens.system import SystemPanel, _cores
from tui.system import HISTORY, Sampler
from tui.widgets.meter import bars, squeezed


class FakeNvml(SimpleNamespace):
    """A driver with two GPUs, of which the second gives no power. It loses the first on demand."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, gpus: int = 2) -> None:
        super().__init__(gpus=gpus, lost=False, loaded=True, rate=40)

    def nvmlInit(self) -> None:
        if not self.loaded:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"Accelerator {handle}"

    def _check(self, handle: int) -> None:
        if self.lost and handle == 0:
            raise self.NVMLError("GPU is lost")

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        self._check(handle)
        return SimpleNamespace(gpu=self.rate + handle, memory=7)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        self._check(handle)
        return SimpleNamespace(used=6 * 2**30, total=24 * 2**30)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._check(handle)
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._check(handle)
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return 212_400

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        self.nvmlDeviceGetPowerUsage(handle)
        return 300_000


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.fixture
def no_gpu(nvml: FakeNvml) -> None:
    nvml.loaded = False


class FakeHost(SimpleNamespace):
    """Stands in for psutil: a machine that is asked for its figures, or gives none."""

    Error = psutil.Error
    Process = psutil.Process

    def __init__(self) -> None:
        super().__init__(busy=0.0, silent=False)

    def _figure(self, value: object) -> Any:
        if self.silent:
            raise FileNotFoundError("/proc")
        return value

    def cpu_percent(self, percpu: bool = False) -> list[float]:
        assert percpu
        return self._figure([self.busy - 10, self.busy + 10])

    def disk_usage(self, path: str) -> SimpleNamespace:
        assert Path(path).is_dir()
        return self._figure(SimpleNamespace(total=100 * 2**30, used=40 * 2**30))

    def virtual_memory(self) -> SimpleNamespace:
        return self._figure(SimpleNamespace(total=16 * 2**30, available=12 * 2**30))

    def getloadavg(self) -> tuple[float, float, float]:
        return self._figure((1.25, 0.5, 0.1))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake = FakeHost()
    monkeypatch.setattr("tui.system.psutil", fake)
    return fake


def test_of_many_cores_each_has_one_sign() -> None:
    few, many = _cores([0.0, 50.0], 40), _cores([0.0] * 100 + [100.0] * 28, 70)
    assert "core 0" in few and "core 1" in few
    lines = many.splitlines()
    assert len(lines) == 2 and all(len(line) <= 70 for line in lines)
    assert many.count("█") == 28 and many.count("▁") == 100


def test_figures_of_two_gpus(nvml: FakeNvml, host: FakeHost, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "runs")
    first, second = sampler.sample().gpus
    assert sampler.problem == ""
    assert (first.name, first.utilisation, first.temperature) == ("Accelerator 0", 40, 61)
    assert (first.memory_used, first.memory_total) == (6 * 2**30, 24 * 2**30)
    assert (first.power, first.power_limit) == (212.4, 300)
    assert (second.utilisation, second.power, second.power_limit) == (41, None, None)


def test_a_gpu_that_is_lost_on_the_way_keeps_its_place(nvml: FakeNvml, host: FakeHost, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "runs")
    sampler.sample()
    nvml.lost = True
    first, second = sampler.sample().gpus
    assert (first.name, first.utilisation, first.memory_used, first.power) == ("Accelerator 0", None, None, None)
    assert second.utilisation == 41


def test_without_a_driver_the_reason_is_told(no_gpu: None, host: FakeHost, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "runs")
    assert sampler.sample().gpus == ()
    assert sampler.problem == "no GPU (Driver Not Loaded)"


def test_without_a_gpu_or_without_the_library(
    nvml: FakeNvml, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.gpus = 0
    sampler = Sampler(tmp_path / "runs")
    sampler.sample()
    assert sampler.problem == "no GPU"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = Sampler(tmp_path / "runs")
    sampler.sample()
    assert sampler.problem == "no GPU figures (nvidia-ml-py is not installed)"


def test_processor_and_memory(no_gpu: None, host: FakeHost, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "runs")
    first = sampler.sample()
    assert (first.cpu, first.load) == (None, 1.25)
    assert (first.memory_used, first.memory_total) == (4 * 2**30, 16 * 2**30)
    host.busy = 30.0
    assert first.cores == () and (first.disk_used, first.disk_total) == (40 * 2**30, 100 * 2**30)
    second = sampler.sample()
    assert second.cpu == 30 and second.cores == (20, 40)


def test_a_machine_that_gives_no_figures(no_gpu: None, host: FakeHost, tmp_path: Path) -> None:
    host.silent = True
    sampler = Sampler(tmp_path / "runs")
    for _ in range(2):
        sample = sampler.sample()
        assert (sample.cpu, sample.memory_used, sample.memory_total, sample.load) == (None,) * 4
        assert (sample.cores, sample.disk_used, sample.disk_total) == ((), None, None)


def test_the_history_is_bounded(nvml: FakeNvml, host: FakeHost, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "runs")
    samples = [sampler.sample() for _ in range(HISTORY + 5)]
    assert list(sampler.history) == samples[-HISTORY:]


@pytest.fixture
def running(runs_dir: Path) -> Iterator[Path]:
    """The folder of a run that this very process works in."""
    folder = runs_dir / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()} {time.time():.0f}\n")
        lock.flush()
        yield folder


def test_the_process_of_a_run_is_found_and_measured(no_gpu: None, running: Path) -> None:
    sampler = Sampler(running.parent)
    (process,) = sampler.sample().processes
    assert (process.run, process.pid, process.cpu) == ("mine", os.getpid(), None)
    assert process.rss == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    begun, busy = time.monotonic(), time.process_time()
    while time.process_time() - busy < 0.3:
        pass
    (process,) = sampler.sample().processes
    assert process.cpu is not None
    # However many others share the core.
    assert process.cpu == pytest.approx(100 * (time.process_time() - busy) / (time.monotonic() - begun), rel=0.2)


def test_a_run_whose_process_has_vanished_is_left_out(
    no_gpu: None, running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", gone)
    assert Sampler(running.parent).sample().processes == ()


@given(
    st.lists(st.none() | st.floats(0, 1e12), max_size=20), st.floats(0.1, 1e12), st.integers(-3, 30), st.integers(1, 5)
)
def test_bars_keep_to_their_room(values: list[float | None], top: float, width: int, height: int) -> None:
    lines = bars(values, top, width, height)
    assert [len(line) for line in lines] == [max(0, width)] * height


def test_bars_of_known_values() -> None:
    assert bars([0, None, 50, 100], top=100, width=6, height=1) == ["  ▁ ▄█"]
    assert bars([50, 75, 100, 1], top=100, width=3, height=2) == ["▄█ ", "██▁"]


@given(st.lists(st.none() | st.floats(0, 1e12), max_size=300), st.integers(0, 100))
def test_squeezed_values_stand_for_all_of_them(values: list[float | None], width: int) -> None:
    found = squeezed(values, width)
    assert len(found) == (width if values else 0)
    if width and len(values) % width == 0:
        for place, value in enumerate(found):
            known = [
                each for each in values[place * len(values) // width :][: len(values) // width] if each is not None
            ]
            assert value == (pytest.approx(sum(known) / len(known)) if known else None)
    elif values and width >= len(values):
        assert {*found} == {*values}


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_the_screen_without_a_gpu(no_gpu: None, lab: Lab, running: Path, size: tuple[int, int]) -> None:
    async with lab.run_test(size=size) as pilot:
        await pilot.press("5")
        await shows(
            pilot,
            "no GPU (Driver Not Loaded)",
            "Processor",
            "GiB",
            "Load",
            "mine: process",
            "One bar",
            "Disk",
            "core 0",
        )


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_the_screen_with_two_gpus(nvml: FakeNvml, lab: Lab, size: tuple[int, int]) -> None:
    async with lab.run_test(size=size) as pilot:
        await pilot.press("5")
        await shows(pilot, "GPU 0: Accelerator 0", "40 %", "6.0 of 24.0 GiB", "61 °C", "212 of 300 W")
        await shows(pilot, "GPU 1: Accelerator 1", "41 %", "not known", "No run is under way here.")
        assert "no GPU" not in text(pilot)
        nvml.lost = True
        nvml.rate = 90
        await shows(pilot, "91 %")


async def test_the_run_at_the_cursor_with_all_that_it_took(no_gpu: None, lab: Lab, runs_dir: Path) -> None:
    begun = RunStarted(time=0.0, run="mine", kind="train", config={}, command="", versions={}, devices=[], pid=1)
    samples = [
        SystemSampled(
            time=time, cpu=cpu, process_cpu=cpu, memory=8e9, memory_total=16e9, process_memory=held * 2**30, gpus=[]
        )
        for time, cpu, held in [(30.0, 0.0, 3.5), (60.0, 100.0, 1.0)]
    ]
    for name, told in {"mine": [begun, *samples], "short": [begun]}.items():
        (runs_dir / name).mkdir(parents=True)
        (runs_dir / name / "config.json").write_text(json.dumps(to_dict(TrainConfig())))
        (runs_dir / name / "events.jsonl").write_text("".join(f"{to_json(event)}\n" for event in told))
    async with lab.run_test(size=(160, 48)) as pilot:
        await shows(pilot, "2 runs")
        lab.open_run(runs_dir / "mine")
        await pilot.press("5")
        await shows(pilot, "Run mine", "50 % on average", "3.5 GiB at most", "All of its 60 s of work")
        lab.open_run(runs_dir / "short")
        await pilot.press("5")
        await shows(pilot, "Run short", "It keeps no figures of its machine")


async def test_it_samples_only_while_it_is_seen(nvml: FakeNvml, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.system.PERIOD", 0.05)
    async with lab.run_test(size=(80, 24)) as pilot:
        await pilot.press("5")
        panel = lab.screen.query_one(SystemPanel)
        await until(pilot, lambda: len(panel.sampler.history) >= 3)
        await pilot.press("1")
        await pilot.pause(0.15)  # One that has begun may end.
        before = len(panel.sampler.history)
        await pilot.pause(0.3)
        assert len(panel.sampler.history) == before
        await pilot.press("5")
        await until(pilot, lambda: len(panel.sampler.history) > before)


async def test_the_panel_in_another_screen_and_without_colours(
    nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("tui.screens.system.PERIOD", 0.05)

    class Other(App[None]):
        def compose(self) -> ComposeResult:
            yield SystemPanel(tmp_path)

    async with Other().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Accelerator 1", "▃▃▃▃")
