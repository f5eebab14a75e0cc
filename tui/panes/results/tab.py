"""The tab of what a run has found, a page at a time."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Click
from textual.widgets import Static

from tui.panes.results.panes import Page, ResultPanes
from tui.read.measured import Measured, ResultFile, of_events
from tui.read.state import RunState

_NOTHING = (
    "Nothing yet: the rows of a study, the map of corruptions and certificates come here as they are measured, and "
    "what an assessment has found at its end."
)


class ResultsTab(Vertical):
    """The results of the run in a folder: of its events while it goes on, and then of its `result.json`."""

    DEFAULT_CSS = """
    ResultsTab > #nothing, ResultsTab > #which { height: auto; padding: 0 1; }
    ResultsTab > ResultPanes { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next", "Next", id="next-result", tooltip="The next of the run's results"),
    ]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = ResultFile(path)
        self._found = Measured()
        self._pages: list[Page] = []
        self._at = 0
        self._stamp: object = None

    def compose(self) -> ComposeResult:
        yield Static(_NOTHING, id="nothing", classes="dim", markup=False)
        yield Static("", id="which", markup=False)
        yield ResultPanes()

    def show(self, state: RunState) -> None:
        """Shows the result, or what the events have told so far; the page stays where it is."""
        result = self._file.read()
        stamp = (result, state.source, state.rows, state.cells, state.certified)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        before, was = self._pages[self._at : self._at + 1], bool(self._pages)
        panes = self.query_one(ResultPanes)
        # A result that is damaged, or of somebody else, may have nothing to show.
        for found in filter(None, (result, of_events(state))):
            self._found, self._pages = found, panes.pages(found)
            if self._pages:
                break
        self._at = next((place for place, page in enumerate(self._pages) if page in before), 0)
        self._open()
        if self._pages and not was and self.screen.focused is None:
            panes.focus_first()

    def _open(self) -> None:
        page = self._pages[self._at] if self._pages else None
        self.query_one("#nothing").display = page is None
        which = self.query_one("#which", Static)
        which.display = len(self._pages) > 1
        text = Text(page.title if page is not None else "", "bold")
        text.append(f"  ({self._at + 1} of {len(self._pages)}; n or a click here: next)", "not bold")
        which.update(text)
        self.query_one(ResultPanes).open(page, self._found)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offers the next page only where there is one."""
        return action != "next" or len(self._pages) > 1

    def on_click(self, event: Click) -> None:
        if event.widget is self.query_one("#which"):
            self.action_next()

    def action_next(self) -> None:
        self._at = (self._at + 1) % max(1, len(self._pages))
        self._open()
