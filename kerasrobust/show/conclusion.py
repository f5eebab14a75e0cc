"""The tables at the end of a run, from what its events told. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from kerasrobust import entries, events
from kerasrobust.show import corrupted
from kerasrobust.show.audited import looked
from kerasrobust.show.heat import heat_table
from kerasrobust.show.narrate import is_synthetic
from kerasrobust.show.tables import Figure, attack_table, certificate_table, label_table, study_table, threat_table


class Conclusion:
    """Takes in all events, and makes tables of the figures among them.

    Example:
        >>> found = Conclusion()
        >>> for event in events:
        ...     found.add(event)
        >>> for table in found.tables():
        ...     console.print(table)
    """

    def __init__(self) -> None:
        self._rows: list[entries.Row] = []
        self._attacks: list[events.AttackFinished] = []
        self._whole: events.Evaluated | None = None
        self._audit: events.Audited | None = None
        self._labels: list[entries.LabelEntry] = []
        self._cells: list[corrupted.Cell | None] = []
        self._certificates: list[entries.CertificateEntry] = []
        self._synthetic = self._alone = False

    def add(self, event: events.Event) -> None:
        """Takes in one event; types that it doesn't know are ignored."""
        match event:
            case events.RunStarted():
                self._synthetic = is_synthetic(event.config, event.kind)
                # Its trials ask different questions, each by itself.
                self._alone = event.kind == "randomness"
            case events.Row():
                entries.add_row(self._rows, entries.Row.parse(vars(event)))
            case events.AttackFinished():
                self._attacks.append(event)
            case events.Evaluated():
                self._whole = event
            case events.Audited():
                self._audit = event
            case events.LabelFinished():
                self._labels.append(entries.LabelEntry.parse(vars(event)))
                # The table of attacks is that of all labels together.
                self._attacks = [attack for attack in self._attacks if attack.stage != event.stage]
            case events.CorruptionFinished():
                self._cells.append(corrupted.Cell.parse(vars(event)))
            case events.Certified():
                self._certificates.append(entries.CertificateEntry.parse(event.certificate))

    def tables(self, *, wide: bool = True) -> Iterator[Table]:
        """Yields the tables; those that would fill 80 columns are closer where the terminal isn't `wide`."""
        synthetic = self._synthetic
        if self._cells:
            yield heat_table(corrupted.CorruptionMap.of(self._cells), synthetic=synthetic)
        tables = []
        if self._rows and self._rows[-1].examples is not None:
            tables.append(threat_table(self._rows, synthetic=synthetic))
        elif self._rows:
            tables.append(study_table(self._rows, synthetic=synthetic))
        elif self._attacks:
            whole = self._whole
            if any(whole is None or attack.stage != whole.stage for attack in self._attacks):
                whole = None
            clean = Figure(whole.clean_accuracy, whole.clean_interval) if whole else None
            together = Figure(whole.robust_accuracy, whole.interval) if whole and not self._alone else None
            tables.append(attack_table(self._attacks, synthetic=synthetic, clean=clean, together=together))
        if tables and self._labels:
            tables.append(label_table(self._labels, synthetic=synthetic))
        tables += [certificate_table(found, synthetic=synthetic) for found in self._certificates]
        for table in tables:
            table.padding = (0, 1) if wide else 0
            yield table

    def lines(self) -> Iterator[str]:
        """Yields what an audit has looked for, a line each, and its verdict."""
        if self._audit is not None:
            found = looked(self._audit)
            yield from (f"{mark} {code}: {outcome}" for mark, code, outcome in found.lines())
            yield found.verdict
