"""Figures and settings of several runs or models: a table each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.events import Click, Resize
from textual.message import Message
from textual.widgets import DataTable, Static
from textual.worker import get_current_worker

from kerasrobust.entries import Row
from kerasrobust.errors import InputError
from kerasrobust.show.figures import attack_name, by_network, format_accuracy, format_interval, made_on, with_noise
from kerasrobust.show.pairs import keeps_images, pairs, sentence
from tui.panes.results.panes import ResultPanes
from tui.read.measured import Measured
from tui.read.subject import Subject, difference, differing
from tui.widgets.layout import FULL
from tui.widgets.words import budget_text


def short(name: str, width: int) -> str:
    """Returns a name cut in its middle, as runs differ at the end most often.

    Example:
        >>> short("demo-20261122-190141", 14)
        'demo-20…190141'
    """
    if len(name) <= width:
        return name
    return f"{name[: width // 2]}…{name[len(name) - (width - 1) // 2 :]}"


def synthetic_note(subjects: Sequence[Subject]) -> str:
    """Returns a sentence where figures come from generated pictures; nothing where none do."""
    named = ", ".join(subject.title for subject in subjects if subject.synthetic)
    return f"Synthetic data ({named}): the figures say nothing about real images." if named else ""


@dataclass(eq=False)
class PairedRead(Message):
    """Images were compared, or some of them."""

    turn: int
    sentences: list[str]


class ComparedPane(Vertical):
    """A table of the subjects that are chosen, the reference first."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._subjects: list[Subject] = []

    @property
    def table(self) -> DataTable[Any]:
        return self.query_one(DataTable)

    def show(self, subjects: list[Subject]) -> None:
        if subjects != self._subjects:
            self._subjects = subjects
            self._fill()

    def _fill(self) -> None:
        raise NotImplementedError


class PagedPane(ComparedPane):
    """One page at a time, under a line of class `next` that says which; a click on it goes to the next."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._pages: list[Any] = []
        self._at = 0

    def next(self) -> None:
        if self._pages:
            self._at = (self._at + 1) % len(self._pages)
            self._fill()

    def on_click(self, event: Click) -> None:
        if event.widget is self.query_one(".next"):
            self.next()

    def _which(self) -> str:
        return f"  ({self._at + 1} of {len(self._pages)}; n or a click here: next)" if len(self._pages) > 1 else ""


class FiguresPane(ComparedPane):
    """One line for each network and attack, with the difference to the reference; McNemar's test below."""

    DEFAULT_CSS = """
    FiguresPane > .note { height: auto; padding: 0 1; }
    FiguresPane > VerticalScroll { height: auto; max-height: 6; border-top: solid $panel; padding: 0 1; }
    FiguresPane > VerticalScroll > Static { height: auto; }
    """

    _turn = 0

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="note dim")
        yield DataTable[Any](cursor_type="row", zebra_stripes=True, cell_padding=0)
        with VerticalScroll(can_focus=False):
            yield Static("", markup=False, id="paired")

    def on_resize(self, event: Resize) -> None:
        wide = event.size.width >= FULL
        if wide != self.has_class("wide"):
            self.set_class(wide, "wide")
            self._fill()

    def show(self, subjects: list[Subject]) -> None:
        if subjects == self._subjects:
            return
        super().show(subjects)
        self._turn += 1
        self.query_one("#paired", Static).update(
            "comparing images..." if len(subjects) > 1 else "Choose another one for differences and McNemar's test."
        )
        if len(subjects) > 1:
            self._compare(self._turn, subjects)

    def _fill(self) -> None:
        if not self._subjects:
            return
        reference, *others = self._subjects
        notes = [synthetic_note(self._subjects)]
        other_data = ", ".join(subject.title for subject in others if subject.data != reference.data)
        if other_data:
            notes.append(f"No differences for {other_data}: other data than {reference.title}.")
        other_images = ", ".join(
            subject.title for subject in others if subject.data == reference.data and subject.images != reference.images
        )
        if other_images:
            notes.append(f"Measured on other images than {reference.title}: {other_images}.")
        note = self.query_one(".note", Static)
        note.update("\n".join(filter(None, notes)))
        note.display = any(notes)
        table = self.table
        table.clear(columns=True)
        table.add_columns(*(f"{name} " for name in ("of", "network", "attack", "eps.", "acc.", "95 %", "points")))
        width = 30 if self.has_class("wide") else 14
        for subject in self._subjects:
            for index, (name, row) in enumerate(_ordered(subject)):
                title = short(f"★ {subject.title}" if subject is reference else subject.title, width)
                left = (title if index == 0 else "", name, _attack(row), budget_text(row.epsilon, row.norm))
                points = difference(row, reference) if subject in others and subject.data == reference.data else None
                right = (
                    format_accuracy(row.accuracy),
                    format_interval(row.interval),
                    ("ref." if subject is reference else "") if points is None else f"{100 * points:+.1f}",
                )
                table.add_row(
                    *(Text(f"{cell} ", style="" if row.attack else "bold", no_wrap=True) for cell in left),
                    *(Text(f"{cell} ", justify="right") for cell in right),
                )

    @work(thread=True, exclusive=True)
    def _compare(self, turn: int, subjects: list[Subject]) -> None:
        """Reads the images of runs, which takes seconds for thousands."""
        worker, sentences = get_current_worker(), list[str]()
        for text in paired_sentences(subjects, lambda: worker.is_cancelled):
            sentences.append(text)
            self.post_message(PairedRead(turn, [*sentences, "comparing images..."]))
        self.post_message(PairedRead(turn, sentences))

    def on_paired_read(self, message: PairedRead) -> None:
        if message.turn == self._turn:  # Not of what was chosen before.
            self.query_one("#paired", Static).update("\n".join(message.sentences))


def _ordered(subject: Subject) -> Iterator[tuple[str, Row]]:
    """Yields the rows by network, with its name at the first of each."""
    for name, group in by_network(subject.rows).items():
        for index, row in enumerate(group):
            yield name if index == 0 else "", row


def _attack(row: Row) -> str:
    eot = row.eot or 1
    name = made_on(attack_name(row.attack or "clean"), row.surrogate)
    return with_noise(f"{name}{f' EOT {eot}' if eot > 1 else ''}", row.noise)


def paired_sentences(subjects: Sequence[Subject], is_cancelled: Callable[[], bool]) -> Iterator[str]:
    """Yields what McNemar's test says of each subject and the first, or why it can't be made."""
    if len(subjects) < 2:
        return
    reference, *others = subjects
    lacking = [subject for subject in subjects if not keeps_images(subject.path)]
    for other in others:
        if is_cancelled():
            return
        if reference not in lacking and other not in lacking:
            yield from _paired_sentences(reference, other)
    if lacking:
        named = "the reference" if lacking == [reference] else ", ".join(subject.title for subject in lacking)
        kinds = "an attack, a training or an assessment"
        yield f"No McNemar test with {named}: only runs of {kinds} keep what became of each image."


def _paired_sentences(first: Subject, second: Subject) -> list[str]:
    try:
        # In this order, as differences are relative to the reference.
        found = pairs(second.path, first.path)
    except InputError as error:
        return [f"{first.title} and {second.title}: {error}"]
    except OSError:
        return [f"{first.title} and {second.title}: their images or results can't be read."]
    if not found:
        return [f"{first.title} and {second.title} were measured on other images: no McNemar test."]
    return [sentence(second.title, first.title, pair) for pair in found]


class SettingsTable(ComparedPane):
    """One column for each subject, and the rows where they differ."""

    DEFAULT_CSS = """
    SettingsTable > .note { height: auto; padding: 0 1; }
    """

    _all = False

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="note dim")
        yield DataTable[Any](cursor_type="row", zebra_stripes=True, fixed_columns=1)

    def toggle_all(self) -> None:
        self._all = not self._all
        self._fill()

    def _fill(self) -> None:
        rows = differing(self._subjects)
        unequal = sum(differs for *_, differs in rows)
        alone = len(self._subjects) < 2
        if alone:
            note = "All settings of the only one that is chosen. Choose another one to see how they differ."
        elif self._all:
            note = f"All {len(rows)} settings; {unequal} differ (≠). o shows only those."
        else:
            note = f"{unequal} of {len(rows)} settings differ. o shows the others as well."
        self.query_one(".note", Static).update(note)
        table = self.table
        table.clear(columns=True)
        table.add_column("setting")
        for index, subject in enumerate(self._subjects):
            table.add_column(Text(short(f"★ {subject.title}" if index == 0 else subject.title, 30)))
        for name, values, differs in rows:
            if differs or alone or self._all:
                table.add_row(
                    Text(f"≠ {name}" if differs and self._all else name, style="bold" if differs else "dim"),
                    *(Text(value or "-", no_wrap=True) for value in values),
                )


class StudiesPane(PagedPane):
    """The tables, maps and certificates of those that are chosen."""

    DEFAULT_CSS = """
    StudiesPane > .next { height: auto; padding: 0 1; }
    StudiesPane > ResultPanes { height: 1fr; }
    """

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="next")
        yield ResultPanes()

    @property
    def table(self) -> DataTable[Any]:
        shown = self.query_one(ResultPanes).shown
        return super().table if shown is None else shown.query_one(DataTable)

    def _fill(self) -> None:
        line, panes = self.query_one(".next", Static), self.query_one(ResultPanes)
        pages = [(subject, page) for subject in self._subjects for page in panes.pages(subject.found)]
        if pages != self._pages:
            self._pages, self._at = pages, 0
        if not pages:
            panes.open(None, Measured())
            line.update("None of those chosen has a table of its own: studies, assessments and the like have one.")
            return
        subject, page = pages[self._at]
        text = Text(subject.title, "bold")
        title = f", {page.title}" if len(panes.pages(subject.found)) > 1 else ""
        text.append(f", {subject.images}{title}{self._which()}", "not bold")
        line.update(text)
        panes.open(page, subject.found)
