"""Attacks by name."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any

from kerasrobust import names
from kerasrobust.attacks.driver import Attack
from kerasrobust.errors import InputError, unknown_name

ATTACKS: dict[str, type[Attack[Any]]] = {
    name: pkgutil.resolve_name(known.home)
    for name, known in names.ATTACKS.items()
    if not known.home.startswith("kerasrobust.evaluation.")
}
"""The class of each attack of `names.ATTACKS`; AutoAttack isn't one, but several of them."""


def make_attack(
    name: str,
    *,
    epsilon: float | str | None = None,
    norm: str = "linf",
    eot: int = 1,
    targeted: bool = False,
    **settings: Any,
) -> Attack[Any]:
    """Returns an attack by its registered name; settings that are None are left at the attack's own default.

    A minimum-norm attack doesn't get `epsilon`: it looks for the nearest example, wherever that is; a black box among
    them does, as it counts its queries until there. One that no ball holds gets neither that nor `norm`.

    Raises:
        InputError: for an unknown name, or a setting that the attack doesn't have.

    Example:
        >>> make_attack("pgd", epsilon=8 / 255, steps=20).name
        'pgd'
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    kind = ATTACKS[name]
    known = {item.name for item in dataclasses.fields(kind)}
    if epsilon is not None and "epsilon" in known and (kind.gradient_free or not kind.minimum_norm):
        settings["epsilon"] = epsilon
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in settings:
        if key not in known:
            raise InputError(f"Expected settings that {name!r} has. Received: {key}. Leave it out, or use pgd.")
    if kind.in_ball:
        settings["norm"] = norm
    return kind(eot=eot, targeted=targeted, **settings)
