"""The objectives of training by name, one file each; `objective` says what one is."""

from __future__ import annotations

from kerasrobust.training.objectives.adr import ADR
from kerasrobust.training.objectives.alp import ALP
from kerasrobust.training.objectives.fgsm import FGSM
from kerasrobust.training.objectives.free import Free
from kerasrobust.training.objectives.gaussian import Gaussian
from kerasrobust.training.objectives.mart import MART
from kerasrobust.training.objectives.nfgsm import NFGSM
from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.objectives.pgd import PGD
from kerasrobust.training.objectives.standard import Standard
from kerasrobust.training.objectives.trades import TRADES

__all__ = [
    "ADR",
    "ALP",
    "FGSM",
    "MART",
    "NFGSM",
    "OBJECTIVES",
    "PGD",
    "TRADES",
    "Free",
    "Gaussian",
    "Objective",
    "Standard",
]

OBJECTIVES: dict[str, type[Objective]] = {
    kind.name: kind for kind in (Standard, FGSM, NFGSM, PGD, TRADES, MART, ALP, ADR, Free, Gaussian)
}
