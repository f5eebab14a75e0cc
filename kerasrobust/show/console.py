"""A run in the terminal: the event stream drawn with rich.

On a terminal the work at hand is shown as progress bars; anywhere else (a file, a pipe) as plain lines without escape
codes, at most one line of progress in ten seconds. What ends (a stage, an epoch, an attack) gets one line in
both, and the study's table comes last. No TensorFlow here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from kerasrobust import records
from kerasrobust.events import (
    AttackFinished,
    AttackProgress,
    AttackStarted,
    Event,
    ExamplesSaved,
    Finding,
    Log,
    Metrics,
    ModelSaved,
    Progress,
    Row,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from kerasrobust.show.figures import (
    by_network,
    format_accuracy,
    format_distance,
    format_epsilon,
    format_interval,
    format_published,
    format_seconds,
)
from kerasrobust.show.narrate import is_synthetic, narrate, severity

REFRESH = 8  # Bars are redrawn this often a second, however many events come.
PLAIN_PERIOD = 10.0  # Seconds between two lines of progress where there is no terminal.
SYNTHETIC = "Synthetic data: generated shapes, not photographs. The figures say nothing about real images."

_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}
_STATUS_STYLES = {"done": "green", "skipped": "dim", "failed": "bold red", "cancelled": "yellow"}
_METRICS = {"loss": "loss", "accuracy": "accuracy", "robust_accuracy": "robust"}


def study_table(rows: Iterable[records.Row], *, synthetic: bool) -> Table:
    """Returns the study's table: one section per network, published figures beside.

    An epsilon of another norm than Linf carries its norm (`0.5 L2`). The table fits 80 columns.

    Args:
        rows: Rows of a study; accuracies and intervals in [0, 1].
        synthetic: Whether the figures come from generated data; the caption then says so.

    Example:
        >>> row = records.Row(model="lenet", training="standard", randomized=False, accuracy=0.66)
        >>> study_table([row], synthetic=False).row_count
        1
    """
    table = make_table(synthetic)
    for header in ("model", "training"):
        table.add_column(header, overflow="fold")
    table.add_column("random", no_wrap=True)
    table.add_column("attack", overflow="fold")
    for header in ("epsilon", "EOT", "accuracy", "95 %\ninterval", "median\ndist.", "pub-\nlished"):
        table.add_column(header, justify="right", no_wrap=True)
    for group in by_network(rows).values():
        for row in group:
            table.add_row(
                row.model,
                row.training or "",
                "yes" if row.randomized else "no",
                row.attack or "clean",
                _epsilon(row.epsilon, row.norm),
                str(row.eot or ""),
                format_accuracy(row.accuracy),
                format_interval(row.interval),
                format_distance(row.median_distance),
                format_published(row.published),
            )
        table.add_section()
    return table


def attack_table(attacks: Sequence[AttackFinished], *, synthetic: bool) -> Table:
    """Returns the table of one model's attacks, in the order in which they ended."""
    table = make_table(synthetic)
    table.add_column("attack", overflow="fold")
    table.add_column("norm", no_wrap=True)
    for header in ("epsilon", "robust\naccuracy", "95 %\ninterval", "median\ndistance", "time", "gradients"):
        table.add_column(header, justify="right", no_wrap=True)
    for attack in attacks:
        table.add_row(
            attack.name,
            attack.norm,
            format_epsilon(attack.epsilon),
            format_accuracy(attack.robust_accuracy),
            format_interval(attack.interval),
            format_distance(attack.median_distance),
            format_seconds(attack.seconds),
            f"{attack.gradients:,}",
        )
    return table


@dataclass
class _Track:
    """One thing under way: where it was when it was first seen, for the rate, and its bar."""

    since: float
    start: int
    done: int
    bar: TaskID | None


class ConsoleRenderer:
    """Draws events as they come; a context manager, and an `Emit` inside it.

    Args:
        console: Where to draw; standard output by default.
        quiet: Only the tables, the result and what is wrong.

    Example:
        >>> with ConsoleRenderer() as renderer:  # doctest: +SKIP
        ...     engine.run(config, emit=renderer)
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        """Keeps what is drawn later; draws nothing yet."""
        # Given explicitly, as rich takes FORCE_COLOR for a terminal, and a log would fill up with bars.
        self.console = console or Console(force_terminal=sys.stdout.isatty(), highlight=False)
        self.quiet = quiet
        self._bars: Bars | None = None
        self._tracks: dict[tuple[str | None, str], _Track] = {}
        self._titles: dict[str, str] = {}
        self._epoch: int | None = None
        self._values: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        self._explained = False
        self._last_line: float | None = None
        self._rows: list[records.Row] = []
        self._attacks: list[AttackFinished] = []
        self._synthetic = False

    def __enter__(self) -> ConsoleRenderer:
        """Starts the bars where there is a terminal to draw them on."""
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet:
            self._bars = Bars(
                # Titles give way to the figures: a stage's was printed in full when it began.
                TextColumn("{task.description}", markup=False, table_column=_column(48 if self._wide else 18)),
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
        """Takes the bars away; what was printed stays."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, event: Event) -> None:
        """Draws one event; types that it doesn't know are ignored."""
        if self._last_line is None:
            self._last_line = event.time
        match event:
            case RunStarted():
                self._synthetic = is_synthetic(event.config, event.kind)
                self._narrate(event, "bold")
            case StageStarted():
                self._titles[event.stage or ""] = event.title
                self._narrate(event, "bold cyan")
            case StageFinished():
                self._finish_stage(event)
            case Progress():
                self._progress(event)
            case Metrics():
                self._metrics(event)
            case AttackStarted():
                self._start_attack(event)
            case AttackProgress():
                self._attack_progress(event)
            case AttackFinished():
                self._finish_attack(event)
            case ExamplesSaved() | ModelSaved():
                self._narrate(event, "dim" if isinstance(event, ExamplesSaved) else "", indent="  ")
            case Row():
                self._rows.append(records.Row.parse(vars(event)))
            case Finding() | Log():
                worst = severity(event)
                prefix = "" if worst == "info" else f"{worst}: "
                self._narrate(event, _STYLES[worst], indent=f"  {prefix}", even_if_quiet=worst != "info")
            case RunFinished():
                self._finish_run(event)

    @property
    def _wide(self) -> bool:
        return self.console.width >= 100

    def _say(self, line: str, style: str = "", *, even_if_quiet: bool = False) -> None:
        if even_if_quiet or not self.quiet:
            encoding = self.console.encoding
            if line.encode(encoding, "replace").decode(encoding) != line:  # A terminal that knows ASCII only.
                line = line.replace("∞", "inf").encode(encoding, "replace").decode(encoding)
            # Read as ANSI, since what is logged may come from a program that colours it.
            self.console.print(Text.from_ansi(line, style=style), soft_wrap=True, highlight=False)

    def _narrate(
        self, event: Event, style: str = "", *, title: str = "", indent: str = "", even_if_quiet: bool = False
    ) -> None:
        self._say(f"{indent}{narrate(event, title)}", style, even_if_quiet=even_if_quiet)

    def _track(
        self,
        event: Event,
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
        pace = "  ".join(
            [
                *([_rate(rate, unit)] if rate else []),
                *([f"{format_seconds(seconds_left)} left"] if seconds_left is not None else []),
            ]
        )
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

    def _progress(self, event: Progress) -> None:
        if event.unit == "epoch":
            self._end_epoch()
        title = self._titles.get(event.stage or "", event.stage or "")
        counts = _counts(event.done, event.total, event.unit)
        self._track(
            event, event.unit, title, event.done, event.total, counts, event.rate, event.seconds_left, event.unit
        )

    def _start_attack(self, event: AttackStarted) -> None:
        epsilon = _epsilon(event.epsilon, event.norm)
        self._titles[event.attack] = title = f"{event.attack} {epsilon}".rstrip()
        self._track(event, event.attack, title, 0, event.examples, _counts(0, event.examples, "example"))

    def _attack_progress(self, event: AttackProgress) -> None:
        counts = f"{_counts(event.done, event.total, 'example')}  {event.survivors:,} survivors"
        if self._wide and event.steps > 1:
            counts += f"  step {event.step}/{event.steps}"
        title = self._titles.get(event.attack, event.attack)
        track = self._tracks.get((event.stage, event.attack))
        if track is not None and track.start == track.done == 0 and event.step == 0:
            # What needed no attack, or was read from files, says nothing about how long the rest takes.
            track.since, track.start = event.time, event.done
        self._track(event, event.attack, title, event.done, event.total, counts)

    def _finish_attack(self, event: AttackFinished) -> None:
        self._drop(event.stage, event.attack)
        self._attacks.append(event)
        self._narrate(event, indent="  ")

    def _metrics(self, event: Metrics) -> None:
        if self._epoch is not None and event.epoch != self._epoch:
            self._end_epoch()
        self._epoch = event.epoch
        self._values[event.split].update({name.removeprefix("val_"): value for name, value in event.values.items()})
        if event.split == "validation" and self._values["train"]:
            self._end_epoch()

    def _end_epoch(self) -> None:
        """Writes the epoch's line, from what was measured in it last: training / validation."""
        train, validation = self._values["train"], self._values["validation"]
        names = [name for name in _METRICS if name in train or name in validation]
        if self._epoch is not None and names:
            if train and validation and not self._explained:
                self._explained = True
                self._say("  by epoch: training / validation", "dim")
            parts = [f"epoch {self._epoch}"]
            for name in names:
                parts.append(f"{_METRICS[name]} {_values(name, train.get(name), validation.get(name))}")
            self._say("  " + "  ".join(parts))
        self._epoch = None
        self._values = {"train": {}, "validation": {}}

    def _finish_stage(self, event: StageFinished) -> None:
        self._end_epoch()
        self._explained = False
        self._drop(event.stage)
        self._narrate(event, _STATUS_STYLES[event.status], title=self._titles.pop(event.stage or "", ""))

    def _finish_run(self, event: RunFinished) -> None:
        self._end_epoch()
        for stage, _ in list(self._tracks):
            self._drop(stage)
        table = None
        if self._rows:
            table = study_table(self._rows, synthetic=self._synthetic)
        elif self._attacks:
            table = attack_table(self._attacks, synthetic=self._synthetic)
        if table is not None:
            table.padding = (0, 1) if self._wide else 0
            self.console.print(table)
        self._narrate(event, _STATUS_STYLES[event.status], even_if_quiet=True)


def _column(width: int) -> Column:
    return Column(max_width=width, no_wrap=True, overflow="ellipsis")


def make_table(synthetic: bool) -> Table:
    """Returns an empty table in the style of all of them, captioned where the data are synthetic."""
    # The narrowest box that rich has, without its edges: ten columns have to fit 80 characters.
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        header_style="bold",
        caption=SYNTHETIC if synthetic else None,
        caption_justify="left",
        caption_style="bold yellow",
        highlight=False,
    )


def _epsilon(value: float | None, norm: str | None) -> str:
    """Returns the epsilon with its norm where that isn't Linf, as 0.5 in L2 is small and in Linf absurd."""
    other = norm.upper() if norm and norm != "linf" else ""
    return f"{format_epsilon(value)} {other}".strip()


def _values(name: str, train: float | None, validation: float | None) -> str:
    given = [value for value in (train, validation) if value is not None]
    if name == "loss":
        written = [f"{value:.3f}" for value in given]
    else:
        written = [format_accuracy(value) for value in given]
        written[0] = written[0].removesuffix(" %") if len(written) == 2 else written[0]
    return f"val {written[0]}" if train is None else " / ".join(written)


def _counts(done: int, total: int | None, unit: str) -> str:
    if unit == "byte":
        return f"{done / 1e6:.1f}" + (f"/{total / 1e6:.1f} MB" if total is not None else " MB")
    return f"{done:,}" + (f"/{total:,}" if total is not None else "") + f" {unit}" + ("" if total == 1 else "s")


def _rate(rate: float, unit: str) -> str:
    if unit == "byte":
        return f"{rate / 1e6:.1f} MB/s"
    if rate < 0.1:
        return f"{60 * rate:.1f}/min"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
