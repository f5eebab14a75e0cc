"""What screens share that have a run whose tags, note and star are changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from kerasrobust.errors import InputError
from kerasrobust.marks import read_marks, tags_of, write_marks
from tui.screens.base import MainScreen
from tui.screens.dialogs import Ask


class MarkingScreen(MainScreen):
    """A screen with the keys that mark a run; subclasses say which one, and show what is new."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("asterisk", "star", "Star", id="star-run", key_display="*", show=False,
                tooltip="Give the run a star, or take it away"),
        Binding("number_sign", "annotate", "Tags, note", id="annotate-run", key_display="#", show=False,
                tooltip="Write tags and a note on the run"),
    ]  # fmt: skip

    @property
    def marked(self) -> Path | None:
        """The folder of the run that the keys mark, if there is one."""
        raise NotImplementedError

    def show_marks(self) -> None:
        """Shows what was changed."""
        raise NotImplementedError

    def mark(self, run: Path, **changes: Any) -> bool:
        """Changes what is said of the run in a folder, and returns whether it could be; says why it couldn't."""
        try:
            write_marks(run, dataclasses.replace(read_marks(run), **changes))
        except InputError as error:
            self.fail(str(error))
            return False
        self.show_marks()
        return True

    def action_star(self) -> None:
        if (run := self.marked) is not None:
            self.mark(run, starred=not read_marks(run).starred)

    def action_annotate(self) -> None:
        """Asks for tags and note."""
        if (run := self.marked) is None:
            return
        marks = read_marks(run)

        def answered(answers: tuple[str, ...] | None) -> None:
            if answers is not None:
                self.mark(run, tags=tags_of(answers[0]), note=answers[1])

        fields = {"Tags, with commas between them": ", ".join(marks.tags), "Note": marks.note}
        self.app.push_screen(Ask(f"What is to be said of {run.name}?", fields), answered)
