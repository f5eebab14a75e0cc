"""What can be done with a saved model's name: another one, or none."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from kerasrobust.errors import InputError
from kerasrobust.events import printable
from kerasrobust.saved_models import delete_model, mentions, rename_model
from tui.read.cards import SavedModel
from tui.screens.base import FolderScreen
from tui.screens.dialogs import Ask, Confirm
from tui.session import Session

_MENTIONS = 4
"""Cards and runs that are named where a model gets another name or goes; the others are counted."""


class ModelFolderScreen(FolderScreen):
    """A screen of saved models with the keys that rename and delete one; subclasses say which is at the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "rename", "Rename", id="rename-model", show=False, tooltip="Give the model another name"),
        Binding("delete,backspace", "delete", "Delete", id="delete-model", show=False,
                tooltip="Delete the model's folder; asks first"),
    ]  # fmt: skip

    @property
    def at_cursor(self) -> SavedModel | None:
        raise NotImplementedError

    def action_rename(self) -> None:
        if (model := self._own()) is None:
            return

        def rename(name: str) -> str:
            try:
                rename_model(model.path, name)
            except InputError as error:
                return f"✗ {error}"
            return ""

        question = f"Another name for {model.title}? {_named_by(model, self.session)}"
        self.app.push_screen(Ask(question, {"Name": model.path.name}, rename), lambda _: self.look())

    def action_delete(self) -> None:
        if (model := self._own()) is None:
            return

        def answered(answer: str | None) -> None:
            if answer == "y":
                try:
                    delete_model(model.path)
                except InputError as error:
                    self.fail(str(error))
                self.look()

        question = f"Delete the folder {model.path}, with all that is in it? This can't be undone. "
        question += _named_by(model, self.session)
        self.app.push_screen(Confirm(question, {"n": "Keep", "y": "Delete"}, danger="y"), answered)

    def _own(self) -> SavedModel | None:
        """Returns the model at the cursor, or says why it has no name of its own."""
        model = self.at_cursor
        if model is not None and model.run:
            self.fail(f"{model.title} is a part of the run {model.run}, which goes as a whole: delete that.")
            return None
        return model


def _named_by(model: SavedModel, session: Session) -> str:
    """Returns who names a model and won't find it any more, in a sentence; nothing where nobody does."""
    try:
        found = mentions(model.path, session.models_dir, session.runs_dir)
    except OSError:  # What can't be read is said where it is listed.
        return ""
    more = f" and {len(found) - _MENTIONS} more" if len(found) > _MENTIONS else ""
    names = printable(", ".join(found[:_MENTIONS]))
    return f"It is named by {names}{more}: that isn't changed." if found else ""
