"""The table of saved models, their cards of all kinds, and what can be done with a model."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

import tui.app
from kerasrobust.config import AttackConfig, ImportConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.fields import Epsilon
from kerasrobust.records import Card
from kerasrobust.runs import open_run
from kerasrobust.settings import RunConfig
from tui import form
from tui.app import Lab
from tui.read.cards import SavedModel, read_models
from tui.screens import models as screen
from tui.screens.dialogs import Ask, Confirm
from tui.screens.models import ModelsScreen

CARD: dict[str, Any] = {
    "name": "net",
    "data": {"name": "cifar10", "split": "train", "test_split": "test", "examples": 10000, "synthetic": False},
    "training": {"seed": 3, "model": "convnet", "data": "cifar10", "training": "pgd", "randomize": 0.1, "epochs": 22,
                 "epsilon": 4 / 255, "steps": 2, "widths": [8, 16], "augment": False},
    "randomized": True,
    "command": "python -m kerasrobust.run train --name net",
    "clean_accuracy": 0.62088, "clean_interval": [0.6126, 0.6292],
    "attacks": [
        {"name": "fgsm", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.5, "interval": [0.45, 0.55]},
        {"name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.3423, "interval": [0.3344, 0.3502],
         "settings": {"steps": 20, "eot": 20, "restarts": 1}},
    ],
    "robust_accuracy": 0.34, "robust_interval": [0.33, 0.35],
    "layers": [{"name": "images", "type": "InputLayer", "output_shape": [None, 32, 32, 3], "parameters": 0},
               {"name": "conv2d", "type": "Conv2D", "output_shape": [None, 32, 32, 8], "parameters": 18432}],
    "parameters": 357482, "image_shape": [32, 32, 3], "classes": 10, "versions": {"keras": "3.15.1"},
}  # fmt: skip


class Recorder(Lab):
    """The app, which writes down what it would start, open and say."""

    CSS_PATH = Path(tui.app.__file__).with_name("app.tcss")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "runs", folder / "models")
        self.started: list[RunConfig] = []
        self.opened: list[RunConfig | None] = []
        self.told: list[str] = []
        self.animation_level = "none"

    def start(self, config: RunConfig) -> None:
        self.started.append(config)

    def edit(self, config: RunConfig) -> None:
        self.opened.append(config)

    def notify(self, message: str, **_: Any) -> None:  # type: ignore[override]
        self.told.append(message)


def save(folder: Path, card: Any = CARD) -> Path:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(card if isinstance(card, str) else json.dumps(card))
    (folder / "saved_model.pb").write_bytes(b"0" * 1500)
    return folder


@asynccontextmanager
async def opened(folder: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[Recorder, Pilot[Any]]]:
    app = Recorder(folder)
    async with app.run_test(size=size) as pilot:
        app.push_screen(ModelsScreen())
        await settled(app, pilot)
        yield app, pilot


async def settled(app: Lab, pilot: Pilot[Any]) -> None:
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


def names(app: Lab) -> list[str]:
    table = app.screen.query_one("#models", DataTable)
    return [table.get_row_at(at)[0].plain for at in range(table.row_count)]


def card(app: Lab) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    told = app.screen.query_one("#story", Static).content
    console.print(told)
    return console.export_text()


@pytest.mark.asyncio
async def test_models_are_listed_with_their_figures(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    async with opened(tmp_path) as (app, _):
        table = app.screen.query_one("#models", DataTable)
        cells = [cell.plain for cell in table.get_row_at(0)]
        assert cells[:9] == [
            "net", "62.1 %", "34.0 % (33.0-35.0)", "PGD 8/255 L∞, of 2", "", "convnet", "pgd", "yes", "cifar10",
        ]  # fmt: skip
        told = card(app)
        for part in (
            "62.1 % (61.3-62.9)", "34.2 % (33.4-35.0) under PGD 8/255 L∞, 20 steps, 20 EOT passes",
            "50.0 % (45.0-55.0) under FGSM 8/255 L∞", "10,000 images of cifar10 test", "keras 3.15.1", "4/255", "8 16",
            "python -m kerasrobust.run train --name net", "357,482 parameters", "(32, 32, 3)",
        ):  # fmt: skip
            assert part in told


@pytest.mark.asyncio
async def test_layers_in_place_of_the_card(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    async with opened(tmp_path) as (app, pilot):
        layers = app.screen.query_one("#layers", DataTable)
        assert not layers.display
        await pilot.press("l")
        assert layers.display and app.focused is layers
        assert [cell.plain for cell in layers.get_row_at(1)] == ["conv2d", "Conv2D", "(N, 32, 32, 8)", "18,432"]
        await pilot.press("y")
        assert app.clipboard.splitlines()[1] == "images\tInputLayer\t(N, 32, 32, 3)\t0"
        await pilot.press("l")
        assert not layers.display and app.focused is app.screen.query_one("#models")
        await pilot.press("y")
        assert app.clipboard.splitlines()[1].startswith("net\t62.1 %\t34.0 % (33.0-35.0)")


@pytest.mark.asyncio
async def test_attack_and_training_open_the_form_filled_in(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("a", "t")
        assert app.opened == [
            AttackConfig(model="net", data="cifar10", split="test[:1000]"),
            # Its dropout is in the network already.
            TrainConfig(
                model="net", data="cifar10", training="pgd", epochs=22, epsilon=Epsilon("4/255"), steps=2, seed=3,
                widths=(8, 16), augment=False,
            ),
        ]  # fmt: skip


@pytest.mark.asyncio
async def test_a_model_that_is_called_as_an_architecture_is_trained_on_from(tmp_path: Path) -> None:
    path = save(tmp_path / "models" / "convnet")
    (model,) = read_models(tmp_path / "models", tmp_path / "runs")
    assert model.train_config().model == str(path)
    assert model.attack_config().model == "convnet"


@pytest.mark.asyncio
async def test_models_of_runs_are_listed_with_the_run(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    path = save(tmp_path / "runs" / "demo-1" / "models" / "lenet", CARD | {"data": {"name": "shapes"}})
    (tmp_path / "runs" / "demo-1" / "config.json").write_text("{}")
    async with opened(tmp_path) as (app, pilot):
        assert names(app) == ["net", "demo-1/lenet"]
        await pilot.press("down", "a")
        assert app.opened == [AttackConfig(model=str(path), data="shapes")]


TORN = {
    "torn": '{"name": "torn", "data": {"na',
    "list": "[1, 2]",
    "empty": "{}",
    "brackets": "[" * 100_000,
    "foreign": {"data": "mnist", "accuracy": 0.9, "layers": "many", "training": "long", "attacks": {"fgsm": 0.1}},
    "types": {
        "data": {"name": ["a"], "examples": "x", "synthetic": "no", "test_split": 5},
        "training": {"epochs": "many", "epsilon": {}, 7: None, "model": None},
        "clean_accuracy": "high", "clean_interval": [0.1], "robust_accuracy": 10**400, "robust_interval": [None, "x"],
        "attacks": [None, {"name": None, "robust_accuracy": True}, {"epsilon": "8/255", "robust_accuracy": 0.1}],
        "layers": [7, {"name": {}, "output_shape": [[]], "parameters": "x"}], "parameters": 1.5, "versions": [],
        "warnings": [3, {"message": "[bold]not markup[/x]\x1b[31m"}], "image_shape": 4, "classes": {},
    },
    "markup": {"data": {"name": "[red]x[/nothing]"}, "command": "\x1b]0;title\x07 [/]"},
    "nan": '{"clean_accuracy": NaN, "robust_accuracy": Infinity, "parameters": 1e999}',
}  # fmt: skip


@pytest.mark.asyncio
async def test_cards_that_are_not_ours_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    for name, text in TORN.items():
        save(tmp_path / "models" / name, text)
    async with opened(tmp_path) as (app, pilot):
        assert names(app) == sorted(TORN)
        told = {}
        for name in sorted(TORN):
            told[name] = card(app)
            await pilot.press("a", "t", "down")
            await pilot.pause()
        assert all("can't be read" in told[name] for name in ("torn", "list", "brackets"))
        assert "not measured" in told["empty"] and "mnist" in told["foreign"]
        assert "[bold]not markup[/x]" in told["types"]
        assert "\x1b" not in "".join(told.values())
        # Each can be attacked, whatever its card says; what can't be trained on says why.
        attacked = {config.model for config in app.opened if isinstance(config, AttackConfig)}
        assert attacked == set(TORN)
        assert any("The card of types: Expected" in message for message in app.told)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = {
    part: ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(keys, ANYTHING))
    for part, keys in {
        "data": ("name", "split", "test_split", "examples", "synthetic"),
        "training": (
            "model",
            "training",
            "epochs",
            "epsilon",
            "step_size",
            "widths",
            "norm",
            "name",
            "data_dir",
            "seed",
        ),
        "versions": ("keras",),
    }.items()
}
RECORDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "norm", "epsilon", "robust_accuracy", "interval", "settings", "message",
                                "output_shape", "parameters"), ANYTHING),
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {},
        optional=PARTS
        | dict.fromkeys(("attacks", "layers", "warnings"), ANYTHING | st.lists(RECORDS, max_size=3))
        | dict.fromkeys(
            ("clean_accuracy", "clean_interval", "robust_accuracy", "robust_interval", "parameters"), ANYTHING
        )
        | dict.fromkeys(("image_shape", "classes", "command", "seed"), ANYTHING),
    )
)
def test_no_card_breaks_what_is_shown(record: dict[str, Any]) -> None:
    model = SavedModel(Path("models/x"), "", Card.parse(record), 5)
    Console(width=80, file=io.StringIO()).print(*screen._cells(model), screen._story(model))
    for make in (model.attack_config, model.train_config):
        try:
            config = make()
        except InputError:
            continue
        form.check(type(config), form.to_texts(config))


@pytest.mark.asyncio
async def test_without_models_it_says_what_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        empty = app.screen.query_one("#empty", Static)
        told = str(empty.render())
        assert empty.display and "Press i to import" in told and "Press 2 to train" in told
        await pilot.press("a", "t", "l", "y", "slash", "x", "enter", "escape")
        assert app.opened == [] and "There is no model here" in app.told[0]


@pytest.mark.asyncio
async def test_an_autoattack_figure_has_a_column_and_a_line_of_its_own(tmp_path: Path) -> None:
    entry = {"name": "autoattack", "norm": "linf", "epsilon": 8 / 255}
    l2 = entry | {"norm": "l2", "epsilon": 0.5, "robust_accuracy": 0.4512, "interval": [0.42, 0.48], "examples": 1000}
    measured = [
        l2,
        entry | {"robust_accuracy": 0.278, "interval": [0.269, 0.287], "version": "standard", "examples": 10000},
    ]
    save(tmp_path / "models" / "net", CARD | {"measured": measured})
    save(tmp_path / "models" / "other", CARD | {"measured": [l2, {"name": "autoattack"}, "nonsense"]})
    async with opened(tmp_path) as (app, _):
        table = app.screen.query_one("#models", DataTable)
        cells = [[cell.plain for cell in table.get_row_at(at)] for at in range(2)]
        # Beside what was there before, which stays.
        assert cells[0][:5] == [
            "net", "62.1 %", "34.0 % (33.0-35.0)", "PGD 8/255 L∞, of 2", "27.8 % (26.9-28.7) standard",
        ]  # fmt: skip
        assert cells[1][4] == "45.1 % (42.0-48.0) 0.5 L2"
        told = " ".join(card(app).split())
        assert "27.8 % (26.9-28.7) under AutoAttack 8/255 L∞ standard, 10,000 images" in told
        assert "45.1 % (42.0-48.0) under AutoAttack 0.5 L2, 1,000 images" in told


@pytest.mark.asyncio
async def test_the_filter_looks_at_all_columns(tmp_path: Path) -> None:
    save(tmp_path / "models" / "one")
    save(tmp_path / "models" / "two", CARD | {"data": {"name": "mnist"}})
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("slash", *"MNI")
        await pilot.pause()
        assert names(app) == ["two"]
        await pilot.press("enter", "a")
        assert app.opened == [AttackConfig(model="two", data="mnist")]
        await pilot.press("slash", "z")
        await pilot.pause()
        assert names(app) == [] and "No model fits" in card(app)
        await pilot.press("escape")
        await pilot.pause()
        assert names(app) == ["one", "two"] and not app.screen.query_one("#search").display


@pytest.mark.asyncio
async def test_models_that_come_and_go_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "PERIOD", 0.05)
    path = save(tmp_path / "models" / "one")
    async with opened(tmp_path) as (app, pilot):

        async def shows(*expected: str) -> bool:
            for _ in range(100):
                await pilot.pause()
                if names(app) == list(expected):
                    return True
                await asyncio.sleep(0.02)
            return False

        assert await shows("one")
        save(tmp_path / "two")
        (tmp_path / "two").rename(tmp_path / "models" / "two")
        assert await shows("one", "two")
        await pilot.press("down")
        shutil.rmtree(path)
        assert await shows("two")
        shutil.rmtree(tmp_path / "models")
        assert await shows()
        assert app.screen.query_one("#empty").display


@pytest.mark.asyncio
async def test_importing_asks_for_path_and_name(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.keras"
    theirs.write_bytes(b"")
    save(tmp_path / "models" / "taken")
    async with opened(tmp_path) as (app, pilot):

        async def answer(path: str, name: str) -> str:
            for field, text in zip(app.screen.query(Input), (path, name), strict=True):
                field.value = text
            app.screen.query(Input).first().focus()
            await pilot.press("enter")
            await pilot.pause()
            return "" if isinstance(app.screen, ModelsScreen) else str(app.screen.query_one(".error", Static).render())

        await pilot.press("i")
        await pilot.pause()
        assert "Give the path" in await answer("", "")
        assert "There is nothing at" in await answer(str(tmp_path / "absent"), "")
        assert "'taken' exists" in await answer(str(theirs), "taken")
        assert "plain name" in await answer(str(theirs), "a/b")
        assert app.started == []
        assert await answer(str(theirs), "") == ""
        assert app.started == [ImportConfig(model=str(theirs), name="theirs")]
        await pilot.press("i", "escape")
        await pilot.pause()
        assert isinstance(app.screen, ModelsScreen) and len(app.started) == 1


@pytest.mark.asyncio
async def test_a_wide_terminal_shows_card_and_table_beside_each_other(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    async with opened(tmp_path, size=(160, 48)) as (app, _):
        table, told = (app.screen.query_one(name).region for name in ("#models", "#detail"))
        assert told.x >= table.right and told.height > 40
    async with opened(tmp_path) as (app, _):
        table, told = (app.screen.query_one(name).region for name in ("#models", "#detail"))
        assert told.y >= table.bottom and table.height > 8 and told.height > 8


@pytest.mark.asyncio
async def test_the_mouse_chooses_a_model(tmp_path: Path) -> None:
    save(tmp_path / "models" / "one")
    save(tmp_path / "models" / "two")
    async with opened(tmp_path) as (app, pilot):
        await pilot.click("#models", offset=(3, 2))
        await pilot.pause()
        assert "two" in card(app).splitlines()[0]


@pytest.mark.asyncio
async def test_a_model_gets_another_name(tmp_path: Path) -> None:
    save(tmp_path / "models" / "net")
    save(tmp_path / "models" / "other")
    open_run(AttackConfig(model="net", name="one", runs_dir=tmp_path / "runs")).close()
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("r")
        await pilot.pause()
        assert isinstance(app.screen, Ask)
        assert app.screen.question == "Another name for net? It is named by run one: that isn't changed."
        field = app.screen.query_one(Input)
        for name, problem in (("a/b", "Expected a plain name."), ("other", "a name that is free. Received: 'other'")):
            field.value = name
            await pilot.press("enter")
            await pilot.pause()
            assert problem in str(app.screen.query_one(".error", Static).render())
        field.value = "net-pgd"
        await pilot.press("enter")
        await settled(app, pilot)
        assert names(app) == ["net-pgd", "other"]
        assert json.loads((tmp_path / "models" / "net-pgd" / "card.json").read_text())["name"] == "net-pgd"


@pytest.mark.asyncio
async def test_a_model_is_deleted_once_one_has_said_so(tmp_path: Path) -> None:
    folder = save(tmp_path / "models" / "net")
    for number in range(6):
        save(tmp_path / "models" / f"on-{number}", CARD | {"training": {"model": "net"}})
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("delete")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        assert f"Delete the folder {folder}" in app.screen.question
        assert (
            "the card of on-0, the card of on-1, the card of on-2, the card of on-3 and 2 more" in app.screen.question
        )
        await pilot.press("enter")
        await settled(app, pilot)
        assert folder.is_dir()
        await pilot.press("delete", "y")
        await settled(app, pilot)
        assert not folder.exists() and names(app)[0] == "on-0"


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["r", "delete"])
async def test_a_model_of_a_run_goes_with_the_run(tmp_path: Path, key: str) -> None:
    run = tmp_path / "runs" / "study"
    folder = save(run / "models" / "net")
    (run / "config.json").write_text("{}")
    async with opened(tmp_path) as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
        assert isinstance(app.screen, ModelsScreen) and folder.is_dir()
        assert app.told == ["study/net is a part of the run study, which goes as a whole: delete that."]
