"""A new run: a form made from the config classes, with the command line that does the same."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.events import Click, DescendantFocus, Resize
from textual.widget import Widget
from textual.widgets import Button, Collapsible, Label, Select, Static

from kerasrobust import presets
from kerasrobust.commands import run_class
from kerasrobust.settings import RunConfig
from tui import form
from tui.messages import Start
from tui.screens.base import MainScreen
from tui.widgets.explain import about_command, about_field
from tui.widgets.fields import FieldRow, Fields
from tui.widgets.layout import DETAILS


class CommandLine(Static):
    """The command that does what the form says; a click copies it."""

    DEFAULT_CSS = "CommandLine { height: auto; pointer: pointer; }"

    async def on_click(self, event: Click) -> None:
        event.stop()
        await self.run_action("screen.copy_command")


class NewRunScreen(MainScreen):
    """The form of a new run, which begins with the settings of a config or the defaults of `train`."""

    PLACE = "new"
    DEFAULT_CSS = """
    NewRunScreen #choice { height: 1; background: $panel; }
    NewRunScreen #choice Label { padding: 0 1; }
    NewRunScreen #kind { width: 13; }
    NewRunScreen #preset { width: 24; }
    NewRunScreen #choice Button { margin: 0 0 0 1; min-width: 7; }
    NewRunScreen #body { height: 1fr; }
    NewRunScreen #form { height: 1fr; padding: 0 1 0 0; }
    NewRunScreen #form .heading { text-style: bold; padding: 0 1; }
    NewRunScreen #help { height: 5; padding: 0 1; border-top: solid $primary; }
    NewRunScreen #line { height: auto; max-height: 6; border-top: solid $primary; padding: 0 1; }
    NewRunScreen Collapsible { padding: 0; border-top: none; }
    NewRunScreen Collapsible > Contents { padding: 0; }
    NewRunScreen.wide #body { layout: horizontal; }
    NewRunScreen.wide #help { width: 60; height: 1fr; border-top: none; border-left: solid $primary; padding: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Leave field", id="leave-field", tooltip="Out of the field; then back, or 1 to 5"),
        Binding("ctrl+s", "start", "Start", id="start-run", tooltip="Start the run in a process of its own"),
        Binding("ctrl+y", "copy_command", "Copy command", id="copy-command", tooltip="Copy the command line"),
        Binding("ctrl+r", "reset", "Reset", id="reset-form", tooltip="Back to the preset or the defaults"),
        Binding("ctrl+o", "more", "More/fewer", id="more-settings", tooltip="Show or hide what all commands share"),
    ]

    def __init__(self, config: RunConfig | None = None) -> None:
        super().__init__()
        self._draft = form.Draft(config)
        self._checked = form.Checked(config=None)
        self._models: list[str] = []

    def content(self) -> ComposeResult:
        kinds = [(kind, kind) for kind in self._draft.kinds]
        with Horizontal(id="choice"):
            yield Label("Command")
            yield Select(kinds, value=self._draft.kind.kind, allow_blank=False, compact=True, id="kind")
            yield Label("Preset", id="preset-label")
            yield Select([(name, name) for name in presets.PRESETS], prompt="none", compact=True, id="preset")
            yield Button("Start", variant="primary", compact=True, id="start", tooltip="Start the run (ctrl+s)")
            yield Button("Reset", compact=True, id="reset", tooltip="Back to the preset or the defaults (ctrl+r)")
        with Container(id="body"):
            yield Fields(id="form", can_focus=False)
            yield VerticalScroll(Static("", id="about", markup=False), id="help", can_focus=False)
        with VerticalScroll(id="line", can_focus=False):
            yield CommandLine("", id="command", markup=False)

    async def on_mount(self) -> None:
        self._models = form.saved_models(self.session.models_dir)
        await self._build()
        # Not a text field: a digit goes to a place until somebody chooses where to type.
        self.query_one("#kind").focus()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= DETAILS, "wide")
        self._explain(self.focused)

    def on_screen_resume(self) -> None:
        self._models = form.saved_models(self.session.models_dir)
        for row in self.query(FieldRow):  # Models may have come or gone, and so may runs.
            row.learn(self._known(row.item))
        self._check()

    async def _build(self) -> None:
        rows: dict[str, list[FieldRow]] = {"name": [], "own": [], "model": [], "common": [], "output": []}
        texts = self._draft.texts
        for item in form.fields(self._draft.kind):
            rows["name" if item.name == "name" else item.group].append(
                FieldRow(item, texts[item.name], self._known(item))
            )

        def folded(group: str, title: str, wide: bool) -> list[Widget]:
            items = [row.item for row in rows[group]]
            if not items:
                return []
            touched = any(texts[item.name] != item.default for item in items)
            names = ", ".join(item.label for item in items)
            closed = not (touched or wide)
            return [Collapsible(*rows[group], title=f"{title}: {names}", collapsed=closed, id=f"group-{group}")]

        place = self.query_one("#form", Fields)
        await place.remove_children()
        await place.mount(
            Label(f"Settings of {self._draft.kind.kind}", classes="heading"),
            *rows["name"],
            *rows["own"],
            *folded("model", "How the model takes images", wide=self.app.size.width >= DETAILS),
            *folded("common", "More", wide=self.app.size.width >= DETAILS),
            Label("Output", classes="heading"),
            *rows["output"],
        )
        for widget in self.query("#preset, #preset-label"):
            widget.display = self._draft.kind.kind == "train"
        self._check()

    def _known(self, item: form.Field) -> tuple[str, ...]:
        return form.suggestions(self._draft.kind, item.name, self._models)

    def _check(self) -> None:
        """Reads the form and shows what came of it: marks, faults, the command line."""
        texts, baseline = self._draft.texts, self._draft.baseline()
        places = {"runs_dir": self.session.runs_dir, "models_dir": self.session.models_dir}
        self._checked = checked = form.check(self._draft.kind, texts, **places)
        warnings = form.doubts(self._draft.kind, texts, self._models)
        if checked.config is not None:
            warnings["name"] = form.existing(checked.config)
        for row in self.query(FieldRow):
            name = row.item.name
            row.say(
                changed=texts[name] != baseline[name],
                error=checked.errors.get(name, ""),
                warning=warnings.get(name, ""),
            )
        if checked.config is not None:
            line = form.command(checked.config)
        else:
            faulty = ", ".join(name.replace("_", " ") for name in checked.errors)
            line = f"✗ {checked.problem or f'Nothing to start yet: see {faulty}.'}"
        self.query_one("#command", Static).update(Text(line, overflow="fold"))

    @on(FieldRow.Changed)
    def _typed(self, event: FieldRow.Changed) -> None:
        self._draft.texts[event.name] = event.text
        self._check()
        self._explain(self.focused)

    @on(Select.Changed, "#kind")
    async def _choose_command(self, event: Select.Changed) -> None:
        kind = run_class(str(event.value))
        if kind is not self._draft.kind:
            self._draft.kind = kind
            await self._build()
            self._explain(self.focused)

    @on(Select.Changed, "#preset")
    def _choose_preset(self, event: Select.Changed) -> None:
        """Starts from a preset; what was typed stays, as on the command line."""
        name = "" if event.select.is_blank() else str(event.value)
        if name != self._draft.preset:
            self._draft.start_from(name)
            self._fill()

    def _fill(self) -> None:
        for row in self.query(FieldRow):
            row.text = self._draft.texts[row.item.name]
        self._check()
        self._explain(self.focused)

    @on(DescendantFocus)
    def _focused(self, event: DescendantFocus) -> None:
        self._explain(event.widget)

    def _explain(self, widget: Widget | None) -> None:
        """Shows what there is to know of what has the focus."""
        draft, nodes = self._draft, widget.ancestors_with_self if widget else []
        row = next((node for node in nodes if isinstance(node, FieldRow)), None)
        wide = self.has_class("wide")
        text = about_field(row, draft.baseline()[row.item.name], draft.origin) if row is not None else Text()
        if row is None or wide:
            text.append("\n\n" if text else "")
            text.append_text(about_command(draft.kind, draft.origin, wide))
        self.query_one("#about", Static).update(text)

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        self._check()
        if self._checked.config is not None:
            self.post_message(Start(self._checked.config))
            return
        faulty = next((row for row in self.query(FieldRow) if row.item.name in self._checked.errors), None)
        if faulty is None:
            self.fail(self._checked.problem)
            return
        for around in faulty.ancestors:
            if isinstance(around, Collapsible):
                around.collapsed = False
        self.call_after_refresh(faulty.editor.focus)
        self.fail(f"{faulty.item.label}: {self._checked.errors[faulty.item.name]}")

    @on(Button.Pressed, "#reset")
    def action_reset(self) -> None:
        self._draft.reset()
        self._fill()

    def action_more(self) -> None:
        folds = list(self.query(Collapsible))
        closed = not any(fold.collapsed for fold in folds)
        for fold in folds:
            fold.collapsed = closed
        target = folds[0].query_one("CollapsibleTitle") if closed else folds[0].query(FieldRow).first().editor
        self.call_after_refresh(target.focus)

    def action_copy_command(self) -> None:
        if self._checked.config is None:
            self.fail("There is no command yet: some settings are not right.")
            return
        self.app.copy_to_clipboard(form.command(self._checked.config))
        self.say("Copied the command line.")
