"""The adversarial examples of a run, one at a time: image, perturbation, adversarial image, and what the model says."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.worker import get_current_worker

from kerasrobust.errors import InputError
from kerasrobust.show.examples import Index, read_pair
from kerasrobust.show.figures import attack_name, format_accuracy, format_budget, format_distance, format_norm
from tui.read.examples import OUTCOMES, Filters, Setting, Source, amplify, choose, read_sources
from tui.read.state import RunState
from tui.widgets.layout import FULL
from tui.widgets.picture import Picture, fit

if TYPE_CHECKING:
    import numpy as np

PERIOD = 1.0
"""Seconds between two looks for new files while a run goes on."""

FACTORS = (None, 1, 8, 32, 128)
"""Amplifications of the perturbation; None for the one that fills the range."""

_NOTHING = (
    "No adversarial images yet. Attack runs, trainings and studies write some at the end of each attack stage, "
    "into examples.h5 or examples/ in the run's folder."
)


class Word(Static):
    """A word that does something when it is clicked: an action of the pane."""

    DEFAULT_CSS = """
    Word { width: auto; height: 1; margin: 0 2 0 0; color: $text-accent; pointer: pointer; }
    Word:hover { text-style: reverse; }
    """

    def __init__(self, text: str, action: str, *, id: str) -> None:
        super().__init__(text, id=id, markup=False)
        self._action = action

    async def on_click(self) -> None:
        if self.parent is not None and self.parent.parent is not None:
            await self.app.run_action(self._action, self.parent.parent)


class ClassChoice(ModalScreen[int | None]):
    """A list of classes; dismisses with the place of the chosen one, or None for escape.

    Args:
        names: what there is to choose from.
        place: where the cursor begins.
    """

    DEFAULT_CSS = """
    ClassChoice { align: center middle; }
    ClassChoice > OptionList { width: 40; max-width: 96%; height: auto; max-height: 80%; border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="cancel-class", tooltip="Leave the filter as it is"),
    ]

    def __init__(self, names: Sequence[str], place: int) -> None:
        super().__init__()
        self.names = names
        self.place = place

    def compose(self) -> ComposeResult:
        yield OptionList(*(Content(name) for name in self.names))

    def on_mount(self) -> None:
        self.query_one(OptionList).border_title = "True class"
        self.query_one(OptionList).highlighted = self.place

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)

    def action_cancel(self) -> None:
        """Closes the list."""
        self.dismiss(None)


class GalleryPane(Vertical, can_focus=True):
    """Original, perturbation and adversarial image of one example, and filters over all of them.

    Args:
        path: the run's folder.
    """

    DEFAULT_CSS = """
    GalleryPane { height: 1fr; padding: 0; }
    GalleryPane .line { height: 1; padding: 0 1; }
    GalleryPane .line > #number { width: auto; margin: 0 2 0 0; }
    GalleryPane .line > #what { width: 1fr; text-align: right; text-wrap: nowrap; text-overflow: ellipsis; }
    GalleryPane #pictures { height: 1fr; }
    GalleryPane Picture { width: 1fr; height: 100%; margin: 0 1 0 0; }
    GalleryPane #captions { height: 2; }
    GalleryPane #captions > Static { width: 1fr; height: 2; margin: 0 1 0 0; text-align: center; text-wrap: nowrap;
        text-overflow: ellipsis; }
    GalleryPane #adversarial, GalleryPane #after { margin: 0; }
    GalleryPane #notice { height: auto; max-height: 50%; padding: 0 1; display: none; }
    GalleryPane.empty #pictures, GalleryPane.empty #captions { display: none; }
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

    class Found(Message):
        """The run's files of examples were looked through."""

        def __init__(self, sources: list[Source], problems: list[str]) -> None:
            super().__init__()
            self.sources = sources
            self.problems = problems

    class Read(Message):
        """The images of an example were read, or could not be."""

        def __init__(self, source: Source, place: int, pair: tuple[np.ndarray, np.ndarray] | str) -> None:
            super().__init__()
            self.source = source
            self.place = place
            self.pair = pair

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._sources: list[Source] = []
        self._problems = [""]
        self._filters = Filters()
        self._chosen: list[tuple[int, int]] = []
        self._at = 0
        self._factor: int | None = None
        self._pair: tuple[np.ndarray, np.ndarray] | str | None = None  # Words where it can't be read.
        self._told: object = None
        self._looked = 0.0
        self._looking = self._again = False

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Word("‹ prev", "step(-1)", id="previous")
            yield Static("", id="number", markup=False)
            yield Word("next ›", "step(1)", id="next")
            yield Static("", id="what", markup=False)
        with Horizontal(classes="line"):
            for name in ("label", "outcome", "network", "attack", "amplify", "clear"):
                yield Word("", name, id=name)
        yield Static("Looking for adversarial images...", id="notice", markup=False)
        with Horizontal(id="pictures"):
            for name in ("original", "perturbation", "adversarial"):
                yield Picture(id=name)
        with Horizontal(id="captions"):
            for name in ("before", "change", "after"):
                yield Static("", id=name)

    def on_mount(self) -> None:
        self._tell()

    def on_resize(self) -> None:
        self._tell()

    def show(self, state: RunState) -> None:
        """Looks for files that are new, where the run tells of some and from time to time."""
        if state.examples != self._told or time.monotonic() - self._looked >= PERIOD:
            self._told = state.examples
            if self._looking:
                self._again = True
            else:
                self._begin_to_look()

    def _begin_to_look(self) -> None:
        self._looking, self._again, self._looked = True, False, time.monotonic()
        self._look(self._sources)

    @work(thread=True, group="look")
    def _look(self, known: list[Source]) -> None:
        self.post_message(self.Found(*read_sources(self.path, known)))

    @on(Found)
    def _take(self, message: Found) -> None:
        self._looking = False
        if message.sources != self._sources or message.problems != self._problems:
            at = self._current()
            self._sources, self._problems = message.sources, message.problems
            # A file may have been read once more; it is still the same example.
            self._select(None if at is None else (at[0].path, at[1]))
        if self._again:
            self._begin_to_look()

    def _current(self) -> tuple[Source, int] | None:
        """Returns the example that is shown: its source, and its number there."""
        if not self._chosen:
            return None
        number, place = self._chosen[self._at]
        return self._sources[number], place

    def _select(self, keep: tuple[Path, int] | None) -> None:
        """Brings the filters to bear, and stays at an example if it still fits."""
        if self._filters.network not in (None, *(source.path for source in self._sources)):
            self._filters = replace(self._filters, network=None)
        self._chosen = [(number, place) for number, place in choose(self._sources, self._filters).tolist()]
        places = {(self._sources[number].path, place): at for at, (number, place) in enumerate(self._chosen)}
        self._go(places.get(keep, 0) if keep else 0)

    def _filter(self, filters: Filters) -> None:
        at = self._current()
        self._filters = filters
        self._select(None if at is None else (at[0].path, at[1]))

    def _go(self, at: int) -> None:
        self._at = min(max(at, 0), max(0, len(self._chosen) - 1))
        current = self._current()
        if current is None:
            self._pair = None
            self._tell()
        else:
            self._read(*current)

    @work(thread=True, exclusive=True, group="read")
    def _read(self, source: Source, place: int) -> None:
        worker = get_current_worker()
        if worker.is_cancelled:  # Somebody holds the key down.
            return
        try:
            self.post_message(self.Read(source, place, read_pair(source.path, place)))
        except InputError as error:
            self.post_message(self.Read(source, place, str(error)))

    @on(Read)
    def _show_pair(self, message: Read) -> None:
        if self._current() != (message.source, message.place):
            return
        self._pair = message.pair
        self._tell()

    # What stands on the screen.

    def _tell(self) -> None:
        """Writes and draws all that there is to see."""
        if not self.is_mounted:
            return
        self._tell_filters()
        notices = [line for line in self._problems if line]
        current, pair = self._current(), self._pair
        if isinstance(pair, str):
            notices.append(pair)
            pair = None
        if current is None and self._sources:
            notices.append("No example fits these filters; 0 clears them.")
        elif current is None and not notices and self._told is not None and not self._looking:
            notices.append(_NOTHING)
        elif current is None and not notices:
            notices.append("Looking for adversarial images...")
        notice = self.query_one("#notice", Static)
        # Wrapped here, as the pictures have to know how many lines it takes.
        notices = [line for words in notices for line in textwrap.wrap(words, max(20, self.size.width - 2))]
        notice.update("\n".join(notices))
        notice.display = bool(notices)
        self.set_class(current is None or pair is None, "empty")
        total = sum(len(source.index) for source in self._sources)
        count, all_of_them = len(self._chosen), "" if len(self._chosen) == total else f" (of {total:,})"
        self._write("number", f"{self._at + 1 if count else 0:,} of {count:,}{all_of_them}" if total else "")
        self._write("what", "" if current is None else _what(*current))
        if current is not None and pair is not None:
            self._draw(*current, *pair, lines=len(notices))

    def _write(self, name: str, text: str | Content) -> None:
        self.query_one(f"#{name}", Static).update(text)

    def _draw(self, source: Source, place: int, x: np.ndarray, x_adv: np.ndarray, *, lines: int) -> None:
        picture, factor = amplify(x, x_adv, self._factor)
        for name, image in (("original", x), ("perturbation", picture), ("adversarial", x_adv)):
            self.query_one(f"#{name}", Picture).show(image)
        # The captions stand right below the pictures, wherever these end.
        columns, rows = (self.size.width - 2) // 3, max(1, self.size.height - 4 - lines)
        self.query_one("#pictures").styles.height = -(-fit(x.shape[0], x.shape[1], columns, rows)[0] // 2)
        index = source.index
        self._write("before", _caption(f"original: {index.class_name(int(index.y[place]))}", *_said(index, place)))
        amplified = f"perturbation ×{factor}" if factor else "perturbation: none"
        self._write("change", _caption(amplified, "", _distance(source, place)))
        after = _rate(source, place, brief=self.size.width < FULL)
        self._write("after", _caption(f"adversarial{after}", *_said(index, place, adversarial=True)))

    def _tell_filters(self) -> None:
        filters, names = self._filters, self.size.width >= FULL
        networks, attacks = self._networks(), self._attacks()
        label = "all classes" if filters.label is None else self._class_name(filters.label)
        network, attack = "all networks", "all attacks"
        if filters.network is not None:
            number = networks.index(filters.network)
            network = self._sources[number].network if names else f"network {number + 1}/{len(networks)}"
        if filters.attack is not None:
            number = attacks.index(filters.attack) if filters.attack in attacks else 0
            norm = self._sources[0].index.norm if self._sources else ""
            attack = _attack(filters.attack, norm) if names else f"attack {number + 1}/{len(attacks)}"
        for name, text, shown in (
            ("label", f"c {label}", True),
            ("outcome", f"u {OUTCOMES[filters.outcome]}", True),
            ("network", f"n {network}", len(networks) > 1),
            ("attack", f"k {attack}", len(attacks) > 1 or filters.attack is not None),
            ("amplify", f"z {'auto' if self._factor is None else f'×{self._factor}'}", True),
            ("clear", "0 clear", filters != Filters()),
        ):
            word = self.query_one(f"#{name}", Word)
            word.update(text)
            word.display = shown and bool(self._sources)
        for name in ("previous", "next"):
            self.query_one(f"#{name}").display = bool(self._sources)

    def _networks(self) -> list[Path]:
        return [source.path for source in self._sources]

    def _attacks(self) -> list[Setting]:
        return list(dict.fromkeys(setting for source in self._sources for setting, _ in source.attacks))

    def _class_name(self, label: int) -> str:
        return next((source.index.class_name(label) for source in self._sources), f"class {label}")

    # What keys do.

    def action_step(self, count: int) -> None:
        """Goes some examples on, or back."""
        self._go(self._at + count)

    def action_end(self, place: int) -> None:
        """Goes to the first or the last example."""
        self._go(place % max(1, len(self._chosen)))

    def action_label(self) -> None:
        """Lets the person choose a class."""
        labels = sorted({int(label) for source in self._sources for label in set(source.index.y.tolist())})
        if not labels:
            return
        offered: list[int | None] = [None, *labels]
        names = ["all classes", *map(self._class_name, labels)]
        place = offered.index(self._filters.label) if self._filters.label in offered else 0

        def chosen(answer: int | None) -> None:
            if answer is not None:
                self._filter(replace(self._filters, label=offered[answer]))

        self.app.push_screen(ClassChoice(names, place), chosen)

    def action_outcome(self) -> None:
        """Shows the examples of the next outcome."""
        self._filter(replace(self._filters, outcome=_next([*OUTCOMES], self._filters.outcome)))

    def action_network(self) -> None:
        """Shows the examples of the next network."""
        self._filter(replace(self._filters, network=_next([None, *self._networks()], self._filters.network)))

    def action_attack(self) -> None:
        """Shows the examples of the next attack."""
        self._filter(replace(self._filters, attack=_next([None, *self._attacks()], self._filters.attack)))

    def action_clear(self) -> None:
        """Shows all examples."""
        self._filter(Filters())

    def action_amplify(self) -> None:
        """Takes the next amplification of the perturbation."""
        self._factor = _next(list(FACTORS), self._factor)
        self._tell()


def _next(offered: list[Any], now: Any) -> Any:
    return offered[(offered.index(now) + 1) % len(offered)] if now in offered else offered[0]


def _what(source: Source, place: int) -> str:
    """Returns which attack the example is of, and on what."""
    return f"{_attack(source.setting(place), source.index.norm)} on {source.network}"


def _attack(setting: Setting, norm: str) -> str:
    budget = format_budget(setting.epsilon, norm) or format_norm(norm)
    eot = f"EOT {setting.eot}" if setting.eot > 1 else ""
    return " ".join(word for word in (attack_name(setting.attack), budget, eot) if word)


def _caption(title: str, sign: str, rest: str) -> Content:
    style = {"✓": "$text-success", "✗": "$text-error"}.get(sign[:1], "")
    return Content.assemble((title, "bold"), "\n", (sign, style), rest)


def _said(index: Index, place: int, *, adversarial: bool = False) -> tuple[str, str]:
    """Returns whether the model is right, and what it says with which confidence."""
    # What stands for a randomized network is most of its passes, which `success` tells.
    right = not index.success[place] if adversarial else index.correct[place]
    said = index.prediction_adv if adversarial else index.prediction
    confidence = float((index.confidence_adv if adversarial else index.confidence)[place])
    sure = "" if math.isnan(confidence) else f" {format_accuracy(confidence)}"
    return "✓ right" if right else "✗ wrong", f": {index.class_name(int(said[place]))}{sure}"


def _distance(source: Source, place: int) -> str:
    distance, setting, norm = float(source.index.distance[place]), source.setting(place), source.index.norm
    if math.isnan(distance):
        return "distance unknown"
    limit = f"of {format_budget(setting.epsilon, norm)}" if setting.epsilon is not None else format_norm(norm)
    return f"distance {format_distance(distance, norm)} {limit}".strip()


def _rate(source: Source, place: int, *, brief: bool) -> str:
    """Returns how often a randomized network is right; nothing of others, which always say the same."""
    rate = float(source.index.correct_rate[place])
    if math.isnan(rate) or (rate in (0.0, 1.0) and source.setting(place).eot == 1):
        return "" if brief else " image"
    return f", right in {100 * rate:.0f} %{'' if brief else ' of passes'}"
