"""The system panel: what processor, memory and GPUs are doing, and the processes of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import Static

from tui.panes.load import RunLoad
from tui.screens.base import MainScreen
from tui.system import Gpu, Process, Sample, Sampler
from tui.widgets.layout import DETAILS
from tui.widgets.meter import Meter
from tui.widgets.words import bar_text

PERIOD = 1.0
"""Seconds between two samples."""
METERS = ("Utilisation", "Memory", "Temperature", "Power")
HOTTEST = 100.0
"""Degrees Celsius that fill the scale: GPUs slow themselves down below that."""
UNKNOWN = "not known"
_CORE = 8
_BARS = 16
"""Cores that have a bar each, at most."""
_LEVELS = "▁▂▃▄▅▆▇█"
"""Columns of a core's bar."""


def format_memory(used: float | None, total: float | None) -> str:
    """Returns `3.1 of 15.6 GiB`.

    Example:
        >>> format_memory(3 * 2**30, 16 * 2**30)
        '3.0 of 16.0 GiB'
    """
    return UNKNOWN if used is None or total is None else f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"


def format_percent(value: float | None) -> str:
    """Returns `37 %`."""
    return UNKNOWN if value is None else f"{value:.0f} %"


class Block(Vertical):
    """A title, meters with these labels under it, and a note."""

    DEFAULT_CSS = """
    Block { height: auto; padding: 0 1; }
    Block > .title { text-style: bold; height: 1; }
    Block > .below { height: auto; display: none; }
    """

    def __init__(self, title: str, labels: Iterable[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._labels = tuple(labels)

    def compose(self) -> ComposeResult:
        yield Static(self._title, classes="title", markup=False)
        for label in self._labels:
            yield Meter(label)
        yield Static(classes="below", markup=False)

    def meters(self) -> dict[str, Meter]:
        return {meter.label: meter for meter in self.query(Meter)}

    def note(self, below: str | Text) -> None:
        static = self.query_one(".below", Static)
        static.display = bool(below)
        static.update(below)


class SystemPanel(VerticalScroll):
    """The figures of this machine and of the processes of its runs, sampled every second while they can be seen.

    Below them what the `selected` run has taken of its machine.
    """

    DEFAULT_CSS = """
    SystemPanel { height: 1fr; }
    SystemPanel #blocks { height: auto; layout: grid; grid-size: 1; grid-rows: auto; grid-gutter: 1 2; }
    SystemPanel.-wide #blocks { grid-size: 2; }
    SystemPanel.-tall Meter { height: 3; margin-bottom: 1; }
    """

    def __init__(self, runs_dir: Path, selected: Callable[[], Path | None] = lambda: None) -> None:
        super().__init__()
        self.sampler = Sampler(runs_dir)
        self._selected = selected
        self._gpus: list[Block] = []
        self._sampling = False
        self._core_lines = 1

    def compose(self) -> ComposeResult:
        with Container(id="blocks"):
            yield Block("This machine", ("Processor", "Memory", "Disk"), id="machine")
            yield Block("GPU", (), id="no-gpu")
            yield Block("Processes of runs", (), id="processes")
            yield RunLoad("run")

    async def on_mount(self) -> None:
        self.set_interval(PERIOD, self.update_figures)
        self.call_after_refresh(self.update_figures)

    def on_resize(self, event: Resize) -> None:
        self._fit()

    def _fit(self) -> None:
        wide = self.size.width >= DETAILS
        meters = 3 + len(METERS) * len(self._gpus)
        self.set_class(wide, "-wide")
        # Higher bars, where they leave room for all.
        self.set_class(4 * meters // (1 + wide) + 11 + self._core_lines <= self.size.height, "-tall")

    @property
    def is_seen(self) -> bool:
        """Whether anybody can see it: not while another screen covers it; behind a dialog it still shows."""
        return self.is_attached and self.screen.is_current and self.is_on_screen

    async def update_figures(self) -> None:
        """Takes a sample and shows it, unless nobody can see it or the last one isn't there yet."""
        if self._sampling or not self.is_seen:
            return
        self._sampling = True
        self.query_one(RunLoad).follow(self._selected())
        try:
            # A driver may take its time to answer.
            sample = await asyncio.to_thread(self.sampler.sample)
        finally:
            self._sampling = False
        if self.is_attached:
            await self._show(sample)

    async def _show(self, sample: Sample) -> None:
        if len(sample.gpus) != len(self._gpus):  # Known only after the first sample.
            self._gpus = [Block(f"GPU {number}: {gpu.name}", METERS) for number, gpu in enumerate(sample.gpus)]
            await self.query_one("#blocks").mount_all(self._gpus, after="#machine")
            self._fit()
        self._show_machine(sample)
        for number, gpu in enumerate(sample.gpus):
            self._show_gpu(number, gpu)
        absent = self.query_one("#no-gpu", Block)
        absent.display = bool(self.sampler.problem)
        absent.note(self.sampler.problem)
        self.query_one("#processes", Block).note(_processes(sample.processes))

    def _history(self, figure: Callable[[Sample], float | None]) -> list[float | None]:
        return [figure(sample) for sample in self.sampler.history]

    def _show_machine(self, sample: Sample) -> None:
        block = self.query_one("#machine", Block)
        meters = block.meters()
        first = len(self.sampler.history) == 1
        processor = "…" if first else format_percent(sample.cpu)
        meters["Processor"].show(processor, self._history(lambda sample: sample.cpu), 100)
        memory = self._history(lambda sample: sample.memory_used)
        meters["Memory"].show(format_memory(sample.memory_used, sample.memory_total), memory, sample.memory_total or 1)
        disk = self._history(lambda sample: sample.disk_used)
        meters["Disk"].show(format_memory(sample.disk_used, sample.disk_total), disk, sample.disk_total or 1)
        load = "" if sample.load is None else f"Load {sample.load:.2f}. "
        cores = _cores(sample.cores, block.size.width - 2)
        block.note("\n".join(filter(None, (cores, f"{load}One bar a second."))))
        if (lines := cores.count("\n") + 1) != self._core_lines:
            self._core_lines = lines
            self._fit()

    def _show_gpu(self, number: int, gpu: Gpu) -> None:
        meters = self._gpus[number].meters()

        def history(name: str) -> list[float | None]:
            return self._history(lambda sample: getattr(sample.gpus[number], name))

        meters["Utilisation"].show(format_percent(gpu.utilisation), history("utilisation"), 100)
        memory = format_memory(gpu.memory_used, gpu.memory_total)
        meters["Memory"].show(memory, history("memory_used"), gpu.memory_total or 1)
        warmth = UNKNOWN if gpu.temperature is None else f"{gpu.temperature:.0f} °C"
        meters["Temperature"].show(warmth, history("temperature"), HOTTEST)
        powers = history("power")
        if gpu.power is None:
            power = UNKNOWN
        else:
            power = f"{gpu.power:.0f} W" if gpu.power_limit is None else f"{gpu.power:.0f} of {gpu.power_limit:.0f} W"
        # Without a limit the highest so far fills the scale.
        top = gpu.power_limit or max((power for power in powers if power), default=1)
        meters["Power"].show(power, powers, top)


def _cores(cores: Sequence[float], width: int) -> str:
    """Returns a bar for each core, as many in a line as there is room for; of many cores one sign for each."""
    if len(cores) > _BARS:
        signs = "".join(_LEVELS[min(int(busy / 100 * len(_LEVELS)), len(_LEVELS) - 1)] for busy in cores)
        row = max(8, (width - len("cores ")) // 8 * 8)
        return "cores " + "\n      ".join(signs[at : at + row] for at in range(0, len(signs), row))
    bars = [f"core {number:<2} {bar_text(busy / 100, _CORE)}" for number, busy in enumerate(cores)]
    count = max(1, (width + 2) // (_CORE + 15))
    return "\n".join("  ".join(bars[at : at + count]) for at in range(0, len(bars), count))


def _processes(processes: Iterable[Process]) -> str:
    lines = []
    for process in processes:
        cpu = "…" if process.cpu is None else f"{process.cpu:.0f} % of a core"
        lines.append(f"{process.run}: process {process.pid}, {process.rss / 2**30:.2f} GiB, {cpu}")
    return "\n".join(lines) or "No run is under way here."


class SystemScreen(MainScreen):
    """The system panel as a place of its own."""

    PLACE = "system"

    def content(self) -> ComposeResult:
        yield SystemPanel(self.session.runs_dir, lambda: self.session.selected)
