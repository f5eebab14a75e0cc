"""Attacks by name. All are called alike: `PGD(epsilon=8 / 255)(model, x, y) -> AttackResult`."""

from __future__ import annotations

from typing import Any

import kerasrobust
from kerasrobust.attacks.apgd import APGDCE, APGDDLR, APGDT, APGDMargin
from kerasrobust.attacks.cw import CW
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.fab import FAB, FABT
from kerasrobust.attacks.gradient import BIM, FGSM, FGSMRS, MIFGSM, PGD, RFGSM
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.attacks.registry import ATTACKS, make_attack
from kerasrobust.attacks.result import AttackResult
from kerasrobust.attacks.square import Square
from kerasrobust.events import AttackProgress as Step

__all__ = [
    "APGDCE",
    "APGDDLR",
    "APGDT",
    "ATTACKS",
    "BIM",
    "CW",
    "FAB",
    "FABT",
    "FGSM",
    "FGSMRS",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "APGDMargin",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "DeepFool",
    "HopSkipJump",
    "Square",
    "Step",
    "make_attack",
]


def __getattr__(name: str) -> Any:
    """Returns `AutoAttack`, a plan of an evaluation that lives there, by the package's own table of lazy names."""
    if name == "AutoAttack":
        return kerasrobust.AutoAttack
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
