"""The words that settings may be, and the registry of attacks. No TensorFlow here.

A new attack is one file with a subclass of `attacks.driver.Attack`, and one line in `ATTACKS`: the command line and its
help, the form, tables and reports, and the README's table learn of it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BallNorm = Literal["linf", "l2"]
Norm = Literal["linf", "l2", "l1"]
Precision = Literal["auto", "float32", "folded", "bfloat16", "folded-xla", "bfloat16-xla"]
Training = Literal["standard", "fgsm", "pgd"]
Version = Literal["auto", "standard", "plus", "rand"]

ARCHITECTURES = ("lenet", "convnet", "resnet")


@dataclass(frozen=True)
class KnownAttack:
    """Where an attack is found, imported when it is needed, and what people call it."""

    home: str
    title: str


ATTACKS = {
    "autoattack": KnownAttack("kerasrobust.evaluation.autoattack:AutoAttack", "AutoAttack"),
    "pgd": KnownAttack("kerasrobust.attacks.gradient:PGD", "PGD"),
    "fgsm": KnownAttack("kerasrobust.attacks.gradient:FGSM", "FGSM"),
    "rfgsm": KnownAttack("kerasrobust.attacks.gradient:RFGSM", "R-FGSM"),
    "fgsm-rs": KnownAttack("kerasrobust.attacks.gradient:FGSMRS", "FGSM-RS"),
    "bim": KnownAttack("kerasrobust.attacks.gradient:BIM", "BIM"),
    "mifgsm": KnownAttack("kerasrobust.attacks.gradient:MIFGSM", "MI-FGSM"),
    "apgd-ce": KnownAttack("kerasrobust.attacks.apgd:APGDCE", "APGD-CE"),
    "apgd-dlr": KnownAttack("kerasrobust.attacks.apgd:APGDDLR", "APGD-DLR"),
    "apgd-t": KnownAttack("kerasrobust.attacks.apgd:APGDT", "APGD-T"),
    "apgd-margin": KnownAttack("kerasrobust.attacks.apgd:APGDMargin", "APGD-Margin"),
    "deepfool": KnownAttack("kerasrobust.attacks.deepfool:DeepFool", "DeepFool"),
    "fab": KnownAttack("kerasrobust.attacks.fab:FAB", "FAB"),
    "fab-t": KnownAttack("kerasrobust.attacks.fab:FABT", "FAB-T"),
    "cw": KnownAttack("kerasrobust.attacks.cw:CW", "CW"),
    "square": KnownAttack("kerasrobust.attacks.square:Square", "Square"),
    "hopskipjump": KnownAttack("kerasrobust.attacks.hopskipjump:HopSkipJump", "HopSkipJump"),
}
