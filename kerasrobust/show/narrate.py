"""Events as sentences, the same on the console and in the terminal UI's log. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasrobust.events import (
    AttackFinished,
    Event,
    ExamplesSaved,
    Finding,
    Log,
    ModelSaved,
    RunFinished,
    RunStarted,
    Severity,
    StageFinished,
    StageStarted,
)
from kerasrobust.show.figures import (
    format_accuracy,
    format_budget,
    format_distance,
    format_interval,
    format_norm,
    format_seconds,
)


def narrate(event: Event, title: str = "") -> str | None:
    """Returns what happened as one line, or None for an event that only moves a figure.

    Args:
        event: what happened.
        title: of the event's stage, as it was announced.

    Example:
        >>> narrate(StageFinished(stage="train", status="done", seconds=75.0), "Training convnet")
        'Training convnet: done (75 s)'
    """
    match event:
        case RunStarted():
            return f"Run {event.run} ({event.kind}) on {', '.join(map(str, event.devices)) or 'an unknown device'}"
        case StageStarted():
            return event.title
        case StageFinished():
            skipped = event.status == "skipped"
            outcome = "skipped (already done)" if skipped else f"{event.status} ({format_seconds(event.seconds)})"
            return f"{title or event.stage or 'stage'}: {outcome}"
        case AttackFinished():
            return _attack(event)
        case ExamplesSaved():
            return f"{event.count:,} examples of {event.attack} in {event.path}"
        case ModelSaved():
            return f"saved {event.name} in {event.path}"
        case Finding():
            return f"{event.message} [{event.code}]"
        case Log():
            return event.message
        case RunFinished():
            return f"{event.status.capitalize()} after {format_seconds(event.seconds)}. {event.message}".rstrip()
    return None


def _attack(event: AttackFinished) -> str:
    interval = format_interval(event.interval)
    found = f"robust accuracy {format_accuracy(event.robust_accuracy)}{f' ({interval} %)' if interval else ''}"
    if event.epsilon is None:
        found += f", median distance {format_distance(event.median_distance) or 'infinite'}"
    budget = format_budget(event.epsilon, event.norm) or format_norm(event.norm)
    return f"{event.name} {budget}: {found}, {format_seconds(event.seconds)}"


def severity(event: Event) -> Severity:
    """Returns how bad an event is."""
    if isinstance(event, Finding):
        return event.severity
    if isinstance(event, Log):
        return event.level
    return "error" if isinstance(event, StageFinished | RunFinished) and event.status == "failed" else "info"


def is_synthetic(config: Mapping[str, Any], kind: str = "") -> bool:
    """Tells whether a run of these settings is on generated pictures."""
    data = config.get("data")
    name = data.get("name") if isinstance(data, Mapping) else data
    return name == "shapes" if name else kind == "demo"
