"""What a job has of its run: folder, events, stages and results."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kerasrobust.errors import Cancelled
from kerasrobust.events import (
    AttackStarted,
    Emit,
    Event,
    Finding,
    Log,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    as_doubt,
    staged,
)
from kerasrobust.machine import RunSampler
from kerasrobust.marks import read_marks
from kerasrobust.notify import notify
from kerasrobust.runs import Run, read_json, write_json
from kerasrobust.settings import RunConfig, command_line
from kerasrobust.show.figures import format_seconds
from kerasrobust.show.report import write_report
from kerasrobust.tail import read_all

_PRELIMINARY = StageStarted, StageFinished, AttackStarted, Finding, Log, RunFinished
"""Events that tell of no work that is done."""

_PERSONAL = ("tags", "note", "notify")
"""Settings that are a person's own: the command and the settings in a report leave them out."""


def _spans(events: Iterable[Event]) -> list[float]:
    """Returns for each start of a run the seconds from its first event to its last."""
    spans: list[list[float]] = []
    for event in events:
        if isinstance(event, RunStarted) or not spans:
            spans.append([event.time, event.time])
        spans[-1][1] = event.time
    return [end - begin for begin, end in spans]


@dataclass
class Context:
    """What the steps of a run share.

    Attributes:
        watch: called with every event after it was written.
        should_stop: whether the person asked to stop.
        versions: of Python and the packages that figures depend on.
        findings: reasons to doubt the figures, as `warnings` in `result.json` has them.
        devices: on what it computes, in words.
        began: when it was started, in Unix seconds.
        prepared: whether data and model were read, so that the next progress is that of the work itself.
    """

    config: RunConfig
    run: Run
    watch: Emit
    should_stop: Callable[[], bool]
    versions: dict[str, str] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    prepared: bool = False
    devices: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    _stages: list[str] = field(default_factory=list)
    _sampler: RunSampler = field(default_factory=RunSampler)

    @property
    def command(self) -> str:
        """What repeats the run, without whom it tells of it: models and their cards are given away."""
        return command_line(dataclasses.replace(self.config, notify=None))

    def _about(self) -> dict[str, str]:
        """Returns what is said of the run, when it began, how long it has taken since, and on what machine."""
        marks = read_marks(self.run.path)
        said = {"tags": ", ".join(marks.tags), "note": marks.note}
        machine = f"{', '.join(self.devices)}; {platform.system()} {platform.machine()}".removeprefix("; ")
        began = datetime.fromtimestamp(self.began, UTC)
        return {
            **{name: words for name, words in said.items() if words},
            "began": f"{began:%Y-%m-%d %H:%M} UTC",
            "duration": self._duration(),
            "machine": machine,
        }

    def _duration(self) -> str:
        """Returns how long this process and those before it, which it resumes, have worked on the run."""
        spans = [] if self.run.is_new else _spans(read_all(self.run.path / "events.jsonl"))
        earlier = spans[:-1]  # The last one is this process.
        seconds = format_seconds(sum(earlier) + time.time() - self.began)
        return f"{seconds} in {len(spans)} starts" if earlier else seconds

    @property
    def unfinished(self) -> Path:
        """The folder of what only a run that was stopped or killed resumes from: it goes once the result is there."""
        return self.run.path / "batches"

    def emit(self, event: Event) -> None:
        """Writes an event to `events.jsonl`, marked with the current stage, and passes it on."""
        if event.stage is None and self._stages:
            event = dataclasses.replace(event, stage=self._stages[-1])
        self.run.write(event)
        self._notify(event)
        self.watch(event)
        # Until there is something to lose: what is refused before that leaves no folder, and restores what it replaces.
        if self.prepared and not isinstance(event, _PRELIMINARY):
            self.run.settle()
        if isinstance(event, Finding):
            self.findings.append(as_doubt(event))
        if (sample := self._sampler.sample()) is not None:
            self.run.write(sample)
            self.watch(sample)

    def _notify(self, event: Event) -> None:
        """Tells a person's own command that the run has ended, or that there is a reason for doubt."""
        if self.config.notify is None:
            return
        if isinstance(event, RunFinished):
            notify(self.config.notify, self.run.path, event.status, event.message)
        elif isinstance(event, Finding) and event.severity != "info":
            notify(self.config.notify, self.run.path, event.severity, event.message)

    @contextlib.contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Emits the beginning and the end of a stage; events in between are marked with its name."""
        self._stages.append(name)
        try:
            with staged(self.emit, name, title):
                yield
        finally:
            self._stages.pop()

    def skip(self, name: str, title: str) -> None:
        self.emit(StageStarted(stage=name, title=title))
        self.emit(StageFinished(stage=name, status="skipped", seconds=0.0))

    def check(self) -> None:
        if self.should_stop():
            raise Cancelled

    def header(self) -> dict[str, Any]:
        """Returns what every `result.json` begins with."""
        return {"schema": 1, "kind": self.config.kind, "seed": self.config.seed, "versions": self.versions}

    def publish(self, result: dict[str, Any], **report: Any) -> dict[str, Any]:
        """Writes `result.json` and then, given its arguments, `report.html`; returns the result.

        In this order: whatever happens to the report, the figures are there. Then what is unfinished goes.
        """
        write_json(self.run.path / "result.json", result)
        if report:
            # Under the same name it would be refused, as that is taken.
            command = command_line(dataclasses.replace(self.config, name=None, tags=None, note=None, notify=None))
            settings = {name: value for name, value in report.pop("settings").items() if name not in _PERSONAL}
            write_report(self.run.path, result, command=command, about=self._about(), settings=settings, **report)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        return result

    def finished(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a stage that this run has done before, or None."""
        return read_json(self.run.path / "stages" / f"{name}.json")

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Records that a stage is done, with its result."""
        folder = self.run.path / "stages"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{name}.json", result)
