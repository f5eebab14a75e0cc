"""Attacks by name. All are called alike: `PGD(epsilon=8 / 255)(model, x, y) -> AttackResult`."""

from __future__ import annotations

from kerasrobust.attacks.base import Attack, AttackResult, Step
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.gradient import BIM, FGSM, FGSMRS, MIFGSM, PGD, RFGSM

ATTACKS: dict[str, type[Attack]] = {kind.name: kind for kind in (FGSM, RFGSM, FGSMRS, BIM, PGD, MIFGSM, DeepFool)}

__all__ = ["ATTACKS", "BIM", "FGSM", "FGSMRS", "MIFGSM", "PGD", "RFGSM", "Attack", "AttackResult", "DeepFool", "Step"]
