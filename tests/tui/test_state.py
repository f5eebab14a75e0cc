from __future__ import annotations

import copy
import dataclasses
import io
import random
from pathlib import Path

import pytest
from fake_engine import recorded
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kerasrobust.events import (
    AttackFinished,
    AttackProgress,
    AttackStarted,
    Event,
    Finding,
    Log,
    Metrics,
    Progress,
    Row,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    SystemSampled,
    to_json,
)
from kerasrobust.show.console import ConsoleRenderer
from tui.panes.attacks import _cells
from tui.read.follow import Follower
from tui.read.series import POINTS, Series
from tui.read.state import LINES, RunState, advance

STARTED = RunStarted(time=0.0, run="r", kind="study", config={}, command="", versions={}, devices=[], pid=1)


def metrics(step: int, **values: float) -> Metrics:
    return Metrics(time=step, stage="train", step=step, epoch=1, values=values, split="train")


def test_a_short_curve_is_kept_as_it_was_measured() -> None:
    state = advance(RunState(), [metrics(step, loss=1 / step) for step in range(1, 6)])
    series = state.series["train", "train", "loss"]
    assert series.xs == [1, 2, 3, 4, 5] and series.ys == [1 / step for step in range(1, 6)]


def test_what_a_run_took_stands_over_its_seconds_of_work_without_pauses() -> None:
    def sample(at: float, cpu: float | None, held: float, *gpus: dict[str, object]) -> SystemSampled:
        return SystemSampled(
            time=at, cpu=cpu, process_cpu=90.0, memory=8e9, memory_total=16e9, process_memory=held, gpus=list(gpus)
        )

    begun = dataclasses.replace(STARTED, time=100.0)
    first = [begun, sample(105.0, 50.0, 1e9), sample(110.0, None, 2e9)]
    # A night later it goes on, on another machine.
    gpu = {"utilisation": 80.0, "memory_used": 6.0, "memory_total": 24.0}
    odd = {"utilisation": "many", "memory_used": 10**400, "memory_total": 0}
    then = [dataclasses.replace(STARTED, time=50_000.0), sample(50_005.0, 100.0, 3e9, gpu, odd)]
    load = advance(advance(RunState(), first), then).load
    found = {name: list(zip(series.xs, series.ys, strict=True)) for name, series in load.items()}
    assert found == {
        "processor": [(5.0, 0.5), (15.0, 1.0)],
        "memory": [(5.0, 1e9), (10.0, 2e9), (15.0, 3e9)],
        "GPU 0": [(15.0, 0.8)],
        "GPU 0 memory": [(15.0, 0.25)],
    }


@given(st.integers(1, 5 * POINTS))
def test_a_long_curve_is_bounded_and_keeps_its_mean_and_its_ends(count: int) -> None:
    series = Series()
    for step in range(count):
        series.add(step, float(step % 7))
    assert len(series.xs) <= POINTS + 1
    assert series.xs == sorted(series.xs)
    # Each point is the mean of `stride` measured ones, the last of those that have come so far.
    weights = [series.stride] * (len(series.xs) - 1) + [series.filled]
    assert sum(weights) == count
    mean = sum(y * weight for y, weight in zip(series.ys, weights, strict=True)) / count
    assert mean == pytest.approx(sum(step % 7 for step in range(count)) / count)
    assert series.xs[0] < series.stride and series.xs[-1] >= count - 1 - series.stride


def test_a_training_that_was_taken_up_earlier_continues_its_curve_from_there() -> None:
    before = [metrics(step, loss=1.0) for step in (10, 20, 30)]
    state = advance(RunState(), [STARTED, *before, STARTED, metrics(20, loss=2.0), metrics(30, loss=2.0)])
    series = state.series["train", "train", "loss"]
    assert series.xs == [10, 20, 30] and series.ys == [1.0, 2.0, 2.0]


def test_the_state_before_stays_as_it_was() -> None:
    events = recorded("demo")
    state = RunState()
    for at in range(0, len(events), 97):
        before, held = copy.deepcopy(state), state
        state = advance(state, events[at : at + 97])
        assert held == before


def test_in_pieces_or_at_once_comes_to_the_same() -> None:
    events = recorded("demo")
    at_once = advance(RunState(), events)
    pieces, at, draw = RunState(), 0, random.Random(0)
    while at < len(events):
        size = draw.randint(1, 60)
        pieces = advance(pieces, events[at : at + size])
        at += size
    assert pieces == at_once


def test_the_recorded_demo_ends_with_what_its_events_say() -> None:
    events = recorded("demo")
    state = advance(RunState(), events)
    assert state.finished is not None and state.finished.status == "done"
    assert [stage.status for stage in state.stages.values()] == ["done"] * len(state.stages)
    assert len(state.trainings) == 5
    assert len(state.rows) == sum(isinstance(event, Row) for event in events)
    finished = [event for event in events if isinstance(event, AttackFinished)]
    assert [line.robust_accuracy for line in state.attacks] == [event.robust_accuracy for event in finished]
    assert all(line.status == "done" for line in state.attacks)


def attack(name: str = "pgd") -> list[Event]:
    progress = AttackProgress(
        time=12.0, stage="attack", attack=name, done=25, total=100, survivors=60, step=1, steps=2, gradients=5,
        forwards=1,
    )  # fmt: skip
    return [
        StageStarted(time=10.0, stage="attack", title="Attacking"),
        AttackStarted(time=10.0, stage="attack", attack=name, norm="linf", epsilon=0.1, examples=100, settings={}),
        progress,
    ]


def test_equal_attacks_of_one_start_stand_side_by_side_and_a_resumed_run_replaces_them() -> None:
    """AutoAttack's version `adaptive` runs some attacks twice where it confirms."""
    begin = dataclasses.replace(STARTED, time=1.0)
    _, start, _ = attack()
    end = AttackFinished(
        time=20.0, stage="attack", attack="pgd", name="pgd", norm="linf", epsilon=0.1, robust_accuracy=0.4,
        interval=[0.3, 0.5], median_distance=None, seconds=10.0, gradients=9, forwards=1,
    )  # fmt: skip
    twice = [begin, start, end, dataclasses.replace(start, time=21.0), dataclasses.replace(end, time=30.0)]
    assert [line.status for line in advance(RunState(), twice).attacks] == ["done", "done"]
    again = [*twice, dataclasses.replace(STARTED, time=40.0), dataclasses.replace(start, time=41.0)]
    assert [line.status for line in advance(RunState(), again).attacks] == ["running"]


def test_the_time_left_of_an_attack_is_what_the_rest_takes_at_its_pace() -> None:
    started = dataclasses.replace(STARTED, config={"batch_size": 50})

    def progress(time: float, done: int, step: int, gradients: int) -> AttackProgress:
        return AttackProgress(
            time=time, stage="attack", attack="pgd", done=done, total=120, survivors=90, step=step, steps=10,
            gradients=gradients, forwards=1,
        )  # fmt: skip

    # 20 of 120 images are wrong from the start, and cost nothing; the others are two batches of 50.
    first = [started, *attack()[:2], progress(10.5, 20, 0, 0), progress(12.0, 20, 4, 200)]
    (line,) = advance(RunState(), first).attacks
    assert line.share == pytest.approx(0.2) and line.seconds_left == pytest.approx(8.0)  # A fifth took two seconds.
    (line,) = advance(RunState(), [*first, progress(15.0, 70, 0, 500)]).attacks
    assert line.share == pytest.approx(0.5) and line.seconds_left == pytest.approx(5.0)
    assert line.curve.xs == [0.5, 2.0, 5.0] and line.curve.ys == [0.75, 0.75, 0.75]


@pytest.mark.parametrize(("norm", "accuracy"), [("8x8 pixels", "40.0 %"), ("±30° and ±10 %", "40.0 %"), ("l2", "")])
def test_only_a_minimum_norm_attack_has_no_accuracy_of_its_own(norm: str, accuracy: str) -> None:
    begun = dataclasses.replace(attack()[1], norm=norm, epsilon=None)
    ended = AttackFinished(
        time=20.0, stage="attack", attack="pgd", name="pgd", norm=norm, epsilon=None, robust_accuracy=0.4,
        interval=[0.3, 0.5], median_distance=None, seconds=10.0, gradients=9, forwards=1,
    )  # fmt: skip
    (line,) = advance(RunState(), [STARTED, attack()[0], begun, attack()[2], ended]).attacks
    cells = _cells(line, "net")
    assert cells["robust"].plain == accuracy
    assert line.curve.ys[-1] == (0.4 if accuracy else 0.6)
    if accuracy:
        assert (cells["distance"].plain, cells["attack"].plain) == ("", f"✓ PGD {norm}")


def test_a_run_that_is_taken_up_drops_what_was_under_way_and_the_rows_that_come_again() -> None:
    row = Row(stage="attack", model="lenet", training="standard", randomized=False, accuracy=0.5, interval=[0.4, 0.6])
    state = advance(RunState(), [STARTED, *attack(), row, RunFinished(status="cancelled", seconds=1, message="")])
    assert state.stages["attack"].status == "stopped" and state.attacks[0].status == "stopped"
    again = advance(state, [STARTED, *attack(), row])
    assert again.finished is None and len(again.attacks) == 1 and len(again.rows) == 1
    assert again.stages["attack"].status == "running"


def test_a_figure_that_is_no_number_is_told_and_not_drawn() -> None:
    state = advance(RunState(), [metrics(1, loss=None)])  # type: ignore[arg-type]
    assert state.series == {} and state.lines[-1].text == "loss is not a number at step 1"


def test_no_list_grows_without_bounds() -> None:
    row = Row(model="lenet", training="standard", randomized=False, accuracy=0.5, interval=[0.4, 0.6])
    many = [StageStarted(stage=str(number), title="t") for number in range(1500)]
    attacks = [dataclasses.replace(attack()[1], epsilon=float(number)) for number in range(1500)]
    state = advance(RunState(), [*many, *attacks, *[row] * 10_500])
    assert len(state.stages) == len(state.attacks) == 1000 and len(state.rows) == 10_000


def test_the_log_and_the_findings_are_bounded() -> None:
    findings = [Finding(code=str(number), message="m", severity="warning") for number in range(300)]
    state = advance(RunState(), [Log(level="info", message=str(number)) for number in range(LINES + 10)] + findings)
    assert len(state.lines) == LINES and state.logged == LINES + 310 and len(state.findings) == 200
    assert state.found == 300 and state.findings[-1].code == "299"


def test_the_log_has_the_sentences_of_the_console() -> None:
    """Each line, with its severity, in the console's order; of the console the log lacks the tables only."""
    events = recorded("demo")
    events.insert(-1, Finding(stage="attack", code="odd", message="Look at this.", severity="warning"))
    events.insert(-1, Log(stage="attack", level="error", message="The disk is full."))
    file = io.StringIO()
    with ConsoleRenderer(Console(file=file, width=80)) as draw:
        for event in events:
            draw(event)
    lines = [
        f"{'' if line.severity == 'info' else line.severity + ': '}{line.text}"
        for line in advance(RunState(), events).lines
    ]
    printed = [line.strip() for line in file.getvalue().splitlines()]
    assert [line for line in printed if line in lines] == [line for line in lines if not line.startswith("epoch")]
    assert {"warning: Look at this. [odd]", "error: The disk is full."} <= set(lines)


def test_epochs_and_steps_of_a_stage_are_told_apart() -> None:
    state = advance(
        RunState(),
        [
            StageStarted(stage="train", title="Training"),
            Progress(stage="train", unit="step", done=5, total=30),
            Progress(stage="train", unit="epoch", done=1, total=3),
            StageFinished(stage="train", status="failed", seconds=2.0),
        ],
    )
    stage = state.stages["train"]
    assert stage.progress is not None and stage.progress.done == 5
    assert (stage.epoch, stage.epochs, stage.status) == (1, 3, "failed")


@given(st.lists(st.sampled_from(recorded("demo") + recorded("attack")), max_size=40), st.randoms())
def test_events_in_any_order_never_raise(events: list[Event], draw: random.Random) -> None:
    draw.shuffle(events)
    advance(RunState(), events)


def test_a_long_run_is_known_by_its_beginning_and_its_end_while_it_is_read(tmp_path: Path) -> None:
    count = 30_000
    steps = (metrics(step, loss=1 / step) for step in range(1, count))
    told: list[Event] = [STARTED, *steps, Log(time=count, level="info", message="end")]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{to_json(event)}\n" for event in told))
    assert file.stat().st_size > 3 * 2**20
    follower, whole = Follower(tmp_path), advance(RunState(), told)
    assert follower.read()
    early = follower.state
    assert early.started == STARTED and early.lines[-1].text == "end" and early.source != whole.source
    assert 0 < early.series["train", "train", "loss"].xs[0] < 10 and len(early.lines) == 2
    while follower.read():
        assert follower.state is early
    # As if it was read in one go.
    assert follower.state.series == whole.series and follower.state.source == whole.source
    assert follower.state.lines == whole.lines
    with file.open("a") as more:
        more.write(to_json(Log(time=count + 1, level="info", message="more")) + "\n")
    assert not follower.read() and follower.state.lines[-1].text == "more"
    skimmed = Follower(tmp_path)
    skimmed.skim()
    assert skimmed.state.lines[-1].text == "more" and skimmed.state.source == whole.source
    xs = skimmed.state.series["train", "train", "loss"].xs
    assert xs[0] < 10 and xs[-1] > count - 100
