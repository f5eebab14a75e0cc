"""The recipes: the networks of the study, each with its own source, as configs that the command line accepts."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from kerasrobust import presets
from kerasrobust.commands import from_dict
from kerasrobust.config import DemoConfig, StudyConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.fields import Epsilon
from kerasrobust.run import parse
from kerasrobust.settings import command_line, to_dict

# What the study of 2023 is about: its networks, how they were trained, and which of them are random.
FIVE = {
    "lenet": ("lenet", "standard", False),
    "convnet": ("convnet", "standard", False),
    "convnet-pgd": ("convnet", "pgd", False),
    "convnet-random": ("convnet", "standard", True),
    "convnet-random-pgd": ("convnet", "pgd", True),
}
SEVEN = FIVE | {"convnet-matched": ("convnet", "pgd", False), "convnet-adr": ("convnet", "adr", False)}


def traits(config: TrainConfig) -> tuple[str, str, bool]:
    return config.model, config.training, config.randomize is not None


def test_there_are_the_networks_of_the_study() -> None:
    assert tuple(SEVEN) == presets.STUDY and tuple(FIVE) == presets.DEMO
    assert {*presets.STUDY} <= {*presets.PRESETS}
    assert {name: traits(presets.get(name)) for name in presets.STUDY} == SEVEN
    for name in SEVEN:
        config = presets.get(name)
        assert config.data == "cifar10" and config.norm == "linf"
        assert config.epsilon == Epsilon("8/255") or name == presets.MATCHED
        assert config.randomize is None or config.randomize >= 0.1  # So that its noise is more than a gesture.


def test_the_matched_network_lacks_the_noise() -> None:
    noisy, matched = to_dict(presets.get("convnet-random-pgd")), to_dict(presets.get("convnet-matched"))
    unequal = {key for key in noisy if noisy[key] != matched[key]}
    # By its epsilon it is made right as often as the other on clean images.
    assert {"randomize"} <= unequal <= {"randomize", "epsilon"} and matched["randomize"] is None


def test_the_self_distilled_network_is_an_average() -> None:
    config = presets.get("convnet-adr")
    assert config.average is not None and 0.9 < config.average < 1 and config.warmup_epochs < config.epochs


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_a_command(name: str) -> None:
    config = presets.get(name)
    assert parse(shlex.split(command_line(config))[3:]) == config
    assert parse(["train", "--preset", name]) == config
    assert parse(["train", f"--preset={name}"]) == config
    assert from_dict(to_dict(config)) == config


def test_what_is_typed_comes_before_the_preset_and_the_preset_before_the_defaults() -> None:
    preset, default = presets.get("convnet-pgd"), TrainConfig()
    assert preset.steps != default.steps and preset.epochs != 3
    config = parse(["train", "--epochs", "3", "--preset", "convnet-pgd", "--epsilon", "4/255"])
    assert isinstance(config, TrainConfig)
    assert (config.epochs, config.epsilon, config.steps) == (3, Epsilon("4/255"), preset.steps)
    assert config.validation_share == default.validation_share


@pytest.mark.parametrize(("name", "near"), [("convnet-pdg", "convnet-pgd"), ("Lenet", "lenet"), ("", "Choose one")])
def test_an_unknown_preset_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"Expected a preset that exists .*{near}"):
        presets.get(name)


def test_each_says_in_a_line_what_it_is() -> None:
    for name, summary in presets.summaries().items():
        assert summary.endswith(".") and len(summary) < 110, name
    assert len(set(presets.summaries().values())) == len(presets.PRESETS)


@pytest.mark.parametrize(("kind", "networks"), [(StudyConfig, SEVEN), (DemoConfig, FIVE)])
def test_a_study_trains_its_networks_on_its_own_data(
    kind: type[StudyConfig], networks: dict[str, tuple[str, str, bool]]
) -> None:
    config = kind(split="train[:300]", test_split="test[:40]", seed=7, precision="float32")
    recipes = presets.study_recipes(config)
    assert {name: traits(recipe) for name, recipe in recipes.items()} == networks
    assert list(recipes) == list(networks)
    for recipe in recipes.values():
        assert recipe.data == config.data
        assert (recipe.split, recipe.test_split, recipe.seed) == ("train[:300]", "test[:40]", 7)
        assert recipe.precision == "float32"


def test_epochs_of_a_study_are_those_of_every_training() -> None:
    assert {recipe.epochs for recipe in presets.study_recipes(DemoConfig(epochs=1)).values()} == {1}
    own = presets.study_recipes(StudyConfig(data="cifar10"))
    assert {name: recipe.epochs for name, recipe in own.items()} == {
        name: presets.get(name).epochs for name in presets.STUDY
    }


def test_more_presets_than_the_study_trains_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "another", TrainConfig)
    assert list(presets.study_recipes(StudyConfig(data="shapes"))) == list(SEVEN)
    assert parse(["train", "--preset", "another"]) == TrainConfig()


def test_a_study_on_cifar10_takes_the_networks_of_the_presets() -> None:
    # The saved models are trained with the presets, and taken only where nothing differs but what they are measured on.
    for name, recipe in presets.study_recipes(StudyConfig(data="cifar10")).items():
        assert dataclasses.replace(recipe, test_split="test") == presets.get(name)


def test_a_study_reads_its_data_as_a_training_does() -> None:
    config = StudyConfig(data="own/set.h5", keys="images,labels", size="16")
    assert {(recipe.keys, recipe.size) for recipe in presets.study_recipes(config).values()} == {
        ("images,labels", "16")
    }
