"""All result panes, of which one is shown, at one of its pages."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from tui.panes.results.heat import HeatPane
from tui.panes.results.pane import ResultPane
from tui.panes.results.radius import CertifiedPane, CurvesOverPane
from tui.panes.results.study import StudyPane
from tui.panes.results.threats import ThreatsPane
from tui.read.measured import Measured

RESULTS: tuple[type[ResultPane], ...] = (StudyPane, ThreatsPane, HeatPane, CertifiedPane, CurvesOverPane)
"""All kinds of results, in the order of their pages."""


@dataclass(frozen=True)
class Page:
    """One page of what was found; `number` is the pane's own."""

    pane: ResultPane
    number: int
    title: str


class ResultPanes(Vertical):
    """A pane for each kind of result, all of them hidden until a page is opened."""

    def compose(self) -> ComposeResult:
        for kind in RESULTS:
            yield kind()

    def on_mount(self) -> None:
        self.open(None, Measured())

    @property
    def shown(self) -> ResultPane | None:
        return next((pane for pane in self.query(ResultPane) if pane.display), None)

    def pages(self, found: Measured) -> list[Page]:
        """Returns what there is to open."""
        panes = self.query(ResultPane)
        return [Page(pane, number, title) for pane in panes for number, title in enumerate(pane.pages(found))]

    def open(self, page: Page | None, found: Measured) -> None:
        """Shows a page, or nothing; the focus goes along."""
        self.display = page is not None
        held = self.has_focus_within
        for pane in self.query(ResultPane):
            # The focus could go to one that isn't seen, if it weren't disabled.
            pane.display = page is not None and pane is page.pane
            pane.disabled = not pane.display
        if page is not None:
            page.pane.fill(found, page.number)
            if held and not self.has_focus_within:
                self.focus_first()

    def focus_first(self) -> None:
        """Gives the focus to the pane that is shown, so that its keys work."""
        inside = self.shown.walk_children(Widget) if self.shown is not None else iter(())
        self.screen.set_focus(next((widget for widget in inside if widget.focusable), None))
