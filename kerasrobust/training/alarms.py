"""Warnings while training: what goes wrong, with the figure, and what to do about it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras

from kerasrobust.events import Emit, Finding
from kerasrobust.runs import read_json, write_json
from kerasrobust.show.figures import format_accuracy as percent
from kerasrobust.stats import wilson

_SEVERAL_STEPS = ("pgd", "adr", "trades", "mart", "alp")
"""Objectives whose attack takes several steps."""


class Alarms(keras.callbacks.Callback):
    """Warns when adversarial training goes wrong, of each fault once, after a validated epoch.

    - `catastrophic-overfitting`: it fools its own attack, and PGD gets through (Wong et al. 2020, section 5.4);
    - `robust-overfitting`: it grows more robust on training images, and less on others (Rice et al. 2020);
    - `collapse`: it gives one answer for every image;
    - `ramp-too-fast`: epsilon grows faster than the network follows.

    Args:
        emit: takes the findings.
        file: where what they have seen is kept, so that a resumed training continues from there.
        images: how many are validated: a fall that so few may show by chance is none.
    """

    def __init__(self, emit: Emit, file: Path, images: int) -> None:
        super().__init__()
        self._emit = emit
        self._file = file
        self._images = images
        before = read_json(file) or {}
        self._emitted: list[str] = before.get("emitted", [])
        # Robust accuracy in training and in validation, after the ramp.
        self._seen: list[tuple[float, float]] = [(one, other) for one, other in before.get("seen", [])]
        self._clean: float = before.get("clean", 0.0)
        self._constant: int = before.get("constant", 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._look(epoch, logs)
        kept = {"emitted": self._emitted, "seen": self._seen, "clean": self._clean, "constant": self._constant}
        write_json(self._file, kept)

    def _look(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        clean, validated = logs.get("val_accuracy"), logs.get("val_robust_accuracy")
        if clean is None or validated is None:
            return
        self._look_at_answers(epoch + 1, float(clean), float(logs.get("val_loss", 0.0)))
        trained = logs.get("robust_accuracy")
        if trained is None:
            return
        trained, validated = float(trained), float(validated)
        if int(self.model.steps_done) < self.model.objective.warmup_steps:
            # The training attack is still weaker than that of the validation, so the two say nothing together.
            self._look_at_ramp(epoch + 1, float(clean), trained)
            return
        self._seen.append((trained, validated))
        self._look_at_gap(epoch + 1, trained, validated)
        self._look_at_course(epoch + 1)

    @property
    def _chance(self) -> float:
        return 1.0 / max(2, int(self.model.network.output_shape[-1]))

    def _falls(self, before: float, after: float) -> bool:
        """Whether the interval of an accuracy lies below that of an earlier one."""
        (low, _), (_, high) = (wilson(accuracy * self._images, self._images) for accuracy in (before, after))
        return high < low

    def _look_at_answers(self, epoch: int, clean: float, loss: float) -> None:
        """Two validated epochs at chance, with the loss of guessing."""
        guessing = loss >= 0.98 * math.log(1.0 / self._chance)
        self._constant = self._constant + 1 if clean <= self._chance + min(0.1, self._chance) and guessing else 0
        if self._constant == 2:
            self._warn(
                "collapse",
                f"Collapse: after epoch {epoch} {percent(clean)} of the clean validation images are right, which is "
                "chance. Start again with a longer --warmup-epochs or a smaller --learning-rate.",
                {"clean": clean, "epoch": epoch},
            )

    def _look_at_ramp(self, epoch: int, clean: float, trained: float) -> None:
        """Clean accuracy breaks down while epsilon still grows: on the way up it falls slowly."""
        self._clean = max(self._clean, clean)
        if self._clean > 2 * self._chance and clean < 0.6 * self._clean and self._falls(self._clean, clean):
            self._warn(
                "ramp-too-fast",
                f"Epsilon grows too fast: clean accuracy fell from {percent(self._clean)} to {percent(clean)} in epoch "
                f"{epoch}, with {percent(trained)} robust against the training attack. Double --warmup-epochs.",
                {"clean": clean, "best": self._clean, "trained": trained, "epoch": epoch},
            )

    def _look_at_gap(self, epoch: int, trained: float, validated: float) -> None:
        best = max(value for _, value in self._seen)
        # Half of the best so far is far outside of what epochs differ by; the training attack must not agree with it.
        if best >= 0.1 and validated < 0.5 * best and trained > 2 * validated and self._falls(best, validated):
            other = "more --steps" if self.model.objective.name in _SEVERAL_STEPS else "--training pgd"
            self._warn(
                "catastrophic-overfitting",
                f"Catastrophic overfitting in epoch {epoch}: {percent(trained)} robust against the training attack, "
                f"{percent(validated)} against PGD, after {percent(best)} before. The best epoch is kept; take "
                f"{other}, or a smaller --epsilon.",
                {"trained": trained, "validated": validated, "best": best},
            )

    def _look_at_course(self, epoch: int) -> None:
        """Three validations in a row two points below the best of three before, while training goes on getting better.

        Means of three, as single ones differ by a point or two by themselves.
        """
        means = [
            [sum(part) / 3 for part in zip(*self._seen[at : at + 3], strict=True)] for at in range(len(self._seen) - 2)
        ]
        if not means:
            return
        place = max(range(len(means)), key=lambda at: means[at][1])
        (trained, validated), (learned, best) = means[-1], means[place]
        # Of few images the three tell apart no two points.
        margin = max(0.02, math.sqrt(best * (1 - best) / self._images))
        if validated < best - margin and trained > learned + 0.02:
            self._warn(
                "robust-overfitting",
                f"Robust overfitting until epoch {epoch}: {percent(validated)} robust on validation images after "
                f"{percent(best)} before, while it rose from {percent(learned)} to {percent(trained)} in training. The "
                f"best epoch is kept; try {self._against_overfitting()}.",
                {"trained": trained, "validated": validated, "best": best, "epoch": epoch},
            )

    def _against_overfitting(self) -> str:
        """Returns what helps and isn't done yet."""
        model, ways = self.model, ["fewer --epochs", "more --weight-decay"]
        ways += [] if model.averaged is not None else ["--average 0.999"]
        ways += [] if model.objective.name == "adr" else ["--training adr"]
        ways += [] if model.objective.awp else ["--awp 0.005"]
        return f"{', '.join(ways[:-1])} or {ways[-1]}"

    def _warn(self, code: str, message: str, evidence: dict[str, float]) -> None:
        if code not in self._emitted:
            self._emitted.append(code)
            self._emit(Finding(code=code, severity="warning", message=message, evidence=evidence))
