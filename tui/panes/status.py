"""How far a run is: its state, the stage at work, progress, time left, and the newest warning."""

from __future__ import annotations

import time

from rich.text import Text
from textual.widgets import Static

from kerasrobust.show.figures import format_budget, format_done, format_seconds
from tui.read.state import RunState, Stage
from tui.widgets.words import bar_text, left_text, state_text


class Status(Static):
    """A few lines on top of a run: state and stage, progress, warnings, and, of a run that died, its last words."""

    DEFAULT_CSS = """
    Status { height: auto; max-height: 9; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    _shown: Text | None = None

    def show(self, state: RunState, living: str, *, notes: str = "", last_words: str = "") -> None:
        """Shows where a run is.

        Args:
            state: what is known of it.
            living: its state in one word: starting, running, done, failed, cancelled, died.
            notes: such as that the view is paused.
            last_words: the end of its log, where it died.
        """
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append_text(state_text(living))
        stage = state.stages.get(state.now)
        if living == "running" and stage is not None:
            done = sum(item.status in ("done", "skipped") for item in state.stages.values())
            text.append(f"  {stage.title}", "bold")
            text.append(f"  ({done} stages done)", "dim")
        elif state.finished is not None and living not in ("running", "starting"):
            text.append(f"  after {format_seconds(state.finished.seconds)}. {state.finished.message}")
        text.append("\n")
        if living == "running" and stage is not None:
            text.append(progress_line(state, stage, bar=max(8, self.size.width // 4)))
        elif state.stages:
            count = len(state.stages)
            seconds = max(0.0, state.time - state.started.time) if state.started is not None else 0.0
            text.append(f"{count} stage{'' if count == 1 else 's'}, {format_seconds(seconds)}", "dim")
        if state.findings:
            newest = state.findings[-1]
            more = f" (and {state.found - 1:,} more: l)" if state.found > 1 else ""
            text.append(f"\n! {newest.severity}{more}: {newest.message} [{newest.code}]", "bold")
        if notes:
            text.append("\n")
            text.append(notes, "reverse")
        if last_words:
            text.append(f"\n{last_words}")
        self._show(text)

    def _show(self, text: Text) -> None:
        """Takes a text where it is another one; a layout of the whole screen only where it is higher or lower."""
        if text != self._shown:
            lines = text.plain.count("\n")
            self.update(text, layout=self._shown is None or lines != self._shown.plain.count("\n"))
            self._shown = text


def progress_line(state: RunState, stage: Stage, *, bar: int) -> str:
    """Returns progress, rate and time left of what is at work."""
    attack = next((line for line in state.attacks if line.status == "running" and line.stage == stage.name), None)
    if attack is not None:
        parts = [
            f"{attack.attack} {format_budget(attack.epsilon, attack.norm)}".strip(),
            bar_text(attack.share, bar),
            f"{attack.done:,}/{attack.total:,}",
            f"{attack.survivors:,} survivors" if attack.survivors is not None else "",
            left_text(attack.seconds_left),
        ]
    elif stage.progress is not None:
        progress = stage.progress
        share = progress.done / progress.total if progress.total else None
        parts = [
            f"epoch {min(stage.epoch + 1, stage.epochs)}/{stage.epochs}" if stage.epochs else "",
            bar_text(share, bar),
            format_done(progress.done, progress.total or None, progress.unit),
            # Time has no rate.
            f"{progress.rate:.3g}/s" if progress.rate and progress.unit != "second" else "",
            left_text(progress.seconds_left),
        ]
    else:
        # Loading and compiling have no measure; that time goes by shows that it lives.
        parts = [f"{format_seconds(max(0.0, time.time() - stage.began))} in this stage"]
    return "  ".join(part for part in parts if part)


class Stages(Static):
    """The list of stages, with how each went."""

    DEFAULT_CSS = """
    Stages { width: 38; padding: 0 1; overflow-y: auto; text-wrap: nowrap; text-overflow: ellipsis;
        border-right: solid $panel; height: 1fr; }
    """

    _shown: Text | None = None

    def show(self, state: RunState) -> None:
        text = Text(no_wrap=True, overflow="ellipsis")
        for stage in state.stages.values():
            sign = state_text(stage.status)
            text.append(f"{sign.plain[0]} ", sign.style)
            text.append(stage.title, "bold" if stage.status == "running" else "")
            if stage.status != "running":
                text.append(f" {format_seconds(stage.seconds)}", "dim")
            text.append("\n")
        if text != self._shown:
            self._shown = text
            self.update(text, layout=False)
