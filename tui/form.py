"""The form of a new run, made from the config classes: its fields, their texts read and checked. No Textual here."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from kerasrobust import presets
from kerasrobust.config import (
    ARCHITECTURE_NAMES,
    ATTACK_NAMES,
    AttackConfig,
    AuditConfig,
    DemoConfig,
    Epsilon,
    RandomnessConfig,
    RunConfig,
    StudyConfig,
    TrainConfig,
    command_line,
    written,
)
from kerasrobust.errors import InputError
from kerasrobust.runs import is_locked

COMMANDS: dict[str, type[RunConfig]] = {
    made.kind: made for made in (TrainConfig, AttackConfig, AuditConfig, RandomnessConfig, StudyConfig, DemoConfig)
}
"""The commands that the form offers."""

_HIDDEN = ("quiet", "json", "runs_dir", "models_dir")
"""Not in the form: the first two are about standard output, which nobody sees here; the folders are the UI's own."""

_OUTPUT = ("name", "overwrite")
_SAVING = ("train", "import")
"""Commands whose `name` is the saved model's as well."""

Group = Literal["own", "common", "output"]
_TYPES: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    Epsilon: ("a radius such as 8/255", "radii such as 4/255 8/255"),
    str: ("text", "words"),
    Path: ("a path", "paths"),
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A setting as the form shows it.

    Attributes:
        name: the field's name in the config class.
        hint: its type.
        default: the text that stands for its default, or None where it has none.
        choices: all that it may be, where that is a short list.
        help: what the class says of it.
        group: the command's `own` settings, those `common` to all commands, or those of the `output`.
    """

    name: str
    hint: Any
    default: str | None
    choices: tuple[str, ...]
    help: str
    group: Group

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_optional(self) -> bool:
        return NoneType in get_args(self.hint)

    @property
    def is_switch(self) -> bool:
        return self.hint is bool

    @property
    def type(self) -> Any:
        """The type of its value, or of each of its values, where it isn't None."""
        return next((part for part in get_args(self.hint) if part not in (NoneType, ...)), self.hint)

    @property
    def expected(self) -> str:
        """What is to be typed, such as `a whole number`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.is_switch:
            return "yes or no"
        one, several = _TYPES[self.type]
        return f"{several}, spaces between" if _is_list(self) else f"{one}, or nothing" if self.is_optional else one


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of a form's texts.

    Attributes:
        config: the run, or None where something is wrong.
        errors: {field: what is wrong with it}.
        problem: what is wrong and no single field's fault.
    """

    config: RunConfig | None
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def fields(kind: type[RunConfig]) -> tuple[Field, ...]:
    """Returns the fields of a command's form: its own settings, then the common ones, then those of the output."""
    return _fields(kind.kind)


@functools.cache
def _fields(command: str) -> tuple[Field, ...]:
    kind = RunConfig.kinds[command]
    hints, helps = get_type_hints(kind), _helps(kind)
    common = {item.name for item in dataclasses.fields(RunConfig)}
    found = []
    for item in dataclasses.fields(kind):
        if item.name in _HIDDEN:
            continue
        hint = hints[item.name]
        group: Group = "output" if item.name in _OUTPUT else "common" if item.name in common else "own"
        found.append(
            Field(
                name=item.name,
                hint=hint,
                default=None if item.default is dataclasses.MISSING else _text(item.default),
                choices=get_args(hint) if get_origin(hint) is Literal else (),
                help=helps.get(item.name, ""),
                group=group,
            )
        )
    order: tuple[Group, ...] = ("own", "common", "output")
    return tuple(sorted(found, key=lambda made: order.index(made.group)))


def _helps(kind: type[RunConfig]) -> dict[str, str]:
    """Returns the text below each field in the class's source, and in that of the classes that it comes from."""
    helps = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        for above, below in itertools.pairwise(body):
            match above, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    helps[name] = " ".join(text.split())
    return helps


def suggestions(kind: type[RunConfig], name: str, models: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns what a field may well be, where that isn't all that it may be.

    Args:
        kind: the config class.
        name: the field.
        models: the names of the saved models.
    """
    if name == "attack":
        return ATTACK_NAMES
    if name == "model":
        return tuple(dict.fromkeys([*(ARCHITECTURE_NAMES if kind is TrainConfig else ()), *models]))
    if name == "data":
        recipes = [make() for make in presets.PRESETS.values()]
        return tuple(dict.fromkeys([TrainConfig().data, StudyConfig().data, *(recipe.data for recipe in recipes)]))
    return ()


def defaults(kind: type[RunConfig]) -> dict[str, str]:
    """Returns the texts of an untouched form."""
    return {item.name: item.default or "" for item in fields(kind)}


def to_texts(config: RunConfig) -> dict[str, str]:
    """Returns the texts of a form that stands for a config."""
    return {item.name: _text(getattr(config, item.name)) for item in fields(type(config))}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(written(part) for part in value) if isinstance(value, tuple) else written(value)


def parse(item: Field, text: str) -> Any:
    """Returns the value that a text stands for, read as the command line does it.

    Raises:
        InputError: for text that stands for none.

    Example:
        >>> parse(fields(AttackConfig)[5], "8/255")
        0.03137254901960784
    """
    text = text.strip()
    if item.is_switch:
        return text == "yes"
    if item.is_optional and (not text or text == "None" or (text.lower() == "none" and item.type not in (str, Path))):
        return None
    if _is_list(item):
        return tuple(_one(item, word) for word in text.split())
    if not text:
        raise InputError(f"Expected {item.expected}. Received: nothing. {_advice(item)}")
    return text if item.choices else _one(item, text)


def _is_list(item: Field) -> bool:
    return get_origin(item.hint) is tuple


def _one(item: Field, word: str) -> Any:
    try:
        return item.type(word)
    except InputError:  # A ValueError too, with better words than these.
        raise
    except ValueError:
        raise InputError(f"Expected {item.expected}. Received: {word!r}. {_advice(item)}") from None


def _advice(item: Field) -> str:
    return f"Try {item.default}." if item.default else f"Fill in the {item.label}."


def check(kind: type[RunConfig], texts: Mapping[str, str], **fixed: Any) -> Checked:
    """Reads a form's texts and holds them to the config class's own checks.

    Args:
        kind: the config class.
        texts: the text of every field.
        fixed: values of settings that aren't in the form.

    Example:
        >>> check(AttackConfig, defaults(AttackConfig) | {"model": "convnet", "epsilon": "8"}).errors["epsilon"]
        'Expected an Linf epsilon of at most 1, as images lie in [0, 1]. Received: 8. Did you mean 8/255?'
    """
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for item in fields(kind):
        try:
            values[item.name] = parse(item, texts[item.name])
        except InputError as error:
            errors[item.name] = str(error)
            if item.default is None:  # The others are to be checked all the same.
                values[item.name] = texts[item.name]
    while True:
        try:
            config = kind(**values, **fixed)
        except InputError as error:
            culprit = _culprit(kind, values, fixed, str(error))
            if culprit is None:
                return Checked(config=None, errors=errors, problem=str(error))
            errors[culprit] = str(error)
            del values[culprit]
        else:
            return Checked(config=None if errors else config, errors=errors)


def _culprit(kind: type[RunConfig], values: dict[str, Any], fixed: dict[str, Any], message: str) -> str | None:
    """Returns the field without whose value the message wouldn't have come."""
    for item in fields(kind):
        if item.default is None or item.name not in values:
            continue
        try:
            kind(**{name: value for name, value in values.items() if name != item.name}, **fixed)
        except InputError as error:
            if str(error) == message:
                continue
        return item.name
    return None


def existing(config: RunConfig) -> str:
    """Returns what a person should know before a start: that the run or saved model of this name is there already."""
    if config.name is None:
        return ""
    run, model = config.runs_dir / config.name, config.models_dir / config.name
    try:
        is_saved = config.kind in _SAVING and model.exists()
        there = f"{'Saved model' if is_saved else 'Run'} {config.name!r} exists"
        if is_locked(run):
            return f"Run {config.name!r} is running. Wait for it, or choose another name."
        if not is_saved and not run.exists():
            return ""
        if config.overwrite:
            return f"{there} and will be replaced."
        if is_saved or (run / "result.json").exists():
            return f"{there}. Choose another name, or turn overwrite on to replace it."
        return f"{there}, unfinished. The same settings go on with it; others need another name, or overwrite on."
    except OSError as error:
        return f"{run} can't be looked at ({error.strerror}). Choose another name."


def command(config: RunConfig) -> str:
    """Returns the command line of a start: what repeats the run, and whether it replaces another."""
    return command_line(config) + (" --overwrite" if config.overwrite else "")
