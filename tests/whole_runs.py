"""What tests of whole runs share: the contract of what they leave, and what holds for each."""

from __future__ import annotations

from pathlib import Path

from cli import call

from kerasrobust.events import Event, StageFinished

# What other programs read.
RESULT = {
    "schema", "kind", "model", "data", "seed", "precision", "versions", "clean_accuracy", "attacks", "robust_accuracy",
    "warnings",
}  # fmt: skip
ENTRY = {
    "name", "norm", "epsilon", "robust_accuracy", "interval", "median_distance", "seconds", "gradients", "forwards",
}  # fmt: skip
ROW = {
    "name", "model", "training", "randomized", "noise", "attack", "norm", "epsilon", "steps", "eot", "accuracy",
    "interval", "median_distance", "published", "examples",
}  # fmt: skip
CONTRACT = ("x", "y", "x_adv", "prediction", "prediction_adv", "success", "correct_rate", "distance", "attack")
EXAMPLES = (*CONTRACT, "confidence", "confidence_adv", "epsilon", "eot")


def unheard(event: Event) -> None:
    """Stands for whoever watches."""


def nothing_half_written(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.suffix == ".part" or path.name.startswith(".")]


def share(low: float, value: float, high: float) -> bool:
    return 0 <= low <= value + 1e-9 and value <= high + 1e-9 and high <= 1


def stages_of(log: list[Event]) -> dict[str, str]:
    return {event.stage or "": event.status for event in log if isinstance(event, StageFinished)}


def exported(folder: Path) -> dict[str, str]:
    """Returns what a run's folder is exported to as CSV, LaTeX and SVG, by the names of the files."""
    found = {}
    for kind in ("csv", "latex", "svg"):
        target = folder.parent / f"{folder.name}-{kind}"
        outcome = call("export", folder, "--format", kind, "--to", target)
        assert outcome.status == 0, outcome.err
        found |= {path.name: path.read_text() for path in target.iterdir()}
    return found
