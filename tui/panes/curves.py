"""The curves of a training: clean and robust accuracy in one chart, loss, learning rate, and the machine's load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widgets import Static

from tui.read.state import RunState
from tui.widgets.chart import COLOURS, SMOOTHINGS, Chart, Curve
from tui.widgets.layout import CHARTS

_SPLITS = ("train", "validation")
_NAMES = {"accuracy": "clean", "robust_accuracy": "robust", "loss": "loss", "learning_rate": "learning rate"}
_COLOURS = {"accuracy": "primary", "robust_accuracy": "warning", "loss": "primary", "learning_rate": "success"}
_SIGNS = {"accuracy": "●", "robust_accuracy": "▲", "loss": "●", "learning_rate": ""}

ACCURACIES = ("accuracy", "robust_accuracy")


def training_curves(state: RunState, stage: str, names: Sequence[str]) -> list[Curve]:
    """Returns the curves of some metrics of a training: lines while it trains, points on validation images."""
    return [
        Curve(
            _NAMES[name] if split == "train" else f"{_NAMES[name]} val",
            series.xs,
            series.ys,
            _COLOURS[name],
            _SIGNS[name] if split == "validation" else "",
        )
        for name in names
        for split in _SPLITS
        if (series := state.series.get((stage, split, name))) is not None
    ]


def load_curves(state: RunState) -> list[Curve]:
    """Returns what the run took of all processors, and of each GPU."""
    found = {name: series for name, series in state.load.items() if not name.endswith("memory")}
    return [
        Curve(name, series.xs, series.ys, COLOURS[place % len(COLOURS)])
        for place, (name, series) in enumerate(found.items())
    ]


class CurvesPane(Container):
    """Charts of one training of a run; the newest unless another is chosen."""

    DEFAULT_CSS = """
    CurvesPane { layout: vertical; }
    CurvesPane > #training { height: 1; }
    CurvesPane > #charts { layout: vertical; height: 1fr; }
    CurvesPane.wide > #charts { layout: grid; grid-size: 2 2; grid-rows: 3fr 2fr; }
    CurvesPane.wide #accuracy { column-span: 2; }
    CurvesPane.wide.loaded > #charts { grid-size: 3 2; }
    CurvesPane.wide.loaded #accuracy { column-span: 3; }
    CurvesPane.wide #load { display: none; }
    CurvesPane Chart { display: none; }
    CurvesPane Chart.chosen, CurvesPane.wide Chart, CurvesPane.wide.loaded #load { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "next_chart", "Chart", id="next-chart", tooltip="Next chart: accuracies, loss, rate, load"),
        Binding("s", "smooth", "Smooth", id="smooth", tooltip="Smooth the lines: not, a little, much"),
        Binding("v", "log", "Log scale", id="log-scale", show=False,
                tooltip="Draw the loss on a logarithmic scale, or not"),
        Binding("left_square_bracket", "training(-1)", "Before", id="training-before", show=False, key_display="[",
                tooltip="The training before"),
        Binding("right_square_bracket", "training(1)", "Next", id="training-next", key_display="]",
                tooltip="The next training of this run"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._state = RunState()
        self._chosen: str | None = None
        self._smoothing = 0
        self._log = False
        self._title = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="training", classes="dim", markup=False)
        with Container(id="charts"):
            accuracy = Chart("accuracy", percent=True, bounds=(0.0, 1.0), id="accuracy")
            accuracy.add_class("chosen")
            yield accuracy
            yield Chart("loss", id="loss")
            yield Chart("learning rate", id="rate")
            yield Chart("load", percent=True, bounds=(0.0, 1.0), x_name="second", id="load")

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= CHARTS and event.size.height >= 22, "wide")

    def show(self, state: RunState) -> None:
        self._state = state
        self._draw()

    def _draw(self) -> None:
        state = self._state
        trainings = state.trainings
        stage = self._chosen if self._chosen in trainings else trainings[-1] if trainings else None
        label = self.query_one("#training", Static)
        if stage is None:
            title = "No training yet: curves come with the first steps. Attacks: a, log: l."
        else:
            which = (
                f"training {trainings.index(stage) + 1} of {len(trainings)}, [ and ] change" if trainings[1:] else ""
            )
            name = state.stages[stage].title if stage in state.stages else stage
            smoothing = f"smoothing {SMOOTHINGS[self._smoothing]:g}" if self._smoothing else ""
            title = "  ".join(word for word in (name, which, smoothing) if word)
        if title != self._title:
            self._title = title
            label.update(title)
        for chart, names in (
            ("#accuracy", ACCURACIES),
            ("#loss", ("loss",)),
            ("#rate", ("learning_rate",)),
        ):
            self.query_one(chart, Chart).show(training_curves(state, stage or "", names))
        self.set_class(bool(state.load), "loaded")
        self.query_one("#load", Chart).show(load_curves(state))

    def action_next_chart(self) -> None:
        """Shows the next chart, where there is room for one only; else goes to it."""
        charts = [chart for chart in self.query(Chart) if chart.id != "load" or self._state.load]
        at = next(index for index, chart in enumerate(charts) if chart.has_class("chosen"))
        after = charts[(at + 1) % len(charts)]
        charts[at].remove_class("chosen")
        after.add_class("chosen")
        after.query_one("Plot").focus()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self._style()

    def action_log(self) -> None:
        self._log = not self._log
        self._style()

    def _style(self) -> None:
        for chart in self.query(Chart):
            chart.smooth(SMOOTHINGS[self._smoothing], self._log and not chart.percent)
        self._draw()

    def action_training(self, direction: int) -> None:
        trainings = self._state.trainings
        if not trainings:
            return
        at = trainings.index(self._chosen) if self._chosen in trainings else len(trainings) - 1
        self._chosen = trainings[(at + direction) % len(trainings)]
        self._draw()
