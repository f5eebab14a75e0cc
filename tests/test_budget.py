"""Several parts within one budget: how many images each gets, what is resumed, what is given up. On a clock by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.errors import Cancelled
from kerasrobust.evaluation.budget import Block, Budget, Found, Part
from kerasrobust.events import Event, Finding, Progress, StageFinished


class Clock:
    """Moves by what is measured alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def part(name: str, clock: Clock, each: float, share: float = 1, first: float = 0.0, **settings: int) -> Part:
    """A part that takes `each` seconds an image, and `first` before its first; it gives the images' numbers.

    Stopped within a block it goes on from there, as attacks do.
    """

    def measure(block: Block) -> dict[str, np.ndarray]:
        rows = np.arange(block.rows.start, block.rows.stop)
        kept = block.checkpoints.get("done")
        done = 0 if kept is None else int(kept["rows"])
        clock.now += first if block.rows.start == 0 and not done else 0.0
        for number in range(done, len(rows)):
            clock.now += each
            if block.should_stop():
                block.checkpoints.put("done", {"rows": np.array(number + 1)})
                raise Cancelled
        return {"rows": rows}

    return Part(name=name, title=name, share=share, passes=settings.pop("passes", 1), measure=measure, **settings)


def spent(seconds: float, images: int, clock: Clock, parts: list[Part], folder: Path | None = None) -> dict[str, Found]:
    return Budget(seconds, images, 0.0, Checkpoints(folder), clock=clock).spend(parts)


def after(count: int) -> Callable[[], bool]:
    """Says so once it was asked more often."""
    answers = itertools.chain([False] * count, itertools.repeat(True))
    return lambda: next(answers)


def test_each_part_takes_as_many_images_as_its_share_allows_and_leaves_the_rest_to_the_next() -> None:
    clock = Clock()
    # 50 seconds for the first: blocks of 64, 64 and 128 take 25.6, and one of 256 would take as much again. The second
    # has the other 74.4: 64 to 512 images take 51.2.
    found = spent(100, 10_000, clock, [part("a", clock, 0.1), part("b", clock, 0.1)])
    assert {name: one.images for name, one in found.items()} == {"a": 256, "b": 512}
    np.testing.assert_array_equal(found["b"].arrays["rows"], np.arange(512))
    assert (found["a"].seconds, clock.now) == (pytest.approx(25.6), pytest.approx(76.8))


def test_no_part_takes_more_images_than_there_are_or_than_it_wants() -> None:
    clock = Clock()
    found = spent(1000, 100, clock, [part("a", clock, 0.1), part("b", clock, 0.1, most=70)])
    assert {name: one.images for name, one in found.items()} == {"a": 100, "b": 70}


def test_the_first_block_of_a_slow_model_is_small() -> None:
    clock = Clock()
    # 100 passes of 0.05 s an image: 10 images in 50 seconds.
    slow = [part("a", clock, 5.0, passes=100), part("b", clock, 0.1)]
    found = Budget(100, 1000, 0.05, Checkpoints(), clock=clock).spend(slow)
    assert found["a"].images == 8


def test_a_block_that_takes_far_longer_than_the_budget_is_given_up(tmp_path: Path) -> None:
    clock = Clock()
    found = spent(10, 1000, clock, [part("a", clock, 0.1, first=100.0), part("b", clock, 0.1)], tmp_path)
    assert (found["a"].images, found["b"].images) == (0, 0) and found["a"].arrays == {}
    # Resumed it ends the same way, without another try.
    again = spent(1000, 1000, clock, [part("a", clock, 0.1), part("b", clock, 0.1)], tmp_path)
    assert (again["a"].images, again["b"].images) == (0, 0)


def test_the_end_of_a_part_that_ran_out_of_time_says_so_and_so_it_does_resumed(tmp_path: Path) -> None:
    clock = Clock()
    parts = [part("a", clock, 0.1, first=100.0), part("b", clock, 0.1)]
    for _ in range(2):
        heard: list[Event] = []
        found = Budget(20, 1000, 0.0, Checkpoints(tmp_path), heard.append, clock=clock).spend([parts[1], parts[0]])
        assert found["b"].images and not found["a"].images
        ends = {event.stage: event.status for event in heard if isinstance(event, StageFinished)}
        assert ends == {"b": "done", "a": "stopped"}


@pytest.mark.parametrize("stop", [30, 100, 300, 500, 700])
def test_what_was_stopped_and_resumed_ends_with_the_same_images(stop: int, tmp_path: Path) -> None:
    def parts(clock: Clock) -> list[Part]:
        return [part("a", clock, 0.1), part("b", clock, 0.05, share=2)]

    clock = Clock()
    whole = spent(100, 2000, clock, parts(clock))
    clock = Clock()
    with pytest.raises(Cancelled):
        Budget(100, 2000, 0.0, Checkpoints(tmp_path), should_stop=after(stop), clock=clock).spend(parts(clock))
    resumed = spent(100, 2000, clock, parts(clock), tmp_path)
    assert {name: one.images for name, one in resumed.items()} == {name: one.images for name, one in whole.items()}
    for name, one in whole.items():
        np.testing.assert_array_equal(resumed[name].arrays["rows"], one.arrays["rows"])


@pytest.mark.parametrize("stop", [30, 100, 300, 500, 700])
def test_what_a_resumed_process_traces_again_is_not_taken_from_the_budget(stop: int, tmp_path: Path) -> None:
    """Each process traces each part's graph, for as long as 150 images take."""

    def process(clock: Clock, folder: Path | None, **settings: Any) -> dict[str, Found]:
        traced: dict[str, float] = {}

        def traces(of: Part) -> Part:
            def measure(block: Block) -> Any:
                if of.name not in traced:
                    traced[of.name] = 15.0
                    clock.now += 15.0
                return of.measure(block)

            return dataclasses.replace(of, measure=measure)

        parts = [traces(part("a", clock, 0.1)), traces(part("b", clock, 0.05, share=2))]

        def counted() -> float:
            return sum(traced.values())

        return Budget(150, 2000, 0.0, Checkpoints(folder), clock=clock, traced=counted, **settings).spend(parts)

    whole = process(Clock(), None)
    clock = Clock()
    with pytest.raises(Cancelled):
        process(clock, tmp_path, should_stop=after(stop))
    resumed = process(clock, tmp_path)
    assert {name: one.images for name, one in resumed.items()} == {name: one.images for name, one in whole.items()}


@pytest.mark.parametrize("stop", [20, 60, 200, 400])
def test_time_that_was_lost_on_a_block_counts_after_it_is_resumed_too(stop: int, tmp_path: Path) -> None:
    """The first part is given up after half of the budget; what the others get must not depend on being killed."""

    def parts(clock: Clock) -> list[Part]:
        return [part("a", clock, 1.0, share=0.1), part("b", clock, 0.1, share=1), part("c", clock, 0.1, share=1)]

    clock = Clock()
    whole = spent(100, 2000, clock, parts(clock))
    seconds = clock.now
    assert not whole["a"].images and whole["b"].images and whole["c"].images
    clock = Clock()
    with pytest.raises(Cancelled):
        Budget(100, 2000, 0.0, Checkpoints(tmp_path), should_stop=after(stop), clock=clock).spend(parts(clock))
    resumed = spent(100, 2000, clock, parts(clock), tmp_path)
    assert {name: one.images for name, one in resumed.items()} == {name: one.images for name, one in whole.items()}
    assert clock.now == pytest.approx(seconds, abs=0.2)


def test_time_before_a_stop_is_no_ones_where_a_block_begins_anew(tmp_path: Path) -> None:
    """Else the block would seem to take so much longer, and the next one not to fit."""
    clock = Clock()

    def anew(clock: Clock) -> Part:
        def measure(block: Block) -> dict[str, np.ndarray]:
            count = block.rows.stop - block.rows.start
            for _ in range(count):
                clock.now += 0.1
                if block.should_stop():
                    raise Cancelled
            return {"rows": np.arange(block.rows.start, block.rows.stop)}

        return Part(name="a", title="A", share=1, passes=1, measure=measure, resumes=False)

    whole = spent(30, 2000, clock, [anew(clock)])["a"]
    with pytest.raises(Cancelled):
        Budget(30, 2000, 0.0, Checkpoints(tmp_path), should_stop=after(60), clock=clock).spend([anew(clock)])
    resumed = spent(30, 2000, clock, [anew(clock)], tmp_path)["a"]
    assert (resumed.images, resumed.seconds) == (whole.images, pytest.approx(whole.seconds)) and whole.images == 256


def test_a_part_that_would_take_over_twice_its_share_is_left_to_the_others() -> None:
    clock = Clock()
    # 100 passes of 0.1 s an image: 8 images take 80 seconds, and the part has 20.
    slow = [part("a", clock, 10.0, passes=100), part("b", clock, 0.1, share=4)]
    found = Budget(100, 1000, 0.1, Checkpoints(), clock=clock).spend(slow)
    assert (found["a"].images, found["b"].images) == (0, 512)


def test_a_block_is_given_up_where_it_takes_three_times_what_its_part_may() -> None:
    clock = Clock()
    found = spent(100, 1000, clock, [part("a", clock, 5.0), part("b", clock, 0.1, share=4)])
    assert (found["a"].images, found["b"].images) == (0, 256)
    assert 60 <= clock.now - found["b"].seconds <= 66


def test_findings_are_told_and_told_again_when_resumed_and_progress_is_of_the_budget(tmp_path: Path) -> None:
    clock = Clock()

    def measure(block: Block) -> dict[str, np.ndarray]:
        clock.now += 3.0
        block.emit(Finding(code="doubt", message="A doubt.", severity="warning", evidence={"share": 0.25}))
        return {"rows": np.zeros(10)}

    def run(emit: Callable[[Event], None]) -> Found:
        doubtful = [Part(name="a", title="A", share=1, passes=1, measure=measure)]
        return Budget(10, 10, 0.0, Checkpoints(tmp_path), emit, clock=clock).spend(doubtful)["a"]

    for _ in range(2):
        heard: list[Event] = []
        found = run(heard.append)
        assert [item.message for item in heard if isinstance(item, Finding)] == ["A doubt."]
        assert [(item.code, item.evidence) for item in found.findings] == [("doubt", {"share": 0.25})]
    heard = []
    other = Budget(10, 10, 0.0, Checkpoints(), heard.append, clock=clock)
    other.spend([Part(name="a", title="A", share=1, passes=1, measure=measure)])
    progress = [(item.done, item.total, item.seconds_left) for item in heard if isinstance(item, Progress)]
    assert progress == [(3, 10, 7.0)]


@pytest.mark.parametrize("stop", [None, 100, 300, 340, 500])
def test_what_all_have_left_goes_to_the_first_again(stop: int | None, tmp_path: Path) -> None:
    """Half of 100 s are 256 images; the other part takes 7 s, and 512 images fit into what is left then."""
    clock = Clock()
    parts = [part("a", clock, 0.1), part("b", clock, 0.1, most=70)]
    told: list[dict[str, int]] = []
    if stop is not None:
        with pytest.raises(Cancelled):
            Budget(100, 2000, 0.0, Checkpoints(tmp_path), should_stop=after(stop), clock=clock).spend(parts)
    found = Budget(100, 2000, 0.0, Checkpoints(tmp_path), clock=clock).spend(
        parts, lambda so_far: told.append({name: one.images for name, one in so_far.items()})
    )
    assert told == [{"a": 256}, {"a": 256, "b": 70}, {"a": 512, "b": 70}]
    assert {name: one.images for name, one in found.items()} == {"a": 512, "b": 70}
    np.testing.assert_array_equal(found["a"].arrays["rows"], np.arange(512))
    assert clock.now == pytest.approx(58.2, abs=0.2)
    again = spent(100, 2000, clock, parts, tmp_path)
    assert again["a"].images == 512 and clock.now == pytest.approx(58.2, abs=0.2)
