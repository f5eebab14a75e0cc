"""textual-plot's widget with this UI's keys, ticks and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.strip import Strip
from textual_hires_canvas import Canvas
from textual_plot import PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter
from textual_plot.plot_widget import Legend


class Ticks(NumericAxisFormatter):
    """Labels of an axis: per cent, powers of ten, or thousands as k; no more than `most`."""

    def __init__(self) -> None:
        super().__init__()
        self.percent = False
        self.logarithmic = False
        self.most = 8

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        ticks = super().get_ticks(min_, max_, max_ticks) if max_ > min_ else [min_]
        ticks = [tick for tick in ticks if min_ <= tick <= max_]
        while len(ticks) > self.most:
            ticks = ticks[::2]
        return ticks

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        if self.logarithmic:
            return [f"{10**tick:.3g}" for tick in ticks]
        if self.percent:
            return [f"{100 * tick:.3g} %" for tick in ticks]
        if ticks and max(map(abs, ticks)) >= 10_000:
            return [f"{tick / 1000:g}k" for tick in ticks]
        return [f"{tick:.6g}" for tick in ticks]


class _Canvas(Canvas):
    """A canvas whose empty ends have a style: without one, Textual fails where there are no colours."""

    def render_line(self, y: int) -> Strip:
        return Strip([segment for segment in super().render_line(y) if segment.text])


class Plot(PlotWidget, inherit_bindings=False):
    """The plot itself, with keys that have names and explanations."""

    DEFAULT_CSS = """
    Plot > .plot--axis { color: $text-muted; }
    Plot > .plot--tick { color: $text-muted; text-style: none; }
    Plot > .plot--label { color: $text-muted; text-style: none; }
    Plot:focus > .plot--axis { color: $foreground; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom_x_in", "Zoom in", id="zoom-in", show=False, tooltip="Zoom into the steps"),
        Binding("minus", "zoom_x_out", "Zoom out", id="zoom-out", show=False, tooltip="Zoom out of the steps"),
        Binding("shift+left", "pan_left", "Pan left", id="pan-left", show=False, tooltip="Move zoomed view left"),
        Binding("shift+right", "pan_right", "Pan right", id="pan-right", show=False, tooltip="Move zoomed view right"),
        Binding("shift+up", "zoom_y_in", "Zoom values", id="zoom-y-in", show=False, tooltip="Zoom into the values"),
        Binding("shift+down", "zoom_y_out", "Values out", id="zoom-y-out", show=False, tooltip="Zoom out of values"),
    ]

    def compose(self) -> ComposeResult:
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield _Canvas(1, 1, id=name)
        yield Legend(id="legend")

    def on_mount(self) -> None:
        # The axes' labels are in the line above the plot.
        self.margin_top, self.margin_bottom, self.margin_left = 0, 1, 8

    @property
    def span(self) -> tuple[float, float]:
        return self._x_min, self._x_max

    def x_at(self, column: int) -> float | None:
        """Returns what lies at a column of the screen, or None beside the axes."""
        left = self.query_one("#plot").region.x
        x, _ = self.get_coordinate_from_pixel(column - left, 0)
        return x if self._x_min <= x <= self._x_max else None
