"""A run's settings as a person types them."""

from __future__ import annotations

from typing import Any

from kerasrobust.commands import from_dict
from kerasrobust.errors import InputError
from kerasrobust.fields import written
from kerasrobust.runs import IRRELEVANT


def settings(config: dict[str, Any]) -> dict[str, str]:
    """Returns a run's settings by name; those that its result doesn't depend on are left out.

    Example:
        >>> settings({"kind": "attack", "model": "convnet", "epsilon": 8 / 255})["epsilon"]
        '8/255'
    """
    try:
        made: dict[str, Any] = vars(from_dict(config))
    except InputError:  # From another version: as it stands.
        made = config
    return {
        name: " ".join(map(written, value)) if isinstance(value, list | tuple) else written(value)
        for name, value in made.items()
        if name not in ("kind", *IRRELEVANT) and value is not None
    }
