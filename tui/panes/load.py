"""What a run has taken of its machine, from its first event to its last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static

from kerasrobust.show.figures import format_seconds
from tui.read.follow import Follower
from tui.read.series import Series
from tui.read.state import RunState
from tui.widgets.meter import Meter

_NONE = "keeps no figures of its machine: it is older, or has ended within seconds."


@dataclass(eq=False)
class LoadRead(Message):
    """A run was read."""

    path: Path
    state: RunState


class RunLoad(Vertical):
    """A meter for each figure of a run, over all of its time."""

    DEFAULT_CSS = """
    RunLoad { height: auto; padding: 0 1; display: none; }
    RunLoad > .title { text-style: bold; height: 1; }
    RunLoad > Static { height: auto; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._follower: Follower | None = None
        self._shown: Path | None = None
        # A worker that was cancelled still ends what it reads.
        self._reading = Lock()

    def compose(self) -> ComposeResult:
        yield Static("", classes="title", markup=False)
        yield Static("", id="time", markup=False)

    def follow(self, path: Path | None) -> None:
        """Reads what is new of the run in a folder, and shows it."""
        self._shown = path
        self.display = path is not None
        if path is not None:
            self._read(path)

    @work(thread=True, exclusive=True)
    def _read(self, path: Path) -> None:
        with self._reading:
            if self._follower is None or self._follower.folder != path:
                self._follower = Follower(path)
            try:
                while self._follower.read():
                    pass
            except OSError:  # It has told nothing yet, or its events are gone.
                pass
            self.post_message(LoadRead(path, self._follower.state))

    async def on_load_read(self, message: LoadRead) -> None:
        if message.path != self._shown:
            return
        load = message.state.load
        self.query_one(".title", Static).update(f"Run {message.path.name}")
        if [meter.label for meter in self.query(Meter)] != [_label(name) for name in load]:
            await self.query(Meter).remove()
            await self.mount_all([Meter(_label(name)) for name in load], before="#time")
        for meter, (name, series) in zip(self.query(Meter), load.items(), strict=True):
            top = max(series.ys) if name == "memory" else 1.0
            meter.show(_words(name, series), series.ys, top or 1.0, whole=True)
        times = [series.xs[-1] for series in load.values()]
        words = f"All of its {format_seconds(max(times))} of work, from left to right." if times else f"It {_NONE}"
        self.query_one("#time", Static).update(words)


def _label(name: str) -> str:
    return name[:1].upper() + name[1:]


def _words(name: str, series: Series) -> str:
    if name == "memory":
        return f"{max(series.ys) / 2**30:.1f} GiB at most"
    return f"{100 * sum(series.ys) / len(series.ys):.0f} % on average"
