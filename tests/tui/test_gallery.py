"""The gallery: what stands below the pictures, steps, filters, and files that come, go and are damaged."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import shows, text, until
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import OptionList

from kerasrobust.events import ExamplesSaved
from kerasrobust.show.examples import write_examples
from tui.panes import gallery
from tui.panes.gallery import PERIOD, GalleryPane
from tui.read.examples import Filters, Setting, amplification, amplify, choose, read_sources
from tui.read.state import RunState
from tui.widgets.picture import Picture

SIZES = [(80, 24), (160, 48)]
NAMES = ("cat", "dog", "owl")


def part(y: list[int], prediction: list[int], prediction_adv: list[int], **others: Any) -> dict[str, Any]:
    """Returns examples of one attack; image i is grey of i/100, and changed by 8/255 where the attack was needed."""
    count = len(y)
    true, before, after = np.array(y), np.array(prediction), np.array(prediction_adv)
    x = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None] / 100, (count, 32, 32, 3))
    change = np.where(before == true, 8 / 255, 0.0).astype(np.float32)
    return {
        "x": x.copy(), "x_adv": x + change[:, None, None, None], "y": true, "prediction": before,
        "prediction_adv": after, "success": after != true, "correct_rate": (after == true).astype(np.float64),
        "distance": change, "confidence": np.full(count, 0.983, np.float32),
        "confidence_adv": np.full(count, 0.871, np.float32), "attack": "pgd", "epsilon": 8 / 255, "eot": 1,
    } | others  # fmt: skip


# In the order of the file: survived, wrong from the start, succeeded, succeeded, survived.
FIVE = part([0, 1, 2, 0, 1], [0, 0, 2, 0, 1], [0, 0, 1, 2, 1])


def write(path: Path, *parts: dict[str, Any], model: str = "net", names: tuple[str, ...] = NAMES) -> Path:
    write_examples(path, parts or (FIVE,), model=model, norm="linf", class_names=names)
    return path


class Wall(App[None]):
    """The gallery alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def compose(self) -> ComposeResult:
        yield GalleryPane(self.folder)


@asynccontextmanager
async def opened(folder: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    app = Wall(folder)
    async with app.run_test(size=size) as pilot:
        app.query_one(GalleryPane).focus()
        app.query_one(GalleryPane).show(RunState())
        await until(pilot, lambda: "Looking" not in text(pilot) and text(pilot).strip())
        yield pilot


def first_pixel(pilot: Pilot[None], name: str) -> tuple[int, ...]:
    """Returns the colour of a picture's first pixel."""
    strip = pilot.app.query_one(f"#{name}", Picture).render_line(0)
    style = next(segment.style for segment in strip if segment.text == "▀")
    assert style is not None and style.color is not None
    return tuple(style.color.get_truecolor())


@pytest.mark.parametrize("size", SIZES)
async def test_says_what_the_example_is(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "examples.h5")
    async with opened(tmp_path, size) as pilot:
        # The first that the attack has changed is the third of the file.
        await shows(pilot, "1 of 5", "original: owl", "✓ right: owl 98.3 %", "✗ wrong: dog 87.1 %")
        await shows(pilot, "distance 8/255 of 8/255 L∞", "PGD 8/255 L∞ on net", "all classes", "all outcomes")
        # 16 * 8/255 is half of the range and a little more.
        await shows(pilot, "perturbation ×16")
        assert first_pixel(pilot, "original") == (5, 5, 5)  # 0.02 * 255 = 5.1
        assert first_pixel(pilot, "adversarial") == (13, 13, 13)
        assert first_pixel(pilot, "perturbation") == (255, 255, 255)
        lines = text(pilot).splitlines()
        rows = [line for line in lines if "▀" in line]
        # Where there is room the next example stands below.
        assert len(rows) == {80: 13, 160: 32}[size[0]]
        rows = rows[: {80: 13, 160: 16}[size[0]]]
        assert {line.count("▀") for line in rows} == {{80: 3 * 26, 160: 3 * 32}[size[0]]}
        # The first two lines are words; the captions stand right below the last row.
        assert "original: owl" in lines[2 + len(rows)] and lines[1 + len(rows)] == rows[-1]


async def test_an_example_is_shown_while_the_next_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "examples.h5")
    go_on, reads, real = threading.Event(), list[int](), gallery.read_pair

    def slow(path: Path, place: int) -> tuple[np.ndarray, np.ndarray]:
        reads.append(place)
        if len(reads) > 1:
            go_on.wait(20)
        return real(path, place)

    monkeypatch.setattr(gallery, "read_pair", slow)
    monkeypatch.setattr(gallery, "_PATIENCE", -1.0)
    async with opened(tmp_path, (160, 48)) as pilot:
        await shows(pilot, "1 of 5", "original: owl")
        await until(pilot, lambda: sum("▀" in line for line in text(pilot).splitlines()) == 16)
        assert len(reads) == 2
        go_on.set()
        await until(pilot, lambda: sum("▀" in line for line in text(pilot).splitlines()) == 32)


@pytest.mark.parametrize("words", ["8x8 pixels", "±30° and ±10 %"])
async def test_an_attack_outside_balls_shows_how_much_has_changed(words: str, tmp_path: Path) -> None:
    distance = np.array([0, 0, 192, 150, 0], np.float32)
    made = FIVE | {"attack": "patch", "epsilon": None, "distance": distance}
    write_examples(tmp_path / "examples.h5", [made], model="net", norm=words, class_names=NAMES)
    async with opened(tmp_path) as pilot:
        await shows(pilot, f"Patch {words} on net", "192 values changed")
        assert "distance" not in text(pilot)


async def test_the_next_examples_fill_the_room_and_the_last_ones_leave_it(tmp_path: Path) -> None:
    write(tmp_path / "examples.h5")
    async with opened(tmp_path, (120, 60)) as pilot:
        await until(pilot, lambda: text(pilot).count("original: ") == 3)
        await pilot.press("end")
        await until(pilot, lambda: "5 of 5" in text(pilot) and text(pilot).count("original: ") == 1)
        await pilot.press("left")
        await until(pilot, lambda: "4 of 5" in text(pilot) and text(pilot).count("original: ") == 2)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: text(pilot).count("original: ") == 1)


async def test_amplification_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / "examples.h5")
    async with opened(tmp_path) as pilot:
        for factor, grey in ((1, 136), (8, 192), (32, 255), (128, 255)):
            await pilot.press("z")
            await shows(pilot, f"perturbation ×{factor} ", f"z ×{factor} ")
            # 127.5 + factor * 8, in whole steps.
            assert first_pixel(pilot, "perturbation")[0] in (grey - 1, grey)
        await pilot.press("z")
        await shows(pilot, "perturbation ×16", "z auto")


async def test_steps_by_keys_and_mouse(tmp_path: Path) -> None:
    count = 30
    write(tmp_path / "examples.h5", part([0] * count, [0] * count, [1] * count))
    async with opened(tmp_path) as pilot:
        for key, number in (
            ("left", 1), ("right", 2), ("right", 3), ("left", 2), ("pagedown", 12), ("end", 30), ("right", 30),
            ("pageup", 20), ("home", 1), ("pageup", 1),
        ):  # fmt: skip
            await pilot.press(key)
            await shows(pilot, f" {number} of 30 ")
            # Image i is grey of i/100.
            assert abs(first_pixel(pilot, "original")[0] - (number - 1) / 100 * 255) <= 1
        await pilot.click("#next")
        await shows(pilot, " 2 of 30 ")
        await pilot.click("#previous")
        await shows(pilot, " 1 of 30 ")


@pytest.mark.parametrize("size", SIZES)
async def test_filters(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "examples.h5")
    async with opened(tmp_path, size) as pilot:
        assert "0 clear" not in text(pilot)
        await pilot.press("u")
        await shows(pilot, "1 of 2 (of 5)", "u attack succeeded", "0 clear", "✗ wrong: dog")
        await pilot.press("u")
        await shows(pilot, "1 of 2 (of 5)", "u survived", "✓ right: cat 98.3 %", "✓ right: cat 87.1 %")
        await pilot.press("u")
        await shows(pilot, "1 of 1 (of 5)", "u wrong from the start", "original: dog", "✗ wrong: cat 98.3 %")
        await shows(pilot, "perturbation: none", "distance 0 of 8/255 L∞")
        await pilot.press("c")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)
        listed = pilot.app.screen.query_one(OptionList)
        assert [str(listed.get_option_at_index(at).prompt) for at in range(4)] == ["all classes", *NAMES]
        await pilot.press("down", "enter")
        await shows(pilot, "0 of 0 (of 5)", "c cat", "No example fits these filters; 0 clears them.")
        assert "▀" not in text(pilot)
        await pilot.press("0")
        await shows(pilot, " 1 of 5 ", "c all classes", "u all outcomes")
        await pilot.click("#label")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)
        await pilot.press("end", "enter")
        await shows(pilot, "1 of 1 (of 5)", "c owl")
        await pilot.press("c", "escape")
        await shows(pilot, "1 of 1 (of 5)", "c owl")
        await pilot.click("#clear")
        await pilot.click("#outcome")
        await shows(pilot, "1 of 2 (of 5)", "c all classes", "u attack succeeded")


@pytest.mark.parametrize("size", SIZES)
async def test_networks_and_attacks_of_a_study(tmp_path: Path, size: tuple[int, int]) -> None:
    deepfool = part([1], [1], [0], attack="deepfool", epsilon=None, distance=np.array([0.25], np.float32))
    noisy = part([0, 2], [0, 2], [1, 1], eot=20, correct_rate=np.array([0.3, 0.4]))
    write(tmp_path / "examples" / "a-net.h5", part([0], [0], [1]), deepfool)
    write(tmp_path / "examples" / "b-net.h5", noisy, model="other")
    async with opened(tmp_path, size) as pilot:
        await shows(pilot, "1 of 4", "n all networks", "k all attacks", "PGD 8/255 L∞ on a-net")
        await pilot.press("n", "n")
        await shows(pilot, "1 of 2 (of 4)", "PGD 8/255 L∞ EOT 20 on b-net", "adversarial, right in 30 %")
        await shows(pilot, "n b-net" if size[0] == 160 else "n network 2/2")
        await pilot.press("n", "k", "k")
        await shows(pilot, "1 of 1 (of 4)", "n all networks", "DeepFool L∞ on a-net", "distance 0.25 L∞")
        await shows(pilot, "k DeepFool L∞" if size[0] == 160 else "k attack 2/3")
        await pilot.press("k")
        await shows(pilot, "1 of 2 (of 4)", "k PGD 8/255 L∞ EOT 20" if size[0] == 160 else "k attack 3/3")
        await pilot.press("right")
        await shows(pilot, "2 of 2 (of 4)", "right in 40 %")
        # A filter that it fits leaves the example where it is.
        await pilot.press("0")
        await shows(pilot, "4 of 4", "right in 40 %")


async def test_one_network_under_one_attack_needs_no_such_filters(tmp_path: Path) -> None:
    write(tmp_path / "examples.h5")
    async with opened(tmp_path) as pilot:
        await shows(pilot, "1 of 5")
        assert "networks" not in text(pilot) and "attacks" not in text(pilot)


async def test_files_of_older_runs(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "examples.h5"), "a") as file:
        for name in ("confidence", "confidence_adv", "epsilon", "eot"):
            del file[name]
        for name in ("model", "norm", "class_names"):
            del file.attrs[name]
    async with opened(tmp_path) as pilot:
        await shows(pilot, "original: class 2", "✓ right: class 2 ", "✗ wrong: class 1 ", "distance 0.0314 ")
        await shows(pilot, f"PGD on {tmp_path.name}")
        assert "nan" not in text(pilot)


async def test_nothing_yet_and_what_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as pilot:
        await shows(pilot, "No adversarial images yet", "the end of each attack stage")
        await pilot.press("right", "end", "pageup", "c", "u", "n", "k", "z", "0")
        pane = pilot.app.query_one(GalleryPane)
        write(tmp_path / "examples" / "b.h5")
        saved = ExamplesSaved(path="examples/b.h5", count=5, attack="pgd")
        pane.show(RunState(examples={saved.path: saved}))
        await shows(pilot, "1 of 5", "on b", "original: owl")
        await pilot.press("right")
        await shows(pilot, "2 of 5", "original: cat")
        # One that the run has not told of is found in time; the example stays the same.
        write(tmp_path / "examples" / "a.h5")
        pane.show(RunState(examples={saved.path: saved}))
        await pilot.pause(PERIOD)
        pane.show(RunState(examples={saved.path: saved}))
        await shows(pilot, "4 of 10", "on b", "original: cat")
        # The filter's network vanishes.
        await pilot.press("n", "n")
        await shows(pilot, "1 of 5 (of 10)", "n network 2/2")
        (tmp_path / "examples" / "b.h5").unlink()
        pane.show(RunState())
        await shows(pilot, "1 of 5 ", "on a")


async def test_a_file_that_is_written_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "examples.h5")
    async with opened(tmp_path) as pilot:
        await shows(pilot, "1 of 5", "✗ wrong: dog")
        write(path, part([2], [2], [0]))
        await pilot.pause(PERIOD)
        pilot.app.query_one(GalleryPane).show(RunState())
        await shows(pilot, "1 of 1", "✗ wrong: cat")


@pytest.mark.parametrize("size", SIZES)
async def test_a_damaged_file_is_told_and_the_others_are_shown(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "examples" / "good.h5")
    (tmp_path / "examples" / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "examples" / "folder.h5").mkdir()
    async with opened(tmp_path, size) as pilot:
        await shows(pilot, "Expected a file of adversarial examples", "bad.h5", "1 of 5", "✗ wrong: dog")
        # All captions are still to be seen.
        await shows(pilot, "original: owl", "distance 8/255")


async def test_only_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "examples.h5").write_text("something else")
    async with opened(tmp_path) as pilot:
        await shows(pilot, "Expected a file of adversarial examples")
        await pilot.press("right", "c", "u", "n", "k", "z", "0")
        assert "No adversarial images yet" not in text(pilot)


async def test_files_and_folders_that_vanish(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = write(run / "examples.h5")
    async with opened(run) as pilot:
        await shows(pilot, "1 of 5")
        path.unlink()
        await pilot.press("right")
        await shows(pilot, "2 of 5", "Expected a file of adversarial examples")
        await pilot.resize_terminal(100, 30)
        await shows(pilot, "2 of 5", "Expected a file of adversarial examples")
        run.rmdir()
        await pilot.pause(PERIOD)
        pilot.app.query_one(GalleryPane).show(RunState())
        await shows(pilot, "is gone.")


async def test_a_folder_that_was_never_there(tmp_path: Path) -> None:
    async with opened(tmp_path / "none") as pilot:
        await shows(pilot, "is gone.")


async def test_images_without_a_picture_have_their_figures(tmp_path: Path) -> None:
    x = np.zeros((1, 8, 8, 2), np.float32)
    write(tmp_path / "examples.h5", part([0], [0], [1], x=x, x_adv=x + np.float32(0.1)))
    async with opened(tmp_path) as pilot:
        await shows(pilot, "channels", "✗ wrong: dog", "perturbation ×4")


async def test_names_are_not_markup(tmp_path: Path) -> None:
    write(tmp_path / "examples.h5", names=("[b]cat", "[/]", "[red]owl[/red]"), model="[link=x]net")
    async with opened(tmp_path) as pilot:
        await shows(pilot, "original: [red]owl[/red]", "✗ wrong: [/]", "on [link=x]net")
        await pilot.press("c", "down", "enter")
        await shows(pilot, "c [b]cat")


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (300, 12), (40, 90)])
async def test_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "examples.h5")
    app = Wall(tmp_path)
    async with app.run_test(size=size) as pilot:
        app.query_one(GalleryPane).show(RunState())
        await pilot.pause(0.2)
        await pilot.resize_terminal(80, 24)
        await shows(pilot, "1 of 5", "original: owl", "✗ wrong: dog")


@pytest.mark.parametrize("terminal", [{"NO_COLOR": "1"}, {"TERM": "xterm", "COLORTERM": ""}])
async def test_reads_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: dict[str, str]) -> None:
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "examples.h5")
    async with opened(tmp_path) as pilot:
        # The perturbation is white all over.
        await shows(pilot, "@" * 26, "✓ right: owl", "✗ wrong: dog", "u all outcomes")
        assert "▀" not in text(pilot)


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(8 / 255, 16), (4 / 255, 32), (1 / 255, 128), (16 / 255, 8), (0.1, 4), (0.5, 1), (0.3, 1), (1.0, 1), (0.125, 4)],
)
def test_factor_fills_the_range(largest: float, factor: int) -> None:
    assert amplification(largest) == factor
    assert amplification(float(np.float32(largest))) == factor


@given(st.floats(1e-7, 0.5))
def test_factor_fills_most_of_the_range_and_no_more(largest: float) -> None:
    assert 0.5 * 0.5 < amplification(largest) * largest <= 0.5 + 1 / 255


def test_perturbation_is_drawn_around_grey() -> None:
    x = np.full((1, 3, 4), 0.5, np.float32)
    x_adv = x + np.array([-0.1, 0.0, 0.05], np.float32)[None, :, None]
    picture, factor = amplify(x, x_adv, None)
    assert factor == 4 and picture.shape == (1, 3, 3)  # No colour, the fourth.
    np.testing.assert_allclose(picture[0, :, 0], [0.1, 0.5, 0.7], atol=1e-6)
    picture, factor = amplify(x, x_adv, 32)
    np.testing.assert_allclose(picture[0, :, 0], [0, 0.5, 1], atol=1e-6)
    same, factor = amplify(x, x, 32)
    assert factor == 0 and (same == 0.5).all()


@settings(deadline=None)
@given(st.data())
def test_choosing_against_a_plain_loop(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    numbers = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6)
    folder = tmp_path_factory.mktemp("run")
    rows: list[tuple[int, int, int, int, int, Setting]] = []
    for number, name in enumerate("ab"):
        parts = []
        place = 0
        for setting in (Setting("pgd", 8 / 255, 1), Setting("fgsm", None, 1)):
            drawn = data.draw(numbers)
            parts.append(part(*map(list, zip(*drawn, strict=True)), attack=setting.attack, epsilon=setting.epsilon))
            for example in drawn:
                rows.append((number, place, *example, setting))
                place += 1
        write(folder / "examples" / f"{name}.h5", *parts)
    sources, problems = read_sources(folder, [])
    assert not problems
    filters = Filters(
        label=data.draw(st.sampled_from([None, 0, 1, 2])),
        outcome=data.draw(st.sampled_from(["all", "succeeded", "survived", "wrong"])),
        network=data.draw(st.sampled_from([None, *(source.path for source in sources)])),
        attack=data.draw(st.sampled_from([None, rows[0][5], rows[-1][5], Setting("pgd", 1.0, 1)])),
    )

    def outcome(row: tuple[int, int, int, int, int, Setting]) -> str:
        _, _, y, before, after, _ = row
        return "wrong" if before != y else "survived" if after == y else "succeeded"

    fitting = [
        row
        for row in rows
        if filters.label in (None, row[2])
        and filters.outcome in ("all", outcome(row))
        and filters.network in (None, sources[row[0]].path)
        and filters.attack in (None, row[5])
    ]
    expected = sorted(fitting, key=lambda row: (outcome(row) != "succeeded", row[0], row[1]))
    assert choose(sources, filters).tolist() == [[row[0], row[1]] for row in expected]
    for number, place, *_, setting in rows:
        assert sources[number].setting(place) == setting


def test_nothing_heavy_is_imported_with_it() -> None:
    words = "import sys, tui.panes.gallery; print([m for m in ('h5py', 'numpy', 'tensorflow') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", words], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
