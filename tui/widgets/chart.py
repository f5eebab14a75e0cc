"""A chart with a line above that names the curves and gives their values, at the cursor or at the end."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Leave, MouseMove, Resize
from textual.geometry import Size
from textual.widgets import Static
from textual_plot import HiResMode, PlotWidget

from kerasrobust.show.figures import format_accuracy
from tui.widgets.plot import Plot, Ticks

SMOOTHINGS = (0.0, 0.6, 0.9)
"""Weights of what came before, in a moving average over the drawn points."""

COLOURS = ("primary", "warning", "success", "error", "accent", "secondary")
"""Theme colours for curves, in order."""

SIGNS = "●▲■◆✚★"
"""Signs that distinguish curves without colours."""

_AROUND = 4
"""Lines of a chart that no value is drawn in: the names of curves, the frame, the ticks of x."""


@dataclass(frozen=True)
class Curve:
    """What is drawn: a line, or, with a `sign`, points.

    Attributes:
        colour: the name of a theme colour, as "primary".
        sign: one character for each point; empty for a line.
        joined: whether points are joined by a line as well.
        end: one character at the end of a line, by which it is told from others without colours.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str = "primary"
    sign: str = ""
    joined: bool = False
    end: str = ""

    @property
    def named(self) -> str:
        """Its sign and its name, for its value to stand behind."""
        return f"{self.sign or self.end or '━'} {self.label}{' ' if self.label else ''}"


def smoothed(ys: Sequence[float], weight: float) -> list[float]:
    """Returns an exponential moving average, without the pull to 0 at its beginning (Kingma and Ba 2015, section 3)."""
    if not weight:
        return list(ys)
    result, total, norm = [], 0.0, 0.0
    for y in ys:
        total = weight * total + (1 - weight) * y
        norm = weight * norm + (1 - weight)
        result.append(total / norm)
    return result


def thinned(xs: Sequence[float], ys: Sequence[float], points: int) -> tuple[Sequence[float], Sequence[float]]:
    """Returns a curve averaged to about so many points: drawing is what takes the time."""
    size = len(xs) // max(1, points)
    if size < 2:
        return xs, ys
    groups = range(0, len(xs), size)
    return [fmean(xs[at : at + size]) for at in groups], [fmean(ys[at : at + size]) for at in groups]


def nearest(curve: Curve, x: float) -> int:
    """Returns the place of the curve's point that is nearest to x; the curve isn't empty and its xs ascend."""
    place = bisect.bisect_left(curve.xs, x)
    candidates = [index for index in (place - 1, place) if 0 <= index < len(curve.xs)]
    return min(candidates, key=lambda index: abs(curve.xs[index] - x))


class Chart(Vertical, can_focus=False):
    """Curves over steps or seconds, or what `x_name` says, under a line with the title.

    With `percent`, values are shares in [0, 1]; without `bounds`, lowest and highest value are the curves' own.
    """

    DEFAULT_CSS = """
    Chart { height: 1fr; min-height: 6; }
    Chart > Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Chart > Plot { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "cursor(-1)", "Cursor left", id="cursor-left", show=False, tooltip="Read values at left"),
        Binding("right", "cursor(1)", "Cursor right", id="cursor-right", show=False, tooltip="Read values at right"),
        Binding("end", "cursor(0)", "Latest", id="cursor-end", show=False, tooltip="Read the newest values again"),
        Binding("0", "whole", "All", id="zoom-reset", show=False, tooltip="Show the whole curve again"),
    ]

    def __init__(
        self, title: str, *, percent: bool = False, x_name: str = "step",
        bounds: tuple[float, float] | None = None, id: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(id=id)
        self.title = title
        self.percent = percent
        self.x_name = x_name
        self.bounds = bounds
        self.curves: list[Curve] = []
        self.smoothing = 0.0
        self.logarithmic = False
        self.cursor: float | None = None
        self._ticks, self._x_ticks = Ticks(), Ticks()
        self._zoomed = False
        self._drawn_at = Size()

    def compose(self) -> ComposeResult:
        yield Static()
        yield Plot()

    def on_mount(self) -> None:
        plot = self.query_one(Plot)
        plot.set_x_formatter(self._x_ticks)
        plot.set_y_formatter(self._ticks)
        self._draw()

    def on_resize(self, event: Resize) -> None:
        # What hasn't changed while hidden isn't drawn again. The plot's own canvases get their sizes after this widget.
        if event.size != self._drawn_at:
            self.call_after_refresh(self._fit_canvas)

    def _fit_canvas(self) -> None:
        if self.is_attached:  # Its screen may have been left meanwhile.
            self.query_one(Plot).refresh(layout=True)
            self._draw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_mounted:
            self._draw()

    def show(self, curves: Sequence[Curve]) -> None:
        """Draws curves in place of those that are there. Zoom and cursor stay."""
        wanted = [curve for curve in curves if len(curve.xs)]
        # Drawing is what costs; most looks at a run bring no new point of what is shown.
        if wanted != self.curves:
            self.curves = wanted
            self._draw()

    def smooth(self, smoothing: float, logarithmic: bool) -> None:
        """Sets the smoothing, and whether values are drawn as their logarithms."""
        self.smoothing, self.logarithmic = smoothing, logarithmic
        self._draw()

    def colour(self, name: str) -> str:
        """Returns a theme colour as rich spells it."""
        return self.app.theme_variables.get(name, "white").removeprefix("ansi_")

    def _values(self, curve: Curve) -> list[float]:
        # Points are measurements, which aren't smoothed.
        ys = list(curve.ys) if curve.sign else smoothed(curve.ys, self.smoothing)
        return [math.log10(y) if y > 0 else math.nan for y in ys] if self.logarithmic else ys

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self._drawn_at = self.size
        if self.size:  # A hidden chart has no columns to draw in; it is drawn once it is shown.
            self._draw_curves()
        self._write_values()

    def _draw_curves(self) -> None:
        plot = self.query_one(Plot)
        self._ticks.percent, self._ticks.logarithmic = self.percent, self.logarithmic
        # So that no label is written over another.
        self._ticks.most = max(2, (self.size.height - _AROUND) // 2)
        self._x_ticks.most = max(2, self.size.width // 8)
        plot.clear()
        low, high = math.inf, -math.inf
        for curve in self.curves:
            ys = self._values(curve)
            finite = [y for y in ys if math.isfinite(y)]
            low, high = min([low, *finite]), max([high, *finite])
            if not curve.sign or curve.joined:
                line = self._shown(curve.xs, ys)
                plot.plot(*line, line_style=self.colour(curve.colour), hires_mode=HiResMode.BRAILLE)
        for curve in self.curves:  # On top of all lines.
            # One point makes no line.
            if sign := curve.sign or curve.end or ("•" if len(curve.xs) == 1 else ""):
                shown, style = slice(0 if curve.sign else -1, None), self.colour(curve.colour)
                plot.scatter(curve.xs[shown], self._values(curve)[shown], marker=sign, marker_style=style)
        if self.cursor is not None:
            plot.add_v_line(self.cursor, "dim")
        if not self._zoomed and low <= high:
            self._fit(plot, low, high)

    def _shown(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
        """Returns what is shown of a curve, averaged to about two points a column."""
        if self._zoomed:
            low, high = self.query_one(Plot).span
            # One more on each side, as the line goes on beyond the edge.
            first, last = max(0, bisect.bisect_left(xs, low) - 1), bisect.bisect_right(xs, high) + 1
            xs, ys = xs[first:last], ys[first:last]
        return thinned(xs, ys, 2 * self.size.width)

    def _fit(self, plot: Plot, low: float, high: float) -> None:
        """Shows the whole curves, with some room around also where all values are the same."""
        first = min(curve.xs[0] for curve in self.curves)
        last = max(curve.xs[-1] for curve in self.curves)
        # A sign at the very edge would be cut off.
        plot.set_xlimits(first, last + 0.01 * (last - first) if last > first else first + 1)
        if self.bounds is not None and not self.logarithmic:
            low, high = self.bounds
            # Lines to which no row belongs would stand beside the wrong figure.
            steps = next(steps for steps in (10, 5, 4, 2, 1) if 2 * steps < self.size.height or steps == 1)
            plot.set_yticks([low + (high - low) * step / steps for step in range(steps + 1)])
        else:
            room = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
            low, high = low - room, high + room
        # Lowest and highest value are in the middle of a row, neither between two nor under the frame.
        half = (high - low) / (2 * max(1, self.size.height - _AROUND - 1))
        plot.set_ylimits(low - half, high + half)

    @on(PlotWidget.ScaleChanged)
    def _scale_changed(self) -> None:
        self._zoomed = True
        self.query_one(Plot).set_yticks(None)

    def action_whole(self) -> None:
        self._zoomed = False
        self._draw()

    def _write_values(self) -> None:
        """Writes the line above: the curves and their values, at the cursor if there is one."""
        # The curves' names say what is drawn, where they have some; 80 columns have no room for more.
        named = any(curve.label for curve in self.curves)
        line = Text("" if named else self.title, style="bold", no_wrap=True, overflow="ellipsis")
        if self.logarithmic and self.curves:
            line.append(f"{self.title} (log)" if named else " (log)")
        if not self.curves:
            line.append("  nothing yet", "dim")
        if self.cursor is not None:
            line.append(f"  {self.x_name} {self.cursor:,.6g}", "reverse")
        for curve in self.curves if named else reversed(self.curves):  # As in a legend, whose first lies on top.
            place = len(curve.xs) - 1 if self.cursor is None else nearest(curve, self.cursor)
            line.append(f"{'  ' if line else ''}{curve.named}", f"not bold {self.colour(curve.colour)}")
            value = curve.ys[place]
            line.append(format_accuracy(value) if self.percent else f"{value:.4g}", "not bold")
        self.query_one(Static).update(line)

    def action_cursor(self, direction: int) -> None:
        """Moves the cursor by a fiftieth of what is shown; 0 takes it away."""
        if not self.curves:
            return
        low, high = self.query_one(Plot).span
        if direction == 0:
            self.cursor = None
        else:
            start = high if self.cursor is None else self.cursor
            self.cursor = self._measured(min(max(start + direction * (high - low) / 50, low), high))
        self._draw()

    def _measured(self, x: float) -> float:
        """Returns the measured x that is nearest."""
        near = [curve.xs[nearest(curve, x)] for curve in self.curves]
        return min(near, key=lambda other: abs(other - x))

    def on_mouse_move(self, event: MouseMove) -> None:
        if not self.curves or event.button:  # With a button down the mouse pans.
            return
        plot = self.query_one(Plot)
        x = plot.x_at(event.screen_x)
        cursor = None if x is None else self._measured(x)
        if cursor != self.cursor:
            self.cursor = cursor
            self._draw()

    def on_leave(self, event: Leave) -> None:
        if self.cursor is not None and not self.is_mouse_over:
            self.cursor = None
            self._draw()
