"""What is said while a training goes wrong, on planted figures."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kerasrobust.events import Finding
from kerasrobust.training.alarms import Alarms

Figures = list[float]


def findings(
    trained: Figures,
    validated: Figures,
    clean: Figures | None = None,
    loss: Figures | None = None,
    warmup_steps: int = 0,
    classes: int = 10,
    images: int = 2000,
    **objective: Any,
) -> list[Finding]:
    """Returns what the alarms say to planted figures, one an epoch of ten steps."""
    told: list[Any] = []
    count = len(validated)
    folder = tempfile.TemporaryDirectory()
    for epoch in range(count):
        # Made anew in each epoch, as where a training is resumed after each.
        alarms = Alarms(told.append, Path(folder.name) / "alarms.json", images)
        network = SimpleNamespace(output_shape=(None, classes))
        settings = {"name": "fgsm", "awp": 0.0, "warmup_steps": warmup_steps} | objective
        averaged = settings.pop("averaged", None)
        model = {"objective": SimpleNamespace(**settings), "network": network, "averaged": averaged}
        alarms.set_model(SimpleNamespace(steps_done=10 * (epoch + 1), **model))
        logs = {"val_accuracy": (clean or [0.6] * count)[epoch], "val_robust_accuracy": validated[epoch]}
        logs["val_loss"] = (loss or [1.0] * count)[epoch]
        alarms.on_epoch_end(epoch, logs | ({"robust_accuracy": trained[epoch]} if trained else {}))
    return told


def test_catastrophic_overfitting_once() -> None:
    """As in Wong 2020, figure 1: PGD accuracy collapses within an epoch while the training accuracy jumps."""
    told = findings([0.30, 0.38, 0.42, 0.70, 0.85, 0.9], [0.28, 0.35, 0.38, 0.05, 0.0, 0.0])
    assert [finding.code for finding in told][:1] == ["catastrophic-overfitting"]
    assert told[0].evidence == {"trained": 0.70, "validated": 0.05, "best": 0.38}
    assert "epoch 4" in told[0].message
    assert [finding.code for finding in told].count("catastrophic-overfitting") == 1


@pytest.mark.parametrize(
    ("trained", "validated"),
    [
        ([0.2, 0.3, 0.35, 0.4], [0.2, 0.28, 0.31, 0.33]),
        # Single epochs differ by a point or two.
        ([0.3, 0.35, 0.37, 0.38, 0.4, 0.42], [0.30, 0.33, 0.35, 0.335, 0.345, 0.34]),
        # Both fall together: a learning rate too high, not an attack that was learned.
        ([0.4, 0.1, 0.12], [0.38, 0.1, 0.11]),
        # Never learned anything.
        ([0.1, 0.1, 0.1], [0.02, 0.0, 0.01]),
    ],
)
def test_healthy_and_other_trainings(trained: Figures, validated: Figures) -> None:
    assert findings(trained, validated) == []


SUDDEN = [0.30, 0.38, 0.42, 0.70], [0.28, 0.35, 0.38, 0.05]
SLOW = [0.40, 0.42, 0.45, 0.50, 0.55, 0.60, 0.65], [0.40, 0.42, 0.43, 0.42, 0.41, 0.39, 0.37]


def test_a_fall_that_few_images_show_by_chance_is_none() -> None:
    """Two of 16 images were once called catastrophic."""
    assert findings([0.11, 0.12, 0.141], [0.125, 0.125, 0.0], images=16) == []
    for trained, validated in (SUDDEN, SLOW):
        assert findings(trained, validated, images=4) == []
        assert findings(trained, validated, images=2000)


def test_what_is_done_already_is_not_advised() -> None:
    assert "--training pgd" in findings(*SUDDEN)[0].message
    told = findings(*SUDDEN, name="pgd")[0]
    assert "--training pgd" not in told.message and "more --steps" in told.message
    for settings, word in (
        ({"averaged": 1}, "--average"),
        ({"name": "adr"}, "--training adr"),
        ({"awp": 0.1}, "--awp"),
    ):
        (told,) = findings(*SLOW, **settings)
        assert word not in told.message and "more --weight-decay" in told.message


def test_robust_overfitting_is_slow_and_mild() -> None:
    """As in Rice 2020, figure 1: after the rate has fallen, training goes on rising and validation falls."""
    trained = [0.40, 0.42, 0.45, 0.50, 0.55, 0.60, 0.65]
    told = findings(trained, [0.40, 0.42, 0.43, 0.42, 0.41, 0.39, 0.37])
    assert [finding.code for finding in told] == ["robust-overfitting"]
    # The means of three epochs: 0.39 at the end, 0.4233 at best, of epochs 2 to 4.
    assert told[0].evidence["validated"] == pytest.approx(0.39)
    assert told[0].evidence["best"] == pytest.approx(0.4233, abs=1e-4)
    assert told[0].evidence["epoch"] == 7 and "39.0 %" in told[0].message and "--average" in told[0].message


@pytest.mark.parametrize(
    ("classes", "clean", "loss"), [(10, 0.1, 2.3026), (10, 0.18, 2.29), (2, 0.5, 0.6931), (100, 0.011, 4.61)]
)
@pytest.mark.parametrize("attacked", [True, False])
def test_collapse_to_a_constant(classes: int, clean: float, loss: float, attacked: bool) -> None:
    trained = [clean] * 3 if attacked else []
    told = findings(trained, [clean] * 3, [0.9 * clean, clean, clean], [loss] * 3, classes=classes)
    assert [finding.code for finding in told] == ["collapse"]
    assert told[0].evidence == {"clean": clean, "epoch": 2} and "--learning-rate" in told[0].message


@pytest.mark.parametrize(("clean", "loss"), [([0.1, 0.3, 0.1], [2.3, 2.0, 2.3]), ([0.1, 0.1, 0.1], [1.9, 1.9, 1.9])])
def test_one_bad_epoch_is_no_collapse(clean: Figures, loss: Figures) -> None:
    assert findings([0.1] * 3, [0.1] * 3, clean, loss) == []


def test_a_ramp_that_is_too_fast() -> None:
    told = findings([0.6, 0.3, 0.2], [0.0, 0.05, 0.1], [0.62, 0.55, 0.31], warmup_steps=100)
    assert [finding.code for finding in told] == ["ramp-too-fast"]
    assert told[0].evidence == {"clean": 0.31, "best": 0.62, "trained": 0.2, "epoch": 3}
    assert "--warmup-epochs" in told[0].message


def test_a_ramp_that_is_slow_enough() -> None:
    """Validation has all of epsilon while the training attack hasn't: no catastrophe."""
    assert findings([0.9, 0.8, 0.4], [0.12, 0.02, 0.3], [0.7, 0.62, 0.55], warmup_steps=25) == []


def test_alarms_need_the_figures(tmp_path: Path) -> None:
    told: list[Any] = []
    alarms = Alarms(told.append, tmp_path / "alarms.json", 2000)
    alarms.on_epoch_end(0, {"accuracy": 0.9, "val_robust_accuracy": 0.5})
    alarms.on_epoch_end(1, {"accuracy": 0.9, "val_robust_accuracy": 0.0})
    assert told == []
