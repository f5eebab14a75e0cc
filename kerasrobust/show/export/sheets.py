"""The tables of a run: as records for CSV, with every digit, and as `show` draws them for LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from kerasrobust.records import Result
from kerasrobust.show.compare import figures, figures_table
from kerasrobust.show.corrupted import CorruptionMap
from kerasrobust.show.export.metrics import epochs
from kerasrobust.show.export.subject import Part, Subject, free, slug
from kerasrobust.show.heat import heat_table
from kerasrobust.show.tables import (
    Figure,
    attack_table,
    certificate_table,
    label_table,
    make_table,
    study_table,
    threat_table,
)

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a table of the console says: its headings and lines in words, without bars and without empty columns.

    Attributes:
        right: whether each column stands to the right, as figures do.
        ruled: the lines that a rule follows.
        note: what stands below it.
    """

    heads: list[str]
    right: list[bool]
    rows: list[list[str]]
    ruled: set[int]
    note: str

    @classmethod
    def of(cls, table: Table) -> Drawn:
        # A bar that shows a figure once more has no words, and a column where nothing applies takes room.
        columns = [
            column
            for column in table.columns
            if all(isinstance(cell, str | Text) for cell in column.cells) and any(column.cells)
        ]
        rows = zip(*(column.cells for column in columns), strict=True)
        return cls(
            heads=[" ".join(str(column.header).replace("-\n", "").split()) for column in columns],
            right=[column.justify == "right" for column in columns],
            rows=[[str(cell).strip() for cell in cells] for cells in rows],
            ruled={place for place, row in enumerate(table.rows[:-1]) if row.end_section},
            note=str(table.caption or ""),
        )


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of a run.

    Attributes:
        name: of its file, without the ending.
        title: for people.
        records: its lines by name, each value as it was measured: shares in [0, 1], radii of images in [0, 1], seconds.
        table: the same as the console draws it; None for what is no table of a paper, such as the points of a curve.
    """

    name: str
    title: str
    records: Sequence[Record]
    table: Table | None = None


def sheets(subject: Subject) -> list[Sheet]:
    """Returns the tables that a run or a saved model has, none without lines."""
    found, card = _made(_RUN, subject), subject.card
    for number, (name, one) in enumerate(card.models if isinstance(card, Result) else [("", card)]):
        for sheet in _made(_MODEL, replace(subject, card=one)):
            if name:
                # Those of the first model have the names that they have where it is alone.
                file = free(slug(f"{sheet.name} {name}"), [known.name for known in found]) if number else sheet.name
                sheet = replace(sheet, name=file, title=f"{sheet.title}: {name}")
            found.append(sheet)
    return found


def _made(makers: Iterable[Maker], subject: Subject) -> list[Sheet]:
    return [sheet for make in makers for sheet in make(subject) if sheet.records]


def csv_parts(subject: Subject) -> list[Part]:
    """Returns a CSV file for each table."""
    return [
        Part.of_text(f"{sheet.name}.csv", f"{sheet.title}: {_lines(sheet.records)}", to_csv(sheet.records))
        for sheet in sheets(subject)
    ]


def _lines(records: Sequence[Record]) -> str:
    return f"{len(records):,} line{'' if len(records) == 1 else 's'}"


def to_csv(records: Sequence[Record]) -> str:
    r"""Returns records as CSV, with one line of names: an interval is two columns, a setting has a dotted name.

    What is missing is empty, infinity `inf`, and numbers have all of their digits.

    Example:
        >>> to_csv([{"attack": "pgd", "interval": (0.25, 0.5)}, {"attack": "cw", "settings": {"steps": 9}}])
        'attack,interval_low,interval_high,settings.steps\npgd,0.25,0.5,\ncw,,,9\n'
    """
    lines = [dict(_flat(record)) for record in records]
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _flat(record: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif key.endswith("interval"):
            low, high = value or ("", "")
            yield from ((f"{name}_low", low), (f"{name}_high", high))
        elif isinstance(value, list | tuple):
            yield name, " ".join(map(str, value))
        else:
            yield name, "" if value != value else value  # NaN: nothing was measured.


def _results(subject: Subject) -> Iterator[Sheet]:
    """Yields one line an attack, as `compare` has them; those of a study stand in its own table."""
    if subject.raw and not (isinstance(subject.card, Result) and subject.card.rows is not None):
        lines = list(figures(subject.folder))
        yield Sheet(
            name="results",
            title="Clean and robust accuracy",
            records=lines,
            table=figures_table(f"Clean and robust accuracy of {subject.name}", lines),
        )


def _study(subject: Subject) -> Iterator[Sheet]:
    if isinstance(subject.card, Result) and subject.card.rows:
        rows, synthetic = subject.card.rows, subject.card.data.synthetic
        records = [{"network": row.network} | vars(row) for row in rows]
        if rows[-1].examples is None:
            yield Sheet(name="study", title="Study", records=records, table=study_table(rows, synthetic=synthetic))
        else:
            table = threat_table(rows, synthetic=synthetic)
            yield Sheet(name="threats", title="Accuracy under several threats", records=records, table=table)


def _classes(subject: Subject) -> Iterator[Sheet]:
    entries = subject.card.by_class if isinstance(subject.card, Result) else ()
    attacked = any(entry.robust_accuracy is not None for entry in entries)
    own = ("robust_accuracy", "robust_interval")
    records = [{name: value for name, value in vars(entry).items() if attacked or name not in own} for entry in entries]
    title = f"Unchanged images{', and under attack' if attacked else ''}, class by class"
    yield Sheet(name="classes", title=title, records=records)


def _confusion(subject: Subject) -> Iterator[Sheet]:
    """Yields one line for each true and predicted class that occur together: of 1,000 classes most pairs don't."""
    card = subject.card
    if not isinstance(card, Result):
        return
    names = [entry.name for entry in card.by_class]
    for file, words, counts in (
        ("confusion", "Unchanged images", card.confusion),
        ("confusion-under-attack", "Attacked images", card.confusion_under_attack),
    ):
        records = [
            {"class": name, "predicted": other, "images": count}
            for name, row in zip(names, counts if len(counts) == len(names) else [], strict=False)
            for other, count in zip(names, row, strict=False)
            if count
        ]
        yield Sheet(name=file, title=f"{words} by true and predicted class", records=records)


def _calibration(subject: Subject) -> Iterator[Sheet]:
    card = subject.card
    if isinstance(card, Result) and card.calibration_error is not None:
        record = {"expected_calibration_error": card.calibration_error, "interval": card.calibration_interval}
        yield Sheet(name="calibration", title="Calibration on unchanged images", records=[record])


def _compared(subject: Subject) -> Iterator[Sheet]:
    """Yields one line for each two models and threat; results without their figures have the sentences alone."""
    card = subject.card
    if not isinstance(card, Result):
        return
    known = [vars(pair) for pair in card.pairs] if len(card.pairs) == len(card.compared) else [{}] * len(card.compared)
    records = [{**pair, "comparison": words} for pair, words in zip(known, card.compared, strict=True)]
    yield Sheet(name="compared", title="Models on the same images, by McNemar's exact test", records=records)


def _certificate(subject: Subject) -> Iterator[Sheet]:
    found = subject.card.certificate if isinstance(subject.card, Result) else None
    if found is None:
        return
    known = {"noise": found.noise, "sigma": found.sigma, "norm": found.norm, "samples": found.samples}
    for name, title, points in (
        ("certificate", "Certified accuracy", found.points),
        ("accuracy-over-radius", "Certified accuracy over the radius", found.curve),
    ):
        records = [
            known | {"radius": at, "accuracy": accuracy, "interval": (low, high)} for at, accuracy, low, high in points
        ]
        table = certificate_table(found, synthetic=subject.card.data.synthetic) if name == "certificate" else None
        yield Sheet(name=name, title=title, records=records, table=table)


def _corruptions(subject: Subject) -> Iterator[Sheet]:
    found = CorruptionMap.parse(subject.card.corruptions) if isinstance(subject.card, Result) else None
    if found is not None:
        table = heat_table(found, synthetic=subject.card.data.synthetic)
        records = [vars(cell) for cell in found.cells.values()]
        yield Sheet(name="corruptions", title="Accuracy by corruption and severity", records=records, table=table)
        names = ("mean_accuracy", "interval", "mce", "mce_interval", "relative_mce", "relative_mce_interval")
        whole = {name: getattr(found, name) for name in (*names, "reference", "reference_clean")}
        yield Sheet(name="corruption-means", title="Means over corruptions", records=[whole])
        errors = [
            {
                "kind": kind,
                "accuracy": found.mean_of(kind),
                "ce": found.ce_of(kind),
                "relative_ce": found.relative.get(kind),
            }
            for kind in found.kinds
        ]
        yield Sheet(name="corruption-errors", title="Corruption errors by kind", records=errors)


def _attacks(subject: Subject) -> Iterator[Sheet]:
    shown = subject.card.figures
    curves = ("curve", "query_curve")
    records = [{name: value for name, value in vars(entry).items() if name not in curves} for entry in shown]
    card = subject.card
    table = attack_table(
        shown,
        synthetic=card.data.synthetic,
        clean=Figure(card.clean_accuracy, card.clean_interval),
        together=Figure(card.robust_accuracy, card.robust_interval),
    )
    yield Sheet(name="attacks", title="Attacks", records=records, table=table)
    for name, over, title in (("curve", "epsilon", "epsilon"), ("query_curve", "queries", "queries")):
        points = [
            {"attack": entry.name, "norm": entry.norm, over: at, "accuracy": accuracy, "interval": (low, high)}
            for entry in (*subject.card.entries, *(subject.card.curves if isinstance(subject.card, Result) else ()))
            for at, accuracy, low, high in getattr(entry, name)
        ]
        yield Sheet(name=f"accuracy-over-{over}", title=f"Accuracy over {title}", records=points)


def _labels(subject: Subject) -> Iterator[Sheet]:
    labels = subject.card.labels if isinstance(subject.card, Result) else ()
    table = label_table(labels, synthetic=subject.card.data.synthetic)
    yield Sheet(name="labels", title="Labels, each attacked alone", records=list(map(vars, labels)), table=table)


def _findings(subject: Subject) -> Iterator[Sheet]:
    doubts = subject.card.doubts
    table = make_table(synthetic=False)
    table.add_column("code", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("finding")
    for doubt in doubts:
        table.add_row(doubt.code, doubt.severity, doubt.message)
    yield Sheet(name="findings", title="Findings", records=[doubt._asdict() for doubt in doubts], table=table)


def _epochs(subject: Subject) -> Iterator[Sheet]:
    yield Sheet(name="epochs", title="Epochs of training", records=epochs(subject))


Maker = Callable[[Subject], Iterable[Sheet]]

_RUN: tuple[Maker, ...] = (_results, _study, _compared, _findings, _epochs)
"""What makes the tables of a run as a whole. Another command's table is one more function here, or below."""

_MODEL: tuple[Maker, ...] = (
    _classes, _confusion, _calibration, _certificate, _corruptions, _attacks, _labels,
)  # fmt: skip
"""What makes those of each of the models that were measured together."""
