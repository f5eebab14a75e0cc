"""What a person has written into the UI's own file: theme and keys. Textual is imported where one is checked."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasrobust.errors import InputError, unknown_name


@dataclass(frozen=True)
class Preferences:
    """What a person prefers to what is usual.

    Attributes:
        theme: the name of one of Textual's themes; empty for the usual one.
        keys: other keys by the ids of their bindings, with commas between several.
    """

    theme: str = ""
    keys: dict[str, str] = field(default_factory=dict)


def place() -> Path:
    """Returns where the file is: `kerasrobust/tui.toml` in `$XDG_CONFIG_HOME`, or else in `~/.config`."""
    said = os.environ.get("XDG_CONFIG_HOME", "")
    # As its specification says, a relative path isn't one.
    home = Path(said) if said.startswith("/") else Path(os.path.expanduser("~/.config"))
    return home / "kerasrobust" / "tui.toml"


def read(path: Path) -> Preferences:
    """Returns what stands in the file; nothing where there is none.

    Raises:
        InputError: where it can't be read, or holds what can't be used.

    Example:
        >>> read(Path("nowhere/tui.toml"))
        Preferences(theme='', keys={})
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Preferences()
    except OSError as error:
        raise InputError(f"Expected a file that can be read. Received: {path} ({error.strerror}).") from error
    except ValueError as error:  # TOML's own, or bytes that are no text.
        raise InputError(f"Expected TOML. Received: {path} ({error}). Correct it, or remove it.") from error
    try:
        return _checked(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _checked(found: dict[str, Any]) -> Preferences:
    for name in found:
        if name not in ("theme", "keys"):
            raise unknown_name("setting", name, ("theme", "keys"))
    theme, keys = found.get("theme", ""), found.get("keys", {})
    if (
        not isinstance(theme, str)
        or not isinstance(keys, dict)
        or not all(isinstance(key, str) for key in keys.values())
    ):
        raise InputError(
            'Expected theme = "NAME", and below [keys] lines such as star-run = "b". Received: values of another type. '
            "Put texts into quotes."
        )
    if theme:
        from textual.theme import BUILTIN_THEMES

        if theme not in BUILTIN_THEMES:
            raise unknown_name("theme", theme, BUILTIN_THEMES)
    if keys:
        from tui.keys import check_keys  # With all screens, which the start needn't wait for otherwise.

        check_keys(keys)
    return Preferences(theme, keys)
