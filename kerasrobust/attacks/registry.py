"""Attacks by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from kerasrobust.attacks.apgd import APGDCE, APGDDLR, APGDT, APGDMargin
from kerasrobust.attacks.cw import CW
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.fab import FAB, FABT
from kerasrobust.attacks.gradient import BIM, FGSM, FGSMRS, MIFGSM, PGD, RFGSM
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.attacks.square import Square
from kerasrobust.errors import InputError, unknown_name

ATTACKS: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        FGSM, RFGSM, FGSMRS, BIM, PGD, MIFGSM, DeepFool, APGDCE, APGDDLR, APGDMargin, APGDT, FAB, FABT, CW, Square,
        HopSkipJump,
    )
}  # fmt: skip


def make_attack(
    name: str, *, epsilon: float | None = None, norm: str = "linf", eot: int = 1, **settings: Any
) -> Attack:
    """Returns an attack by its registered name; settings that are None are left at the attack's own default.

    A minimum-norm attack doesn't get `epsilon`: it looks for the nearest example, wherever that is.

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
    if epsilon is not None and "epsilon" in known and not kind.minimum_norm:
        settings["epsilon"] = epsilon
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in settings:
        if key not in known:
            raise InputError(f"Expected settings that {name!r} has. Received: {key}. Leave it out, or use pgd.")
    return kind(norm=norm, eot=eot, **settings)  # type: ignore[arg-type]
