"""Ctrl-C in the middle of long work: the process ends after the chunk at hand, reports it, and can be resumed."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from cli import Outcome, call, events, interrupt, start, wait_for

from kerasrobust import run, runs
from kerasrobust.config import TrainConfig
from kerasrobust.events import AttackProgress, Event, Log, Metrics, Progress, RunFinished
from kerasrobust.networks.saving import load_model

pytest_plugins = ["cli_fixtures"]

CHUNKS = 2
"""How often a run may report progress after it was interrupted: for the chunk at hand, and one just begun."""


def check_cancelled(folder: Path, outcome: Outcome, sent: float) -> str:
    """Checks how a run ended that was interrupted at some time; returns its last message."""
    assert outcome.status == 130
    assert outcome.err == ""
    last = events(folder)[-1]
    assert isinstance(last, RunFinished) and last.status == "cancelled"
    assert runs.state(folder) == "cancelled"
    assert not (folder / "result.json").exists() and not (folder / "examples.h5").exists()
    assert "Cancelled after" in outcome.out and last.message in " ".join(outcome.out.split())
    later = [event for event in events(folder) if isinstance(event, AttackProgress | Progress) and event.time > sent]
    assert len(later) <= CHUNKS
    return last.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_question_at_first_and_an_interruption_when_nobody_answers(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.1)
    with run._stopping() as should_stop:
        assert not should_stop()
        signal.raise_signal(number)
        assert should_stop()
        time.sleep(0.3)  # Answered: nothing more comes.
        with pytest.raises(KeyboardInterrupt):  # A second one is for at once.
            signal.raise_signal(number)
    with run._stopping() as should_stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
        time.sleep(10)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    "words",
    [
        # With epsilon 0 nothing ever succeeds, so every step of every restart is taken.
        pytest.param(["--attack", "pgd", "--epsilon", "0", "--steps", "2000", "--restarts", "50"], id="pgd"),
        pytest.param(["--model", "noisy", "--eot", "50", "--steps", "200", "--batch-size", "64"], id="eot"),
    ],
)
def test_in_the_middle_of_an_attack(words: list[str], places: list[str], agreed: Path) -> None:
    folder = Path(places[1]) / "one"
    process = start("attack", "--model", "tiny", "--data", agreed, "--split", "test", "--name", "one", *words, *places)

    def in_the_middle() -> bool:
        log = [event for event in events(folder) if isinstance(event, AttackProgress)]
        # Past the first steps, where the graph is traced.
        return len(log) > 3 and log[-1].gradients > 0 and log[-1].done < log[-1].total

    wait_for(process, in_the_middle)
    outcome, sent = interrupt(process)
    assert "the same command with --name one resumes it" in check_cancelled(folder, outcome, sent)


def test_while_tensorflow_is_loaded(places: list[str]) -> None:
    process = start("attack", "--model", "tiny", *places, "--name", "one")
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        process.kill()
        pytest.skip("no /proc here, to see what a process has loaded")
    wait_for(process, lambda: "tensorflow" in maps.read_text())
    outcome, _ = interrupt(process)
    assert (outcome.status, outcome.err) == (130, "")
    folder = Path(places[1]) / "one"
    assert not folder.exists() or runs.state(folder) == "cancelled"


EPOCHS = 5
IMAGES = 3000
TRAIN = [
    "train", "--widths", "8", "16", "--split", f"train[:{IMAGES}]", "--test-split", "test[:20]",
    "--epochs", str(EPOCHS),
    "--batch-size", "50", "--learning-rate", "0.05", "--name", "one",
]  # fmt: skip


def epochs_in(log: list[Event]) -> list[Metrics]:
    """Returns the figures at the ends of epochs."""
    return [event for event in log if isinstance(event, Metrics) and "learning_rate" in event.values]


def test_in_the_middle_of_training_which_then_goes_on(tmp_path: Path) -> None:
    places = ["--runs-dir", str(tmp_path / "runs"), "--models-dir", str(tmp_path / "models")]
    folder, model = tmp_path / "runs" / "one", tmp_path / "models" / "one"
    process = start(*TRAIN, *places)
    per_epoch = round(IMAGES * (1 - TrainConfig().validation_share)) // 50

    def in_the_third_epoch() -> bool:
        log = [event for event in events(folder) if isinstance(event, Progress) and event.unit == "step"]
        return bool(log) and log[-1].done > 2 * per_epoch

    wait_for(process, in_the_third_epoch)
    outcome, sent = interrupt(process)
    before = events(folder)
    assert "the same command with --name one resumes it" in check_cancelled(folder, outcome, sent)
    whole = [event.epoch for event in epochs_in(before)]
    assert 2 <= len(whole) < EPOCHS and whole == list(range(1, len(whole) + 1))
    assert not model.exists()

    # A best epoch that no other can beat, so that what it is chosen by is seen to be what was noted before.
    training = folder / "training"
    note = json.loads((training / "best.json").read_text())
    assert note["epoch"] in whole
    runs.write_json(training / "best.json", {"value": 2.0, "epoch": 1})
    weights = (training / "best.weights.h5").read_bytes()

    outcome = call(*TRAIN, *places)
    assert (outcome.status, outcome.err) == (0, "")
    after = events(folder)[len(before) :]
    assert [event.epoch for event in epochs_in(after)] == list(range(len(whole) + 1, EPOCHS + 1))
    assert any(isinstance(event, Log) and f"Kept epoch 1 of {EPOCHS}" in event.message for event in after)
    assert (training / "best.weights.h5").read_bytes() == weights
    assert runs.state(folder) == "done"
    assert load_model(model).count_params() > 0
    # The optimizer goes on where it was: the learning rate follows one cosine through both parts, after its rise.
    steps = EPOCHS * per_epoch
    rise = steps // 10
    for event in [*epochs_in(before), *epochs_in(after)]:
        done = event.epoch * per_epoch
        expected = 0.05 * (1 + math.cos(math.pi * (done - rise) / (steps - rise))) / 2
        np.testing.assert_allclose(event.values["learning_rate"], expected, rtol=0.03, atol=1e-4)

    # Trained already: asked for again after a crash at the very end, it trains nothing.
    (folder / "result.json").unlink()
    count = len(events(folder))
    outcome = call(*TRAIN, *places, "--overwrite")
    assert (outcome.status, outcome.err) == (0, "")
    assert epochs_in(events(folder)[count:]) == []
