"""Attacks by name. All are called alike: `PGD(epsilon=8 / 255)(model, x, y) -> AttackResult`."""

from __future__ import annotations

from kerasrobust.attacks.apgd import APGDCE, APGDDLR, APGDT, APGDMargin
from kerasrobust.attacks.autoattack import AutoAttack
from kerasrobust.attacks.base import Attack, AttackResult
from kerasrobust.attacks.batch import Step
from kerasrobust.attacks.cw import CW
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.fab import FAB, FABT
from kerasrobust.attacks.gradient import BIM, FGSM, FGSMRS, MIFGSM, PGD, RFGSM
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.attacks.registry import ATTACKS, make_attack
from kerasrobust.attacks.square import Square

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
