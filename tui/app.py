"""The app: its places, its theme, the runs that it started, and what all screens share."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from kerasrobust.errors import InputError
from kerasrobust.runs import state
from kerasrobust.settings import RunConfig
from tui.messages import Edit, Go, Open, Start
from tui.preferences import Preferences
from tui.runner import Child, Runner
from tui.screens.base import PLACES
from tui.screens.dialogs import Confirm
from tui.screens.runs import RunsScreen
from tui.session import Session
from tui.tidy import TidyApp

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


class Lab(TidyApp):
    """The terminal UI of kerasrobust; `engine` are the words that start a run, before its own, `preferences` a person's
    theme and keys.

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
        Binding("ctrl+q", "leave", "Quit", id="quit-anywhere", show=False, priority=True,
                tooltip="Quit; asks whether runs go on"),
        Binding("ctrl+p", "command_palette", "Palette", id="palette", show=False, tooltip="Search all commands"),
    ]  # fmt: skip

    def __init__(
        self,
        runs_dir: Path,
        models_dir: Path,
        engine: Sequence[str] = ENGINE,
        preferences: Preferences | None = None,
    ) -> None:
        super().__init__()
        self._preferred = preferences or Preferences()
        self.session = Session(runs_dir, models_dir, Runner(engine))
        # An animation is time that a person waits for, and work for a core.
        self.animation_level = "none"

    @property
    def _themes(self) -> dict[bool, str]:
        """The dark and the light theme; a person's own is one of them."""
        # Sixteen colours can't be mixed: there the terminal's own are used.
        kind = "ansi" if self.console.color_system == "standard" and not self.no_color else "textual"
        own = self._preferred.theme
        return {True: f"{kind}-dark", False: f"{kind}-light"} | ({self.available_themes[own].dark: own} if own else {})

    def on_mount(self) -> None:
        self.theme = self._preferred.theme or self._themes[True]
        self.set_keymap(self._preferred.keys)
        self.set_interval(1.0, self._look_after_children)
        # Back from the shell, which has written over the screen.
        self.app_resume_signal.subscribe(self, lambda _: self.set_timer(0.1, lambda: self.refresh(layout=True)))
        self.switch_mode("runs")

    def on_go(self, message: Go) -> None:
        if self.current_mode != message.place:
            self.switch_mode(message.place)

    def on_open(self, message: Open) -> None:
        self.open_run(message.path)

    def on_edit(self, message: Edit) -> None:
        self.edit(message.config)

    def on_start(self, message: Start) -> None:
        self.start(message.config)

    def action_show(self, place: str) -> None:
        """Goes to one of the places, and closes what lies upon it there."""
        if self.current_mode != place:
            self.switch_mode(place)
        while len(self.screen_stack) > 1:
            self.pop_screen()

    def open_run(self, path: Path) -> None:
        from tui.screens.monitor import MonitorScreen

        self.action_show("runs")
        if isinstance(self.screen, RunsScreen):
            self.screen.follow(path)
        self.push_screen(MonitorScreen(path))

    def edit(self, config: RunConfig) -> None:
        """Opens the form, filled in with a config."""
        from tui.screens.new import NewRunScreen

        self.push_screen(NewRunScreen(config))

    def start(self, config: RunConfig) -> None:
        """Starts a run in a child process and opens its monitor."""
        session = self.session
        config = dataclasses.replace(config, runs_dir=session.runs_dir, models_dir=session.models_dir)
        try:
            child = session.runner.start(config)
        except InputError as error:
            self._fail(str(error))
            return
        if len(self.screen_stack) > 1:  # The form, or the monitor of the run that is started again.
            self.pop_screen()
        self.open_run(child.path)

    def _look_after_children(self) -> None:
        for child, sent in self.session.runner.escalate():
            self.notify(f"{child.path.name} is still running; sent {sent}.", markup=False)
        for child in list(self.session.runner.children.values()):
            if child.settled or not child.ended:
                continue
            child.settle()
            looks_at_it = getattr(self.screen, "path", None) == child.path
            if not child.refused:
                if not looks_at_it:
                    self._announce(child)
                continue
            # Without a folder there is nothing to watch; the list of runs keeps a line that says why.
            if looks_at_it and not child.path.exists():
                self.pop_screen()
            if child.was_cancelled:
                self.notify(f"{child.path.name}: cancelled before it began.", markup=False)
            else:
                self._fail(child.last_words())

    def _announce(self, child: Child) -> None:
        """Rings, and says that a run has ended."""
        word = "cancelled" if child.was_cancelled else state(child.path)
        self.bell()
        if word in ("failed", "died"):
            self._fail(f"{child.path.name}: {word}.")
        else:
            self.notify(f"{child.path.name}: {word}.", markup=False)

    def _fail(self, message: str, timeout: float = 10) -> None:
        self.notify(message, severity="error", timeout=timeout, markup=False)

    def action_leave(self) -> None:
        running = self.session.runner.running()
        if not running:
            self.exit()
            return
        one = len(running) == 1

        def answered(answer: str | None) -> None:
            if answer == "y":
                self.exit()
            elif answer == "s":
                for child in self.session.runner.running():
                    self.session.runner.cancel(child.path)
                self.notify("Stopping; what is done is saved first.")
                self.set_interval(0.2, lambda: None if self.session.runner.running() else self.exit())

        if isinstance(self.screen, Confirm):
            return
        what = "A run is" if one else f"{len(running)} runs are"
        question = f"{what} under way. Quit, and leave {'it' if one else 'them'} running? You can come back later."
        answers = {"y": "Leave running", "s": "Stop it" if one else "Stop them", "n": "Stay"}
        self.push_screen(Confirm(question, answers, danger="s"), answered)

    def action_toggle_theme(self) -> None:
        self.theme = self._themes[not self.current_theme.dark]

    def action_help(self) -> None:
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Saves the screen as an SVG file in the current folder, or through the browser."""
        try:
            self.deliver_screenshot(filename, path or str(Path.cwd()))
        except OSError as error:
            self._fail(f"Expected a folder for the picture. Received: the current one ({error.strerror}).")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offers in the palette every bound action of the current screen, besides what Textual offers."""
        yield from super().get_system_commands(screen)
        offered = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.tooltip and active.enabled and binding.action not in offered:
                offered.add(binding.action)
                namespace = active.node
                yield SystemCommand(
                    binding.description,
                    f"{binding.tooltip} ({self.get_key_display(binding)})",
                    lambda action=binding.action, node=namespace: self.call_later(self.run_action, action, node),
                )
