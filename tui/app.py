"""The app: its places, its theme, the runs that it started, and what is the same on every screen."""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent
from textual.screen import Screen

from kerasrobust.config import RunConfig
from kerasrobust.errors import InputError
from tui.runner import Runner
from tui.screens.base import PLACES
from tui.screens.dialogs import Confirm
from tui.screens.runs import RunsScreen

ENGINE = (sys.executable, "-m", "kerasrobust.run")


def _new() -> Screen[None]:
    from tui.screens.new import NewRunScreen

    return NewRunScreen()


def _models() -> Screen[None]:
    from tui.screens.models import ModelsScreen

    return ModelsScreen()


def _compare() -> Screen[None]:
    from tui.screens.compare import CompareScreen

    return CompareScreen()


def _system() -> Screen[None]:
    from tui.screens.system import SystemScreen

    return SystemScreen()


class Lab(App[None]):
    """The terminal UI of kerasrobust.

    Args:
        runs_dir: folder of all runs.
        models_dir: folder of saved models.
        engine: the words that start a run, before its own.

    Example:
        >>> Lab(Path("runs"), Path("saved_models")).run()
    """

    TITLE = "kerasrobust"
    CSS_PATH = "app.tcss"
    # Only the first place is made at the start; the others when somebody goes there.
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "runs": RunsScreen,
        "new": _new,
        "models": _models,
        "compare": _compare,
        "system": _system,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                str(number), f"show('{place}')", name, id=f"show-{place}", show=False, tooltip=f"Go to {name.lower()}"
            )
            for number, (place, name) in enumerate(PLACES.items(), start=1)
        ),
        Binding("question_mark", "help", "Help", id="help", key_display="?", tooltip="All keys of where you are"),
        Binding("f3", "toggle_theme", "Light/dark", id="theme", show=False, tooltip="Change between light and dark"),
        Binding("f12", "screenshot", "Screenshot", id="screenshot", show=False, tooltip="Save the screen as SVG"),
        Binding("ctrl+z", "suspend_process", "Suspend", id="suspend", show=False, tooltip="To the shell; fg returns"),
        Binding("q", "leave", "Quit", id="quit", tooltip="Quit; asks whether runs go on"),
        Binding(
            "ctrl+q",
            "leave",
            "Quit",
            id="quit-anywhere",
            show=False,
            priority=True,
            tooltip="Quit; asks whether runs go on",
        ),
        Binding("ctrl+p", "command_palette", "Palette", id="palette", show=False, tooltip="Search all commands"),
    ]

    def __init__(self, runs_dir: Path, models_dir: Path, engine: Sequence[str] = ENGINE) -> None:
        super().__init__()
        self.runs_dir = runs_dir
        self.models_dir = models_dir
        self.runner = Runner(engine)
        # What moves between two states is time that a person waits, and a core works.
        self.animation_level = "none"
        self._touched = 0.0

    @property
    def _sixteen(self) -> bool:
        return self.console.color_system == "standard" and not self.no_color

    def on_mount(self) -> None:
        # Sixteen colours can't be mixed: there the terminal's own are used.
        self.theme = "ansi-dark" if self._sixteen else "textual-dark"
        self.set_interval(1.0, self._look_after_children)
        # A full collection takes 100 ms of whoever presses a key meanwhile: only in pauses, and of what is new.
        gc.set_threshold(5_000, 10, 1_000)
        self.call_after_refresh(gc.freeze)
        # Back from the shell, which has written over the screen.
        self.app_resume_signal.subscribe(self, lambda _: self.set_timer(0.1, lambda: self.refresh(layout=True)))
        self.set_interval(2.0, self._tidy)
        self.switch_mode("runs")

    async def on_event(self, event: Event) -> None:
        """Notes when a person last did something."""
        if isinstance(event, InputEvent):
            self._touched = time.monotonic()
        await super().on_event(event)

    def _tidy(self) -> None:
        if time.monotonic() - self._touched > 1.0 and gc.get_count()[2] > 1:
            gc.collect()

    def show(self, place: str) -> None:
        """Goes to one of the places."""
        if self.current_mode != place:
            self.switch_mode(place)

    def action_show(self, place: str) -> None:
        """Goes to one of the places, and leaves what lies upon it there."""
        self.show(place)
        while len(self.screen_stack) > 1:
            self.pop_screen()

    def tell(self, message: str) -> None:
        """Shows a message for a moment."""
        self.notify(message, markup=False)

    def fail(self, message: str) -> None:
        """Shows what went wrong."""
        self.notify(message, severity="error", timeout=10, markup=False)

    def open_run(self, path: Path) -> None:
        """Opens a run's monitor."""
        from tui.screens.monitor import MonitorScreen

        self.show("runs")
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.push_screen(MonitorScreen(path))

    def new_run(self, config: RunConfig | None = None) -> None:
        """Opens the form, filled in where a config is given."""
        if config is None:
            self.show("new")
            return
        from tui.screens.new import NewRunScreen

        self.push_screen(NewRunScreen(config))

    def start(self, config: RunConfig) -> None:
        """Starts a run in a child process and opens its monitor."""
        config = dataclasses.replace(config, runs_dir=self.runs_dir, models_dir=self.models_dir)
        try:
            child = self.runner.start(config)
        except InputError as error:
            self.fail(str(error))
            return
        if len(self.screen_stack) > 1:  # The form, or the run that is started again: done with.
            self.pop_screen()
        self.open_run(child.path)

    def _look_after_children(self) -> None:
        for child, sent in self.runner.hurry():
            self.tell(f"{child.path.name} has not stopped yet: sent {sent}.")
        for child in list(self.runner.children.values()):
            if child.settled or not child.ended:
                continue
            child.settle()
            if child.refused:
                # Nothing else will ever tell of it; and without a folder there is nothing to watch.
                if getattr(self.screen, "path", None) == child.path and not child.path.exists():
                    self.pop_screen()
                message = child.message() or f"{child.command}: {child.exit_words()}"
                self.notify(message, severity="error", timeout=60, markup=False)

    def action_leave(self) -> None:
        """Quits; where runs of this UI are running, asks first whether they go on."""
        running = self.runner.running()
        if not running:
            self.exit()
            return
        what = "A run is" if len(running) == 1 else f"{len(running)} runs are"

        def answered(answer: str | None) -> None:
            if answer == "y":
                self.exit()
            elif answer == "s":
                for child in self.runner.running():
                    self.runner.cancel(child.path)
                self.tell("Stopping; what is done is saved first.")
                self.set_interval(0.2, lambda: None if self.runner.running() else self.exit())

        if isinstance(self.screen, Confirm):
            return
        question = f"{what} under way. Go on without the UI? (At the next start everything is found here again.)"
        self.push_screen(Confirm(question, {"y": "Go on", "s": "Stop"}, danger="s"), answered)

    def action_toggle_theme(self) -> None:
        """Changes between light and dark."""
        dark, light = ("ansi-dark", "ansi-light") if self._sixteen else ("textual-dark", "textual-light")
        self.theme = light if self.theme == dark else dark

    def action_help(self) -> None:
        """Shows the keys of where one is."""
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Saves the screen as an SVG file in the current folder, or through the browser."""
        try:
            self.deliver_screenshot(filename, path or str(Path.cwd()))
        except OSError as error:
            self.fail(f"Expected a folder for the picture. Received: the current one ({error.strerror}).")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offers in the palette whatever has a key where one is, besides what Textual offers."""
        yield from super().get_system_commands(screen)
        told = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.tooltip and active.enabled and binding.action not in told:
                told.add(binding.action)
                namespace = active.node
                yield SystemCommand(
                    binding.description,
                    f"{binding.tooltip} ({self.get_key_display(binding)})",
                    lambda action=binding.action, node=namespace: self.call_later(self.run_action, action, node),
                )
