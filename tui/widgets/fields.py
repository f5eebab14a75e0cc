"""One setting of the form: its label, what it is typed or chosen in, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input, Label, Select, Static

from kerasrobust.fields import Field


class YesNo(Static, can_focus=True):
    """A switch that says in words how it stands."""

    DEFAULT_CSS = """
    YesNo { width: 1fr; height: 1; pointer: pointer; }
    YesNo:focus { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space,enter", "change", "Yes/no", id="toggle-setting", show=False, tooltip="Change between yes and no"
        ),
    ]
    value = reactive(False)

    class Changed(Message):
        """Somebody has changed it."""

    def __init__(self, value: bool) -> None:
        super().__init__()
        self.set_reactive(YesNo.value, value)

    def render(self) -> Text:
        return Text("[x] yes" if self.value else "[ ] no")

    def action_change(self) -> None:
        self.value = not self.value
        self.post_message(self.Changed())

    def on_click(self) -> None:
        self.action_change()


class SuggestingInput(Input):
    """An input that completes what it knows, and steps through all of it by keys that do nothing else."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "ctrl+down", "suggest(1)", "Next", id="next-suggestion", show=False, tooltip="Take the next known name"
        ),
        Binding(
            "ctrl+up", "suggest(-1)", "Last", id="last-suggestion", show=False, tooltip="Take the known name before"
        ),
    ]

    def __init__(self, value: str, known: Sequence[str], **more: Any) -> None:
        super().__init__(value, **more)
        self.learn(known)

    def learn(self, known: Sequence[str]) -> None:
        self.known = list(known)
        self.suggester = SuggestFromList(known)

    def action_suggest(self, step: int) -> None:
        if self.known:
            at = self.known.index(self.value) + step if self.value in self.known else min(0, step)
            self.value = self.known[at % len(self.known)]
            self.cursor_position = len(self.value)


class Choice(Select[str], inherit_bindings=False):
    """A setting with a fixed list of values, which opens by `enter` and `space` alone: arrows go past it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "show_overlay", "Choose", id="open-choices", show=False, tooltip="Open the list"),
    ]


class Fields(VerticalScroll):
    """The settings, from which arrows go to the next one and to the one before; they change none."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "step(1)", "Next field", id="next-field", show=False, tooltip="The next setting"),
        Binding("up", "step(-1)", "Field before", id="field-before", show=False, tooltip="The one before"),
    ]

    def action_step(self, step: int) -> None:
        """Moves the focus by so many settings, at most to the first or last one."""
        own = [widget for widget in self.screen.focus_chain if self in widget.ancestors]
        if self.screen.focused in own:
            own[min(max(own.index(self.screen.focused) + step, 0), len(own) - 1)].focus()


class FieldRow(Vertical):
    """A setting in the form, with the text that stands there, and values that are known."""

    DEFAULT_CSS = """
    FieldRow { height: auto; border-left: blank; }
    FieldRow:focus-within { border-left: thick $primary; }
    FieldRow > Horizontal { height: 1; }
    FieldRow Label { width: 20; }
    FieldRow Input, FieldRow Select { width: 1fr; }
    FieldRow .said { height: auto; padding: 0 0 0 20; display: none; }
    FieldRow .said.shown { display: block; }
    """

    @dataclass(eq=False)
    class Changed(Message):
        """Somebody has changed the setting."""

        name: str
        text: str

    def __init__(self, item: Field, text: str, known: Sequence[str] = ()) -> None:
        super().__init__(id=f"field-{item.name}")
        self.item = item
        self._text = text
        self._said = (False, "", "")
        self.known = known

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self.item.label, markup=False)
            yield self._editor()
        yield Static("", classes="said", markup=False)

    def _editor(self) -> Widget:
        if self.item.is_switch:
            return YesNo(self._text == "yes")
        if self.item.choices:
            pairs = [(choice, choice) for choice in self.item.choices]
            return Choice(pairs, value=self._text, allow_blank=False, compact=True)
        # What is there is kept when somebody comes by with the tabulator and types on.
        empty = "required" if self.item.default is None else "none" if self.item.is_optional else ""
        return SuggestingInput(self._text, self.known, compact=True, placeholder=empty, select_on_focus=False)

    def learn(self, known: Sequence[str]) -> None:
        self.known = known
        if isinstance(editor := self.editor, SuggestingInput):
            editor.learn(known)

    @property
    def text(self) -> str:
        """What stands there; setting it is no change by a person."""
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        editor = self.editor
        with self.prevent(Input.Changed, Select.Changed):
            if isinstance(editor, YesNo):
                editor.value = text == "yes"
            elif isinstance(editor, Select | Input):
                editor.value = text

    @property
    def editor(self) -> Widget:
        """What the setting is typed or chosen in, which takes the focus."""
        return self.query_one("YesNo, Select, Input")

    @on(YesNo.Changed)
    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self, event: Message) -> None:
        event.stop()
        editor = self.editor
        if isinstance(editor, YesNo):
            text = "yes" if editor.value else "no"
        else:
            assert isinstance(editor, Input | Select)
            text = str(editor.value)
        if text != self._text:
            self._text = text
            self.post_message(self.Changed(self.item.name, text))

    def say(self, *, changed: bool, error: str, warning: str) -> None:
        """Shows whether the setting differs from its default, and what there is to say of it."""
        if (changed, error, warning) == self._said:  # Nothing to lay out anew, as for most rows at each key.
            return
        self._said = (changed, error, warning)
        label = Text(f"{self.item.label:<18}*", "bold") if changed else self.item.label
        self.query_one(Label).update(label)
        said = self.query_one(".said", Static)
        said.update(f"✗ {error}" if error else f"! {warning}" if warning else "")
        said.set_class(bool(error or warning), "shown")
        said.set_class(bool(error), "error")
        said.set_class(bool(warning and not error), "warning")
