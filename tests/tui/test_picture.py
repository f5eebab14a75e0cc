"""Images in cells: known pixels give known cells, in colours and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.app import App, ComposeResult

from tui.widgets.picture import Picture, fit, resize


class Frame(App[None]):
    """A picture that fills the screen."""

    CSS = "Screen { background: #101010; }  Picture { width: 100%; height: 100%; }"

    def __init__(self, image: Any) -> None:
        super().__init__()
        self.image = np.asarray(image, np.float32)

    def compose(self) -> ComposeResult:
        yield Picture()

    def on_mount(self) -> None:
        self.query_one(Picture).show(self.image)


async def drawn(image: Any, size: tuple[int, int], theme: str = "textual-dark") -> list[list[Segment]]:
    """Returns the cells of a picture, without its margins."""
    app = Frame(image)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.pause()
        strips = [app.query_one(Picture).render_line(y) for y in range(size[1])]
        assert {strip.cell_length for strip in strips} == {size[0]}
        return [[part for part in strip if part.text.strip()] for strip in strips]


def colours(segment: Segment) -> list[tuple[int, ...] | None]:
    style = segment.style
    assert style is not None
    return [None if colour is None else tuple(colour.get_truecolor()) for colour in (style.color, style.bgcolor)]


@pytest.mark.parametrize(
    ("image", "room", "expected"),
    [
        ((32, 32), (26, 13), (26, 26)),
        ((32, 32), (26, 40), (26, 26)),
        ((32, 32), (100, 12), (24, 24)),
        ((32, 32), (40, 35), (32, 32)),
        ((32, 32), (64, 32), (64, 64)),
        ((32, 32), (200, 50), (96, 96)),
        ((28, 28), (26, 13), (26, 26)),
        ((100, 200), (50, 50), (25, 50)),
        ((1, 1000), (10, 10), (1, 10)),
        ((3, 3), (1, 1), (1, 1)),
    ],
)
def test_size_is_a_multiple_or_what_there_is_room_for(
    image: tuple[int, int], room: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit(*image, *room) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_averaging_keeps_what_is_even_and_the_mean(before: int, width: int, after: int, columns: int) -> None:
    after, columns = min(before, after), min(width, columns)
    even = resize(np.full((before, width, 3), 0.3), after, columns)
    assert even.shape == (after, columns, 3)
    np.testing.assert_allclose(even, 0.3)
    image = np.random.default_rng(0).random((before, width, 1))
    assert resize(image, after, columns).mean() == pytest.approx(image.mean())


def test_averages_by_area() -> None:
    # 3 pixels into 2: each takes one and a half.
    image = np.array([[[0.0], [0.6], [0.9]]])
    np.testing.assert_allclose(resize(image, 1, 2)[0, :, 0], [(0 + 0.3) / 1.5, (0.3 + 0.9) / 1.5])


async def test_two_rows_of_pixels_are_one_of_cells() -> None:
    red, green, blue, white = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)
    (cells,) = await drawn([[red, green], [blue, white]], (2, 1))
    assert [cell.text for cell in cells] == ["▀", "▀"]
    assert [colours(cell) for cell in cells] == [[(255, 0, 0), (0, 0, 255)], [(0, 255, 0), (255, 255, 255)]]


async def test_lies_in_the_middle_and_is_enlarged_by_whole_factors() -> None:
    app = Frame([[(1, 0, 0), (0, 0, 1)]])
    async with app.run_test(size=(7, 4)) as pilot:
        await pilot.pause()
        lines = [app.query_one(Picture).render_line(y) for y in range(4)]
        # Times three: six columns, and three rows of pixels in two of cells.
        assert [line.text for line in lines] == ["▀▀▀▀▀▀ ", "▀▀▀▀▀▀ ", " " * 7, " " * 7]
        cells = list(lines[0])
        assert [colours(cell)[0] for cell in cells if cell.text == "▀"] == [(255, 0, 0)] * 3 + [(0, 0, 255)] * 3
        assert colours(next(cell for cell in lines[1] if cell.text == "▀")) == [(255, 0, 0), (16, 16, 16)]
        await pilot.resize_terminal(2, 1)
        await pilot.pause()
        assert app.query_one(Picture).render_line(0).text == "▀▀"


async def test_grey_and_transparent_images() -> None:
    (cells,) = await drawn([[[0.2]], [[1.4]]], (1, 1))
    assert colours(cells[0]) == [(51, 51, 51), (255, 255, 255)]
    # Over #101010: what is transparent shows the ground, and the half of 240 more at half.
    (cells,) = await drawn([[(1, 0, 0, 0)], [(1, 16 / 255, 16 / 255, 0.5)]], (1, 1))
    (red, green, blue), lower = colours(cells[0])[0], colours(cells[0])[1]  # type: ignore[misc]
    assert (red, green, blue) == (16, 16, 16)
    assert lower in {(135, 16, 16), (136, 16, 16)}


async def test_numbers_that_are_none_are_black() -> None:
    (cells,) = await drawn([[[np.nan]], [[np.inf]]], (1, 1))
    assert colours(cells[0]) == [(0, 0, 0), (255, 255, 255)]


async def test_other_channels_are_told() -> None:
    lines = await drawn(np.zeros((4, 4, 2)), (40, 4))
    told = " ".join(part.text.strip() for line in lines for part in line)
    assert "shape (4, 4, 2)" in told and "1, 3 or 4 channels" in told and "▀" not in told


@pytest.mark.parametrize("terminal", [{"NO_COLOR": "1"}, {"TERM": "xterm", "COLORTERM": ""}])
async def test_shades_where_there_are_no_colours(monkeypatch: pytest.MonkeyPatch, terminal: dict[str, str]) -> None:
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    # Black, white, and 4/9 of the way, which is the fifth of ten; the lower pixels are the same.
    row = [[0.0], [1.0], [4 / 9]]
    assert [part.text for part in (await drawn([row, row], (3, 1)))[0]] == [" @="]
    # On a light ground what is dark is drawn.
    light = await drawn([row, row], (3, 1), "textual-light")
    assert [part.text for part in light[0]] == ["@ +"]
    # One cell is the mean of its two pixels; green looks brighter than blue.
    (cells,) = await drawn([[(0, 1, 0), (0, 0, 1)], [(0, 1, 0), (0, 0, 1)]], (2, 1))
    assert [part.text for part in cells] == ["*."]
    (cells,) = await drawn([[[0.0]], [[8 / 9]]], (1, 1))
    assert cells[0].text == "="
    # The last of an odd number of rows is no darker for it.
    assert (await drawn([[[1.0]], [[1.0]], [[1.0]]], (1, 2)))[1][0].text == "@"
