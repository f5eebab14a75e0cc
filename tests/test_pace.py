"""How far work is: on a clock by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kerasrobust import pace
from kerasrobust.events import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    yield now


def test_what_an_earlier_process_did_counts_and_its_pace_does_not(clock: list[float]) -> None:
    told: list[Progress] = []
    course = pace.Pace(told.append, "image", 100)  # type: ignore[arg-type]
    course.skip(40)
    for seconds in (1.0, 0.1, 1.9):
        clock[0] += seconds
        course.add(10)
    # 10 images in the first second, the second event was too early, and 30 in three seconds.
    assert [(item.done, item.total, item.rate, item.seconds_left) for item in told] == [
        (50, 100, pytest.approx(10), pytest.approx(5)),
        (70, 100, pytest.approx(10), pytest.approx(3)),
    ]


def test_nobody_need_listen() -> None:
    pace.Pace(None, "image", 10).add(10)
