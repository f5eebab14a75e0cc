"""Attacks by name. All are called alike: `PGD(epsilon=8 / 255)(model, x, y) -> AttackResult`."""

from __future__ import annotations

import pkgutil
from typing import Any

from kerasrobust import names
from kerasrobust.attacks.apgd import APGDCE, APGDDLR, APGDT, APGDMargin
from kerasrobust.attacks.apgd_nearest import APGDNearest
from kerasrobust.attacks.boundary import Boundary
from kerasrobust.attacks.cw import CW
from kerasrobust.attacks.ddn import DDN
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.fab import FAB, FABT
from kerasrobust.attacks.fmn import FMN
from kerasrobust.attacks.gradient import BIM, FGSM, FGSMRS, PGD, RFGSM
from kerasrobust.attacks.hopskipjump import HopSkipJump
from kerasrobust.attacks.mifgsm import MIFGSM
from kerasrobust.attacks.patch import Patch, apply_patch
from kerasrobust.attacks.pdpgd import PDPGD
from kerasrobust.attacks.rays import RayS
from kerasrobust.attacks.registry import ATTACKS, make_attack
from kerasrobust.attacks.result import AttackResult
from kerasrobust.attacks.sigma_zero import SigmaZero
from kerasrobust.attacks.sparse_rs import SparseRS
from kerasrobust.attacks.spatial import Spatial
from kerasrobust.attacks.square import Square
from kerasrobust.attacks.superdeepfool import SuperDeepFool
from kerasrobust.attacks.surfree import SurFree
from kerasrobust.attacks.universal import Universal
from kerasrobust.attacks.universal_patch import UniversalPatch
from kerasrobust.events import AttackProgress as Step

__all__ = [
    "APGDCE",
    "APGDDLR",
    "APGDT",
    "ATTACKS",
    "BIM",
    "CW",
    "DDN",
    "FAB",
    "FABT",
    "FGSM",
    "FGSMRS",
    "FMN",
    "MIFGSM",
    "PDPGD",
    "PGD",
    "RFGSM",
    "APGDMargin",
    "APGDNearest",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "Boundary",
    "DeepFool",
    "HopSkipJump",
    "Patch",
    "RayS",
    "SigmaZero",
    "SparseRS",
    "Spatial",
    "Square",
    "Step",
    "SuperDeepFool",
    "SurFree",
    "Universal",
    "UniversalPatch",
    "apply_patch",
    "make_attack",
]


def __getattr__(name: str) -> Any:
    """Returns the class of an attack of the registry that isn't imported above, such as `AutoAttack`."""
    for known in names.ATTACKS.values():
        if known.home.endswith(f":{name}"):
            return pkgutil.resolve_name(known.home)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
