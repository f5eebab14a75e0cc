from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from kerasrobust import entries
from kerasrobust.events import (
    AttackFinished,
    AttackProgress,
    AttackStarted,
    Event,
    ExamplesSaved,
    Finding,
    Log,
    Metrics,
    ModelSaved,
    Progress,
    Row,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from kerasrobust.show.console import ConsoleRenderer
from kerasrobust.show.figures import format_accuracy, format_distance, format_epsilon, format_interval, format_seconds
from kerasrobust.show.fitting import broken, make_console, print_words
from kerasrobust.show.tables import make_table, study_table, threat_table

ESCAPE = "\x1b"


def drawn(events: Iterable[Event], *, quiet: bool = False, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    with ConsoleRenderer(Console(file=file, width=width, force_terminal=terminal), quiet=quiet) as renderer:
        for event in events:
            renderer(event)
    return file.getvalue()


def started(kind: str = "study", **config: Any) -> RunStarted:
    return RunStarted(
        time=0, run="run-1", kind=kind, config=config, command="", versions={}, devices=["CPU:0"], pid=1
    )  # fmt: skip


def finished(status: Any = "done") -> RunFinished:
    return RunFinished(time=0, status=status, seconds=192, message="Everything is in runs/run-1.")


def attack_finished(**fields: Any) -> AttackFinished:
    settings: dict[str, Any] = {
        "attack": "pgd", "name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.312,
        "interval": [0.284, 0.344], "median_distance": None, "seconds": 12.3, "gradients": 10240, "forwards": 512,
    }  # fmt: skip
    return AttackFinished(**settings | fields)


def row(**fields: Any) -> Row:
    settings: dict[str, Any] = {
        "model": "convnet", "training": "pgd", "randomized": True, "attack": "pgd", "norm": "linf",
        "epsilon": 8 / 255, "steps": 20, "eot": 20, "accuracy": 0.291, "interval": [0.264, 0.32], "published": 0.2507,
    }  # fmt: skip
    return Row(**settings | fields)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (started("attack"), ["run-1", "attack", "CPU:0"]),
        (StageStarted(stage="train", title="Training convnet"), ["Training convnet"]),
        (StageFinished(stage="train", status="done", seconds=75), ["done", "75 s"]),
        (StageFinished(stage="train", status="skipped", seconds=0), ["skipped"]),
        (StageFinished(stage="linf", status="stopped", seconds=9.8), ["linf: stopped, out of time (9.8 s)"]),
        (attack_finished(), ["pgd 8/255", "31.2 %", "28.4-34.4", "12 s"]),
        (attack_finished(epsilon=None, norm="l2", median_distance=0.2131), ["L2", "median distance 0.213"]),
        (attack_finished(epsilon=None, norm="l2"), ["median distance infinite"]),
        (ExamplesSaved(path="examples.h5", count=1512, attack="pgd"), ["1,512", "examples.h5", "pgd"]),
        (ModelSaved(name="convnet-pgd", path="saved_models/convnet-pgd", card={}), ["saved_models/convnet-pgd"]),
        (Finding(code="few-steps", message="More steps help.", severity="warning"), ["warning", "help.", "few-steps"]),
        (Log(level="error", message="The [bold]disk[/] is full."), ["error", "The [bold]disk[/] is full."]),
        (finished("cancelled"), ["Cancelled", "3:12", "runs/run-1"]),
    ],
)
def test_each_event_is_a_plain_line_where_there_is_no_terminal(event: Event, words: list[str]) -> None:
    text = drawn([event])
    assert ESCAPE not in text
    for word in words:
        assert word in text


def test_escape_codes_in_a_message_do_not_reach_the_output() -> None:
    assert drawn([Log(level="info", message="\x1b[31mred\x1b[0m text")]).strip() == "red text"


def test_own_console_writes_plain_lines_into_a_pipe_whatever_the_environment_says() -> None:
    program = (
        "from kerasrobust.show.console import ConsoleRenderer as R; from kerasrobust.events import Log, Progress\n"
        "with R() as r: r(Log(level='warning', message='careful')); r(Progress(unit='step', done=1, total=2))"
    )
    environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout == "  warning: careful\n"


def test_an_epoch_is_one_line_with_training_and_validation() -> None:
    events = []
    for epoch in (1, 2):
        for loss in (3.0, 2.0 / epoch):  # The first is from the middle of the epoch.
            values = {"loss": loss, "accuracy": 0.4, "robust_accuracy": 0.3, "learning_rate": 0.1}
            events.append(Metrics(time=0, stage="t", step=1, epoch=epoch, values=values, split="train"))
        values = {"loss": 1.5, "accuracy": 0.38, "robust_accuracy": 0.29}
        events.append(Metrics(time=0, stage="t", step=1, epoch=epoch, values=values, split="validation"))
        events.append(Progress(time=0, stage="t", unit="epoch", done=epoch, total=2))
    lines = [line.strip() for line in drawn(events).splitlines() if "epoch " in line]
    assert lines == [
        "epoch 1  loss 2.000 / 1.500  accuracy 40.0 / 38.0 %  robust 30.0 / 29.0 %",
        "epoch 2  loss 1.000 / 1.500  accuracy 40.0 / 38.0 %  robust 30.0 / 29.0 %",
    ]


def test_epochs_without_validation_are_shown_and_the_last_one_too() -> None:
    events: list[Event] = [
        Metrics(time=0, stage="t", step=1, epoch=epoch, values={"val_loss" if epoch == 3 else "loss": 0.5},
                split="validation" if epoch == 3 else "train")
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    text = drawn([*events, StageFinished(time=0, stage="t", status="failed", seconds=1)])
    assert [line.strip() for line in text.splitlines()[:3]] == [
        "epoch 1  loss 0.500", "epoch 2  loss 0.500", "epoch 3  loss val 0.500",
    ]  # fmt: skip


def test_progress_lines_are_ten_seconds_apart_and_say_rate_and_time_left() -> None:
    events = [Progress(time=second / 5, unit="step", done=second, total=1000) for second in range(200)]
    lines = drawn(events).splitlines()
    assert len(lines) == 3  # At 10, 20 and 30 of 40 seconds.
    assert lines[0].split() == ["50/1,000", "steps", "5.0/s", "3:10", "left"]


def test_a_rate_that_the_event_gives_is_shown_as_it_is() -> None:
    events = [
        Progress(time=second, unit="byte", done=second * 10**6, total=170 * 10**6, rate=2.5e6, seconds_left=60)
        for second in (0, 11)
    ]
    assert drawn(events).split() == ["11.0/170.0", "MB", "2.5", "MB/s", "60", "s", "left"]


def test_of_a_budget_of_time_the_time_used_is_told_and_no_rate() -> None:
    events = [Progress(time=at, unit="second", done=at, total=150, seconds_left=150 - at) for at in (0, 4, 19, 130)]
    assert drawn(events).splitlines() == ["    19 s of 2:30 used  2:11 left", "    2:10 of 2:30 used  20 s left"]
    assert "4 s of 8 s used" in drawn([Progress(time=at, unit="second", done=at // 4, total=8) for at in (0, 16)])


def attack_events() -> list[Event]:
    progress = [
        AttackProgress(
            time=done / 10, stage="a", attack="pgd", done=done, total=512, survivors=41, step=7, steps=20, gradients=1,
            forwards=1,
        )
        for done in (0, 128, 312)
    ]  # fmt: skip
    begin = AttackStarted(
        time=0, stage="a", attack="pgd", norm="linf", epsilon=8 / 255, examples=512, settings={}
    )  # fmt: skip
    return [begin, *progress]


def test_attack_progress_counts_survivors() -> None:
    assert "pgd 8/255  128/512 examples  41 survivors  10/s  38 s left" in drawn(attack_events())


@pytest.mark.parametrize("width", [80, 140])
def test_on_a_terminal_bars_are_drawn_within_the_width_and_taken_away(width: int) -> None:
    title = "Adversarial training of a network whose title is a very long one indeed"
    step = Progress(time=1, stage="s", unit="step", done=12345, total=40000, rate=1234.5, seconds_left=3723)
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    renderer = ConsoleRenderer(console)
    with renderer:
        renderer(StageStarted(time=0, stage="s", title=title))
        for event in [*attack_events(), step]:
            renderer(event)
        assert renderer._bars is not None
        renderer._bars.refresh()
        shown = io.StringIO()
        Console(file=shown, width=width).print(renderer._bars.get_renderable())
        renderer(attack_finished(stage="a"))
        renderer(StageFinished(time=2, stage="s", status="done", seconds=2))
        assert renderer._bars.task_ids == []
    lines = shown.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert "312/512 examples  41 survivors" in lines[0]
    if width == 140:
        assert "12,345/40,000 steps" in lines[1]
        assert "1:02:03 left" in lines[1]


def test_bars_are_drawn_at_most_ten_times_a_second() -> None:
    with ConsoleRenderer(Console(file=io.StringIO(), force_terminal=True)) as renderer:
        assert renderer._bars is not None
        assert renderer._bars.live.refresh_per_second <= 10
        drawings = []
        renderer._bars.live.refresh = lambda: drawings.append(1)  # type: ignore[method-assign]
        for done in range(1000):
            renderer(Progress(time=done / 1e5, unit="step", done=done, total=1000))
    assert len(drawings) < 20


def test_quiet_keeps_tables_result_and_what_is_wrong() -> None:
    events: list[Event] = [
        started(),
        StageStarted(time=0, stage="s", title="A stage"),
        *attack_events(),
        attack_finished(),
        Log(time=0, level="info", message="by the way"),
        Finding(time=0, code="noise", message="Noise hides gradients.", severity="warning"),
        finished(),
    ]
    text = drawn(events, quiet=True)
    assert text.splitlines()[0] == "  warning: Noise hides gradients. [noise]"
    assert "10,240" in text
    assert text.splitlines()[-1] == "Done after 3:12. Everything is in runs/run-1."
    for word in ("A stage", "by the way", "survivors", "CPU:0"):
        assert word not in text


def test_the_study_ends_in_its_table() -> None:
    text = drawn([started(data="cifar10"), row(), row(attack=None, epsilon=None, eot=None, published=None), finished()])
    lines = text.splitlines()
    assert lines[-2].split() == [
        "convnet-random-pgd", "on", "pgd", "8/255", "20", "29.1", "%", "26.4-32.0", "25.07", "%",
    ]  # fmt: skip
    assert lines[-3].split()[:3] == [
        "convnet-random-pgd",
        "on",
        "clean",
    ]  # The clean row leads, also when it came later.
    assert "ynthetic" not in text


@pytest.mark.parametrize(
    ("kind", "config", "synthetic"),
    [
        ("demo", {}, True),
        ("demo", {"data": "shapes"}, True),
        ("study", {"data": "shapes"}, True),
        ("attack", {"data": {"name": "shapes"}}, True),
        ("demo", {"data": "cifar10"}, False),
    ],
)
def test_tables_of_generated_data_say_so(kind: str, config: dict[str, Any], synthetic: bool) -> None:
    for event in (row(), attack_finished()):
        assert ("Synthetic data" in drawn([started(kind, **config), event, finished()])) is synthetic


def test_the_table_of_a_study_says_what_was_done_to_the_noise() -> None:
    matched = {"name": "convnet-matched", "randomized": False, "eot": None, "published": None}
    rows = [row(), row(noise="off", eot=None), row(**matched), row(noise="frozen", eot=None)]
    lines = [line.split()[:3] for line in drawn([started(data="cifar10"), *rows, finished()]).splitlines()]
    words = ("on", "off", "frozen")
    assert [line for line in lines if "pgd" in line] == [
        *(["convnet-random-pgd", word, "pgd"] for word in words), ["convnet-matched", "none", "pgd"],
    ]  # fmt: skip


def test_the_widest_study_table_fits_80_columns() -> None:
    table = study_table(
        [
            entries.Row.parse(vars(entry))
            for entry in (
                row(training="standard", attack="deepfool", norm="l2", epsilon=0.25, accuracy=1.0,
                    interval=[0.962, 1.0], median_distance=0.1234),
                row(epsilon=16 / 255, noise="frozen"),
            )
        ],
        synthetic=True,
    )  # fmt: skip
    file = io.StringIO()
    Console(file=file, width=80).print(table)
    lines = file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "convnet-random on deepfool 0.25 L2 20 100.0 % 96.2-100.0 0.123 25.07 %" in text
    assert "convnet-random-pgd frozen pgd 16/255" in text


def shown(table: Any, width: int) -> list[list[str]]:
    """Returns the words of a table's lines."""
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    assert all(len(line.rstrip()) <= width for line in file.getvalue().splitlines())
    return [line.split() for line in file.getvalue().splitlines()]


def test_tables_break_between_words_before_they_break_one() -> None:
    table = make_table(synthetic=False)
    for heading in ("name", "path", "nothing", "under [it]"):
        table.add_column(heading)
    table.add_row("convnet-random-pgd", "/data/pictures/wide.keras", "", "autoattack at 8/255 [b]", end_section=True)
    table.add_row("net", "x", "", "")
    row = ["convnet-random-pgd", "/data/pictures/wide.keras", "autoattack", "at", "8/255", "[b]"]
    assert shown(table, 80)[2] == row
    assert shown(table, 80)[0] == ["name", "path", "under", "[it]"]  # Not the one that is empty in all lines.
    # The name stays whole as long as others can give way.
    assert shown(table, 48)[2:4] == [
        ["convnet-random-pgd", "/data/", "autoattack", "at"], ["pictures/wide.", "8/255", "[b]"],
    ]  # fmt: skip
    assert shown(table, 38)[2][0] == "convnet-random-"
    # Here words have to break, and none is lost.
    assert "".join(line[0] for line in shown(table, 24)[3:] if line).startswith("conv")
    assert table.row_count == 2 and len(table.columns) == 4


def test_where_words_do_not_fit_what_all_lines_say_is_said_once() -> None:
    table = make_table(synthetic=True)
    for heading in ("name", "data", "training", "attack"):
        table.add_column(heading)
    table.add_row("convnet", "cifar10", "pgd", "autoattack")
    table.add_row("", "", "", "square")  # Goes on with the line above.
    table.add_row("lenet", "cifar10", "trades", "autoattack")
    lines = [" ".join(line) for line in shown(table, 32)]
    assert lines[2:5] == ["convnet pgd autoattack", "square", "lenet trades autoattack"]
    assert lines[5] == "All lines: data cifar10." and lines[6].startswith("Synthetic data")
    # Before a word, the heading that is longer than its column breaks.
    assert [" ".join(line) for line in shown(table, 25)][:4] == [
        "traini", "name ng attack", "─" * 25, "convnet pgd autoattack",
    ]  # fmt: skip
    assert "All lines" not in str(shown(table, 40))
    table.add_row("other", "", "", "")
    assert "All lines" not in str(shown(table, 20))  # Of what that is nothing is known.


@given(st.text("ab1 -./\n", max_size=40), st.integers(1, 20))
def test_no_word_is_lost_where_lines_are_broken(words: str, width: int) -> None:
    lines = list(broken(words, width))
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(words.split())


def test_figures_are_words_of_their_own() -> None:
    assert list(broken("8/255 0.5 2026-11-30 a.b v1-x", 1))[:2] == ["8", "/"]
    assert list(broken("8/255 0.5 2026-11-30 a.bb v1-xx", 5)) == ["8/255", "0.5", "2026-", "11-30", "a.bb", "v1-xx"]
    assert list(broken("8/255 2026-11-30 a.b/cc", 10)) == ["8/255", "2026-11-30", "a.b/cc"]


def test_a_network_s_name_stands_in_its_first_line_only() -> None:
    rows = [
        entries.Row(model="net", name=name, attack=attack, examples=9)
        for name in ("convnet-random-pgd", "wide") for attack in (None, "pgd", "square")
    ]  # fmt: skip
    lines = [line[0] for line in shown(threat_table(rows, synthetic=False), 80)[2:] if line]
    assert lines == ["convnet-random-pgd", "PGD", "Square", "wide", "PGD", "Square"]


def test_what_is_no_terminal_has_no_edge_but_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert make_console().width > 1000 and not make_console().is_terminal
    monkeypatch.setenv("COLUMNS", "0")
    assert make_console().width > 1000
    monkeypatch.setenv("COLUMNS", "72")
    assert make_console().width == 72


def test_long_lines_are_broken_between_words_on_a_terminal_only() -> None:
    path = "/a/path/that/is/longer/than/the/terminal/is/wide.keras"
    event = Log(time=0, level="warning", message=f"Some words that are many more than fit into a line of {path} alone.")
    lines = drawn([event], width=40, terminal=True).splitlines()
    plain = [words for line in lines if (words := Text.from_ansi(line).plain.rstrip())]
    assert f"  {path}" in plain and all(len(line) <= 40 for line in plain if path not in line)
    assert all(line.startswith("  ") for line in plain) and len(plain) > 3
    assert " ".join(" ".join(plain).split()) == f"warning: {event.message}"
    assert drawn([event], width=40).splitlines() == [f"  warning: {event.message}"]
    file = io.StringIO()
    print_words(Console(file=file, width=40, force_terminal=True), Text(""))
    assert file.getvalue() == "\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8 / 255, "8/255"), (0.03137255, "8/255"), (0.5 / 255, "0.5/255"), (0.5, "0.5"), (0.2, "0.2"), (1.0, "1"),
        (0.031, "0.031"), (0.0, "0"), (None, ""),
    ],
)  # fmt: skip
def test_format_epsilon(value: float | None, text: str) -> None:
    assert format_epsilon(value) == text


@given(st.integers(1, 255))
def test_an_epsilon_in_grey_levels_reads_back_as_itself(level: int) -> None:
    numerator, _, denominator = format_epsilon(level / 255).partition("/")
    assert float(numerator) / float(denominator or 1) == pytest.approx(level / 255, rel=1e-9)


def test_formats() -> None:
    assert format_accuracy(0.27849) == "27.8 %"
    assert format_accuracy(None) == ""
    assert format_interval([0.0, 1.0]) == "0.0-100.0"
    assert format_interval([]) == format_interval(None) == ""
    assert [format_distance(value, "linf") for value in (8 / 255, 0.01234, float("inf"), None)] == [
        "8/255", "0.0123", "infinite", "",
    ]  # fmt: skip
    assert [format_seconds(value) for value in (0.04, 9.96, 119.6, 3599.7)] == ["0.0 s", "10 s", "2:00", "1:00:00"]


def test_tensorflow_stays_out() -> None:
    program = (
        "import sys, kerasrobust.show.console, kerasrobust.show.report\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_row_on_more_images_takes_the_place_of_that_on_fewer() -> None:
    rows = [entries.Row(model="net", attack=attack, norm="l2", examples=64) for attack in ("pgd", "cw")]
    more = entries.Row(model="net", attack="pgd", norm="l2", examples=128)
    entries.add_row(rows, more)
    assert rows[0] == more and [row.attack for row in rows] == ["pgd", "cw"]
    # Of a study, whose rows have no number of their own, each stays.
    entries.add_row(rows, entries.Row(model="net", attack="pgd", norm="l2"))
    assert len(rows) == 3
