"""What an evaluation prints while it runs, for who sees it."""

from __future__ import annotations

import sys
from typing import Any

import keras
import pytest
from conftest import images, labels_of

from kerasrobust.evaluation.bars import Bars
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.events import Event, Finding

X = images(12, seed=3)


@pytest.fixture
def watched(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)


def printed(capsys: pytest.CaptureFixture[str], model: keras.Model, **settings: Any) -> str:
    y = labels_of(model, X, 3)
    evaluate(model, X, y, **{"attacks": "pgd", "epsilon": 0.01, "audit": False} | settings)
    return capsys.readouterr().out


@pytest.mark.usefixtures("watched")
def test_a_terminal_sees_a_bar_for_each_attack(linear: keras.Model, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, linear, attacks=["pgd", "fmn", "deepfool"])
    last = [line.rpartition("\r")[2] for line in out.split("\n")]
    bars = [line for line in last if "12/12" in line]
    assert len(bars) == 3 and all("robust_accuracy: " in line for line in bars)
    assert "pgd 0.01" in out and out.index("pgd ") < out.index("fmn") < out.index("deepfool")


def test_findings_are_printed_that_are_reasons_for_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    for severity in ("info", "warning"):
        bars(Finding(code="rounding", message=f"A {severity}.", severity=severity))  # type: ignore[arg-type]
    assert capsys.readouterr().out == "A warning. (rounding)\n"


def test_pipes_and_those_who_listen_see_none(
    linear: keras.Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed(capsys, linear) == ""
    assert "12/12" in printed(capsys, linear, verbose=True)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    seen: list[Event] = []
    assert printed(capsys, linear, emit=seen.append) == "" and seen
    assert printed(capsys, linear, progress=lambda *_: None) == ""
    assert printed(capsys, linear, verbose=False) == ""
    count = len(seen)
    assert "12/12" in printed(capsys, linear, emit=seen.append, verbose=True) and len(seen) > count
