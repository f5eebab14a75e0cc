"""How states and figures are written in the UI: a sign and a word, so that they read without colours."""

from __future__ import annotations

import time
from pathlib import Path

from rich.text import Text

from kerasrobust.events import Finding, printable
from kerasrobust.marks import Marks
from kerasrobust.show.figures import format_budget, format_epsilon, format_seconds

_STATES = {
    "starting": ("◌", "dim"),
    "running": ("●", "bold"),
    "done": ("✓", ""),
    "skipped": ("✓", "dim"),
    "failed": ("✗", "bold"),
    "refused": ("✗", "bold"),
    "cancelled": ("■", ""),
    "stopped": ("■", ""),
    "died": ("†", "bold"),
}
_COLOURS = {"running": "blue", "done": "green", "failed": "red", "refused": "red", "died": "red", "cancelled": "yellow"}


def state_text(state: str) -> Text:
    """Returns a state with its sign."""
    sign, style = _STATES.get(state, ("?", ""))
    return Text(f"{sign} {state}", style=f"{style} {_COLOURS.get(state, '')}".strip(), no_wrap=True)


def starred(run: Path, marks: Marks) -> str:
    """Returns a run's name, with its star if it has one."""
    return f"{'★ ' if marks.starred else ''}{printable(run.name)}"


def said_of(marks: Marks) -> Text:
    """Returns a run's tags and note in a line; empty where there are none."""
    words = Text(" ".join(f"#{tag}" for tag in marks.tags), "bold")
    return words.append(f"{' ' if marks.tags and marks.note else ''}{' '.join(marks.note.split())}", "not bold italic")


def age_text(since: float) -> str:
    """Returns how long ago a moment was, in one unit."""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def clock_text(moment: float) -> str:
    """Returns the time of day of a moment; empty for a non-finite value."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(moment))
    except (OverflowError, ValueError, OSError):
        return ""


def bar_text(share: float | None, width: int) -> str:
    """Returns a progress bar of block characters with the percentage behind."""
    if share is None:
        return ""
    share = min(max(share, 0.0), 1.0)
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return f"{bar:░<{width}} {share:4.0%}"


def budget_text(epsilon: float | None, norm: str | None) -> str:
    """Returns an epsilon, with its norm where that isn't the usual one: tables have to fit 80 columns."""
    return format_epsilon(epsilon) if norm == "linf" else format_budget(epsilon, norm)


def finding_text(finding: Finding, found: int) -> Text:
    """Returns a finding in full, and how many more of them there are in the log."""
    more = f" (and {found - 1:,} more: l)" if found > 1 else ""
    return Text(f"! {finding.severity}{more}: {finding.message} [{finding.code}]", "bold")


def left_text(seconds: float | None) -> str:
    """Returns the time left; empty if it isn't known."""
    return "" if seconds is None else f"{format_seconds(max(0.0, seconds))} left"
