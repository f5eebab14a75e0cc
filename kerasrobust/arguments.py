"""A command line read by the table of the command's settings, and the help made from that table. No TensorFlow here.

By hand rather than with argparse, whose messages would have to be taken apart again to fit those of the config classes.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Container, Sequence
from typing import Any

from kerasrobust import presets
from kerasrobust.commands import config_class, summaries
from kerasrobust.errors import InputError
from kerasrobust.fields import Field, fields
from kerasrobust.names import ATTACKS
from kerasrobust.settings import CommandConfig, is_option

PROGRAM = "kerasrobust"


def parse(words: Sequence[str]) -> CommandConfig | None:
    """Returns the run that a command line asks for, or None if it asked for help, which is printed.

    Options come before the preset, and the preset before the defaults of the config class.

    Raises:
        InputError: for words that can't be understood.

    Example:
        >>> parse(["attack", "--model", "convnet", "--epsilon", "4/255"]).epsilon
        0.01568627450980392
    """
    words = list(words)
    if words[:1] in (["--help"], ["-h"], ["help"]):
        print(_help())
        return None
    kind = words.pop(0) if words and not words[0].startswith("-") else "demo"
    made = config_class(kind)
    base: dict[str, Any] = {}
    if kind == "train":
        words, base = _preset(words)
    reader = _Reader(kind, fields(made))
    reader.check_options(words)
    if "--help" in words or "-h" in words:
        print(_command_help(kind, made))
        return None
    return made(**base | reader.values(words))


def _preset(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes `--preset NAME` out of the words; returns the rest and the preset's settings."""
    for place, word in enumerate(words):
        if word == "--preset" or word.startswith("--preset="):
            name = word.partition("=")[2] or (words[place + 1] if place + 1 < len(words) else "")
            rest = words[:place] + words[place + (1 if "=" in word else 2) :]
            return rest, vars(presets.get(name))
    return words, {}


class _Reader:
    """Reads the words after a command's name.

    Args:
        kind: the command.
        table: its settings.
    """

    def __init__(self, kind: str, table: Sequence[Field]) -> None:
        self._kind = kind
        self._table = table
        self._see = f"See {PROGRAM} {kind} --help."
        self._options = {item.option: item for item in table if not item.positional}
        self._negated = {f"--no-{item.option[2:]}": item for item in table if item.is_switch}

    def check_options(self, words: Sequence[str]) -> None:
        """Raises InputError for an option that the command doesn't have, with the nearest one that it has."""
        known = ["--help", *(["--preset"] if self._kind == "train" else []), *self._options, *self._negated]
        for option in (_split(word)[0] for word in words if word.startswith("--")):
            if option not in known:
                near = difflib.get_close_matches(option, known, n=1)
                advice = f"Did you mean {near[0]}?" if near else self._see
                raise InputError(f"Expected an option of {self._kind!r}. Received: {option}. {advice}")

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Returns the values of all settings that are given."""
        values: dict[str, Any] = {}
        rest = list(words)
        loose: list[str] = []
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                loose.append(word)
                continue
            option, value = _split(word)
            if option in self._negated or self._options[option].is_switch:
                if value is not None:
                    raise InputError(f"Expected {option} without a value. Received: {value!r}. {self._see}")
                values[(self._negated | self._options)[option].name] = option not in self._negated
                continue
            item = self._options[option]
            if value is not None:
                given = [value]
            else:
                following = rest if item.is_list else rest[:1]
                given = list(itertools.takewhile(lambda word: not is_option(word), following))
                del rest[: len(given)]
            values[item.name] = self._read(item, given)
        positional = _bare(self._table, values)
        named = [word for word in loose if not is_option(word)]
        taken = 0 if positional is None else len(named) if positional.is_list else 1
        if positional is not None and (named or positional.is_list):
            values[positional.name] = self._read(positional, named[:taken])
        wrong = [word for word in loose if is_option(word)] + named[taken:]
        if wrong:
            raise InputError(f"Expected options of {self._kind!r} only. Received: {' '.join(wrong)}. {self._see}")
        for item in self._table:
            if item.default is None and item.name not in values:
                what = f"a {item.name}" if item.positional else f"the option {item.option}"
                raise InputError(f"Expected {what}. Received: none. {self._see}")
        return values

    def _read(self, item: Field, given: Sequence[str]) -> Any:
        if not given and not item.is_list:
            raise InputError(f"Expected a value after {item.option}. Received: none. {self._see}")
        try:
            return item.read(given)
        except InputError:  # A ValueError too, with better words than these.
            raise
        except ValueError:
            received = repr(list(given) if item.is_list else given[0])
            raise InputError(f"Expected {item.option} as {item.expected}. Received: {received}. {self._see}") from None


def _bare(table: Sequence[Field], given: Container[str] = ()) -> Field | None:
    """Returns what a word without an option is: the setting that has none, or else the one that is required."""
    found = [item for item in table if item.positional] or [item for item in table if item.default is None]
    return found[0] if found and found[0].name not in given else None


def _split(word: str) -> tuple[str, str | None]:
    """Returns the option of `--option=value`, with underscores as dashes, and the value; None without one."""
    option, equals, value = word.partition("=")
    return option.replace("_", "-"), value if equals else None


def _help() -> str:
    lines = [
        "usage: kerasrobust [COMMAND] [options]      (also: python -m kerasrobust)",
        "",
        "A robustness laboratory for Keras image classifiers. Without a command it runs the demo.",
        "",
        *(f"  {kind:<12}{summary}" for kind, summary in summaries().items()),
        "",
        "  COMMAND --help lists a command's options, and --version says which version this is.",
        "  train --preset takes a recipe:",
        "",
        *(f"  {name:<21}{summary}" for name, summary in presets.summaries().items()),
    ]
    return "\n".join(lines)


def _command_help(kind: str, made: type[CommandConfig]) -> str:
    """Returns a command's help: what it does and all of its options, the required ones first, the common ones last."""
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    table = fields(made)
    required = [item for item in table if item.default is None]
    bare = _bare(table)
    usage = " ".join(item.name.upper() if item is bare else f"{item.option} {_metavar(item)}" for item in required)
    lines = [f"usage: {PROGRAM} {kind} {usage}{' ' if usage else ''}[options]", ""]
    lines += inspect.cleandoc(made.__doc__ or "").splitlines()
    own = [item for item in table if item.group == "own" and item.default is not None]
    about = [item for item in table if item.group == "model"]
    common = [item for item in table if item.group not in ("own", "model")]
    preset = [("--preset NAME", f"Recipe to start from: {', '.join(presets.PRESETS)}.")] if kind == "train" else []
    sections = (
        ("required", [_entry(item, bare=item is bare) for item in required]),
        ("options", [*preset, *map(_entry, own)]),
        ("attacks, and the norms of their balls", _attacks() if kind == "attack" else []),
        ("how the model takes images, where it isn't found out", list(map(_entry, about))),
        ("common options", [*map(_entry, common), ("-h, --help", "Print this and stop.")]),
    )
    for title, entries in sections:
        if entries:
            lines += ["", f"{title}:"]
        for option, explanation in entries:
            block = textwrap.wrap(explanation, width - 26, break_on_hyphens=False)
            first = block.pop(0) if len(option) < 23 else ""
            lines += [f"  {option:<24}{first}".rstrip(), *(" " * 26 + line for line in block)]
    return "\n".join(lines)


def _metavar(item: Field) -> str:
    if item.choices:
        return "|".join(item.choices)
    name = "RADIUS" if item.type.__name__ == "Epsilon" else {"str": "TEXT"}.get(item.type.__name__, item.type.__name__)
    return f"{name.upper()}{' ...' if item.is_list else ''}"


def _attacks() -> list[tuple[str, str]]:
    """Returns each attack's name, with what it is called and its norms."""
    norms = {name: ", ".join(known.norms) if known.in_ball else "none, no ball" for name, known in ATTACKS.items()}
    return [(name, f"{known.title}: {norms[name]}") for name, known in ATTACKS.items()]


def _entry(item: Field, bare: bool = False) -> tuple[str, str]:
    """Returns how an option is typed, `bare` also without its name, and what there is to say about it."""
    if bare and not item.positional:
        return f"{item.name.upper()}, {item.option} {item.name.upper()}", item.help
    if item.positional:
        return f"{item.name.upper()}{' ...' if item.is_list else ''}", item.help
    if item.is_switch:
        on = item.default == "yes"
        return f"{item.option}, --no-{item.option[2:]}" if on else item.option, item.help + " (default: yes)" * on
    default = "" if item.default is None else f" (default: {item.default or 'none'})"
    return f"{item.option} {_metavar(item)}", f"{item.help}{default}"
