"""The form's fields come from the config classes, and its texts go there and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust import names, presets
from kerasrobust.assessing import AssessConfig
from kerasrobust.config import AttackConfig, DemoConfig, StudyConfig, TrainConfig
from kerasrobust.fields import Epsilon
from kerasrobust.settings import RunConfig
from tui import form

HIDDEN = {"quiet", "json", "runs_dir", "models_dir"}


def texts(kind: type[RunConfig], **changes: str) -> dict[str, str]:
    return form.defaults(kind) | changes


@pytest.mark.parametrize("kind", form.commands().values())
def test_every_setting_is_a_field_with_its_help(kind: type[RunConfig]) -> None:
    made = form.fields(kind)
    assert {item.name for item in made} == {item.name for item in dataclasses.fields(kind)} - HIDDEN
    assert all(item.help.endswith(".") and item.expected for item in made)
    assert made[0].name == "name"
    groups = [item.group for item in made[1:]]
    assert [group for group in dict.fromkeys(groups) if group != "model"] == ["own", "common", "output"]
    assert groups == sorted(groups, key=["own", "model", "common", "output"].index)


def test_help_is_that_of_the_nearest_class() -> None:
    helps = {item.name: item.help for item in form.fields(DemoConfig)}
    assert helps["data"] == "Data set; `shapes` is embedded and synthetic."
    assert helps["steps"] == "PGD steps of the attacks."
    assert helps["seed"] == "Of everything random: data order, weights, attacks, noise."


def test_choices_and_suggestions() -> None:
    fields = {item.name: item for item in form.fields(TrainConfig)}
    assert fields["training"].choices[:2] == ("standard", "fgsm") and "adr" in fields["training"].choices
    assert fields["epochs"].choices == () and fields["epochs"].default == "30"
    assert fields["epsilon"].default == "8/255" and fields["widths"].default == "32 64 128"
    assert {item.name: item.default for item in form.fields(AttackConfig)}["model"] is None
    assert form.suggestions(TrainConfig, "model", ["mine"]) == ("lenet", "convnet", "resnet", "mine")
    assert form.suggestions(AttackConfig, "model", ["mine"]) == ("mine",)
    assert form.suggestions(AttackConfig, "surrogate", ["mine"]) == ("mine",)
    assert "pgd" in form.suggestions(AttackConfig, "attack")
    assert {"shapes", "cifar10"} <= set(form.suggestions(AttackConfig, "data"))


RADII = st.floats(0, 1).map(Epsilon) | st.integers(0, 255).map(lambda top: Epsilon(f"{top}/255"))
COUNTS = st.integers(1, 10**9)
# What is typed loses the spaces around it, and "None" stands for nothing, as on the command line.
WORDS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda word: word == word.strip() and word != "None")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda n: n != "None"),
    "seed": st.integers(0, 2**31 - 1),
    "precision": st.sampled_from(get_args(names.Precision)),
    "data_dir": st.none() | WORDS.map(Path),
    "tags": st.none() | WORDS.filter(lambda words: words.strip(" ,")),
    "note": st.none() | WORDS,
    "notify": st.none() | st.just("say 'it has ended'"),
    "model": WORDS,
    "data": WORDS,
    "overwrite": st.booleans(),
    "epsilon": RADII,
    "step_size": st.none() | RADII,
    "randomize": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    "learning_rate": st.floats(0, allow_infinity=False, exclude_min=True),
    "augment": st.booleans(),
    "widths": st.lists(COUNTS, min_size=1, max_size=4).map(tuple),
    "epsilons": st.lists(RADII, min_size=1, max_size=4).map(tuple),
    "steps": COUNTS,
    "attack": st.sampled_from(list(names.ATTACKS)),
    "norm": st.sampled_from(get_args(names.BallNorm)),
}


def any_config() -> st.SearchStrategy[RunConfig]:
    def of(kind: type[RunConfig]) -> st.SearchStrategy[RunConfig]:
        own = {item.name for item in dataclasses.fields(kind)}
        values = VALUES | ({"epsilons": st.just(())} if "epsilon" in own else {})  # One instead of the other.
        return st.builds(kind, **{name: made for name, made in values.items() if name in own})

    return st.one_of([of(kind) for kind in form.commands().values()])


@given(any_config())
def test_a_config_goes_into_texts_and_back(config: RunConfig) -> None:
    checked = form.check(type(config), form.to_texts(config))
    assert checked == form.Checked(config=config)


def test_presets_go_into_the_form() -> None:
    for make in presets.PRESETS.values():
        assert form.check(TrainConfig, form.to_texts(make())).config == make()


def test_data_that_are_not_there_raise_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos/cats").mkdir(parents=True)

    def doubt(data: str) -> str:
        return form.doubts(AttackConfig, texts(AttackConfig, model="m", data=data), ["m"]).get("data", "")

    for fine in ("cifar10", "photos", "photos/cats", "cifar10_corrupted/fog_3", "cifar10+fog:3", "svhn_cropped"):
        assert doubt(fine) == ""
    assert "though photos is a folder" in doubt("photos/dogs") and "nothing at ./dogs" in doubt("./dogs")
    assert doubt("cifra10") == "Did you mean 'cifar10'?" == doubt("cifra10+fog:3")
    several = form.doubts(AssessConfig, texts(AssessConfig, model="m", beside="m,k"), ["m"])
    assert "Received: 'k'" in several["beside"]


@pytest.mark.parametrize(
    ("kind", "name", "text", "value"),
    [
        (TrainConfig, "epsilon", " 8/255 ", 8 / 255),
        (TrainConfig, "epsilon", "0.031", 0.031),
        (TrainConfig, "randomize", "none", None),
        (TrainConfig, "randomize", "None", None),
        (TrainConfig, "randomize", "  ", None),
        (TrainConfig, "step_size", "", None),
        (TrainConfig, "widths", "8 16", (8, 16)),
        (StudyConfig, "epsilons", "2/255  4/255", (2 / 255, 4 / 255)),
        (AttackConfig, "epsilons", "2/255  4/255", (2 / 255, 4 / 255)),
        (AttackConfig, "epsilons", " ", ()),
        (TrainConfig, "weight_decay", "5e-4", 5e-4),
        (TrainConfig, "augment", "no", False),
        (TrainConfig, "name", "none", "none"),
        (TrainConfig, "name", "None", None),
        (TrainConfig, "data_dir", "/data", Path("/data")),
    ],
)
def test_texts_are_read_as_the_command_line_reads_them(kind: Any, name: str, text: str, value: Any) -> None:
    required = {"model": "m"} if kind is AttackConfig else {}
    checked = form.check(kind, texts(kind, **required, **{name: text}))
    assert checked.errors == {} and getattr(checked.config, name) == value


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("epochs", "many", "Expected a whole number. Received: 'many'. Try 30."),
        ("epochs", "2.5", "Expected a whole number"),
        ("epochs", "", "Received: nothing. Try 30."),
        ("epochs", "0", "number of epochs of at least 1"),
        ("learning_rate", "fast", "Expected a number. Received: 'fast'"),
        ("learning_rate", "-1", "learning rate above 0"),
        ("weight_decay", "nan", "weight decay"),
        ("randomize", "1", "between 0 and 1"),
        ("epsilon", "8", "Did you mean 8/255?"),
        ("epsilon", "8/0", "Received: 8/0"),
        ("step_size", "x", "Received: x"),
        ("widths", "8 x", "Received: 'x'"),
        ("widths", "", "Expected widths of at least 1"),
        ("name", "a/b", "plain name"),
        ("seed", "-1", "seed"),
        ("training", "pdg", "Did you mean 'pgd'?"),
        ("data", " ", "Expected text. Received: nothing. Try shapes."),
    ],
)
def test_what_is_wrong_is_said_at_its_field(name: str, text: str, part: str) -> None:
    checked = form.check(TrainConfig, texts(TrainConfig, **{name: text}))
    assert checked.config is None and checked.problem == ""
    assert list(checked.errors) == [name] and part in checked.errors[name]


def test_several_faults_are_all_found() -> None:
    checked = form.check(
        TrainConfig, texts(TrainConfig, epochs="0", steps="x", epsilon="8", randomize="2", norm="linf", name=".x")
    )
    assert set(checked.errors) == {"epochs", "steps", "epsilon", "randomize", "name"}


def test_a_fault_of_two_fields_together_needs_both() -> None:
    assert form.check(TrainConfig, texts(TrainConfig, epsilon="8", norm="l2")).config is not None
    assert set(form.check(TrainConfig, texts(TrainConfig, epsilon="8")).errors) == {"epsilon"}


def test_a_required_field_without_text() -> None:
    checked = form.check(AttackConfig, texts(AttackConfig, steps="0"))
    assert set(checked.errors) == {"model", "steps"}
    assert checked.errors["model"] == "Expected text. Received: nothing. Fill in the model."


def test_what_is_not_in_the_form_is_given_beside_it() -> None:
    made = form.check(AttackConfig, texts(AttackConfig, model="m"), runs_dir=Path("elsewhere"))
    assert made.config == AttackConfig(model="m", runs_dir=Path("elsewhere"))


def test_a_name_that_is_taken_is_told(tmp_path: Path) -> None:
    def told(kind: str = "train", **more: Any) -> str:
        made = form.commands()[kind](
            **({"model": "m"} if kind == "attack" else {}), runs_dir=tmp_path / "r", models_dir=tmp_path / "m", **more
        )
        return form.existing(made)

    assert told() == told(name="new") == ""
    (tmp_path / "m" / "net").mkdir(parents=True)
    assert told(name="net").startswith("Saved model 'net' exists. Choose another name")
    assert told("attack", name="net") == ""
    assert told(name="net", overwrite=True) == "Saved model 'net' exists and will be replaced."
    (tmp_path / "r" / "half").mkdir(parents=True)
    assert "unfinished" in told(name="half")
    (tmp_path / "r" / "half" / "result.json").write_text("{}")
    assert told("attack", name="half").startswith("Run 'half' exists. Choose")
    assert "can't be read" in told(name="x" * 300)


def test_the_command_says_that_it_replaces() -> None:
    assert form.command(TrainConfig(name="a", overwrite=True)).endswith("train --name a --overwrite")
