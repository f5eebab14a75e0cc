"""What a run has measured, in the forms that result panes show: from its events, and once it's there from its
`result.json`. No Textual here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.entries import AttackEntry, CertificateEntry, Row
from kerasrobust.records import Result
from kerasrobust.runs import read_json
from kerasrobust.show.corrupted import Cell, CorruptionMap
from kerasrobust.show.figures import (
    attack_name,
    by_network,
    format_accuracy,
    format_budget,
    format_count,
    format_images,
    format_interval,
)
from kerasrobust.show.narrate import is_synthetic
from kerasrobust.show.summaries import summarize
from tui.read.overview import accuracies, accuracy_range, latest, one, stamp_of
from tui.read.state import RunState


@dataclass(frozen=True)
class Measured:
    """What there is to show of a run, parsed.

    Attributes:
        rows: of a study's table, or of one model's under several threats.
        corruptions: the map of the cells so far.
        certificate: what randomized smoothing certified.
        curves: attacks with accuracy over the radius, and black boxes over their queries; only of a result.
        left_out: what an assessment hasn't looked at, and why.
        summary: the result in a few sentences; empty while the run goes on.
        figures: its accuracies in one line; `about` on what they were measured.
        synthetic: whether the images are generated.
    """

    rows: tuple[Row, ...] = ()
    corruptions: CorruptionMap | None = None
    certificate: CertificateEntry | None = None
    curves: tuple[AttackEntry, ...] = ()
    left_out: tuple[str, ...] = ()
    summary: str = ""
    figures: str = ""
    about: str = ""
    synthetic: bool = False

    @property
    def is_assessment(self) -> bool:
        """Whether the rows are those of one model under several threats, each with its own number of images."""
        return bool(self.rows) and self.rows[-1].examples is not None


class ResultFile:
    """The `result.json` of the run in a folder, read again only when it has changed.

    Example:
        >>> ResultFile(Path("runs/demo")).read().summary
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "result.json"
        self._stamp: object = None
        self._found: Measured | None = None

    def read(self) -> Measured | None:
        """Returns what the file holds; None where there is none, or nothing that can be read."""
        stamp = stamp_of(self._path)
        if stamp != self._stamp:
            self._stamp, record = stamp, read_json(self._path)
            self._found = None if record is None else of_result(Result.parse(record))
        return self._found


def of_result(result: Result) -> Measured:
    """Returns what there is to show of a result."""
    return Measured(
        rows=result.rows or (),
        corruptions=CorruptionMap.parse(result.corruptions),
        certificate=result.certificate,
        curves=tuple(entry for entry in (*result.attacks, *result.curves) if entry.curve or entry.query_curve),
        left_out=result.left_out,
        summary=summarize(result),
        figures=_figures(result),
        about=_about(result),
        synthetic=result.data.synthetic,
    )


def _figures(result: Result) -> str:
    clean, robust = accuracies(result)
    if result.rows and result.rows[-1].examples is not None:
        return _fragility(result.rows)
    if result.rows is not None:  # Of several networks.
        return _in_a_line(accuracy_range(clean), accuracy_range(robust))
    strongest = min(result.attacks, key=lambda entry: one(entry.robust_accuracy) or (2.0,), default=None)
    under = ""
    if len(result.attacks) == 1 and strongest is not None:
        budget = format_budget(strongest.epsilon, strongest.norm)
        under = f" under {attack_name(strongest.name)} {budget}".rstrip()
    elif result.attacks:
        under = f" under {len(result.attacks)} attacks"
    corruptions = CorruptionMap.parse(result.corruptions)
    return _in_a_line(
        _with_interval(result.clean_accuracy, result.clean_interval),
        _with_interval(result.robust_accuracy, result.robust_interval),
        under,
        "" if corruptions is None else _with_interval(corruptions.mean_accuracy, corruptions.interval),
    )


def _fragility(rows: Sequence[Row]) -> str:
    """Returns the first model's accuracy as it is, and under the worst of the norms, or else the worst attack."""
    groups = by_network(rows)
    name, own = next(iter(groups.items()))
    attacked = [row for row in own if row.attack not in (None, "corruptions", "certified")]
    worst = min(attacked, key=lambda row: (row.attack != "union", one(row.accuracy) or (2.0,)), default=None)
    robust = under = ""
    if worst is not None:
        robust = _with_interval(worst.accuracy, worst.interval)
        what = f"the worst of {worst.norm}" if worst.attack == "union" else attack_name(worst.attack or "")
        budget = "" if worst.attack == "union" else f" {format_budget(worst.epsilon, worst.norm)}".rstrip()
        under = f" under {what}{budget}, {format_count(worst.examples or 0, 'image')}"
    line = _in_a_line(_with_interval(own[0].accuracy, own[0].interval), robust, under)
    return f"{name}: {line}" if len(groups) > 1 else line


def _with_interval(accuracy: float | None, interval: Sequence[float] | None) -> str:
    if not one(accuracy):
        return ""
    bounds = format_interval(interval)
    return format_accuracy(accuracy) + (f" ({bounds})" if bounds else "")


def _in_a_line(clean: str, robust: str, under: str = "", corrupted: str = "") -> str:
    parts = (
        f"clean {clean}" if clean else "",
        f"robust {robust}{under}" if robust else "",
        f"under corruptions {corrupted}" if corrupted else "",
    )
    return "   ".join(filter(None, parts))


def _about(result: Result) -> str:
    networks = len({row.network for row in result.rows or ()})
    model = f"{networks} networks" if networks > 1 else result.model
    synthetic = " (synthetic)" if result.data.synthetic else ""
    return f"{model + ', ' if model else ''}{format_images(result)}{synthetic}"


def so_far(state: RunState) -> str:
    """Returns the accuracies that a run under way has reached, in one line; empty before there are any."""
    kind = state.started.kind if state.started is not None else ""
    return _in_a_line(*map(accuracy_range, latest(state, study=kind in ("study", "demo"))))


def of_events(state: RunState) -> Measured:
    """Returns what there is to show of a run that has no result yet.

    Example:
        >>> of_events(RunState())
        Measured(rows=(), corruptions=None, certificate=None, curves=(), left_out=(), summary='', figures='',
            about='', synthetic=False)
    """
    cells = [Cell.parse(vars(event)) for event in state.cells.values()]
    started, certified = state.started, state.certified
    return Measured(
        rows=tuple(Row.parse(vars(row)) for row in state.rows),
        corruptions=CorruptionMap.of(cells) if cells else None,
        certificate=CertificateEntry.parse(certified.certificate) if certified is not None else None,
        synthetic=started is not None and is_synthetic(started.config, started.kind),
    )
