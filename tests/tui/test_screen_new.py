"""The form on the screen: by keyboard and by mouse, in a small and in a wide terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Collapsible, Input, Label, Select, Static

import tui.app
from kerasrobust import presets
from kerasrobust.config import AttackConfig, DemoConfig, StudyConfig, TrainConfig
from kerasrobust.fields import Epsilon
from kerasrobust.settings import RunConfig
from tui.app import Lab
from tui.screens.new import NewRunScreen
from tui.widgets.fields import FieldRow

pytestmark = pytest.mark.asyncio


class Recorder(Lab):
    """The app, which writes down what it would start and say."""

    CSS_PATH = Path(tui.app.__file__).with_name("app.tcss")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "runs", folder / "models")
        self.started: list[RunConfig] = []
        self.told: list[str] = []
        self.animation_level = "none"

    def start(self, config: RunConfig) -> None:
        self.started.append(config)

    def notify(self, message: str, **_: Any) -> None:  # type: ignore[override]
        self.told.append(message)


@asynccontextmanager
async def opened(
    folder: Path, config: RunConfig | None = None, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Recorder, Pilot[Any]]]:
    app = Recorder(folder)
    async with app.run_test(size=size) as pilot:
        app.push_screen(NewRunScreen(config))
        await pilot.pause()
        await pilot.pause()
        yield app, pilot


def words(app: Lab, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


def row(app: Lab, name: str) -> FieldRow:
    return app.screen.query_one(f"#field-{name}", FieldRow)


def said(app: Lab, name: str) -> str:
    widget = row(app, name).query_one(".said", Static)
    return str(widget.render()) if widget.display else ""


async def choose(app: Lab, pilot: Pilot[Any], selector: str, value: str) -> None:
    app.screen.query_one(selector, Select).value = value
    await pilot.pause()
    await pilot.pause()


async def type_into(app: Lab, pilot: Pilot[Any], name: str, text: str) -> None:
    editor = row(app, name).editor
    assert isinstance(editor, Input)
    editor.focus()
    editor.value = text
    editor.cursor_position = len(text)
    await pilot.pause()


async def test_keys_alone_fill_the_form_and_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        assert app.focused is app.screen.query_one("#kind")
        # The menu, and the entry below: attack.
        await pilot.press("enter", "down", "enter")
        await pilot.pause()
        assert app.screen.query_one("#kind", Select).value == "attack"
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.started == [] and "Expected text. Received: nothing" in app.told[-1]
        assert app.focused is row(app, "model").editor and "✗ Expected text" in said(app, "model")
        await pilot.press(*"net", *["tab"] * 9, "end", "ctrl+u", *"4/255", "ctrl+s")
        await pilot.pause()
        expected = AttackConfig(
            model="net", epsilon=Epsilon("4/255"), runs_dir=tmp_path / "runs", models_dir=tmp_path / "models"
        )
        assert app.started == [expected]


async def test_every_field_can_be_reached_by_the_tabulator(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("ctrl+o")
        await pilot.pause()
        reached = set()
        for _ in range(len(app.screen.query(FieldRow)) + 8):
            for node in app.focused.ancestors_with_self if app.focused else []:
                if isinstance(node, FieldRow):
                    reached.add(node.item.name)
                    assert node.item.help[:40] in words(app, "#about").replace("\n", " ")
                    assert app.focused is not None and app.screen.region.contains_region(app.focused.region)
            await pilot.press("tab")
        assert reached == {item.item.name for item in app.screen.query(FieldRow)}


async def test_what_is_typed_is_held_to_the_rules_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await type_into(app, pilot, "epsilon", "8")
        assert "Did you mean 8/255?" in said(app, "epsilon")
        assert words(app, "#command") == "✗ Nothing to start yet: see epsilon."
        await pilot.press(*"/255")
        await pilot.pause()
        assert said(app, "epsilon") == ""
        assert words(app, "#command").startswith("python -m kerasrobust.run train")
        assert words(app, "#field-epsilon Label") == "epsilon"
        await type_into(app, pilot, "epochs", "7")
        assert words(app, "#field-epochs Label").split() == ["epochs", "*"]
        assert "--epochs 7" in words(app, "#command") and "default 30 (* changed)" in words(app, "#about")


async def test_switches_and_choices(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        row(app, "augment").editor.focus()
        await pilot.press("space")
        await pilot.pause()
        assert "--no-augment" in words(app, "#command") and words(app, "#field-augment YesNo") == "[ ] no"
        await pilot.click("#field-augment YesNo")
        await pilot.pause()
        assert "augment" not in words(app, "#command") and words(app, "#field-augment YesNo") == "[x] yes"
        row(app, "training").editor.focus()
        await pilot.press("enter", "down", "enter")
        await pilot.pause()
        assert "--training fgsm" in words(app, "#command")


async def test_presets_keep_what_was_typed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await type_into(app, pilot, "epochs", "2")
        await choose(app, pilot, "#preset", "convnet-pgd")
        await pilot.press("ctrl+s")
        made = app.started[0]
        assert isinstance(made, TrainConfig)
        recipe = presets.get("convnet-pgd")
        assert (made.training, made.weight_decay, made.epochs) == ("pgd", recipe.weight_decay, 2)
        # What differs is marked against the preset.
        marked = {item.item.name for item in app.screen.query(FieldRow) if "*" in str(item.query_one(Label).content)}
        assert marked == {"epochs"}
        await pilot.press("ctrl+r", "ctrl+s")
        made = app.started[1]
        assert isinstance(made, TrainConfig) and made.epochs == recipe.epochs
        assert "adversarially trained" in str(presets.PRESETS["convnet-pgd"].__doc__)
        app.screen.query_one("#preset").focus()
        await pilot.pause()
        assert "Model B, adversarially trained with PGD" in words(app, "#about")


@pytest.mark.parametrize("kind", [StudyConfig, DemoConfig])
async def test_commands_have_their_own_fields(kind: type[RunConfig], tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await type_into(app, pilot, "epochs", "3")
        await choose(app, pilot, "#kind", kind.kind)
        assert not app.screen.query_one("#preset").display
        assert not app.screen.query("#field-training") and row(app, "epsilons").text == "2/255 4/255 8/255 16/255"
        await pilot.press("ctrl+s")
        assert type(app.started[0]) is kind
        # What was typed before is there again.
        await choose(app, pilot, "#kind", "train")
        assert row(app, "epochs").text == "3"


async def test_filled_in_from_a_config(tmp_path: Path) -> None:
    config = AttackConfig(model="net", data="cifar10", attack="deepfool", steps=9, seed=4, batch_size=32)
    async with opened(tmp_path, config) as (app, pilot):
        assert row(app, "attack").text == "deepfool" and row(app, "step_size").text == ""
        # Settings that all commands share are shown where they aren't the usual ones.
        assert not app.screen.query_one("#group-common", Collapsible).collapsed
        assert app.screen.query_one("#group-model", Collapsible).collapsed
        await pilot.press("ctrl+s")
        assert app.started[0].seed == 4 and command_of(app) == (
            "python -m kerasrobust.run attack --seed 4 --batch-size 32 --model net --attack deepfool --data cifar10 "
            f"--steps 9 --runs-dir {tmp_path}/runs --models-dir {tmp_path}/models"
        )


def command_of(app: Lab) -> str:
    return words(app, "#command")


async def test_the_command_line_is_copied_by_key_and_by_click(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("ctrl+y")
        assert app.clipboard == command_of(app)
        app.copy_to_clipboard("")
        await pilot.click("#command")
        await pilot.pause()
        assert app.clipboard == command_of(app)
        await type_into(app, pilot, "epochs", "x")
        await pilot.press("ctrl+y")
        assert "no command yet" in app.told[-1]


async def test_a_name_that_is_taken_is_told_at_the_field(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    async with opened(tmp_path) as (app, pilot):
        await type_into(app, pilot, "name", "mine")
        assert said(app, "name").startswith("! Saved model 'mine' exists.")
        row(app, "overwrite").editor.focus()
        await pilot.press("space")
        await pilot.pause()
        assert "will be replaced" in said(app, "name")
        assert command_of(app).endswith("--overwrite")


async def test_known_names_are_suggested(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "card.json").write_text("{}")
    async with opened(tmp_path, AttackConfig(model="")) as (app, pilot):
        row(app, "model").editor.focus()
        await pilot.pause()
        assert "ctrl+↑↓ mine, yours" in words(app, "#about")
        await pilot.press("ctrl+down", "ctrl+down")
        assert row(app, "model").text == "yours"
        await pilot.press("ctrl+down")
        assert row(app, "model").text == "mine"
        await pilot.press("ctrl+up")
        assert row(app, "model").text == "yours"
        editor = row(app, "model").editor
        assert isinstance(editor, Input)
        await pilot.press("ctrl+u", "m")
        await pilot.pause()
        await pilot.press("right")
        assert editor.value == "mine"
        # A model that has come since is known when one comes back.
        (tmp_path / "models" / "new").mkdir()
        (tmp_path / "models" / "new" / "card.json").write_text("{}")
        app.push_screen(NewRunScreen())
        await pilot.pause()
        app.pop_screen()
        await pilot.pause()
        assert "new" in row(app, "model").known


async def test_digits_go_to_places_until_a_text_field_is_chosen(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        assert not isinstance(app.focused, Input)
        before = {item.item.name: item.text for item in app.screen.query(FieldRow)}
        await pilot.press("4")
        await pilot.pause()
        assert app.current_mode == "compare"
        await pilot.press("2")
        await pilot.pause()
        assert {item.item.name: item.text for item in app.screen.query(FieldRow)} == before


async def test_arrows_go_from_setting_to_setting_and_change_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        fields = [item.item.name for item in app.screen.query(FieldRow)]
        assert fields[0] == "name"
        before = [item.text for item in app.screen.query(FieldRow)]
        row(app, "name").editor.focus()
        await pilot.press("down")
        assert app.focused is row(app, fields[1]).editor
        await pilot.press("up", "down", "down", "up")
        assert app.focused is row(app, fields[1]).editor
        # Past settings with a list and the titles of groups, to the last one and no further; and back.
        chain = [item for item in app.screen.focus_chain if app.screen.query_one("#form") in item.ancestors]
        assert any(isinstance(item, Select) for item in chain) and len(chain) > len(fields) / 2
        row(app, "name").editor.focus()
        choice = next(place for place, item in enumerate(chain) if isinstance(item, Select))
        title = next(place for place, item in enumerate(chain) if type(item).__name__ == "CollapsibleTitle")
        for start, key, end in (
            (choice, "down", choice + 1), (choice, "up", choice - 1), (title, "down", title + 1),
            (title, "up", title - 1), (len(chain) - 1, "down", len(chain) - 1), (0, "up", 0),
        ):  # fmt: skip
            chain[start].focus()
            await pilot.press(key)
            assert app.focused is chain[end]
        assert not any(item.expanded for item in app.screen.query(Select))
        assert [item.text for item in app.screen.query(FieldRow)] == before


async def test_model_data_and_split_are_checked_as_one_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    (tmp_path / "models/mine/card.json").write_text("{}")
    (tmp_path / "own.npz").write_bytes(b"")
    async with opened(tmp_path, AttackConfig(model="mine")) as (app, pilot):
        for name, good, bad, doubt in (
            ("model", ["mine", "own.npz"], "mien", "Did you mean 'mine'?"),
            ("surrogate", ["mine", ""], "mien", "Did you mean 'mine'?"),
            (
                "data",
                ["cifar10", "own.npz", "own.npz+fog:3", "imagenette/320px-v2"],
                "./onw.npz",
                "nothing at ./onw.npz",
            ),
            ("split", ["test[:10%]", "train+test[5:]"], "test[:10", "Expected a split such as"),
        ):
            await type_into(app, pilot, name, bad)
            assert doubt in said(app, name)
            for text in good:
                await type_into(app, pilot, name, text)
                assert said(app, name) == ""


async def test_a_fault_among_the_hidden_settings_is_opened(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("ctrl+o")
        await type_into(app, pilot, "seed", "-1")
        await pilot.press("ctrl+o", "ctrl+s")
        await pilot.pause()
        await pilot.pause()
        assert app.started == [] and app.focused is row(app, "seed").editor


async def test_the_mouse_starts_and_resets(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await type_into(app, pilot, "epochs", "3")
        await pilot.click("#start")
        await pilot.pause()
        await pilot.click("#reset")
        await pilot.pause()
        await pilot.click("#start")
        await pilot.pause()
        assert [getattr(config, "epochs", None) for config in app.started] == [3, 30]


async def test_a_wide_terminal_shows_more(tmp_path: Path) -> None:
    async with opened(tmp_path, size=(160, 48)) as (app, _):
        shown = [item for item in app.screen.query(FieldRow) if app.screen.region.contains_region(item.region)]
        assert len(shown) > 40 and all(item.region.height for item in shown)  # Of `train`, which has most.
        assert "convnet-random-pgd: The randomized Model B" in words(app, "#about")
        assert app.screen.query_one("#help").region.x > row(app, "model").region.right - 1


async def test_the_command_line_is_in_sight_in_a_small_terminal(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, _):
        for selector in ("#command", "#about", "#field-model"):
            region = app.screen.query_one(selector).region
            assert region.height and app.screen.region.contains_region(region)
