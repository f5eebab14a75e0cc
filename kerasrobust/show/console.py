"""A run in the terminal: the event stream drawn with rich.

On a terminal the work at hand is shown as progress bars; anywhere else (a file, a pipe) as plain lines without escape
codes, at most one line of progress in ten seconds. What ends (a stage, an epoch, an attack) gets one line in
both, and the study's table comes last. No TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from kerasrobust import events
from kerasrobust.show.conclusion import Conclusion
from kerasrobust.show.figures import (
    format_accuracy,
    format_count,
    format_done,
    format_seconds,
)
from kerasrobust.show.fitting import UNBOUNDED, make_console, print_words
from kerasrobust.show.narrate import narrate, severity
from kerasrobust.show.tables import epsilon_text

REFRESH = 8  # Bars are redrawn this often a second, however many events come.
PLAIN_PERIOD = 10.0  # Seconds between two lines of progress where there is no terminal.

_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}
_STATUS_STYLES = {"done": "green", "skipped": "dim", "failed": "bold red", "cancelled": "yellow", "stopped": "yellow"}
_METRICS = {"loss": "loss", "accuracy": "accuracy", "robust_accuracy": "robust"}


@dataclass
class _Track:
    """One thing under way: where it was when it was first seen, for the rate, and its bar."""

    since: float
    start: int
    done: int
    bar: TaskID | None


class _Epochs:
    """Collects the metrics of an epoch and puts what was measured in it last into a line: training / validation.

    Attributes:
        explained: whether this stage has said what the two figures are.
    """

    def __init__(self) -> None:
        self.explained = False
        self._epoch: int | None = None
        self._values: dict[str, dict[str, float]] = {"train": {}, "validation": {}}

    def add(self, event: events.Metrics) -> Iterator[str]:
        """Takes in metrics and yields the lines of an epoch that they end."""
        if self._epoch is not None and event.epoch != self._epoch:
            yield from self.end()
        self._epoch = event.epoch
        self._values[event.split].update({name.removeprefix("val_"): value for name, value in event.values.items()})
        if event.split == "validation" and self._values["train"]:
            yield from self.end()

    def end(self) -> Iterator[str]:
        train, validation = self._values["train"], self._values["validation"]
        names = [name for name in _METRICS if name in train or name in validation]
        if self._epoch is not None and names:
            if train and validation and not self.explained:
                self.explained = True
                yield "by epoch: training / validation"
            figures = [f"{_METRICS[name]} {_values(name, train.get(name), validation.get(name))}" for name in names]
            yield "  ".join([f"epoch {self._epoch}", *figures])
        self._epoch = None
        self._values = {"train": {}, "validation": {}}


class ConsoleRenderer:
    """Draws events as they come; a context manager, and an `Emit` inside it.

    Args:
        console: where to draw; standard output by default.
        quiet: only the tables, the result and what is wrong.

    Example:
        >>> with ConsoleRenderer() as renderer:  # doctest: +SKIP
        ...     engine.run(config, emit=renderer)
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or make_console()
        self.quiet = quiet
        self._bars: Bars | None = None
        self._tracks: dict[tuple[str | None, str], _Track] = {}
        self._titles: dict[str, str] = {}
        self._epochs = _Epochs()
        self._last_line: float | None = None
        self._conclusion = Conclusion()

    def __enter__(self) -> ConsoleRenderer:
        """Starts the bars where there is a terminal to draw them on."""
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet:
            # Titles give way to the figures: a stage's was printed in full when it began.
            title = Column(max_width=48 if self._wide else 18, no_wrap=True, overflow="ellipsis")
            self._bars = Bars(
                TextColumn("{task.description}", markup=False, table_column=title),
                BarColumn(bar_width=30 if self._wide else 10),
                TextColumn("{task.fields[counts]}", markup=False),
                TextColumn("{task.fields[pace]}", style="dim", markup=False),
                console=self.console,
                transient=True,
                refresh_per_second=REFRESH,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, event: events.Event) -> None:
        """Draws one event; types that it doesn't know are ignored."""
        if self._last_line is None:
            self._last_line = event.time
        self._conclusion.add(event)
        match event:
            case events.RunStarted():
                self._narrate(event, "bold")
            case events.StageStarted():
                self._titles[event.stage or ""] = event.title
                self._narrate(event, "bold cyan")
            case events.StageFinished():
                self._finish_stage(event)
            case events.Progress():
                self._progress(event)
            case events.Metrics():
                self._say_epoch(self._epochs.add(event))
            case events.AttackStarted():
                self._start_attack(event)
            case events.AttackProgress():
                self._attack_progress(event)
            case events.AttackFinished():
                self._finish_attack(event)
            case events.LabelFinished() | events.CorruptionFinished() | events.Certified():
                self._narrate(event, indent="  ")
            case events.ExamplesSaved() | events.ModelSaved():
                self._narrate(event, "dim" if isinstance(event, events.ExamplesSaved) else "", indent="  ")
            case events.Finding() | events.Log():
                worst = severity(event)
                prefix = "" if worst == "info" else f"{worst}: "
                self._narrate(event, _STYLES[worst], indent=f"  {prefix}", even_if_quiet=worst != "info")
            case events.RunFinished():
                self._finish_run(event)

    @property
    def _wide(self) -> bool:
        # What has no edge isn't wide: there nobody looks at how lines fill a screen.
        return 100 <= self.console.width < UNBOUNDED

    def _say(self, line: str, style: str = "", *, even_if_quiet: bool = False) -> None:
        if even_if_quiet or not self.quiet:
            encoding = self.console.encoding
            if line.encode(encoding, "replace").decode(encoding) != line:  # A terminal that knows ASCII only.
                line = line.replace("∞", "inf").encode(encoding, "replace").decode(encoding)
            # Read as ANSI, since what is logged may come from a program that colours it.
            print_words(self.console, Text.from_ansi(line, style=style))

    def _narrate(
        self, event: events.Event, style: str = "", *, title: str = "", indent: str = "", even_if_quiet: bool = False
    ) -> None:
        self._say(f"{indent}{narrate(event, title)}", style, even_if_quiet=even_if_quiet)

    def _track(
        self,
        event: events.Event,
        name: str,
        title: str,
        done: int,
        total: int | None,
        counts: str,
        rate: float | None = None,
        seconds_left: float | None = None,
        unit: str = "",
    ) -> None:
        """Moves a bar, or writes a line where there are none and the last one is old enough."""
        key = (event.stage, name)
        track = self._tracks.get(key)
        if track is None or done < track.done:  # New, or from the start again: the next epoch, the next restart.
            bar = track.bar if track else None
            if bar is None and self._bars is not None:
                bar = self._bars.add_task(title, total=total, counts="", pace="")
            track = self._tracks[key] = _Track(since=event.time, start=done, done=done, bar=bar)
        track.done = done
        elapsed = event.time - track.since
        if rate is None and elapsed > 0 and done > track.start:
            rate = (done - track.start) / elapsed
        if seconds_left is None and rate and total is not None:
            seconds_left = (total - done) / rate
        left = "" if seconds_left is None else f"{format_seconds(seconds_left)} left"
        # Time has no rate.
        pace = "  ".join(filter(None, (_rate(rate, unit) if rate and unit != "second" else "", left)))
        if self._bars is not None and track.bar is not None:
            self._bars.update(track.bar, description=title, completed=done, total=total, counts=counts, pace=pace)
        elif self._last_line is not None and event.time - self._last_line >= PLAIN_PERIOD:
            self._last_line = event.time
            self._say(f"  {title}  {counts}  {pace}".rstrip())

    def _drop(self, stage: str | None, name: str | None = None) -> None:
        for key in [key for key in self._tracks if key[0] == stage and name in (None, key[1])]:
            track = self._tracks.pop(key)
            if self._bars is not None and track.bar is not None:
                self._bars.remove_task(track.bar)

    def _progress(self, event: events.Progress) -> None:
        if event.unit == "epoch":
            self._say_epoch(self._epochs.end())
        title = self._titles.get(event.stage or "", event.stage or "")
        counts = format_done(event.done, event.total, event.unit)
        self._track(
            event, event.unit, title, event.done, event.total, counts, event.rate, event.seconds_left, event.unit
        )

    def _start_attack(self, event: events.AttackStarted) -> None:
        epsilon = epsilon_text(event.epsilon, event.norm)
        self._titles[event.attack] = title = f"{event.attack} {epsilon}".rstrip()
        self._track(event, event.attack, title, 0, event.examples, format_done(0, event.examples, "example"))

    def _attack_progress(self, event: events.AttackProgress) -> None:
        counts = f"{format_done(event.done, event.total, 'example')}  {format_count(event.survivors, 'survivor')}"
        if self._wide and event.steps > 1:
            counts += f"  step {event.step}/{event.steps}"
        title = self._titles.get(event.attack, event.attack)
        track = self._tracks.get((event.stage, event.attack))
        if track is not None and track.start == track.done == 0 and event.step == 0:
            # What needed no attack, or was read from files, says nothing about how long the rest takes.
            track.since, track.start = event.time, event.done
        self._track(event, event.attack, title, event.done, event.total, counts)

    def _finish_attack(self, event: events.AttackFinished) -> None:
        self._drop(event.stage, event.attack)
        self._narrate(event, indent="  ")

    def _say_epoch(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(f"  {line}", "" if line.startswith("epoch") else "dim")

    def _finish_stage(self, event: events.StageFinished) -> None:
        self._say_epoch(self._epochs.end())
        self._epochs.explained = False
        self._drop(event.stage)
        self._narrate(event, _STATUS_STYLES[event.status], title=self._titles.pop(event.stage or "", ""))

    def _finish_run(self, event: events.RunFinished) -> None:
        self._say_epoch(self._epochs.end())
        for stage, _ in list(self._tracks):
            self._drop(stage)
        for table in self._conclusion.tables(wide=self._wide):
            self.console.print(table)
        for line in self._conclusion.lines():
            self._say(line, even_if_quiet=True)
        self._narrate(event, _STATUS_STYLES[event.status], even_if_quiet=True)


def _values(name: str, train: float | None, validation: float | None) -> str:
    given = [value for value in (train, validation) if value is not None]
    if name == "loss":
        written = [f"{value:.3f}" for value in given]
    else:
        written = [format_accuracy(value) for value in given]
        written[0] = written[0].removesuffix(" %") if len(written) == 2 else written[0]
    return f"val {written[0]}" if train is None else " / ".join(written)


def _rate(rate: float, unit: str) -> str:
    if unit == "byte":
        return f"{rate / 1e6:.1f} MB/s"
    if rate < 0.1:
        return f"{60 * rate:.1f}/min"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
