"""What there is to say of a model before anything is measured."""

from __future__ import annotations

from kerasrobust.attacks.surrogate import of_surrogate
from kerasrobust.attacks.task import Task
from kerasrobust.events import Finding
from kerasrobust.networks.adapters.predictions import Prediction
from kerasrobust.networks.remarks import by_severity


def about_models(task: Task) -> list[Finding]:
    """Returns what was understood of the model, and of its surrogate, and what their probes warn of."""
    found = []
    for classifier in dict.fromkeys([task.classifier, task.source]):
        warnings = list(classifier.warnings)
        # What it gave for the probe's noise may be whole by chance; by now it has seen the images.
        if isinstance(classifier.model, Prediction) and classifier.model.decides and not classifier.model.labels:
            warnings.append(classifier.model.decisions_only())
        found += [Finding(code=code, message=text, severity="warning") for code, text in warnings]
        for severity, notes in by_severity(classifier.notes).items():
            message = notes if classifier is task.classifier else of_surrogate(notes)
            found.append(Finding(code="conventions", message=message, severity=severity))
    return found
