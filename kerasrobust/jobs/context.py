"""What the jobs of a run share: its settings, folder and events, its stages, and what they left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kerasrobust.config import RunConfig
from kerasrobust.errors import Cancelled
from kerasrobust.events import Emit, Event, StageFinished, StageStarted
from kerasrobust.runs import Run, read_json, write_json
from kerasrobust.show.report import write_report


@dataclass
class Context:
    """What the steps of a run share.

    Attributes:
        config: what was asked for.
        run: the run's folder.
        emit: where events go; inside `stage` they carry its name.
        should_stop: whether the person asked to stop.
        command: the command line that repeats the run.
        versions: of Python and the packages that figures depend on.
        findings: reasons to doubt the figures, as `warnings` in `result.json` has them.
    """

    config: RunConfig
    run: Run
    emit: Emit
    should_stop: Callable[[], bool]
    command: str
    versions: dict[str, str] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Tells that a stage begins and how it ends, and marks the events in between with its name."""
        outer = self.emit

        def marked(event: Event) -> None:
            outer(dataclasses.replace(event, stage=event.stage or name))

        began = time.monotonic()
        outer(StageStarted(stage=name, title=title))
        self.emit = marked

        def finish(status: Literal["done", "failed"]) -> None:
            outer(StageFinished(stage=name, status=status, seconds=time.monotonic() - began))

        try:
            yield
            finish("done")
        except (Cancelled, KeyboardInterrupt):  # Neither done nor failed: the run says that it was cancelled.
            raise
        except BaseException:
            with contextlib.suppress(OSError):  # A full disk may be what has brought us here.
                finish("failed")
            raise
        finally:
            self.emit = outer

    def skip(self, name: str, title: str) -> None:
        """Tells that a stage was done before."""
        self.emit(StageStarted(stage=name, title=title))
        self.emit(StageFinished(stage=name, status="skipped", seconds=0.0))

    def check(self) -> None:
        """Raises `Cancelled` where the person asked to stop."""
        if self.should_stop():
            raise Cancelled

    def publish(self, result: dict[str, Any], **report: Any) -> dict[str, Any]:
        """Writes `result.json` and then, where its arguments are given, `report.html`; returns the result.

        In this order: whatever happens to the report, the figures are there.
        """
        write_json(self.run.path / "result.json", result)
        if report:
            write_report(self.run.path, result, command=self.command, **report)
        return result

    def finished(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a stage that this run has done before, or None."""
        return read_json(self.run.path / "stages" / f"{name}.json")

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Notes that a stage is done, with its result."""
        folder = self.run.path / "stages"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{name}.json", result)
