from __future__ import annotations

import pytest
from screen import text
from textual.app import App, ComposeResult

from tui.widgets.chart import Chart, Curve


class Charts(App[None]):
    """One chart at a time, as where there is no room for all."""

    CSS = "Chart { display: none; } Chart.chosen { display: block; }"

    def compose(self) -> ComposeResult:
        yield Chart("accuracy", percent=True, bounds=(0.0, 1.0), id="accuracy")
        yield Chart("loss", id="loss")

    def chart(self, name: str) -> Chart:
        return self.query_one(f"#{name}", Chart)

    def choose(self, name: str) -> None:
        for chart in self.query(Chart):
            chart.set_class(chart.id == name, "chosen")


@pytest.mark.parametrize("height", [13, 14, 24, 40])
async def test_points_stand_in_the_row_of_their_tick_and_none_under_the_frame(height: int) -> None:
    async with Charts().run_test(size=(80, height)) as pilot:
        app = pilot.app
        assert isinstance(app, Charts)
        app.choose("accuracy")
        app.chart("accuracy").show([
            Curve("", [0, 4], [1.0, 1.0], sign="a"),
            Curve("", [1, 4], [0.0, 0.0], sign="b"),
            Curve("", [2, 4], [0.8, 0.8], sign="c"),
        ])  # fmt: skip
        await pilot.pause()
        await pilot.pause()
        rows = text(pilot).splitlines()[1:]
        for sign, tick in (("a", "100 %"), ("b", " 0 %"), ("c", "80 %")):
            assert any(sign in row for row in rows if tick in row), "\n".join(rows)


async def test_one_point_is_drawn() -> None:
    async with Charts().run_test(size=(80, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Charts)
        app.choose("loss")
        app.chart("loss").show([Curve("loss", [10], [2.3])])
        await pilot.pause()
        await pilot.pause()
        assert "•" in text(pilot)


async def test_what_changed_while_a_chart_was_hidden_is_drawn_whole_once_it_is_shown() -> None:
    async with Charts().run_test(size=(80, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Charts)
        curves = [Curve("clean", list(range(200)), [step / 200 for step in range(200)])]
        for name in ("accuracy", "loss"):
            app.choose(name)
            await pilot.pause()
        app.chart("accuracy").show(curves)
        await pilot.pause()
        app.choose("accuracy")
        await pilot.pause()
        await pilot.pause()
        picture = text(pilot)
        # Ticks between the ends, and a line through most columns.
        assert "50 %" in picture
        assert sum(0x2800 < ord(sign) < 0x2900 for sign in picture) > 60


@pytest.mark.parametrize(("width", "height"), [(40, 9), (40, 24), (80, 9), (80, 12)])
async def test_no_tick_is_written_over_another(width: int, height: int) -> None:
    async with Charts().run_test(size=(width, height)) as pilot:
        app = pilot.app
        assert isinstance(app, Charts)
        app.choose("loss")
        app.chart("loss").show([Curve("loss", [0, 9000], [1.76, 2.46])])
        await pilot.pause()
        await pilot.pause()
        *rows, steps = text(pilot).splitlines()[1:]
        values = [float(words[0]) for row in rows if "┫" in row and (words := row.split("┫")[0].split())]
        assert len(values) >= 2 and values == sorted(values, reverse=True)
        assert all(1.6 < value < 2.6 for value in values)
        marks = [float(mark.removesuffix("k")) for mark in steps.split()]
        assert len(marks) >= 2 and marks == sorted(marks)
