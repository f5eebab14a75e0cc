"""The table of attacks that the rules for all are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasrobust.attacks import (
    APGDCE,
    APGDDLR,
    APGDT,
    BIM,
    CW,
    DDN,
    FAB,
    FABT,
    FGSM,
    FGSMRS,
    FMN,
    MIFGSM,
    PDPGD,
    PGD,
    RFGSM,
    APGDMargin,
    APGDNearest,
    Attack,
    Boundary,
    DeepFool,
    HopSkipJump,
    Patch,
    RayS,
    SigmaZero,
    SparseRS,
    Spatial,
    Square,
    SuperDeepFool,
    SurFree,
    Universal,
    UniversalPatch,
)
from kerasrobust.attacks.apgd import APGD

EPSILON = {"linf": 0.05, "l2": 0.5, "l1": 1.5}


@dataclass(frozen=True)
class Case:
    """An attack with what is special about it."""

    make: Callable[..., Attack]
    random: bool = False
    targeted: bool = True
    gradients: int = 1
    """Gradient evaluations of a whole attack on one example without early stop; 0: it stops by itself."""


def case(kind: type[Attack], norm: str, random: bool = False, gradients: int = 1, **settings: Any) -> Case:
    if kind.minimum_norm:
        return Case(lambda **more: kind(norm=norm, **settings, **more), random, targeted=False, gradients=0)
    settings |= {"norm": norm}
    if not kind.in_ball:  # There is no radius 0, and so none from which no target is reached.
        return Case(lambda **more: kind(**settings, **more), random, targeted=False, gradients=gradients)
    # They choose their targets, or reach them in their own time, or can't reach another one on each image.
    own = issubclass(kind, APGD) or kind in (Square, Universal)

    def make(epsilon: float = EPSILON[norm], **more: Any) -> Attack:
        return kind(epsilon=epsilon, **settings, **more)

    return Case(make, random, targeted=not own, gradients=gradients)


TABLE = {
    f"{name}-{norm}": made
    for norm in ("linf", "l2")
    for name, made in {
        "fgsm": case(FGSM, norm),
        "rfgsm": case(RFGSM, norm, random=True),
        "fgsm-rs": case(FGSMRS, norm, random=True),
        "bim": case(BIM, norm, steps=4, gradients=4),
        "pgd": case(PGD, norm, steps=5, random=True, gradients=5),
        "pgd restarts": case(PGD, norm, steps=2, restarts=3, random=True, gradients=6),
        "mifgsm": case(MIFGSM, norm, steps=3, gradients=3),
        "mifgsm variants": case(
            # Of many images the best is the unchanged one, as blurred gradients don't lower the margin of random nets.
            MIFGSM,
            norm,
            steps=3,
            gradients=3,
            random=True,
            variants="di-ti-ni",
            kernel_size=3,
            keep_best=False,
        ),
        # All 50 images in each step, so that each costs what it does for itself.
        "universal": case(Universal, norm, steps=4, images=50, random=True, gradients=4),
        "deepfool": case(DeepFool, norm, steps=10),
        "apgd-ce": case(APGDCE, norm, steps=5, random=True, gradients=5),
        "apgd-dlr": case(APGDDLR, norm, steps=4, restarts=2, random=True, gradients=8),
        "apgd-margin": case(APGDMargin, norm, steps=3, random=True, gradients=3),
        "apgd-t": case(APGDT, norm, steps=3, targets=2, random=True, gradients=6),
        "fab": case(FAB, norm, steps=6),
        "fab-t": case(FABT, norm, steps=5, targets=2),
        "fmn": case(FMN, norm, steps=12),
        "apgd-nearest": case(APGDNearest, norm, steps=12),
        "square": case(Square, norm, queries=12, random=True, gradients=0),
        "hopskipjump": case(HopSkipJump, norm, queries=150, initial_queries=10, random=True),
    }.items()
} | {
    "rays-linf": case(RayS, "linf", queries=60),
    "surfree-l2": case(SurFree, "l2", queries=60, random=True),
    "boundary-l2": case(Boundary, "l2", queries=150, random=True),
    "cw-l2": case(CW, "l2", steps=10, binary_steps=3),
    "ddn-l2": case(DDN, "l2", steps=12),
    "superdeepfool-l2": case(SuperDeepFool, "l2", steps=12),
    # Two steps go to the smaller balls.
    "apgd-ce multi-radius-l1": case(APGDCE, "l1", steps=5, multi_radius=True, random=True, gradients=7),
    "fab-l1": case(FAB, "l1", steps=6),
    "fmn-l1": case(FMN, "l1", steps=12),
    "pdpgd-l1": case(PDPGD, "l1", steps=12),
    "sigma-zero-l0": case(SigmaZero, "l0", steps=12),
    "fmn-l0": case(FMN, "l0", steps=12),
    "patch-l0": case(Patch, "l0", size=3, steps=4, restarts=2, random=True, gradients=8),
    "universal-patch-l0": case(UniversalPatch, "l0", size=3, steps=4, images=50, restarts=2, random=True, gradients=4),
    "sparse-rs-l0": case(SparseRS, "l0", budget=4, queries=12, restarts=2, random=True, gradients=0),
    # An even number of angles: the image itself isn't in the grid.
    "spatial-l0": case(Spatial, "l0", rotations=4, translations=3, gradients=0),
}
NOISY = [
    f"{name}-{norm}"
    for norm, names in {
        "linf": (
            "fgsm", "fgsm-rs", "pgd", "mifgsm", "apgd-ce", "apgd-t", "fab", "fmn", "square", "universal", "rays",
        ),
        "l2": (
            "rfgsm", "bim", "pgd restarts", "deepfool", "apgd-dlr", "apgd-margin", "fab-t", "hopskipjump", "cw", "ddn",
            "superdeepfool", "apgd-nearest", "surfree", "boundary",
        ),
        "l1": ("apgd-ce multi-radius", "pdpgd"),
        "l0": ("sigma-zero", "patch", "universal-patch", "sparse-rs", "spatial"),
    }.items()
    for name in names
]  # fmt: skip
"""Attacks that are tried on a randomized network: each once, and each family in both norms."""
