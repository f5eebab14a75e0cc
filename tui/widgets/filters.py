"""The filters over a run's adversarial examples: a line of words, and a list of classes to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from tui.read.examples import OUTCOMES, Filters, Selection
from tui.widgets.captions import attack


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
    """A list of classes, with the cursor at a place; dismisses with the place of the chosen one, or None for escape."""

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
        self.dismiss(None)


class FilterLine(Horizontal):
    """The filters in words, each with its key; a click is as good."""

    def compose(self) -> ComposeResult:
        for name in ("label", "outcome", "network", "attack", "amplify", "clear"):
            yield Word("", name, id=name)

    def show(self, selection: Selection, factor: int | None, *, named: bool) -> None:
        """Shows the filters and the amplification; networks and attacks by name, or, to save room, by number."""
        filters, networks, attacks = selection.filters, selection.networks, selection.attacks
        label = "all classes" if filters.label is None else selection.class_name(filters.label)
        network, under = "all networks", "all attacks"
        if filters.network is not None:
            number = networks.index(filters.network)
            network = selection.sources[number].network if named else f"network {number + 1}/{len(networks)}"
        if filters.attack is not None:
            number = attacks.index(filters.attack) if filters.attack in attacks else 0
            norm = selection.sources[0].index.norm if selection.sources else ""
            under = attack(filters.attack, norm) if named else f"attack {number + 1}/{len(attacks)}"
        for name, text, shown in (
            ("label", f"c {label}", True),
            ("outcome", f"u {OUTCOMES[filters.outcome]}", True),
            ("network", f"n {network}", len(networks) > 1),
            ("attack", f"k {under}", len(attacks) > 1 or filters.attack is not None),
            ("amplify", f"z {'auto' if factor is None else f'×{factor}'}", True),
            ("clear", "0 clear", filters != Filters()),
        ):
            word = self.query_one(f"#{name}", Word)
            word.update(text)
            word.display = shown and bool(selection.sources)
