"""A run's settings: checked in one line, written as JSON and as a command, and read again from both."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kerasrobust import names
from kerasrobust.assessing import AssessConfig, CertifyConfig, CorruptionsConfig
from kerasrobust.commands import COMMANDS, config_class, from_dict
from kerasrobust.config import (
    AttackConfig,
    AuditConfig,
    CompareConfig,
    DemoConfig,
    ImportConfig,
    ModelsConfig,
    RandomnessConfig,
    StudyConfig,
    TrainConfig,
)
from kerasrobust.errors import InputError
from kerasrobust.exporting import ExportConfig, ExportFormat
from kerasrobust.fields import Epsilon
from kerasrobust.names import RANGES, norm_of
from kerasrobust.run import parse
from kerasrobust.settings import CommandConfig, RunConfig, check_epsilon, command_line, to_dict

# Whatever people call things, but for what a shell's parser takes for an option, and what stands for no value at all.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda word: not word.startswith("-") and word != "None"
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}", fullmatch=True).filter(lambda name: name != "None")
PATHS = WORDS.map(Path)
RADII = st.floats(0, 1).map(Epsilon) | st.builds(lambda top: Epsilon(f"{top}/255"), st.integers(0, 255))
SHARES = st.floats(0, 1, exclude_max=True)
COUNTS = st.integers(1, 10**6)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "name": st.none() | NAMES,
    "seed": st.integers(0, 2**31 - 1),
    "batch_size": COUNTS,
    "precision": st.sampled_from(get_args(names.Precision)),
    "device": st.sampled_from(["auto", "cpu", "gpu"]),
    "runs_dir": PATHS,
    "models_dir": PATHS,
    "data_dir": st.none() | PATHS,
    "tags": st.none() | st.just("baseline, my thesis"),
    "note": st.none() | WORDS,
    "notify": st.none() | st.just("curl -d 'it has ended' https://example.org"),
}
SWITCHES: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(("overwrite", "quiet", "json"), st.booleans())
STUDY: dict[str, st.SearchStrategy[Any]] = {
    "data": WORDS,
    "split": WORDS,
    "test_split": WORDS,
    "epochs": st.none() | COUNTS,
    "epsilons": st.lists(RADII, min_size=1, max_size=4).map(tuple),
    "steps": COUNTS,
    "eot": st.integers(2, 100),
    "retrain": st.booleans(),
    "keys": st.none() | WORDS,
    "size": st.none() | WORDS,
}
MODEL: dict[str, st.SearchStrategy[Any]] = {
    "input_range": st.sampled_from(["auto", *RANGES, "0,16", "0.5,0.5,0.5/0.2,0.2,0.2"]),
    "colors": st.sampled_from(get_args(names.Colors)),
    "channels": st.sampled_from(get_args(names.Channels)),
    "outputs": st.sampled_from(get_args(names.Outputs)),
    "noise": st.sampled_from(get_args(names.Noise)),
    "resize": st.booleans(),
}
LOADED: dict[str, st.SearchStrategy[Any]] = {"model": WORDS, "code": st.none() | PATHS, "output": st.none() | WORDS}
FIELDS: dict[type[CommandConfig], dict[str, st.SearchStrategy[Any]]] = {
    TrainConfig: {
        **LOADED,
        **MODEL,
        "data": WORDS,
        "split": WORDS,
        "test_split": WORDS,
        "training": st.sampled_from(get_args(names.Training)),
        "randomize": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        "epochs": COUNTS,
        "epsilon": RADII,
        "norm": st.sampled_from(get_args(names.BallNorm)),
        "steps": COUNTS,
        "step_size": st.none() | RADII,
        "clean_share": SHARES,
        "warmup_epochs": st.floats(0, 100),
        "learning_rate": st.floats(0, 10, exclude_min=True),
        "weight_decay": st.floats(0, 1),
        "augment": st.booleans(),
        "corruptions": st.lists(st.sampled_from(list(names.CORRUPTIONS)), max_size=3).map(tuple),
        "validation_share": SHARES,
        "widths": st.lists(COUNTS, min_size=1, max_size=4).map(tuple),
        "depth": COUNTS,
        "width": COUNTS,
        "convolutions": COUNTS,
        "pooling": st.sampled_from(get_args(names.Pooling)),
        "activation": st.sampled_from(get_args(names.Activation)),
        "stem": COUNTS,
        "average": st.none() | SHARES,
        "teacher": st.none() | WORDS,
        "label_smoothing": SHARES,
        "optimizer": st.sampled_from(get_args(names.Optimizer)),
        "schedule": st.sampled_from(get_args(names.Schedule)),
        # Others are for some objectives only.
        "beta": st.none(),
        "sigma": st.just(0.25),
        "attack_loss": st.just("cross-entropy"),
        "steps_by_epoch": st.just(()),
        "awp": st.just(0.0),
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    AttackConfig: {
        **LOADED,
        **MODEL,
        # In L0 radii count values, and these are below 1: examples stand below.
        "attack": st.sampled_from([name for name in names.ATTACKS if norm_of([name]) != "l0"]),
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "norm": st.sampled_from([norm for norm in get_args(names.NormOrAuto) if norm != "l0"]),
        "epsilon": st.none() | RADII,
        "steps": st.none() | COUNTS,
        "step_size": st.none() | RADII,
        "queries": st.none() | COUNTS,
        "restarts": COUNTS,
        "eot": st.none() | COUNTS,
        "passes": COUNTS,
        "epsilons": st.just(()),  # Instead of epsilon: examples stand below.
        # Others are for some attacks only.
        "patch": st.none() | WORDS,
        "perturbation": st.none() | WORDS,
        "patch_size": st.none() | COUNTS,
        "budget": st.none() | COUNTS,
        "version": st.just("auto"),
        "confirm": st.just(False),
        "target": st.none(),
        "surrogate": st.none() | WORDS,
        "variants": st.sampled_from([None, "di", "ti-ni", "di-ti-ni"]),
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    AuditConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "norm": st.sampled_from(get_args(names.BallNorm)),
        "epsilon": st.none() | RADII,
        "steps": COUNTS,
        "eot": COUNTS,
        "thorough": st.booleans(),
        "passes": COUNTS,
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    RandomnessConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "norm": st.sampled_from(get_args(names.BallNorm)),
        "epsilon": st.none() | RADII,
        "gradients": st.integers(50, 10**6),
        "passes": st.integers(2, 1000),
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    CertifyConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "sigma": st.floats(0, 10, exclude_min=True),
        "smoothing_noise": st.sampled_from(get_args(names.SmoothingNoise)),
        "samples": COUNTS,
        "selection": COUNTS,
        "alpha": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
        "least_radius": RADII,
        "radii": st.lists(RADII, max_size=3).map(tuple),
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    CorruptionsConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "severity": st.sampled_from(["3", "1,5", "1,2,3,4,5"]),
        "kinds": st.none() | st.sampled_from([*names.CORRUPTIONS, "all", "noise,fog"]),
        "reference": st.none() | WORDS,
        "passes": COUNTS,
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    StudyConfig: STUDY,
    DemoConfig: STUDY,
    ImportConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": WORDS,
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    CompareConfig: {"subjects": st.lists(WORDS, min_size=1, max_size=3).map(tuple)},
    ModelsConfig: {},
    AssessConfig: {
        **LOADED,
        **MODEL,
        "data": st.none() | WORDS,
        "split": st.none() | WORDS,
        "minutes": st.floats(0.1, 1e6),
        "beside": st.none() | st.just("beside-a, beside-b"),
        "sigma": st.none() | st.floats(0, 10, exclude_min=True),
        "version": st.sampled_from(get_args(names.Version)),
        "passes": st.integers(1, 100),
        "keys": st.none() | WORDS,
        "size": st.none() | WORDS,
    },
    ExportConfig: {
        "run": WORDS,
        "format": st.sampled_from(get_args(ExportFormat)),
        "to": st.none() | WORDS.map(Path),
    },
}


def any_config(of: type[CommandConfig], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Configs of all classes below one; `more` goes to those that have it."""
    return st.one_of([
        st.builds(kind, **{name: made for name, made in (COMMON | fields | more).items() if name in known(kind)})
        for kind, fields in FIELDS.items()
        if issubclass(kind, of)
    ])  # fmt: skip


def known(kind: type[CommandConfig]) -> set[str]:
    return {item.name for item in dataclasses.fields(kind)}


def test_the_strategies_leave_no_field_out() -> None:
    for kind, fields in FIELDS.items():
        assert set(fields) <= known(kind) <= {*COMMON, *SWITCHES, *fields}
        assert not issubclass(kind, RunConfig) or {*COMMON, *SWITCHES} <= known(kind)
    assert {config_class(kind) for kind in COMMANDS} == set(FIELDS)


@given(any_config(RunConfig, **SWITCHES))
@example(AttackConfig(model="a", attack="sigma-zero", epsilon=Epsilon(24)))
@example(AttackConfig(model="a", attack="fmn", norm="l0", epsilon=Epsilon(1)))
def test_json_there_and_back(config: RunConfig) -> None:
    record = json.loads(json.dumps(to_dict(config), allow_nan=False))
    back = from_dict(record)
    assert (type(back), back) == (type(config), config)
    assert from_dict(record | {"of_a_newer_version": 1}) == config


# How a run is shown, and whether it replaces another, is not what it is.
@given(any_config(CommandConfig))
@example(TrainConfig(randomize=0.2, learning_rate=0.2, clean_share=0.4, step_size=Epsilon("2/255")))
@example(TrainConfig(learning_rate=0.123456789, augment=False, widths=(4,)))
@example(AttackConfig(model="a b'c\"d", norm="l2", epsilon=Epsilon(128 / 255)))
@example(AttackConfig(model="a", attack="autoattack", version="adaptive", confirm=True))
@example(AttackConfig(model="a", attack="sigma-zero", epsilon=Epsilon(24)))
def test_a_command_is_read_as_its_config(config: CommandConfig) -> None:
    words = shlex.split(command_line(config))
    assert words[:4] == ["python", "-m", "kerasrobust.run", config.kind]
    assert parse(words[3:]) == config


@pytest.mark.parametrize("note", ["--overwrite", "-bad rate", "- bad", "--a=b", 'it\'s "so" --quiet', "two\nlines"])
def test_words_of_ones_own_may_look_like_options(note: str) -> None:
    config = AttackConfig(model="m", note=note)
    assert parse(shlex.split(command_line(config))[3:]) == config


def test_the_command_of_a_run_is_what_a_person_would_type() -> None:
    config = AttackConfig(model="convnet-pgd", attack="pgd", data="cifar10", eot=20)
    assert (
        command_line(config) == "python -m kerasrobust.run attack --model convnet-pgd --data cifar10 --eot 20"
    )  # The rest are defaults.
    config = AttackConfig(model="m", epsilon=Epsilon("4/255"), split="test[:50]", quiet=True, overwrite=True)
    assert command_line(config).endswith("attack --model m --split 'test[:50]' --epsilon 4/255")


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions_are_radii(top: int, bottom: int) -> None:
    assert Epsilon(f"{top}/{bottom}") == float(Fraction(top, bottom))


@given(st.floats(0, allow_infinity=False))
def test_numbers_are_radii(number: float) -> None:
    assert Epsilon(repr(number)) == Epsilon(number) == number


@given(st.text(st.sampled_from("0123456789./-+e naif"), max_size=8))
def test_text_is_a_finite_radius_or_refused_in_one_line(text: str) -> None:
    try:
        number = Epsilon(text)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        assert f"Received: {' '.join(text.split())}" in str(error)
    else:
        assert math.isfinite(number) and number >= 0


@pytest.mark.parametrize(
    "text",
    ["-1", "-8/255", "8/-255", "nan", "nan/1", "1/nan", "inf", "-inf", "1/inf/2", "8/0", "0/0", "8/", "/255", "/", "",
     "8/255/2", "eight", "8,255", "0.1.2", "1e999", "8 255", "8\\255"],
)  # fmt: skip
def test_what_is_no_radius_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"Expected a radius .epsilon. as a number of at least 0.*Received: "):
        Epsilon(text)


@pytest.mark.parametrize("epsilon", [8, 1.01, 255])
def test_a_radius_in_levels_is_not_taken_for_one_in_shares(epsilon: float) -> None:
    with pytest.raises(InputError, match=rf"Received: {epsilon:g}\. Did you mean {epsilon:g}/255\?"):
        check_epsilon(epsilon, "linf")
    check_epsilon(epsilon, "l2")  # In L2 that is a radius like another.
    radius = Epsilon(epsilon)
    for make in (
        lambda: AttackConfig(model="m", epsilon=radius),
        lambda: TrainConfig(epsilon=radius),
        lambda: StudyConfig(epsilons=(Epsilon(0), radius)),
    ):
        with pytest.raises(InputError, match="Did you mean"):
            make()


@pytest.mark.parametrize(
    ("kind", "values", "part"),
    [
        (AttackConfig, {"attack": "pdg"}, "Did you mean 'pgd'?"),
        (AttackConfig, {"norm": "l7"}, "a norm that exists (auto, l0, l1, l2, linf). Received: 'l7'"),
        (AttackConfig, {"precision": "float23"}, "Did you mean 'float32'?"),
        (AttackConfig, {"device": "tpu"}, "Received: 'tpu'"),
        (AttackConfig, {"steps": 0}, "number of steps"),
        (AttackConfig, {"restarts": 0}, "restarts"),
        (AttackConfig, {"eot": 0}, "EOT"),
        (AttackConfig, {"passes": -1}, "passes"),
        (AttackConfig, {"batch_size": 0}, "batch size"),
        (AttackConfig, {"seed": -1}, "seed"),
        (AttackConfig, {"seed": 2**31}, "seed from 0 to 2147483647"),
        (TrainConfig, {"training": "standart"}, "Did you mean 'standard'?"),
        (TrainConfig, {"epochs": 0}, "epochs"),
        (TrainConfig, {"randomize": 0.0}, "between 0 and 1"),
        (TrainConfig, {"randomize": 1.0}, "between 0 and 1"),
        (TrainConfig, {"randomize": math.nan}, "between 0 and 1"),
        (TrainConfig, {"clean_share": 1.0}, "clean share in [0, 1)"),
        (TrainConfig, {"training": "gaussian", "sigma": 0.0}, "sigma above 0"),
        (TrainConfig, {"validation_share": math.nan}, "validation share in [0, 1)"),
        (TrainConfig, {"learning_rate": 0.0}, "learning rate above 0"),
        (TrainConfig, {"learning_rate": math.inf}, "learning rate above 0"),
        (TrainConfig, {"weight_decay": math.nan}, "weight decay"),
        (TrainConfig, {"warmup_epochs": -1.0}, "warm-up"),
        (TrainConfig, {"widths": ()}, "widths"),
        (TrainConfig, {"widths": (4, 0)}, "widths"),
        (TrainConfig, {"depth": 0}, "depth"),
        (TrainConfig, {"width": 0}, "width"),
        (TrainConfig, {"convolutions": 0}, "convolutions"),
        (TrainConfig, {"pooling": "avg"}, "a pooling that exists (average, flatten). Received: 'avg'"),
        (TrainConfig, {"activation": "swish"}, "Received: 'swish'"),
        (TrainConfig, {"stem": 0}, "stem"),
        (StudyConfig, {"epsilons": ()}, "at least one epsilon"),
        (AttackConfig, {"epsilons": (Epsilon(0.1),), "epsilon": Epsilon(0.1)}, "without --epsilon. Received: both"),
        (AttackConfig, {"epsilons": (Epsilon("2/255"),), "target": "next"}, "--epsilons without --target"),
        (AttackConfig, {"epsilons": (Epsilon("2/255"), Epsilon(8))}, "Did you mean 8/255"),
        (StudyConfig, {"eot": 1}, "EOT"),
        (StudyConfig, {"epochs": 0}, "epochs"),
        (DemoConfig, {"steps": 0}, "number of steps"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_in_one_line(kind: type[RunConfig], values: dict[str, Any], part: str) -> None:
    required = {"model": "m"} if kind is AttackConfig else {}
    with pytest.raises(InputError) as caught:
        kind(**required, **values)
    text = str(caught.value)
    assert text.startswith("Expected ") and "Received: " in text and part in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "-a", "a/"])
def test_a_name_is_a_plain_one(name: str) -> None:
    with pytest.raises(InputError, match="Expected a plain name"):
        StudyConfig(name=name)


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({}, "a command that exists"),
        ({"kind": "atack", "model": "m"}, "Did you mean 'attack'?"),
        ({"kind": "attack"}, "model"),
        ({"kind": "attack", "model": "m", "epsilon": "8/0"}, "Received: 8/0"),
        ({"kind": "attack", "model": "m", "steps": "many"}, "settings of a 'attack' run"),
        ({"kind": "attack", "model": "m", "attack": 7}, "settings of a 'attack' run"),
        ({"kind": "attack", "model": "m", "norm": "l7"}, "a norm that exists"),
    ],
)  # fmt: skip
def test_what_is_no_config_is_refused_in_one_line(record: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(record)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("training", "settings", "kinds"),
    [
        ("pgd", {"beta": 3.0}, "trades or mart or alp"),
        ("standard", {"awp": 0.01}, "pgd or adr"),
        ("free", {"awp": 0.01}, "pgd or adr"),
        ("fgsm", {"attack_loss": "margin"}, "pgd or adr"),
        ("nfgsm", {"steps_by_epoch": ("0:1",)}, "pgd or adr or trades"),
        ("trades", {"sigma": 0.5}, "gaussian"),
    ],
)
def test_settings_of_another_objective_are_refused(training: Any, settings: dict[str, Any], kinds: str) -> None:
    option = next(iter(settings)).replace("_", "-")
    with pytest.raises(InputError, match=rf"--training {kinds}.*--{option}.*Received: {training}") as caught:
        TrainConfig(training=training, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["0:1", "5:2"], ["0:3"]])
def test_steps_by_epoch_are_several_words(words: list[str]) -> None:
    config = parse(["train", "--training", "adr", "--steps-by-epoch", *words])
    assert isinstance(config, TrainConfig) and config.steps_by_epoch == tuple(words)
    assert parse(shlex.split(command_line(config))[3:]) == config == from_dict(to_dict(config))


@pytest.mark.parametrize("name", ["average", "label_smoothing", "awp"])
@pytest.mark.parametrize("value", [1.0, 2.0])
def test_shares_are_below_one(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=name.replace("_", " ")):
        TrainConfig(training="pgd", **settings)
