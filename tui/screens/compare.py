"""Comparing: runs and models side by side, against one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.widgets import ContentSwitcher, DataTable, Static, Tab, Tabs

from tui.panes.choose import EMPTY, ChoosePane
from tui.panes.overlay import OverlayPane
from tui.panes.side_by_side import ComparedPane, FiguresPane, PagedPane, SettingsTable, StudiesPane
from tui.panes.together import TogetherPane
from tui.read.subject import Subject, Subjects
from tui.screens.base import FolderScreen
from tui.widgets.layout import COMPARISON
from tui.widgets.table import copy

PERIOD = 2.0
"""Seconds between two looks at the folders."""

NOTHING = """Nothing is chosen yet.

Choose runs or models in the list (c) with space or a click. The first is the reference that the others
are compared with; p makes it the one at the cursor."""

_TABS = {
    "choose": "Choose (c)",
    "figures": "Figures (f)",
    "settings": "Settings (i)",
    "table": "Table (t)",
    "epsilon": "Epsilon (e)",
    "curves": "Curves (m)",
}


class CompareScreen(FolderScreen):
    """The list of runs and models, and what is to be said of those that are chosen."""

    PLACE = "compare"
    DEFAULT_CSS = """
    CompareScreen #body { height: 1fr; }
    CompareScreen ChoosePane { width: 1fr; }
    CompareScreen ContentSwitcher { width: 1fr; height: 1fr; display: none; }
    CompareScreen #nothing { padding: 2 4; }
    CompareScreen.results ContentSwitcher { display: block; }
    CompareScreen.results ChoosePane { display: none; }
    CompareScreen.wide ContentSwitcher { display: block; }
    CompareScreen.wide ChoosePane { display: block; width: 64; border-right: solid $panel; }
    CompareScreen.wide #tab-choose { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Choose", id="choose-subject", tooltip="Compare it, or leave it out again"),
        Binding("p", "pin", "Reference", id="pin-reference", tooltip="Compare the others with it"),
        Binding("slash", "search", "Filter", id="filter-subjects", key_display="/", tooltip="Filter the list"),
        Binding("c", "tab('choose')", "List", id="tab-choose", show=False, tooltip="Go to the list of runs and models"),
        Binding("f", "tab('figures')", "Figures", id="tab-figures", show=False, tooltip="Accuracies, and McNemar"),
        Binding("i", "tab('settings')", "Settings", id="tab-differences", show=False, tooltip="Settings that differ"),
        Binding("t", "tab('table')", "Table", id="tab-studies", show=False, tooltip="Study and published figures"),
        Binding("e", "tab('epsilon')", "Epsilon", id="tab-epsilon", show=False, tooltip="Accuracy over epsilon"),
        Binding("m", "tab('curves')", "Curves", id="tab-together", show=False, tooltip="Curves of runs, live"),
        Binding("n", "next", "Next", id="next-compared", tooltip="Next attack of the chart, or next study"),
        Binding("o", "all_settings", "All/differing", id="all-settings", tooltip="Show all settings or only differing"),
        Binding("y", "copy", "Copy", id="copy-compared", tooltip="Copy the table, cells separated by tabs"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._subjects: list[Subject] | None = None
        self._reader: Subjects | None = None
        self._chosen: list[Path] = []
        self._pinned: Path | None = None
        self._tab = "choose"

    def content(self) -> ComposeResult:
        yield Tabs(*(Tab(label, id=f"tab-{name}") for name, label in _TABS.items()))
        with Horizontal(id="body"):
            yield ChoosePane()
            with ContentSwitcher(initial="nothing"):
                yield Static(NOTHING, id="nothing", markup=False)
                yield FiguresPane(id="figures")
                yield SettingsTable(id="settings")
                yield StudiesPane(id="table")
                yield OverlayPane(id="epsilon")
                yield TogetherPane(id="curves")

    def on_mount(self) -> None:
        self._reader = Subjects(self.session.runs_dir, self.session.models_dir)
        self.keep_reading(PERIOD)
        self.query_one(ChoosePane).table.focus()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= COMPARISON, "wide")
        if self.has_class("wide") and self._tab == "choose":
            # The list is beside, and its tab is gone.
            self.query_one(Tabs).active = "tab-figures"

    def read_folders(self) -> list[Subject]:
        assert self._reader is not None
        return self._reader.read()

    def show_found(self, found: list[Subject] | None) -> None:
        if found is None or found == self._subjects:
            return
        self._subjects = found
        usable = {subject.path for subject in found if not subject.problem or subject.is_live}
        for path in [path for path in self._chosen if path not in usable]:
            self.say(f"{path.name} can no longer be compared: it is gone, archived, or has ended without a result.")
            self._chosen.remove(path)
        self._show()

    @property
    def reference(self) -> Path | None:
        """What the others are compared with: the pinned one, or the first that was chosen."""
        return self._pinned if self._pinned in self._chosen else next(iter(self._chosen), None)

    def _in_order(self) -> list[Subject]:
        by_path = {subject.path: subject for subject in self._subjects or []}
        paths = sorted(self._chosen, key=lambda path: path != self.reference)
        return [by_path[path] for path in paths]

    def _show(self) -> None:
        subjects = self._in_order()
        self.set_class(self._tab != "choose", "results")
        empty = (
            EMPTY.format(runs=self.session.runs_dir, models=self.session.models_dir) if self.was_read else "reading..."
        )
        self.query_one(ChoosePane).show(self._subjects or [], self._chosen, self.reference, empty)
        words = [
            f"{len(subjects)} of {len(self._subjects or [])} chosen",
            f"reference {subjects[0].title}" if subjects else "",
        ]
        self.entitle(", ".join(filter(None, words)))
        self.refresh_bindings()
        switcher = self.query_one(ContentSwitcher)
        switcher.current = self._tab if subjects and self._tab != "choose" else "nothing"
        if (pane := self._pane()) is not None:
            # Of what is under way there are curves, and no figures yet.
            pane.show([subject for subject in subjects if not subject.problem or pane.id == "curves"])

    def _pane(self) -> ComparedPane | None:
        current = self.query_one(ContentSwitcher).current
        return self.query_one(f"ContentSwitcher > #{current}", ComparedPane) if current != "nothing" else None

    @on(Tabs.TabActivated)
    def _changed_tab(self, event: Tabs.TabActivated) -> None:
        self._tab = (event.tab.id or "").removeprefix("tab-")
        self._show()

    def action_tab(self, name: str) -> None:
        """Goes to a part of the comparison, or to the list."""
        wide = self.has_class("wide")
        if not (wide and name == "choose"):
            self._tab = name
            self.query_one(Tabs).active = f"tab-{name}"
            self._show()
        pane = self._pane()
        if name == "choose" or pane is None:
            self.query_one(ChoosePane).table.focus()
        else:
            pane.table.focus()

    def action_back(self) -> None:
        if self.has_class("wide") or self._tab == "choose":
            self.query_one(ChoosePane).action_end_search()
        else:
            self.action_tab("choose")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offers in the line below only what has a use in the tab."""
        if action in ("choose", "pin", "search"):
            return self.has_class("wide") or self._tab == "choose"
        return self._tab in {"next": ("table", "epsilon"), "all_settings": ("settings",)}.get(action, _TABS)

    def action_choose(self) -> None:
        self.query_one(ChoosePane).toggle()

    def on_choose_pane_toggled(self, message: ChoosePane.Toggled) -> None:
        subject = message.subject
        if subject.path in self._chosen:
            self._chosen.remove(subject.path)
        elif not self._refuse(subject):
            self._chosen.append(subject.path)
        self._show()

    def action_pin(self) -> None:
        """Makes what is at the cursor the reference; chooses it, where it wasn't."""
        subject = self.query_one(ChoosePane).at_cursor
        if subject is None or self._refuse(subject):
            return
        if subject.path not in self._chosen:
            self._chosen.append(subject.path)
        self._pinned = subject.path
        self._show()

    def _refuse(self, subject: Subject) -> bool:
        if subject.is_live:
            self.say(f"{subject.title} is under way: it has curves (m), and no figures yet.")
        elif subject.problem:
            self.fail(f"{subject.title} can't be compared. {subject.problem}")
        return bool(subject.problem) and not subject.is_live

    def action_next(self) -> None:
        if isinstance(pane := self._pane(), PagedPane):
            pane.next()

    def action_all_settings(self) -> None:
        if isinstance(pane := self._pane(), SettingsTable):
            pane.toggle_all()

    def action_copy(self) -> None:
        """Copies the table: the list where it has the focus, else the one beside it."""
        chooser, pane = self.query_one(ChoosePane), self._pane()
        table: DataTable[Any] = chooser.table if pane is None or chooser.has_focus_within else pane.table
        copy(table)
