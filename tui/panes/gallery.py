"""The adversarial examples of a run, as many as fit: image, perturbation, adversarial image, what the model says."""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from kerasrobust.errors import InputError
from kerasrobust.show.examples import read_pair
from tui.read.examples import OUTCOMES, Filters, Selection, Source, amplify, read_sources
from tui.read.state import RunState
from tui.widgets.captions import caption, distance, rate, verdict, what
from tui.widgets.filters import ClassChoice, FilterLine, Word
from tui.widgets.layout import FULL
from tui.widgets.picture import Picture, fit

if TYPE_CHECKING:
    import numpy as np

PERIOD = 1.0
"""Seconds between two looks for new files while a run goes on."""

FACTORS = (None, 1, 8, 32, 128)
"""Amplifications of the perturbation; None for the one that fills the range."""

_MOST = 6
"""Examples below each other, where there is room for them."""

_PATIENCE = 0.1
"""Seconds after which those that have been read are shown, while others are read."""

_CAPTIONS = 2
"""Lines below the pictures of an example."""

_NOTHING = (
    "No adversarial images yet. Attack runs, trainings and studies write some at the end of each attack stage, "
    "into examples.h5 or examples/ in the run's folder."
)


@dataclass(eq=False)
class Found(Message):
    """The run's files of examples were looked through."""

    sources: list[Source]
    problems: list[str]


@dataclass(eq=False)
class PairsRead(Message):
    """The images of the example at hand, and of those after it, were read; a message stands for what could not be."""

    examples: list[tuple[Source, int]]
    pairs: list[tuple[np.ndarray, np.ndarray] | str]


class Triptych(Vertical):
    """An image, the perturbation and the adversarial image side by side, with captions right below."""

    DEFAULT_CSS = """
    Triptych { height: auto; }
    Triptych > #pictures { height: 1fr; }
    Triptych Picture { width: 1fr; height: 100%; margin: 0 1 0 0; }
    Triptych > #captions { height: 2; }
    Triptych > #captions > Static { width: 1fr; height: 2; margin: 0 1 0 0; text-align: center; text-wrap: nowrap;
        text-overflow: ellipsis; }
    Triptych #adversarial, Triptych #after { margin: 0; }
    """

    def compose(self) -> ComposeResult:
        with Horizontal(id="pictures"):
            for name in ("original", "perturbation", "adversarial"):
                yield Picture(id=name)
        with Horizontal(id="captions"):
            for name in ("before", "change", "after"):
                yield Static("", id=name)

    @staticmethod
    def rows_of(x: np.ndarray, width: int, rows: int) -> int:
        """Returns how many rows the pictures take of so many that there are."""
        height, _ = fit(x.shape[0], x.shape[1], (width - 2) // 3, max(1, rows))
        return -(-height // 2)

    def show(
        self, source: Source, place: int, x: np.ndarray, x_adv: np.ndarray, factor: int | None, width: int, rows: int
    ) -> None:
        """Draws an example where there are `width` columns for the three, and `rows` for each."""
        picture, factor = amplify(x, x_adv, factor)
        for name, image in (("original", x), ("perturbation", picture), ("adversarial", x_adv)):
            self.query_one(f"#{name}", Picture).show(image)
        self.query_one("#pictures").styles.height = self.rows_of(x, width, rows)
        index = source.index
        after = rate(source, place, brief=width < FULL)
        for name, text in (
            ("before", caption(f"original: {index.class_name(int(index.y[place]))}", *verdict(index, place))),
            ("change", caption(f"perturbation{f' ×{factor}' if factor else ': none'}", "", distance(source, place))),
            ("after", caption(f"adversarial{after}", *verdict(index, place, adversarial=True))),
        ):
            self.query_one(f"#{name}", Static).update(text)


class GalleryPane(Vertical, can_focus=True):
    """Original, perturbation and adversarial image of one example of the run in a folder, and filters over all."""

    DEFAULT_CSS = """
    GalleryPane { height: 1fr; padding: 0; }
    GalleryPane .line { height: 1; padding: 0 1; }
    GalleryPane .line > #number { width: auto; margin: 0 2 0 0; }
    GalleryPane .line > #what { width: 1fr; text-align: right; text-wrap: nowrap; text-overflow: ellipsis; }
    GalleryPane #notice { height: auto; max-height: 50%; padding: 0 1; display: none; }
    GalleryPane #examples { height: 1fr; }
    GalleryPane.empty #examples { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Previous", id="example-before", tooltip="The example before"),
        Binding("right", "step(1)", "Next", id="example-next", tooltip="The next example"),
        Binding("pageup", "step(-10)", show=False, id="examples-before", tooltip="Ten examples back"),
        Binding("pagedown", "step(10)", show=False, id="examples-next", tooltip="Ten examples on"),
        Binding("home", "end(0)", show=False, id="example-first", tooltip="The first example"),
        Binding("end", "end(-1)", show=False, id="example-last", tooltip="The last example"),
        Binding("c", "label", "Class", show=False, id="filter-class", tooltip="Only examples of one class"),
        Binding("u", "outcome", "Outcome", show=False, id="filter-outcome",
                tooltip="Only examples whose attack succeeded, that survived, or that were wrong from the start"),
        Binding("n", "network", "Network", show=False, id="filter-network", tooltip="Only examples of one network"),
        Binding("k", "attack", "Attack", show=False, id="filter-attack", tooltip="Only examples of one attack"),
        Binding("z", "amplify", "Amplify", show=False, id="amplify",
                tooltip="How much the perturbation is amplified: so that it fills the range, or by a fixed factor"),
        Binding("0", "clear", "Clear", show=False, id="clear-filters", tooltip="Show all examples again"),
    ]  # fmt: skip

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._selection = Selection()
        self._problems = [""]
        self._factor: int | None = None
        self._read_ones: list[tuple[tuple[Source, int], tuple[np.ndarray, np.ndarray] | str]] = []
        self._announced: object = None
        self._looked = 0.0
        self._looking = self._again = False

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Word("‹ prev", "step(-1)", id="previous")
            yield Static("", id="number", markup=False)
            yield Word("next ›", "step(1)", id="next")
            yield Static("", id="what", markup=False)
        yield FilterLine(classes="line")
        yield Static("Looking for adversarial images...", id="notice", markup=False)
        with Vertical(id="examples"):
            yield from (Triptych() for _ in range(_MOST))

    def on_mount(self) -> None:
        self._draw_all()

    def on_resize(self) -> None:
        self._draw_all()

    def show(self, state: RunState) -> None:
        """Looks for new files when the run has announced some, and from time to time."""
        if state.examples != self._announced or time.monotonic() - self._looked >= PERIOD:
            self._announced = state.examples
            if self._looking:
                self._again = True
            else:
                self._begin_to_look()

    def _begin_to_look(self) -> None:
        self._looking, self._again, self._looked = True, False, time.monotonic()
        self._look(self._selection.sources)

    @work(thread=True, group="look")
    def _look(self, known: list[Source]) -> None:
        self.post_message(Found(*read_sources(self.path, known)))

    def on_found(self, message: Found) -> None:
        self._looking = False
        if message.sources != self._selection.sources or message.problems != self._problems:
            self._problems = message.problems
            self._selection.take(message.sources)
            self._go(self._selection.at)
        if self._again:
            self._begin_to_look()

    def _filter(self, **filters: Any) -> None:
        self._selection.filter(replace(self._selection.filters, **filters))
        self._go(self._selection.at)

    def _go(self, at: int) -> None:
        self._selection.go(at)
        if examples := self._selection.from_current(_MOST):
            self._read(examples)
        else:
            self._read_ones = []
            self._draw_all()

    @work(thread=True, exclusive=True, group="read")
    def _read(self, examples: list[tuple[Source, int]]) -> None:
        worker, shown = get_current_worker(), time.monotonic()
        pairs: list[tuple[np.ndarray, np.ndarray] | str] = []
        for source, place in examples:
            if worker.is_cancelled:  # Somebody holds the key down.
                return
            pairs.append(_read_or_say(source, place))
            # Large images needn't wait for their neighbours; small ones come together, as they would flicker.
            if time.monotonic() - shown > _PATIENCE:
                shown = time.monotonic()
                self.post_message(PairsRead(examples[: len(pairs)], list(pairs)))
        self.post_message(PairsRead(examples, pairs))

    def on_pairs_read(self, message: PairsRead) -> None:
        if self._selection.from_current(_MOST)[: len(message.examples)] == message.examples:
            self._read_ones = list(zip(message.examples, message.pairs, strict=True))
            self._draw_all()

    def _draw_all(self) -> None:
        if not self.is_mounted:
            return
        selection = self._selection
        self.query_one(FilterLine).show(selection, self._factor, named=self.size.width >= FULL)
        for name in ("previous", "next"):
            self.query_one(f"#{name}").display = bool(selection.sources)
        notices = list(filter(None, self._problems))
        current, pair = selection.current, self._read_ones[0][1] if self._read_ones else None
        if isinstance(pair, str):
            notices.append(pair)
            pair = None
        if current is None and selection.sources:
            notices.append("No example fits these filters; 0 clears them.")
        elif current is None and not notices:
            looks = self._announced is None or self._looking
            notices.append("Looking for adversarial images..." if looks else _NOTHING)
        notice = self.query_one("#notice", Static)
        # Wrapped here, as the pictures have to know how many lines it takes.
        notices = [line for words in notices for line in textwrap.wrap(words, max(20, self.size.width - 2))]
        notice.update("\n".join(notices))
        notice.display = bool(notices)
        self.set_class(current is None or pair is None, "empty")
        total, count = selection.total, len(selection.chosen)
        all_of_them = "" if count == total else f" (of {total:,})"
        self._write("number", f"{selection.at + 1 if count else 0:,} of {count:,}{all_of_them}" if total else "")
        self._write("what", "" if current is None else what(*current))
        if current is not None and pair is not None:
            self._draw_examples(self.size.height - 2 - len(notices))

    def _draw_examples(self, rows: int) -> None:
        """Draws the example at hand, and below it as many of the next as there are rows for."""
        width = self.size.width
        examples = iter(self._read_ones)  # With what is said of each, also while the next ones are read.
        for number, triptych in enumerate(self.query(Triptych)):
            (example, pair) = next(examples, (None, ""))
            left = rows - _CAPTIONS
            # One that can't be read says so once it is at hand.
            fits = not isinstance(pair, str) and (number == 0 or Triptych.rows_of(pair[0], width, 2**20) <= left)
            triptych.display = fits
            if fits and example is not None and not isinstance(pair, str):
                triptych.show(*example, *pair, self._factor, width, left)
                rows -= Triptych.rows_of(pair[0], width, left) + _CAPTIONS
            else:
                rows = 0

    def _write(self, name: str, text: str) -> None:
        self.query_one(f"#{name}", Static).update(text)

    def action_step(self, count: int) -> None:
        self._go(self._selection.at + count)

    def action_end(self, place: int) -> None:
        self._go(place % max(1, len(self._selection.chosen)))

    def action_label(self) -> None:
        labels, now = self._selection.labels, self._selection.filters.label
        if not labels:
            return
        offered: list[int | None] = [None, *labels]
        names = ["all classes", *map(self._selection.class_name, labels)]
        place = offered.index(now) if now in offered else 0

        def chosen(answer: int | None) -> None:
            if answer is not None:
                self._filter(label=offered[answer])

        self.app.push_screen(ClassChoice(names, place), chosen)

    def action_outcome(self) -> None:
        self._filter(outcome=_next([*OUTCOMES], self._selection.filters.outcome))

    def action_network(self) -> None:
        self._filter(network=_next([None, *self._selection.networks], self._selection.filters.network))

    def action_attack(self) -> None:
        self._filter(attack=_next([None, *self._selection.attacks], self._selection.filters.attack))

    def action_clear(self) -> None:
        self._filter(**vars(Filters()))

    def action_amplify(self) -> None:
        self._factor = _next(list(FACTORS), self._factor)
        self._draw_all()


def _next(offered: list[Any], now: Any) -> Any:
    return offered[(offered.index(now) + 1) % len(offered)] if now in offered else offered[0]


def _read_or_say(source: Source, place: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Returns the images of an example, or why they can't be read."""
    try:
        return read_pair(source.path, place)
    except InputError as error:
        return str(error)
