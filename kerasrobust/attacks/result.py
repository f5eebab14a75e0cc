"""What an attack has found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found, one entry per example in the order of the data.

    Attributes:
        x_adv: float32 (N, H, W, C) in [0, 1].
        prediction: int64 (N,), the class of the unchanged image (for a randomized network the most frequent one).
        prediction_adv: int64 (N,), the same of `x_adv`, re-predicted in float32 after the attack.
        success: bool (N,): the model is wrong on `x_adv`, also where it was wrong from the start; with targets: it
            says the target. For a randomized network the majority of fresh passes decides.
        clean_rate: float64 (N,), share of fresh passes over the unchanged image that are right.
        correct_rate: float64 (N,), the same over `x_adv`; 0 or 1 where nothing is random.
        confidence: float32 (N,), mean softmax probability of `prediction`.
        confidence_adv: float32 (N,), the same of `prediction_adv`.
        distance: float32 (N,), the norm of `x_adv - x` in the attack's norm.
        gradients: gradient evaluations spent, summed over examples (a Jacobian counts once per class).
        forwards: forward passes beyond those, summed over examples.
        seconds: wall time.
        precision: of the gradients (`twins.precision`): where "bfloat16" was asked for, the nearest adversarial
            examples are looked for in "folded".
        passes: predictions of each fresh pass over `x_adv`, int64 (passes, N).
        learned: float32, what was learned of all images together: the patch that was laid on each, (S, S, C), or the
            perturbation that was added to each, (H, W, C). None for other attacks.
        queries: int64 (N,), after how many queries an image that was right fell first, restarts added up; 0 where it
            hasn't fallen. None for attacks that don't count them, and on randomized networks.
        shared: the standard error of the accuracy by noise that the examples share (`stats.shared_error`).
    """

    x_adv: np.ndarray
    prediction: np.ndarray
    prediction_adv: np.ndarray
    success: np.ndarray
    clean_rate: np.ndarray
    correct_rate: np.ndarray
    confidence: np.ndarray
    confidence_adv: np.ndarray
    distance: np.ndarray
    gradients: int
    forwards: int
    seconds: float
    precision: str
    passes: np.ndarray
    learned: np.ndarray | None = None
    queries: np.ndarray | None = None
    shared: float = 0.0

    def __repr__(self) -> str:
        """Returns the figures; the arrays would fill screens."""
        right, median = self.correct, self.median_distance
        parts = [
            f"{int((self.success & right).sum()):,} of {int(right.sum()):,} images fooled that were right before",
            f"{len(right):,} images",
            *([f"median distance {median:.3g}"] if np.isfinite(median) else []),
            f"{self.gradients:,} gradients, {self.forwards:,} forward passes, {self.seconds:.1f} s, {self.precision}",
        ]
        return f"AttackResult({'; '.join(parts)})"

    @property
    def patch(self) -> np.ndarray | None:
        """What was learned, as the patch that it is after `universal-patch`."""
        return self.learned

    @property
    def correct(self) -> np.ndarray:
        """Bool (N,), right before the attack."""
        return self.clean_rate > 0.5

    @property
    def median_distance(self) -> float:
        """Median distance over the examples that were right before the attack; a failure counts as infinite."""
        return self.median_over(self.correct)

    def median_over(self, chosen: np.ndarray) -> float:
        """Returns the same over some examples, bool (N,); NaN over none."""
        reached = np.where(self.success, self.distance, np.inf)[chosen]
        return float(np.median(reached)) if len(reached) else float("nan")
