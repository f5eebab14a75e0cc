"""The saved models: their cards and layers, and what can be done with a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import DataTable, Input, Static

from kerasrobust.config import ImportConfig
from kerasrobust.entries import AttackEntry, Doubt, number
from kerasrobust.errors import InputError
from kerasrobust.records import Card
from kerasrobust.show.figures import format_budget, format_epsilon
from tui.messages import Edit, Start
from tui.read.cards import SavedModel, accuracy, attack_text, plain, read_models, shape_text, stamps
from tui.screens.dialogs import Ask
from tui.screens.naming import ModelFolderScreen
from tui.widgets.layout import DETAILS
from tui.widgets.search import Search
from tui.widgets.table import bring_up_to_date, copy

PERIOD = 2.0
"""Seconds between two looks at the folders."""

EMPTY = """No models in {folder} yet, and none in the runs of {runs}.

Press 2 to train one in a form, or go to the runs with 1 and press d for the demo, which trains five.
Press i to import someone's model: a .keras or .h5 file, or a SavedModel folder."""

_COLUMNS = (
    "name", "clean", "robust (95 %)", "attack", "AutoAttack", "architecture", "training", "randomized", "data",
    "parameters", "size",
)  # fmt: skip


class ModelsScreen(ModelFolderScreen):
    """The table of saved models, with the card or the layers of the one at the cursor."""

    PLACE = "models"
    READS = "The models"
    DEFAULT_CSS = """
    ModelsScreen #search { dock: bottom; }
    ModelsScreen #models { height: 1fr; }
    ModelsScreen #detail { height: 10; border-top: solid $primary; }
    ModelsScreen #detail:focus-within { height: 15; }
    ModelsScreen #card { padding: 0 1; }
    ModelsScreen #layers { height: 1fr; display: none; }
    ModelsScreen #detail.layers #layers { display: block; }
    ModelsScreen #detail.layers #card { display: none; }
    ModelsScreen.wide #body { layout: horizontal; }
    ModelsScreen.wide #models { width: 1fr; }
    ModelsScreen.wide #detail, ModelsScreen.wide #detail:focus-within { width: 64; height: 1fr; border-top: none;
        border-left: solid $primary; }
    ModelsScreen #empty { padding: 1 3; display: none; }
    ModelsScreen.empty #empty { display: block; }
    ModelsScreen.empty #body { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attack", "Attack", id="attack-model", tooltip="Attack the model: opens the form, filled in"),
        Binding("t", "train_on", "Train on", id="train-on", tooltip="Train on from the model: opens the form"),
        Binding("l", "layers", "Layers", id="model-layers", tooltip="Show the model's layers, or its card again"),
        Binding("i", "import", "Import", id="import-model", tooltip="Import someone's model by its path"),
        Binding("slash", "search", "Filter", id="filter-models", key_display="/", tooltip="Filter by any text"),
        Binding("y", "copy", "Copy", id="copy-models", tooltip="Copy the table, cells separated by tabs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._models: list[SavedModel] = []
        self._shown: list[SavedModel] = []
        self._stamps: list[tuple[Path, int]] | None = None
        self._detailed: SavedModel | None = None

    def content(self) -> ComposeResult:
        yield Search("Filter by name, architecture, training, data; escape ends", "#models", id="search")
        yield Static("", id="empty", markup=False)
        with Container(id="body"):
            yield DataTable[Any](cursor_type="row", id="models")
            with Vertical(id="detail"):
                with VerticalScroll(id="card"):
                    yield Static("", id="story", markup=False)
                yield DataTable[Any](cursor_type="row", id="layers")

    def on_mount(self) -> None:
        models, layers = self._table("models"), self._table("layers")
        models.add_columns(*_COLUMNS)
        models.fixed_columns = 1
        layers.add_columns("layer", "type", "output shape", "parameters")
        empty = EMPTY.format(folder=self.session.models_dir, runs=self.session.runs_dir)
        self.query_one("#empty", Static).update(empty)
        self.keep_reading(PERIOD)
        models.focus()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= DETAILS, "wide")

    def _table(self, name: str) -> DataTable[Any]:
        return self.query_one(f"#{name}", DataTable)

    def read_folders(self) -> list[SavedModel] | None:
        now = stamps(self.session.models_dir, self.session.runs_dir)
        if now == self._stamps:
            return None
        found = read_models(self.session.models_dir, self.session.runs_dir)
        self._stamps = now
        return found

    def show_found(self, found: list[SavedModel] | None) -> None:
        self._models = found or []
        self._show()

    def _show(self) -> None:
        fits = self.query_one(Search).fits
        rows = [(model, _cells(model)) for model in self._models]
        rows = [(model, cells) for model, cells in rows if fits("\t".join(cell.plain for cell in cells))]
        self._shown = [model for model, _ in rows]
        bring_up_to_date(self._table("models"), {str(model.path): cells for model, cells in rows})
        hidden = len(self._models) - len(self._shown)
        self.set_class(not self._models, "empty")
        self.entitle(f"{len(self._models)} models{f', {hidden} hidden by the filter' if hidden else ''}")
        self._show_detail()

    @property
    def at_cursor(self) -> SavedModel | None:
        row = self._table("models").cursor_row
        return self._shown[row] if 0 <= row < len(self._shown) else None

    @on(DataTable.RowHighlighted, "#models")
    def _show_detail(self) -> None:
        model = self.at_cursor
        if model is self._detailed and model is not None:
            return
        self._detailed = model
        self.query_one("#story", Static).update(_story(model) if model else "No model fits the filter.")
        self.query_one("#card").scroll_home(animate=False)
        layers = self._table("layers")
        layers.clear()
        for layer in model.known.layers if model else ():
            count = number(layer.get("parameters"))
            layers.add_row(
                Text(plain(layer.get("name"))),
                Text(plain(layer.get("type"))),
                Text(shape_text(layer.get("output_shape"))),
                Text("" if count is None else f"{count:,.0f}", justify="right"),
            )

    @on(DataTable.RowSelected, "#models")
    def _go_to_card(self) -> None:
        self.query_one("#layers" if self.query_one("#detail").has_class("layers") else "#card").focus()

    def action_layers(self) -> None:
        if self.at_cursor is None:
            return
        detail = self.query_one("#detail")
        detail.toggle_class("layers")
        (self._table("layers") if detail.has_class("layers") else self._table("models")).focus()

    def action_attack(self) -> None:
        self._with_model(SavedModel.attack_config)

    def action_train_on(self) -> None:
        self._with_model(SavedModel.train_config)

    def _with_model(self, configure: Any) -> None:
        model = self.at_cursor
        if model is None:
            self.fail("There is no model here. Press i to import one, or 2 to train one.")
            return
        try:
            config = configure(model)
        except InputError as error:
            self.fail(f"The card of {model.title}: {error}")
            return
        self.post_message(Edit(config))

    def action_import(self) -> None:
        def config(path: str, name: str) -> ImportConfig:
            folder = Path(path).expanduser()
            return ImportConfig(model=str(folder), name=name or folder.stem)

        def problem(path: str, name: str) -> str:
            if not path:
                return "✗ Give the path of a .keras or .h5 file, or of a SavedModel folder."
            try:
                if not Path(path).expanduser().exists():
                    return f"✗ There is nothing at {path}."
                made = config(path, name)
                if (self.session.models_dir / str(made.name)).exists():
                    return f"✗ A saved model {made.name!r} exists. Choose another name."
            except (InputError, OSError, RuntimeError) as error:  # The last for the home of nobody.
                return f"✗ {error}"
            return ""

        def answered(answers: tuple[str, ...] | None) -> None:
            if answers is not None:
                self.post_message(Start(config(*answers)))

        question = (
            "Import someone's model: a .keras or .h5 file, or a SavedModel folder. "
            "A SavedModel is a program that can read and write files: import those of people you trust."
        )
        fields = {"Path": "", "Name (without one, that of the file or folder)": ""}
        self.app.push_screen(Ask(question, fields, problem), answered)

    @on(Input.Changed, "#search")
    def _searched(self) -> None:
        self._show()

    def action_back(self) -> None:
        if not self.query_one("#detail").has_focus_within:
            self.query_one(Search).end()
        self._table("models").focus()

    def action_copy(self) -> None:
        """Copies the table: the layers where they have the focus, else the models."""
        layers = self._table("layers")
        copy(layers if layers.has_focus else self._table("models"))


def _cells(model: SavedModel) -> list[Text]:
    card, strongest = model.known, model.strongest
    others = f", of {len(card.attacks)}" if len(card.attacks) > 1 else ""
    return [
        Text(model.title, no_wrap=True),
        Text(accuracy(card.clean_accuracy) or "-", justify="right"),
        Text(accuracy(*model.robust) or "-"),
        Text(f"{attack_text(strongest) if strongest else ''}{others}"),
        Text(_autoattack(card.autoattack)),
        Text(plain(card.architecture).rpartition("/")[2]),
        Text(plain(card.training.get("training"))),
        Text("yes" if card.randomized else "no"),
        Text(f"{plain(card.data.name)}{' (synthetic)' if card.data.synthetic else ''}"),
        Text("" if card.parameters is None else f"{card.parameters:,}", justify="right"),
        Text(decimal(model.size), justify="right"),
    ]


def _autoattack(entry: AttackEntry | None) -> str:
    if entry is None:
        return ""
    budget = format_budget(entry.epsilon, plain(entry.norm))
    figure = accuracy(entry.robust_accuracy, entry.interval)
    # The usual ball needs no words.
    return " ".join(filter(None, (figure, plain(entry.version), "" if budget == "8/255 L∞" else budget)))


def _story(model: SavedModel) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=16, style="dim")
    table.add_column(ratio=1, overflow="fold")
    lines = [("model", f"{model.title}, in {model.path}")]
    if model.card is None:
        problem = "Its card.json can't be read: damaged, or not written by kerasrobust."
        lines.append(("! card", f"{problem} The model may still be attacked."))
    else:
        lines += [*_figures(model, model.card), *_network(model.card)]
        lines += [(_mark(doubt), plain(doubt.message)) for doubt in model.card.doubts]
        lines += [*_training(model.card), *_origin(model.card), ("size", decimal(model.size))]
    for label, value in lines:
        if value or label.startswith("\n"):
            table.add_row(Text(label), Text(value))
    return table


def _mark(doubt: Doubt) -> str:
    severity = plain(doubt.severity)
    return severity if severity == "info" else f"! {severity}"


def _figures(model: SavedModel, card: Card) -> Iterator[tuple[str, str]]:
    yield "clean", accuracy(card.clean_accuracy, card.clean_interval) or "not measured"
    for attack in card.attacks:
        more = [
            f"{plain(value)} {word}"
            for key, word in (("steps", "steps"), ("eot", "EOT passes"), ("restarts", "restarts"))
            if (number(value := attack.settings.get(key)) or 0) > 1
        ]
        figure = accuracy(attack.robust_accuracy, attack.interval) or "not measured"
        yield "robust", f"{figure} under {', '.join([attack_text(attack), *more])}"
    if len(card.attacks) > 1:
        yield "all together", accuracy(*model.robust)
    for attack in card.measured:
        figure = accuracy(attack.robust_accuracy, attack.interval) or "not measured"
        images = "" if attack.examples is None else f", {attack.examples:,} images"
        yield "robust", f"{figure} under {attack_text(attack)} {plain(attack.version)}".rstrip() + images
    data = card.data
    images = "" if data.examples is None else f"{data.examples:,} images of "
    yield "measured on", f"{images}{plain(data.name)} {plain(data.test_split)}".strip()
    yield "synthetic", "yes: generated pictures, not photographs" if data.synthetic else ""


def _network(card: Card) -> Iterator[tuple[str, str]]:
    shape = shape_text(card.image_shape)
    parts = (
        plain(card.architecture).rpartition("/")[2],
        "randomized" if card.randomized else "",
        f"{card.parameters:,} parameters" if card.parameters is not None else "",
        f"images {shape}" if shape else "",
        f"{plain(card.classes)} classes" if card.classes else "",
    )
    yield "network", ", ".join(filter(None, parts))


def _training(card: Card) -> Iterator[tuple[str, str]]:
    if card.training:
        yield "\ntraining", ""
    for key, value in card.training.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        words = " ".join(map(plain, value)) if isinstance(value, list) else plain(value)
        radius = number(value) if key in ("epsilon", "step_size") else None
        yield plain(key).replace("_", " "), format_epsilon(radius) if radius is not None else words


def _origin(card: Card) -> Iterator[tuple[str, str]]:
    yield "seed", "" if "seed" in card.training else plain(card.seed)
    yield "command", plain(card.command)
    yield "versions", ", ".join(f"{plain(name)} {plain(version)}" for name, version in card.versions.items())
