"""Questions that wait for an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

_CSS = """
    & { align: center middle; }
    & > Vertical { width: 64; max-width: 96%; height: auto; max-height: 90%; border: round $primary; padding: 0 2;
        background: $surface; }
    & Label { width: 100%; height: auto; margin: 1 0 0 0; }
    & .error { color: $error; margin: 0; }
    & Horizontal { height: auto; align-horizontal: right; margin: 1 0 0 0; }
    & Button { margin: 0 0 0 1; min-width: 8; }
"""


class Confirm(ModalScreen[str]):
    """A question with a few answers; dismisses with the key of the chosen one, or "" for escape.

    Args:
        question: what is asked, a sentence or two.
        answers: {key: label}, the default first; a key is one letter, which chooses it.

    Example:
        >>> app.push_screen(Confirm("Delete the run?", {"n": "Keep", "y": "Delete"}), callback)
    """

    DEFAULT_CSS = "Confirm {" + _CSS + "}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer('')", "Cancel", id="cancel-question", tooltip="Leave everything as it is"),
        Binding("left", "app.focus_previous", show=False, id="answer-before", tooltip="The answer before"),
        Binding("right", "app.focus_next", show=False, id="answer-after", tooltip="The next answer"),
    ]

    def __init__(self, question: str, answers: dict[str, str], *, danger: str = "") -> None:
        super().__init__()
        self.question = question
        self.answers = answers
        self.danger = danger

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Label(self.question, markup=False)
            with Horizontal():
                for key, label in self.answers.items():
                    yield Button(
                        f"{label} ({key})", id=f"answer-{key}", variant="error" if key == self.danger else "default"
                    )

    def on_mount(self) -> None:
        for key, label in self.answers.items():
            self._bindings.bind(key, f"answer('{key}')", label)
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.action_answer((event.button.id or "").removeprefix("answer-"))

    def action_answer(self, key: str) -> None:
        self.dismiss(key)


class Ask(ModalScreen[tuple[str, ...] | None]):
    """Asks for one or several lines of text; dismisses with them, or None for escape.

    Args:
        question: what is asked.
        fields: {label: text that stands there already}.
        check: returns what is wrong with the answers, or "" where nothing is.
    """

    DEFAULT_CSS = "Ask {" + _CSS + "}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="cancel-asking", tooltip="Leave everything as it is"),
    ]

    def __init__(self, question: str, fields: dict[str, str], check: Callable[..., str] | None = None) -> None:
        super().__init__()
        self.question = question
        self.fields = fields
        self.check = check

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Label(self.question, markup=False)
            for label, text in self.fields.items():
                yield Label(label, markup=False)
                yield Input(text, placeholder=label, select_on_focus=False)
            yield Label("", classes="error", markup=False)
            with Horizontal():
                yield Button("Cancel (esc)", id="cancel")
                yield Button("OK (enter)", id="ok", variant="primary")

    def on_mount(self) -> None:
        self.query_one(".error").display = False
        self.query(Input).first().focus()

    @on(Input.Submitted)
    @on(Button.Pressed, "#ok")
    def _accept(self) -> None:
        answers = tuple(item.value.strip() for item in self.query(Input))
        if self.check is not None and (problem := self.check(*answers)):
            self.query_one(".error", Label).update(problem)
            self.query_one(".error").display = True
            return
        self.dismiss(answers)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
