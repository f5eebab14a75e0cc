"""How far a run is: its state, the stage at work, progress, time left, its result, and the worst finding."""

from __future__ import annotations

import time

from rich.text import Text
from textual.widgets import Static

from kerasrobust.show.figures import format_budget, format_count, format_done, format_seconds
from tui.read.measured import Measured, so_far
from tui.read.state import RunState, Stage
from tui.widgets.words import bar_text, finding_text, left_text, state_text


class Status(Static):
    """A few lines on top of a run: state, progress, result, the worst finding, and, if it died, its last words."""

    DEFAULT_CSS = """
    Status { height: auto; max-height: 50%; padding: 0 1; }
    """

    _shown: Text | None = None
    _lines = 0

    def show(
        self, state: RunState, living: str, *, since: float = 0.0, result: Measured | None = None, report: bool = False,
        notes: str = "", last_words: str = "",
    ) -> None:  # fmt: skip
        """Shows where a run is.

        Args:
            state: what is known of it.
            living: its state in one word: starting, running, done, failed, cancelled, died.
            since: when it was started, in Unix seconds.
            result: of a run that has ended.
            report: whether there is one to open.
            notes: such as that the view is paused.
            last_words: the end of its log, where it died.
        """
        text = Text()
        text.append_text(state_text(living))
        stage = state.stages.get(state.now)
        if living == "running" and stage is not None:
            done = sum(item.status in ("done", "skipped") for item in state.stages.values())
            text.append(f"  {stage.title}", "bold")
            text.append(f"  ({format_count(done, 'stage')} done)", "dim")
        elif state.finished is not None and living not in ("running", "starting"):
            text.append(f"  after {format_seconds(state.finished.seconds)}. {state.finished.message}")
        if living == "running" and stage is not None:
            if line := progress_line(state, stage, bar=max(8, self.size.width // 4)):
                text.append(f"\n{line}")
        elif living in ("starting", "running"):
            # Loading has no measure; that time goes by shows that it lives.
            text.append(f"\nloading TensorFlow, {format_seconds(max(0.0, time.time() - since))}")
        _append_result(text, state, result if living not in ("starting", "running") else None, report)
        if (worst := state.worst) is not None:
            text.append("\n")
            text.append_text(finding_text(worst, state.found))
        if notes:
            text.append("\n")
            text.append(notes, "reverse")
        if last_words:
            text.append(f"\n{last_words}")
        self._show(text)

    def _show(self, text: Text) -> None:
        """Takes a text where it is another one; a layout of the whole screen only where it is higher or lower."""
        if text != self._shown:
            lines = len(text.wrap(self.app.console, max(1, self.size.width)))
            self.update(text, layout=self._shown is None or lines != self._lines)
            self._shown, self._lines = text, lines


def _append_result(text: Text, state: RunState, result: Measured | None, report: bool) -> None:
    """Appends what came out of a run, or what it has reached so far, on what, and where it went."""
    if result is None:
        if figures := so_far(state):
            text.append(f"\n{figures}", "bold")
            text.append("  so far", "dim")
        return
    if result.figures:
        text.append(f"\n{result.figures}", "bold")
    where = [f"model in {model.path}" for model in list(state.models.values())[:1]]
    if state.models and len(state.models) > 1:
        where = [f"{len(state.models)} models saved"]
    words = (result.about, *where, "report: o" if report else "")
    text.append("\n" + "; ".join(filter(None, words)), "dim")


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
    elif stage.status == "running":
        # Nothing is reported until the first step is done; what reads or saves has none.
        doing = "" if stage.name in ("prepare", "save") else "compiling the first step, "
        parts = [f"{doing}{format_seconds(max(0.0, time.time() - stage.began))}"]
    else:  # The next one hasn't begun.
        parts = []
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
