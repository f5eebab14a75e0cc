"""The contract of a job: the work behind a command, which the engine runs in a folder of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from kerasrobust.jobs.context import Context
from kerasrobust.settings import RunConfig

C = TypeVar("C", bound=RunConfig)


class Job(ABC, Generic[C]):
    """The work of one command, by its settings; `context` is what the run has: folder, events, stages.

    Example:
        class CountJob(Job[CountConfig]):
            def check(self) -> None:
                self.data = load_dataset(self.config.data, self.config.split, emit=self.context.emit)

            def run(self) -> dict[str, Any]:
                with self.context.stage("count", "Counting images"):
                    count = len(self.data)
                return self.context.publish({"schema": 1, "kind": self.config.kind, "count": count})
    """

    def __init__(self, context: Context, config: C) -> None:
        self.context = context
        self.config = config

    @abstractmethod
    def check(self) -> None:
        """Loads what the run needs, before anything is computed or replaced.

        Raises:
            InputError: for input that can't be used.
        """

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """Does the work; returns what it wrote to `result.json`."""
