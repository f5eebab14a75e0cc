"""The form of a new run, made from the table of a command's settings: its texts read and checked. No Textual here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasrobust import presets
from kerasrobust.commands import COMMANDS, run_class
from kerasrobust.config import StudyConfig, TrainConfig
from kerasrobust.errors import InputError, malformed_split, unknown_name
from kerasrobust.fields import Field, Group, text
from kerasrobust.fields import fields as table
from kerasrobust.names import ARCHITECTURES, ATTACKS, is_split, uncorrupted
from kerasrobust.runs import is_locked, list_models
from kerasrobust.settings import RunConfig, command_line

_SAVING = ("train", "import")
"""Commands whose `name` is the saved model's as well."""

_CONFIGURED = re.compile(r"[a-z]\w*/\w[\w.-]*(:[\d.*]+)?")
"""A data set of TensorFlow Datasets with a configuration, which looks like a path."""

_SETS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn_cropped", "shapes")
"""Data sets whose names are often mistyped."""

_ORDER: tuple[Group, ...] = ("own", "model", "common", "output")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A form's texts read and checked: the run, or what is wrong, by field or without being a single field's fault."""

    config: RunConfig | None
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def commands() -> dict[str, type[RunConfig]]:
    """Returns the commands that the form offers."""
    return {kind: run_class(kind) for kind, command in COMMANDS.items() if command.in_form}


def fields(kind: type[RunConfig]) -> list[Field]:
    """Returns the fields of a command's form: the name, its own settings, how the model takes images, common ones, and
    the output.
    """
    shown = [item for item in table(kind) if item.group in _ORDER]
    return sorted(shown, key=lambda item: (item.name != "name", _ORDER.index(item.group)))


def saved_models(models_dir: Path) -> list[str]:
    """Returns the names of the saved models; none where the folder can't be read."""
    try:
        return [path.name for path in list_models(models_dir)]
    except OSError:
        return []


def suggestions(kind: type[RunConfig], name: str, models: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns suggestions for a field with an open set of values; `models` are the names of the saved models."""
    if name == "attack":
        return tuple(ATTACKS)
    if name == "model":
        return tuple(dict.fromkeys([*(ARCHITECTURES if kind is TrainConfig else ()), *models]))
    if name in ("surrogate", "teacher", "reference", "beside"):
        return tuple(models)
    if name == "data":
        recipes = [make() for make in presets.PRESETS.values()]
        return tuple(dict.fromkeys([TrainConfig().data, StudyConfig().data, *(recipe.data for recipe in recipes)]))
    return ()


def defaults(kind: type[RunConfig]) -> dict[str, str]:
    """Returns the texts of an untouched form."""
    return {item.name: item.default or "" for item in fields(kind)}


def to_texts(config: RunConfig) -> dict[str, str]:
    """Returns a config as the texts of a form."""
    return {item.name: text(getattr(config, item.name)) for item in fields(type(config))}


def parse(item: Field, typed: str) -> Any:
    """Returns the value of a text, read as on the command line.

    Raises:
        InputError: for text of another type, or none where some is needed.

    Example:
        >>> parse(fields(AttackConfig)[5], "8/255")
        0.03137254901960784
    """
    typed = typed.strip()
    if item.is_switch:
        return typed == "yes"
    if item.is_optional and not typed:
        return None
    if not typed and not item.is_list:
        raise InputError(f"Expected {expected(item)}. Received: nothing. {_advice(item)}")
    words = typed.split() if item.is_list else [typed]
    for word in words:
        try:
            item.read([word])
        except InputError:  # A ValueError too, with better words than these.
            raise
        except ValueError:
            raise InputError(f"Expected {expected(item)}. Received: {word!r}. {_advice(item)}") from None
    return item.read(words)


def expected(item: Field) -> str:
    """Returns what to type, such as `a whole number, or nothing`."""
    return item.expected + (", spaces between" if item.is_list else ", or nothing" if item.is_optional else "")


def _advice(item: Field) -> str:
    return f"Try {item.default}." if item.default else f"Fill in the {item.label}."


def check(kind: type[RunConfig], texts: Mapping[str, str], **fixed: Any) -> Checked:
    """Reads the texts of all fields and applies the config class's checks; `fixed` are settings not in the form.

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
            if item.default is None:  # So that the others can be checked all the same.
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
    """Returns the field whose value causes the message."""
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


def doubts(kind: type[RunConfig], texts: Mapping[str, str], models: Sequence[str]) -> dict[str, str]:
    """Returns what is doubtful in models, data and splits, by field: what the run would find after minutes.

    `models` are the names of the saved models. A name of a data set is left to TensorFlow Datasets.
    """
    found: dict[str, str] = {}
    for item in fields(kind):
        typed = texts[item.name].strip()
        if not typed:
            continue
        if item.name in ("model", "surrogate", "teacher", "reference", "beside"):
            known = suggestions(kind, item.name, models)
            for name in typed.split(",") if item.name == "beside" else [typed]:
                if name.strip() not in known and not Path(name.strip()).expanduser().exists():
                    found[item.name] = str(unknown_name("saved model", name.strip(), known, ", or a path"))
        elif item.name == "data":
            source = typed if Path(typed).exists() else uncorrupted(typed)
            if not Path(source).expanduser().exists() and (doubt := _absent(source)):
                found["data"] = doubt
        elif item.name.endswith("split") and not is_split(typed):
            found[item.name] = str(malformed_split(typed))
    return found


def _absent(source: str) -> str:
    """Returns what to say of data where there is no such file or folder; nothing of what may be a set of TFDS."""
    if source.endswith((".npz", ".h5")) or ("/" in source and not _CONFIGURED.fullmatch(source)):
        return f"There is nothing at {source}."
    if "/" in source and Path(source.partition("/")[0]).is_dir():
        return f"There is nothing at {source}, though {source.partition('/')[0]} is a folder."
    # One letter wrong, as of all sets that there are only these are known here.
    near = difflib.get_close_matches(source.lower(), _SETS, n=1, cutoff=0.8)
    return f"Did you mean {near[0]!r}?" if near and source not in _SETS else ""


def existing(config: RunConfig) -> str:
    """Returns a warning before a start if a run or saved model of this name exists already."""
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
        return f"{there}, unfinished. The same settings resume it; others need another name, or overwrite on."
    except OSError as error:
        return f"{run} can't be read ({error.strerror}). Choose another name."


def command(config: RunConfig) -> str:
    """Returns the command line of a start: that of the run, and whether it replaces another."""
    return command_line(config) + (" --overwrite" if config.overwrite else "")


class Draft:
    """What was typed for each command, kept while another is chosen, and the preset of `train`.

    It begins with the settings of a config, or the defaults of `train`.
    """

    def __init__(self, config: RunConfig | None = None) -> None:
        self.kind: type[RunConfig] = type(config) if config is not None else run_class("train")
        self.preset = ""
        self._texts = {kind: defaults(kind) for kind in [*commands().values(), self.kind]}
        if config is not None:
            self._texts[self.kind] = to_texts(config)

    @property
    def kinds(self) -> list[str]:
        return [kind.kind for kind in self._texts]

    @property
    def texts(self) -> dict[str, str]:
        """The settings of the command, by name."""
        return self._texts[self.kind]

    @property
    def origin(self) -> str:
        """The preset that is in force, or nothing."""
        return self.preset if self.kind is TrainConfig else ""

    def baseline(self) -> dict[str, str]:
        return to_texts(presets.get(self.origin)) if self.origin else defaults(self.kind)

    def reset(self) -> None:
        self._texts[self.kind] = self.baseline()

    def start_from(self, preset: str) -> None:
        """Starts from a preset, or from the defaults; what was typed stays, as on the command line."""
        before = self.baseline()
        typed = {name: text for name, text in self.texts.items() if text != before[name]}
        self.preset = preset
        self._texts[self.kind] = self.baseline() | typed
