"""What an audit has looked for, and what follows from it. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kerasrobust.events import Audited
from kerasrobust.records import Result
from kerasrobust.show.figures import format_count


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What an audit has looked for, in codes of findings.

    Attributes:
        checked: what was looked for.
        left_out: what wasn't, as it would have cost too much, there were too few images, or it couldn't be.
        doubts: what was found and is a reason for doubt.
        notes: what was found besides.
    """

    checked: list[str]
    left_out: list[str]
    doubts: list[str]
    notes: list[str]

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Yields a mark, the code and the outcome of each.

        Example:
            >>> list(Looked(checked=["rounding"], left_out=[], doubts=["rounding"], notes=[]).lines())
            [('✗', 'rounding', 'found')]
        """
        for code in self.checked:
            if code in self.doubts:
                yield "✗", code, "found"
            else:
                yield "✓", code, "a note, no reason for doubt" if code in self.notes else "nothing found"
        # What was seen without looking for it: of data, model or conventions.
        yield from (("✗", code, "found") for code in self.doubts if code not in self.checked)
        for code in self.left_out:
            yield "-", code, "not looked for"

    @property
    def verdict(self) -> str:
        """Whether anything speaks against the robust accuracy.

        Example:
            >>> Looked(checked=["rounding"], left_out=[], doubts=["rounding"], notes=[]).verdict
            'Verdict: 1 reason to doubt the robust accuracy (rounding).'
        """
        count, many = len(self.doubts), len(self.checked)
        if self.doubts:
            found = f"{format_count(count, 'reason')} to doubt the robust accuracy ({', '.join(self.doubts)})."
        elif not self.checked:
            found = "nothing was looked for, so nothing can be said."
        else:
            found = f"nothing speaks against the robust accuracy, after looking for {format_count(many, 'reason')}."
        if self.left_out:
            found += f" Not looked for: {', '.join(self.left_out)}."
        return f"Verdict: {found}"


def looked(event: Audited) -> Looked:
    """Returns what an event says that an audit has looked for."""
    return Looked(checked=event.checked, left_out=event.left_out, doubts=event.doubts, notes=event.notes)


def audit_of(result: Result) -> Looked:
    """Returns what the audit of a result has looked for: nothing where there was none."""
    by_kind: dict[bool, list[str]] = {True: [], False: []}
    for doubt in result.doubts:
        by_kind[doubt.severity == "info"].append(doubt.code)
    checked, left_out = (
        list(map(str, found)) if isinstance(found := result.audit.get(name), list) else []
        for name in ("checked", "left_out")
    )
    doubts, notes = (list(dict.fromkeys(codes)) for codes in (by_kind[False], by_kind[True]))
    return Looked(checked=checked, left_out=left_out, doubts=doubts, notes=notes)
