"""The table of runs, filtered and in an order, and two lines on the one at the cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from textual.widgets import DataTable, Static

from tui.read.overview import Overview, accuracy_range
from tui.widgets.table import bring_up_to_date
from tui.widgets.words import age_text, bar_text, left_text, said_of, starred, state_text

_COLUMNS = ("state", "run", "model", "data", "clean", "robust", "at work", "age")
_WORTH = ("run", "state", "model", "robust", "clean")
"""Columns in the order in which they get room, before names are whole; what is missing is in the lines below."""
_MORE = ("at work", "data", "age")
"""Columns that get room only after that."""
_NAMES = (("run", 16), ("model", 10), ("run", 24), ("model", 24), ("run", 48), ("model", 48))
"""How names get room, in turn; longer ones are cut, with an ellipsis, where nothing else can give way."""
_FIXED = {"state": 11, "clean": 6, "robust": 6, "at work": 13, "age": 6}
"""Widths that don't depend on what stands there; ranges of accuracies take more."""
_DATA = 24
_GAP = 1

ORDERS: dict[str, tuple[str, Callable[[Overview], Any]]] = {
    "age": ("newest first", lambda run: -run.began),
    "run": ("by name", lambda run: run.path.name),
    "state": ("by state", lambda run: (run.state != "running", run.state)),
    "model": ("by model", lambda run: run.model),
    "data": ("by data", lambda run: run.data),
    "clean": ("by clean accuracy", lambda run: -max(run.clean, default=-1.0)),
    "robust": ("by robust accuracy", lambda run: -max(run.robust, default=-1.0)),
    "tag": ("by tag", lambda run: (not run.marks.tags, run.marks.tags[:1])),
}
"""Those of a column, which stand for its heading too, and by the first tag, those without any last."""

ARCHIVED = "archived"
"""What is shown instead of a state: the runs that are left out otherwise."""


def fitting(needs: Mapping[str, int], room: int) -> dict[str, int]:
    """Returns the columns that fit into so much room with their widths, in the order in which they stand.

    Args:
        needs: the width of each column in which nothing of it is cut; 0 for what nothing stands in.
        room: columns of the screen.

    Example:
        >>> needs = {"state": 11, "run": 8, "model": 7, "data": 7, "clean": 6, "robust": 6, "at work": 13, "age": 6}
        >>> fitting(needs, 50)
        {'state': 11, 'run': 8, 'model': 7, 'clean': 6, 'robust': 6}
    """
    widths: dict[str, int] = {}

    def left() -> int:
        return room - sum(widths.values()) - _GAP * len(widths)

    least = dict(reversed(_NAMES))
    for name in _WORTH:
        width = min(needs[name], least.get(name, needs[name]))
        if left() >= width + _GAP or name == "run":
            widths[name] = width
    for name, most in _NAMES:
        if name in widths:
            widths[name] += max(0, min(min(needs[name], most) - widths[name], left()))
    for name in _MORE:
        width = min(needs[name], _DATA)
        if not width:
            continue
        if left() < width + _GAP:
            break
        widths[name] = width
    return {name: widths[name] for name in _COLUMNS if name in widths}


class RunsTable(DataTable[Any]):
    """One row for each run that fits the filters.

    Attributes:
        order: the column that runs are ordered by, a key of `ORDERS`.
        only: the state of those that are shown, or `ARCHIVED`; empty for all that aren't archived.
    """

    def __init__(self, id: str) -> None:
        super().__init__(cursor_type="row", id=id, cell_padding=0)
        self.order = "age"
        self.only = ""
        self._widths: dict[str, int] = {}
        self._runs: Sequence[Overview] = ()
        self._shown: list[Overview] = []
        self._awaited: Path | None = None

    def await_run(self, path: Path) -> None:
        """Puts the cursor on a run, as soon as it's there."""
        self._awaited = path

    def show(self, runs: Sequence[Overview], fits: Callable[[str], bool]) -> None:
        before = self.at_cursor
        self._runs = runs
        if self.only == ARCHIVED and not any(run.marks.archived for run in runs):
            self.only = ""
        fitting_ones = [run for run in runs if self._is_asked_for(run) and fits(run.words)]
        self._shown = sorted(fitting_ones, key=ORDERS[self.order][1])
        tagged = self.order == "tag"
        rows = {str(run.path): _cells(run, tagged) for run in self._shown}
        at_work = any(run.share is not None or run.state in ("running", "starting") for run in runs)
        self._set_columns(_needs((_cells(run, tagged) for run in runs), is_any_at_work=at_work))
        names = [str(key.value) for key in self.columns]
        bring_up_to_date(self, {path: [cells[name] for name in names] for path, cells in rows.items()})
        there = {run.path for run in runs}
        target = self._awaited if self._awaited in there else before.path if before is not None else None
        if self._awaited in there:
            self._awaited = None
        paths = [run.path for run in self._shown]
        if target in paths and paths.index(target) != self.cursor_row:
            self.move_cursor(row=paths.index(target), animate=False)

    def _is_asked_for(self, run: Overview) -> bool:
        if run.marks.archived or self.only == ARCHIVED:
            return run.marks.archived and self.only == ARCHIVED
        return self.only in ("", run.state)

    def _set_columns(self, needs: Mapping[str, int]) -> None:
        scrolls = len(self._shown) >= self.size.height > 0
        room = self.size.width - (self.styles.scrollbar_size_vertical if scrolls else 0)
        widths = fitting(needs, room)
        if self.size.width and widths != self._widths:
            self._widths = widths
            self.clear(columns=True)
            for name, width in widths.items():
                self.add_column(name, key=name, width=width + _GAP)

    @property
    def title(self) -> str:
        """What is shown, in a few words."""
        archived = sum(run.marks.archived for run in self._runs)
        of = archived if self.only == ARCHIVED else len(self._runs) - archived
        hidden = of - len(self._shown)
        words = [f"only {self.only}"] if self.only else []
        words.append(f"{of} run" + ("" if of == 1 else "s"))
        words += [f"{hidden} hidden"] if hidden else []
        words += [f"{archived} archived"] if archived and self.only != ARCHIVED else []
        return ", ".join([*words, ORDERS[self.order][0]])

    @property
    def at_cursor(self) -> Overview | None:
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    def next_order(self) -> None:
        orders = list(ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]

    def next_state(self) -> None:
        """Takes the next state, of those that there are, and what is archived; after the last one all."""
        states = ["", *sorted({run.state for run in self._runs if not run.marks.archived})]
        states += [ARCHIVED] if any(run.marks.archived for run in self._runs) else []
        self.only = states[(states.index(self.only) + 1) % len(states)] if self.only in states else ""


def _needs(rows: Any, *, is_any_at_work: bool) -> dict[str, int]:
    """Returns how wide each column has to be so that nothing in it is cut."""
    needs = {name: max(len(name), _FIXED.get(name, 0)) for name in _COLUMNS}
    for cells in rows:
        for name, cell in cells.items():
            needs[name] = max(needs[name], cell.cell_len)
    if not is_any_at_work:
        needs["at work"] = 0
    return needs


def _cells(run: Overview, tagged: bool) -> dict[str, Text]:
    """Returns a run's cells; `tagged`: its name with the tag that it stands under."""
    tag = f" #{run.marks.tags[0]}" if tagged and run.marks.tags else ""
    return {
        "state": state_text(run.state),
        "run": Text(f"{starred(run.path, run.marks)}{tag}", no_wrap=True, overflow="ellipsis"),
        "model": Text(run.model.rpartition("/")[2], no_wrap=True, overflow="ellipsis"),
        "data": Text(
            f"{run.data.rpartition('/')[2]}{' *' if run.synthetic else ''}", no_wrap=True, overflow="ellipsis"
        ),
        "clean": Text(accuracy_range(run.clean), justify="right"),
        "robust": Text(accuracy_range(run.robust), justify="right"),
        "at work": Text(bar_text(run.share, 8)),
        "age": Text(age_text(run.began), justify="right"),
    }


class RunDetails(Static):
    """Two lines on a run."""

    DEFAULT_CSS = "RunDetails { text-wrap: nowrap; text-overflow: ellipsis; }"

    def show(self, run: Overview | None, otherwise: str) -> None:
        if run is None:
            self.update(otherwise)
            return
        data = f"on {run.data}{', synthetic data (*)' if run.synthetic else ''}" if run.data else ""
        words = " ".join(filter(None, (run.kind, run.model, data)))
        line = Text(f"{words}, begun {age_text(run.began)} ago", no_wrap=True, overflow="ellipsis")
        doing = Text("  ".join(filter(None, (run.doing, bar_text(run.share, 8), left_text(run.seconds_left)))), "dim")
        said = said_of(run.marks)
        # What is under way moves; afterwards one's own words say more than where everything is.
        parts = [part for part in ((doing, said) if run.state == "running" else (said, doing)) if part]
        self.update(Text("\n").join([line, Text("  ").join(parts)]))
