"""Following a file of events, and deleting a run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log, Metrics, Progress, RunFinished, StageStarted, to_json
from kerasrobust.runs import delete, state
from kerasrobust.tail import Tail, last_events


def progress(done: int, stage: str = "train", unit: str = "step") -> Progress:
    return Progress(time=float(done), stage=stage, unit=unit, done=done, total=100)


def metrics(step: int) -> Metrics:
    return Metrics(time=float(step), stage="train", step=step, epoch=1, values={"loss": 1.0}, split="train")


HELLO = Log(time=0.0, level="info", message="ü")


def write(path: Path, events: list[Event]) -> Path:
    path.write_text("".join(f"{to_json(event)}\n" for event in events))
    return path


def read_all(tail: Tail, size: int = 2**20, *, brief: bool = False) -> list[Event]:
    found: list[Event] = []
    while (batch := tail.read(size, brief=brief)).more or batch.events:
        found += batch.events
    return found


def test_in_brief_only_the_last_progress_of_each_stage_and_unit_is_left(tmp_path: Path) -> None:
    events: list[Event] = [
        progress(1), progress(2), progress(3), metrics(3), progress(4), progress(1, unit="epoch"), progress(5),
        progress(1, stage="attack"), progress(2, stage="attack"),
    ]  # fmt: skip
    path = write(tmp_path / "events.jsonl", events)
    assert read_all(Tail(path)) == events
    assert read_all(Tail(path), brief=True) == [events[index] for index in (3, 5, 6, 8)]


@given(
    st.lists(st.sampled_from([progress(7), progress(8), progress(1, unit="epoch"), metrics(3), HELLO])),
    st.integers(150, 2000),
)
def test_in_brief_nothing_but_progress_is_lost_wherever_the_pieces_end(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], size: int
) -> None:
    path = write(tmp_path_factory.mktemp("tail") / "events.jsonl", events)
    found = read_all(Tail(path), size, brief=True)
    assert read_all(Tail(path), size) == events
    assert [event for event in found if not isinstance(event, Progress)] == [
        event for event in events if not isinstance(event, Progress)
    ]
    assert found[-1:] == events[-1:]


def test_another_file_of_the_same_name_and_a_shortened_one_start_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [progress(1), progress(2)])
    tail = Tail(path)
    assert not tail.read().restarted
    write(tmp_path / "new", [metrics(1), metrics(2), metrics(3)]).rename(path)
    batch = tail.read()
    assert batch.restarted and batch.events == [metrics(1), metrics(2), metrics(3)]
    write(path, [metrics(9)])
    batch = tail.read()
    assert batch.restarted and batch.events == [metrics(9)]
    assert not tail.read().restarted


def test_lines_that_are_no_events_are_counted_and_huge_ones_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = to_json(metrics(1)).encode()
    path.write_bytes(b"x" * 5000 + b"\n" + b'{"type":"Oracle"}\n' + good + b'\n{"type":"Lo')
    tail, events, skipped, more = Tail(path), [], 0, True
    while more:
        batch = tail.read(1000)
        events, skipped, more = events + batch.events, skipped + batch.skipped, batch.more
    assert events == [metrics(1)]
    assert skipped >= 2
    with path.open("ab") as file:
        file.write(b'g","time":1,"level":"info","message":"whole now"}\n')
    assert [event.message for event in tail.read().events if isinstance(event, Log)] == ["whole now"]


def test_the_last_events_are_found_without_the_rest(tmp_path: Path) -> None:
    end = RunFinished(time=0.0, status="cancelled", seconds=1.0, message="m")
    write(tmp_path / "events.jsonl", [*[metrics(step) for step in range(5000)], end])
    found = last_events(tmp_path / "events.jsonl", 1000)
    assert found[-1] == end and 1 < len(found) < 20
    assert state(tmp_path) == "cancelled"


def test_only_a_run_that_has_ended_is_deleted(tmp_path: Path) -> None:
    other = tmp_path / "photographs"
    other.mkdir()
    with pytest.raises(InputError, match="which is not one"):
        delete(other)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    write(run / "events.jsonl", [StageStarted(stage="s", title="t")])
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="Cancel it first"):
            delete(run)
    delete(run)
    assert sorted(tmp_path.iterdir()) == [other]
