"""All keys of the UI by the ids of their bindings, and other keys in their place."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import cast

from textual.app import App
from textual.binding import Binding, InvalidBinding
from textual.dom import DOMNode
from textual.keys import REPLACED_KEYS, Keys, key_to_character
from textual.screen import ModalScreen, Screen

import tui
from kerasrobust.errors import InputError

_MODIFIERS = {"ctrl", "alt", "shift", "meta", "super", "hyper"}
_NAMED = {key.value for key in Keys if not key.value.startswith("<")} | set(REPLACED_KEYS)


@functools.cache
def owners() -> tuple[type[DOMNode], ...]:
    """Returns the app, screens and widgets of the UI, by module; imports all of them."""
    found = []
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        if not module.name.endswith("__main__"):
            for item in vars(importlib.import_module(module.name)).values():
                if isinstance(item, type) and issubclass(item, DOMNode) and item.__module__ == module.name:
                    found.append(item)
    return tuple(found)


def bindings(owner: type[DOMNode]) -> list[Binding]:
    """Returns what a class of the UI binds itself."""
    return cast(list[Binding], list(vars(owner).get("BINDINGS", [])))


@functools.cache
def known() -> Mapping[str, Binding]:
    """Returns all bindings of the UI by their ids."""
    return MappingProxyType({binding.id or "": binding for owner in owners() for binding in bindings(owner)})


def check_keys(keys: Mapping[str, str]) -> None:
    """Checks other keys for bindings: {id: one or more keys with commas between them}.

    Raises:
        InputError: for an unknown id, what is no key, or a key that something else has where both would be asked for.

    Example:
        >>> check_keys({"star-run": "b", "quit": "ctrl+x,q"})
    """
    for name, written in keys.items():
        if name not in known():
            near = difflib.get_close_matches(name, known(), n=1)
            advice = f"Did you mean {near[0]}?" if near else "The guide to the terminal UI lists them."
            raise InputError(f"Expected the id of a key, such as quit. Received: {name!r}. {advice}")
        for key in _keys(written):
            if not _is_key(key):
                raise InputError(
                    f"Expected a key such as b, f5, ctrl+x or question_mark for {name}. Received: {key!r}. "
                    "Name another; commas stand between several."
                )
    for one, other in _together():
        if one in keys or other in keys:
            usual = [set(_keys(known()[name].key)) for name in (one, other)]
            now = [set(_keys(keys.get(name, known()[name].key))) for name in (one, other)]
            if (shared := now[0] & now[1]) and not usual[0] & usual[1]:
                first, second = (one, other) if one in keys else (other, one)
                raise InputError(
                    f"Expected a key for {first} that is free. Received: {min(shared)}, which {second} has. "
                    f"Choose another, or give {second} another one."
                )


def _keys(written: str) -> list[str]:
    """Returns the names of keys with commas between them, as Textual has them."""
    try:
        return [binding.key for binding in Binding.make_bindings([Binding(written, "")])]
    except InvalidBinding:  # Nothing between two commas.
        return [""]


def _is_key(key: str) -> bool:
    *modifiers, last = key.split("+")
    if not _MODIFIERS.issuperset(modifiers) or len(set(modifiers)) < len(modifiers):
        return False
    character = key_to_character(last)
    # A capital is a key of its own: shift is never told beside a letter.
    if (modifiers == ["shift"] and len(last) == 1) or last.isspace():
        return False
    return key in _NAMED or last in _NAMED or (character is not None and character.isprintable())


def _together() -> Iterator[tuple[str, str]]:
    """Yields the ids of two bindings that may be asked for one key: of one place, or one inside the other."""
    anywhere = {binding.id or "" for owner in owners() if issubclass(owner, App) for binding in bindings(owner)}
    for owner in owners():
        mine = _ids(owner)
        within = set().union(*map(_ids, _inside(owner)))
        modal = issubclass(owner, ModalScreen)
        for one in sorted(mine):
            yield from (
                (one, other) for other in sorted(mine | within | (set() if modal else anywhere)) if other != one
            )


def _ids(owner: type[DOMNode]) -> set[str]:
    """Returns the ids of what a class binds, itself or by what it is made from."""
    return {binding.id or "" for base in owner.__mro__ if base in owners() for binding in bindings(base)}


def _inside(owner: type[DOMNode]) -> set[type[DOMNode]]:
    """Returns the widgets that may have the focus inside of another, by what modules import."""
    found: set[type[DOMNode]] = set()
    waiting = [] if issubclass(owner, App) else [owner]
    while waiting:
        module = inspect.getmodule(waiting.pop())
        for item in vars(module).values():
            if item in owners() and item not in found and not issubclass(item, Screen | App):
                found.add(item)
                waiting.append(item)
    return found - {owner}
