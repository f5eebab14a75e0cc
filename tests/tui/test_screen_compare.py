"""Comparing runs and models: the choice, the reference, figures, settings, studies, curves, and files of others."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import write_pictures
from hypothesis import given
from hypothesis import strategies as st
from screen import shows, tells, text, until
from textual.pilot import Pilot
from textual.widgets import DataTable

from kerasrobust.entries import Row
from kerasrobust.marks import Marks, write_marks
from kerasrobust.runs import read_json
from kerasrobust.show.figures import format_accuracy
from tui.app import Lab
from tui.panes import side_by_side
from tui.panes.choose import ChoosePane
from tui.panes.side_by_side import paired_sentences, short
from tui.read.overview import Overview, Overviews, of_rows
from tui.read.subject import Subject, Subjects, difference, differing, model_subject, overlaid, run_subject
from tui.screens import compare
from tui.widgets.chart import Chart

CARDS = Path(__file__).parents[2] / "saved_models"
NARROW, WIDE = (80, 24), (160, 48)

AddRun = Callable[..., Path]


def overview(path: Path) -> Overview:
    return next(item for item in Overviews(path.parent).read() if item.path == path)


@pytest.fixture
def add_card(models_dir: Path) -> Callable[[str], Path]:
    """Returns a function that makes a saved model with the card of one that comes with the project."""

    def add(name: str) -> Path:
        (models_dir / name).mkdir(parents=True)
        shutil.copy(CARDS / name / "card.json", models_dir / name)
        return models_dir / name

    return add


def subject(path: Path) -> Subject:
    made = model_subject(path, path.name) if (path / "card.json").exists() else run_subject(overview(path))
    assert made.problem == ""
    return made


def cells(pilot: Pilot[Any], pane: str) -> list[list[str]]:
    table = pilot.app.screen.query_one(f"{pane} DataTable", DataTable)
    return [[str(cell).strip() for cell in table.get_row(row.key)] for row in table.ordered_rows]


def marks(pilot: Pilot[Any]) -> dict[str, str]:
    return {name: mark for mark, name, *_ in cells(pilot, "ChoosePane")}


async def go(pilot: Pilot[Any], *names: str) -> None:
    """Opens the place, and chooses what has these names."""
    await pilot.press("4")
    await until(pilot, lambda: isinstance(pilot.app.screen, compare.CompareScreen))
    await until(pilot, lambda: all(name in marks(pilot) for name in names))
    for name in names:
        await at(pilot, name)
        await pilot.press("space")
        await until(pilot, lambda name=name: marks(pilot)[name] in ("● in", "★ ref"))


async def at(pilot: Pilot[Any], name: str) -> None:
    table = pilot.app.screen.query_one(ChoosePane).table
    table.move_cursor(row=list(marks(pilot)).index(name))
    await pilot.pause()


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_without_runs_and_models_it_says_what_to_do(lab: Lab, size: tuple[int, int]) -> None:
    async with lab.run_test(size=size) as pilot:
        await pilot.press("4")
        await shows(pilot, "There is nothing to compare yet", "press d for the demo")
        await pilot.press("space", "p", "slash", "x", "escape", "f", "i", "o", "t", "n", "e", "n", "y")
        await shows(pilot, "Nothing is chosen yet")


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_first_that_is_chosen_is_the_reference_until_another_is_pinned(
    lab: Lab, add_run: AddRun, add_card: Callable[[str], Path], size: tuple[int, int]
) -> None:
    add_run("train", began=100.0)
    add_run("attack", began=50.0)
    add_card("convnet")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "attack", "convnet")
        assert marks(pilot) == {"train": "○", "attack": "★ ref", "convnet": "● in"}
        await at(pilot, "train")
        await pilot.press("p")
        await until(pilot, lambda: marks(pilot) == {"train": "★ ref", "attack": "● in", "convnet": "● in"})
        # What is gone from the choice is no reference.
        await pilot.press("space")
        await until(pilot, lambda: marks(pilot) == {"train": "○", "attack": "★ ref", "convnet": "● in"})
        await pilot.press("1", "4")
        await shows(pilot, "2 of 3 chosen")
        assert marks(pilot)["attack"] == "★ ref"


async def test_a_click_chooses_and_the_filter_hides(lab: Lab, add_run: AddRun, add_card: Callable[[str], Path]) -> None:
    add_run("train")
    add_card("lenet")
    async with lab.run_test(size=NARROW) as pilot:
        await go(pilot)
        await until(pilot, lambda: "lenet" in marks(pilot))
        await pilot.click("#subjects", offset=(10, 2))
        await until(pilot, lambda: marks(pilot) == {"train": "○", "lenet": "★ ref"})
        await pilot.press("slash", *"model")
        await until(pilot, lambda: marks(pilot) == {"lenet": "★ ref"})
        await pilot.press("escape")
        await until(pilot, lambda: len(marks(pilot)) == 2)


async def test_runs_without_figures_say_why(lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PERIOD", 0.05)
    add_run("train", "dead", events=20)
    (add_run("attack", "empty") / "result.json").write_text("{}")
    (add_run("attack", "gone") / "result.json").unlink()
    (add_run("attack", "torn") / "result.json").write_text('{"attacks": [')
    async with lab.run_test(size=NARROW) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: set(marks(pilot).values()) == {"no"})
        for name, why in (
            ("dead", "It died without a result"), ("empty", "has no figures"),
            ("gone", "gone, damaged, or"), ("torn", "gone, damaged, or"),
        ):  # fmt: skip
            await at(pilot, name)
            await shows(pilot, f"{name}: Its" if name != "dead" else "dead: It", why)
        await pilot.press("space", "p")
        await until(pilot, lambda: len(lab._notifications) == 2)
        assert all("torn can't be compared. Its result.json" in told.message for told in lab._notifications)
        assert set(marks(pilot).values()) == {"no"}


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_what_vanishes_while_it_is_shown_leaves_the_comparison(
    lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(compare, "PERIOD", 0.05)
    told: list[str] = []  # A toast would be gone after some seconds, which a slow machine takes.
    monkeypatch.setattr(lab, "notify", lambda message, **options: told.append(message))
    path = add_run("demo")
    add_run("train")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "demo", "train")
        await pilot.press("f")
        shutil.rmtree(path)
        await shows(pilot, "1 of 1 chosen")
        assert ["demo can no longer" in message for message in told] == [True]
        for key in "fite":
            await pilot.press(key)
        (lab.session.runs_dir / "train" / "result.json").write_text("[")
        await shows(pilot, "0 of 1 chosen", "Nothing is chosen yet")


async def test_archived_runs_are_left_out(lab: Lab, add_run: AddRun) -> None:
    kept, archived = add_run("attack", "kept"), add_run("attack", "archived")
    write_marks(archived, Marks(archived=True))
    async with lab.run_test(size=WIDE) as pilot:
        await go(pilot, "kept")
        assert "archived" not in marks(pilot)
        write_marks(archived, Marks())
        await until(pilot, lambda: "archived" in marks(pilot))
        write_marks(kept, Marks(archived=True))
        await tells(pilot, "kept can no longer be compared: it is gone, archived")


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_figures_have_the_difference_to_the_reference_and_the_paired_test(
    lab: Lab, add_run: AddRun, size: tuple[int, int]
) -> None:
    add_run("attack")
    add_run("train")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "attack", "train")
        await pilot.press("f")
        await shows(pilot, "Synthetic data (attack, train)", "McNemar's exact test: p = 1.00", "same 6 images")
        # From the results: 45.0 % clean in both, 6 % against 5 % under PGD at 8/255.
        rows = cells(pilot, "FiguresPane")
        assert [row[2:5] + row[6:] for row in rows] == [
            ["clean", "", "45.0 %", "ref."], ["PGD", "8/255", "6.0 %", "ref."],
            ["clean", "", "45.0 %", "+0.0"], ["PGD", "8/255", "5.0 %", "-1.0"],
        ]  # fmt: skip
        assert rows[3][5] == "2.7-9.0"
        await pilot.press("y")
        assert lab.clipboard.splitlines()[0] == "of\tnetwork\tattack\teps.\tacc.\t95 %\tpoints"


async def test_pictures_are_compared_meanwhile(lab: Lab, add_run: AddRun, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(*_: Path) -> None:
        release.wait(10)

    monkeypatch.setattr(side_by_side, "pairs", slow)
    add_run("attack")
    add_run("train")
    async with lab.run_test(size=NARROW) as pilot:
        await go(pilot, "attack", "train")
        await pilot.press("f")
        await shows(pilot, "comparing images...")
        await pilot.press("i")
        await shows(pilot, "settings differ")
        release.set()
        await pilot.press("f")
        await shows(pilot, "measured on other images: no McNemar test")


def test_the_paired_test_counts_and_its_absence_is_explained(add_run: AddRun, add_card: Callable[[str], Path]) -> None:
    import h5py

    first, second = add_run("attack"), add_run("train")
    with h5py.File(second / "examples.h5", "a") as file:
        # Of the six, numbers 0 and 3 withstand; now numbers 1 and 2 do as well.
        file["success"][1:3] = False
        file["correct_rate"][1:3] = 1.0
    subjects = [subject(first), subject(second), subject(add_card("lenet"))]
    (told, lacking) = paired_sentences(subjects, lambda: False)
    assert "0 only train gets wrong, 2 only attack" in told and "p = 0.50" in told
    assert "differs by +33.3 points" in told
    assert "No McNemar test with lenet" in lacking
    (second / "examples.h5").write_bytes(b"torn")
    assert "Expected a file of adversarial examples" in next(paired_sentences(subjects, lambda: False))
    write_pictures(second / "examples.h5", 4)
    assert "other images" in next(paired_sentences(subjects, lambda: False))
    assert list(paired_sentences(subjects, lambda: True)) == []


def test_of_several_networks_the_one_of_the_same_name_is_the_reference(
    add_run: AddRun, add_card: Callable[[str], Path]
) -> None:
    study = subject(add_run("demo"))
    rows = {(row.model, row.training, row.randomized, row.attack, row.epsilon): row for row in study.rows}
    reference = rows["convnet", "pgd", False, "pgd", 8 / 255]
    model = subject(add_card("convnet-pgd"))
    (attacked,) = [row for row in model.rows if row.attack]
    # The models' own figures: 33.82 % under PGD at 8/255.
    assert attacked.accuracy == pytest.approx(0.338, abs=5e-4)
    assert difference(attacked, study) == pytest.approx(attacked.accuracy - reference.accuracy)
    assert difference(dataclasses.replace(attacked, epsilon=0.3), study) is None
    assert difference(dataclasses.replace(attacked, norm="l2"), study) is None
    # Of several ways to attack, the same EOT; where it wasn't tried, the strongest.
    several = [dataclasses.replace(attacked, eot=1, accuracy=0.5), dataclasses.replace(attacked, eot=10, accuracy=0.2)]
    single = dataclasses.replace(model, rows=tuple(several))
    assert difference(dataclasses.replace(attacked, eot=1, accuracy=0.6), single) == pytest.approx(0.1)
    assert difference(dataclasses.replace(attacked, eot=20, accuracy=0.6), single) == pytest.approx(0.4)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_only_settings_that_differ_are_shown_until_all_are_wanted(
    lab: Lab, add_card: Callable[[str], Path], size: tuple[int, int]
) -> None:
    add_card("convnet")
    add_card("convnet-random-pgd")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "convnet", "convnet-random-pgd")
        await pilot.press("i")
        await shows(pilot, "settings differ", "★ convnet")
        # From the two cards.
        assert cells(pilot, "SettingsTable") == [
            ["training", "standard", "pgd"], ["epochs", "36", "22"], ["steps", "7", "2"],
            ["learning rate", "0.05", "0.1"], ["weight decay", "0.0005", "0.0001"], ["randomize", "-", "0.1"],
        ]  # fmt: skip
        await pilot.press("o")
        await shows(pilot, "≠ epochs", "8/255")
        assert ["epsilon", "8/255", "8/255"] in cells(pilot, "SettingsTable")
        await pilot.press("y")
        assert "≠ epochs\t36\t22" in lab.clipboard


def test_a_run_and_a_model_are_compared_in_what_both_have(add_run: AddRun, add_card: Callable[[str], Path]) -> None:
    rows = {name: (values, differs) for name, values, differs in differing([
        subject(add_run("train")), subject(add_card("lenet")),
    ])}  # fmt: skip
    assert rows["kind"] == (["train", "saved model"], True)
    assert rows["epochs"][0][0] == "3" and rows["epochs"][1]
    assert rows["norm"] == (["linf", "linf"], False)
    assert rows["measured on"][0] == ["200 images of shapes test[:200]", "10,000 images of cifar10 test"]


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_studies_have_their_table_one_after_the_other(lab: Lab, add_run: AddRun, size: tuple[int, int]) -> None:
    add_run("demo", "second", began=50.0)
    add_run("demo", "first", began=100.0)
    add_run("train", began=20.0)
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "train")
        await pilot.press("t")
        await shows(pilot, "None of those chosen has a table of its own")
        await pilot.press("escape", "c")
        await go(pilot, "first", "second")
        await pilot.press("t")
        await shows(pilot, "first, 400 images of shapes", "(1 of 2;", "publ.", "40 %", "Synthetic data")
        await pilot.press("n")
        await shows(pilot, "second, 400 images", "(2 of 2;")
        await pilot.click("StudiesPane .next")
        await shows(pilot, "first, 400 images")


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_curves_are_overlaid_and_told_apart_by_signs(
    lab: Lab, add_run: AddRun, add_card: Callable[[str], Path], size: tuple[int, int]
) -> None:
    demo = add_run("demo")
    add_card("convnet")
    async with lab.run_test(size=size) as pilot:
        await go(pilot, "demo", "convnet")
        await pilot.press("e")
        # PGD first, as both were attacked with it.
        await shows(pilot, "PGD L∞: accuracy over epsilon in 1/255", "Not the same data: demo on shapes")
        chart = pilot.app.screen.query_one(Chart)
        # A curve for each of the five networks; some were also attacked with EOT, at one epsilon only.
        assert [list(curve.xs) for curve in chart.curves if curve.joined] == [[0, 2, 4, 8, 16]] * 5
        assert len({curve.sign for curve in chart.curves}) == len(chart.curves) > 5
        assert cells(pilot, "OverlayPane")[1][:2] == ["▲", "demo convnet"]
        # The model was attacked at one epsilon: two points, which nothing joins.
        single = chart.curves[0]
        assert list(single.xs) == [0, 8] and not single.joined and chart.curves[-1].joined
        assert cells(pilot, "OverlayPane")[-1][1:] == ["convnet", "86.2 %", "", "", "0.0 %", ""]
        assert chart.x_name == "epsilon x 255"
        rows = (read_json(demo / "result.json") or {})["rows"]
        measured = next(row for row in rows if row["attack"] == "pgd" and row["epsilon"] == 8 / 255)
        assert cells(pilot, "OverlayPane")[0][5] == format_accuracy(measured["accuracy"])
        await pilot.press("n")
        await shows(pilot, "FGSM L∞")
        await pilot.click("OverlayPane .next")
        await shows(pilot, "DeepFool L∞")
        await pilot.press("y")
        assert lab.clipboard.splitlines()[0] == "\tof\tclean\t2/255\t4/255\t8/255\t16/255"


def test_subjects_with_one_epsilon_each_are_drawn_as_points(add_run: AddRun, add_card: Callable[[str], Path]) -> None:
    (overlay,) = overlaid([subject(add_card("convnet")), subject(add_card("convnet-random-pgd"))])
    assert [trace.label for trace in overlay.traces] == ["convnet", "convnet-random-pgd, EOT 20"]
    assert not any(trace.joined for trace in overlay.traces)
    assert overlaid([]) == []


NOISY = Row(model="convnet", training="pgd", randomized=True)
UNDER = {"attack": "pgd", "norm": "linf", "epsilon": 8 / 255}
STEERED = tuple(
    dataclasses.replace(NOISY, noise=noise, accuracy=accuracy, **more)
    for noise, clean, robust in (("on", 0.6, 0.3), ("off", 0.7, 0.25), ("frozen", 0.5, 0.2))
    for accuracy, more in ((clean, {}), (robust, UNDER))
)


def test_noise_off_and_frozen_are_compared_with_the_same() -> None:
    study = Subject(Path("one"), "one", "study", rows=STEERED)
    other = dataclasses.replace(STEERED[3], accuracy=0.75)
    assert difference(other, study) == pytest.approx(0.5)
    # A study without such rows is no reference for them.
    assert difference(other, dataclasses.replace(study, rows=STEERED[:2])) is None
    (overlay,) = overlaid([study])
    name = "convnet-random-pgd"
    assert {trace.label: [(point.at, point.accuracy) for point in trace.points] for trace in overlay.traces} == {
        name: [(0, 0.6), (8 / 255, 0.3)],
        f"{name}, noise off": [(0, 0.7), (8 / 255, 0.25)],
        f"{name}, noise frozen": [(0, 0.5), (8 / 255, 0.2)],
    }
    # What is said of a network in a line is said of it with its noise.
    assert of_rows(STEERED) == ((0.6, 0.6), (0.3, 0.3))
    assert [side_by_side._attack(row) for row in STEERED] == [
        "clean", "PGD", "clean, noise off", "PGD, noise off", "clean, noise frozen", "PGD, noise frozen",
    ]  # fmt: skip


async def test_a_study_shows_its_noise_in_its_table(lab: Lab, add_run: AddRun) -> None:
    path = add_run("demo")
    result = read_json(path / "result.json") or {}
    rows = [vars(row) | {"name": None} for row in STEERED] + [vars(STEERED[1]) | {"name": "convnet-matched"}]
    (path / "result.json").write_text(json.dumps(result | {"rows": rows}))
    async with lab.run_test(size=NARROW) as pilot:
        await go(pilot, "demo")
        await pilot.press("t")
        await shows(pilot, "PGD, noise frozen")
        assert [row[:2] for row in cells(pilot, "StudyPane")] == [
            ["convnet-random-pgd", "clean"], ["", "PGD"], ["", "clean, noise off"], ["", "PGD, noise off"],
            ["", "clean, noise frozen"], ["", "PGD, noise frozen"], ["convnet-matched", "PGD"],
        ]  # fmt: skip


def test_a_run_and_a_model_of_one_name_are_told_apart(
    runs_dir: Path, models_dir: Path, add_run: AddRun, add_card: Callable[[str], Path]
) -> None:
    add_run("train", "lenet")
    add_card("lenet")
    reader = Subjects(runs_dir, models_dir)
    before = reader.read()
    assert [entry.title for entry in before] == ["lenet", "lenet (model)"]
    # What hasn't changed is the same object, so that nothing is drawn anew.
    assert reader.read() == before


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("demo-20261122-190141", 14, "demo-20…190141"), ("small", 14, "small"), ("abcdefgh", 5, "ab…gh")],
)
def test_names_are_cut_in_the_middle(name: str, width: int, expected: str) -> None:
    assert short(name, width) == expected and len(expected) <= width


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    dict.fromkeys(("model", "training", "randomized", "accuracy", "interval", "epsilon"), ANYTHING)
    | {"attack": ANYTHING | st.sampled_from([None, "pgd"])},
    optional=dict.fromkeys(("name", "noise", "norm", "steps", "eot", "median_distance", "published"), ANYTHING),
)
ATTACK = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "norm", "epsilon", "robust_accuracy", "interval", "settings"), ANYTHING)
)
RECORD = st.fixed_dictionaries(
    {"kind": st.sampled_from(["study", "attack", "train", 3])},
    optional={
        "rows": ANYTHING | st.lists(ROW, max_size=3),
        "attacks": ANYTHING | st.lists(ATTACK, max_size=3),
        "measured": ANYTHING | st.lists(ATTACK, max_size=3),
        "training": ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(("model", "epsilon"), ANYTHING)),
        "data": ANYTHING
        | st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "split", "examples", "synthetic"), ANYTHING)),
        "clean_accuracy": ANYTHING,
        "robust_accuracy": ANYTHING,
    },
)


@given(RECORD, ANYTHING)
def test_no_file_breaks_a_comparison(tmp_path_factory: pytest.TempPathFactory, record: Any, config: Any) -> None:
    run, model = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("model")
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps(record))
    (model / "card.json").write_text(json.dumps(record))
    made = [run_subject(overview(run)), model_subject(model, "model")]
    usable = [subject for subject in made if not subject.problem]
    overlaid(usable)
    differing(usable)
    list(paired_sentences(usable, lambda: False))
    for one in usable:
        assert all((row.epsilon or 0) >= 0 for row in one.rows)
        assert all(isinstance(value, float) for value in (*one.clean, *one.robust))
        [difference(row, other) for other in usable for row in one.rows]


async def test_foreign_figures_are_shown_as_far_as_they_go(lab: Lab, add_run: AddRun, models_dir: Path) -> None:
    path = add_run("attack", "theirs")
    (path / "result.json").write_text(json.dumps({
        "kind": "attack", "model": "[red]x[nothing]", "data": {"name": ["a"]}, "clean_accuracy": "high",
        "attacks": [{"name": "new\x1b[31m", "epsilon": 1e-9, "robust_accuracy": 0.25, "interval": [None, 1]}],
    }))  # fmt: skip
    later = read_json(add_run("demo", "later") / "result.json") or {}
    rows = [row | {"accuracy": "x"} if row["attack"] is None else row | {"new": {}} for row in later["rows"]]
    (lab.session.runs_dir / "later" / "result.json").write_text(json.dumps(later | {"schema": 99, "rows": rows}))
    for name, card in {"bare": "{}", "list": "[1]", "deep": "[" * 100_000}.items():
        (models_dir / name).mkdir(parents=True)
        (models_dir / name / "card.json").write_text(card)
    async with lab.run_test(size=WIDE) as pilot:
        await go(pilot, "theirs", "later", "bare")
        assert marks(pilot)["list"] == marks(pilot)["deep"] == "no"
        for key in "fitnenne":
            await pilot.press(key)
            await pilot.pause(0.05)
        await pilot.press("f")
        await shows(pilot, "[red]x[nothing]", "25.0 %")
        assert "\x1b" not in text(pilot)
