"""Events as sentences, the same on the console and in the terminal UI's log. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasrobust import events
from kerasrobust.entries import CertificateEntry
from kerasrobust.names import uncorrupted
from kerasrobust.runs import data_of
from kerasrobust.show import figures
from kerasrobust.show.audited import looked
from kerasrobust.show.corrupted import title_of


def narrate(event: events.Event, title: str = "") -> str | None:
    """Returns what happened as one line, with the title of the event's stage; None if it only moves a figure.

    Example:
        >>> narrate(StageFinished(stage="train", status="done", seconds=75.0), "Training convnet")
        'Training convnet: done (75 s)'
    """
    match event:
        case events.RunStarted():
            return f"Run {event.run} ({event.kind}) on {', '.join(map(str, event.devices)) or 'an unknown device'}"
        case events.StageStarted():
            return event.title
        case events.StageFinished():
            why = "already done" if event.status == "skipped" else figures.format_seconds(event.seconds)
            status = "stopped, out of time" if event.status == "stopped" else event.status
            return f"{title or event.stage or 'stage'}: {status} ({why})"
        case events.AttackFinished():
            return _attack(event)
        case events.LabelFinished():
            interval = figures.format_interval(event.interval)
            return (
                f"label {event.name}: clean accuracy {figures.format_accuracy(event.clean_accuracy)}, robust accuracy "
                f"{figures.format_accuracy(event.robust_accuracy)} ({interval} %)"
            )
        case events.Audited():
            return looked(event).verdict
        case events.Certified():
            found = CertificateEntry.parse(event.certificate)
            right, abstained = map(figures.format_accuracy, (event.clean_accuracy, found.abstained))
            return f"certified under {figures.noise_words(found)}: right on {right}, abstained on {abstained}"
        case events.CorruptionFinished():
            return _corruption(event)
        case events.ExamplesSaved():
            return f"{figures.format_count(event.count, 'example')} of {event.attack} in {event.path}"
        case events.ModelSaved():
            return f"saved {event.name} in {event.path}"
        case events.Finding():
            return f"{event.message} [{event.code}]"
        case events.Log():
            return event.message
        case events.RunFinished():
            seconds = figures.format_seconds(event.seconds)
            return f"{event.status.capitalize()} after {seconds}. {event.message}".rstrip()
    return None


def _attack(event: events.AttackFinished) -> str:
    interval = figures.format_interval(event.interval)
    found = f"robust accuracy {figures.format_accuracy(event.robust_accuracy)}{f' ({interval} %)' if interval else ''}"
    if event.reached is not None:
        found += f", target reached by {figures.format_accuracy(event.reached)}"
    if event.epsilon is None and not figures.is_no_ball(event.norm):
        found += f", median distance {figures.format_distance(event.median_distance) or 'infinite'}"
    if event.median_queries is not None:
        found += f", median {event.median_queries:,.0f} queries"
    budget = figures.format_budget(event.epsilon, event.norm) or figures.format_norm(event.norm)
    under = f"{figures.with_eot(event.name, event.settings.get('eot'))} {budget}"
    name = figures.made_on(under, event.surrogate)
    return f"{name}: {found}, {figures.format_seconds(event.seconds)}"


def _corruption(event: events.CorruptionFinished) -> str:
    interval = figures.format_interval(event.interval)
    other = "" if event.reference is None else f", reference {figures.format_accuracy(event.reference)}"
    return (
        f"{title_of(event.kind)}, severity {event.severity}: accuracy {figures.format_accuracy(event.accuracy)} "
        f"({interval} %){other}, {figures.format_seconds(event.seconds)}"
    )


def severity(event: events.Event) -> events.Severity:
    """Returns how bad an event is."""
    match event:
        case events.Finding():
            return event.severity
        case events.Log():
            return event.level
        case events.StageFinished(status="failed") | events.RunFinished(status="failed"):
            return "error"
    return "info"


def is_synthetic(config: Mapping[str, Any], kind: str = "") -> bool:
    """Returns whether a run of these settings is on generated pictures."""
    name = data_of({"kind": kind, **config})
    return uncorrupted(name) == "shapes" if name else kind == "demo"
