"""The words that settings may be, and the registries of attacks, data sources and corruptions. No TensorFlow here.

A new attack is one file with a subclass of `attacks.driver.Attack`, and one line in `ATTACKS`. A new kind of data set
is one file with a `data.dataset.Source`, and one line in `SOURCES`. A new corruption is a function on images
(`data.corruptions.corrupting`), and one line in `CORRUPTIONS`. The command line and its help, the form, tables and
reports, and the README learn of them from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

BallNorm = Literal["linf", "l2"]
Norm = Literal["linf", "l2", "l1", "l0"]
NormOrAuto = Literal["auto", "linf", "l2", "l1", "l0"]
EPSILONS = {"linf": "8/255", "l2": "0.5", "l1": "12", "l0": "24"}
"""The usual radius of each norm on colour images."""

Precision = Literal["auto", "float32", "folded", "bfloat16", "folded-xla", "bfloat16-xla"]
Training = Literal["standard", "fgsm", "nfgsm", "pgd", "trades", "mart", "alp", "adr", "free", "gaussian"]
OBJECTIVES_WITH: dict[str, tuple[str, ...]] = {
    "beta": ("trades", "mart", "alp"),
    "sigma": ("gaussian",),
    "attack_loss": ("pgd", "adr"),
    "steps_by_epoch": ("pgd", "adr", "trades", "mart", "alp"),
    "awp": ("pgd", "adr", "trades", "mart", "alp", "fgsm", "nfgsm"),
}
"""The objectives that a setting of `train` is for, where it isn't for all."""

AttackLoss = Literal["cross-entropy", "margin"]
Optimizer = Literal["sgd", "adamw", "muon"]
Schedule = Literal["cosine", "one-cycle", "piecewise", "constant"]
Version = Literal["auto", "standard", "adaptive", "plus", "rand"]

Activation = Literal["relu", "elu", "silu", "gelu", "softplus"]
Pooling = Literal["flatten", "average"]

Outputs = Literal["auto", "logits", "softmax", "sigmoid", "regression", "multi-label"]
Channels = Literal["auto", "last", "first"]
Colors = Literal["auto", "rgb", "bgr"]
Noise = Literal["off", "on"]
SmoothingNoise = Literal["gaussian", "uniform"]

TARGETS = ("next", "random", "least-likely")
"""Words for the classes that images are driven to."""

VARIANTS = ("di", "ti", "ni")
"""Of MI-FGSM: diverse inputs, translation-invariant and Nesterov gradients."""

ARCHITECTURES = ("lenet", "convnet", "resnet")


@dataclass(frozen=True)
class KnownAttack:
    """Where an attack's class is, imported when it is needed, what people call it, and its norms, the usual one first.

    Without `in_ball` what the attack may do is no ball: it has no epsilon, and the norm is only that of distances. One
    that is `gradient_free` asks for predictions only.
    """

    home: str
    title: str
    norms: tuple[Norm, ...] = ("linf", "l2")
    in_ball: bool = True
    gradient_free: bool = False

    @property
    def norm(self) -> Norm:
        """The usual norm."""
        return self.norms[0]


ATTACKS = {
    "autoattack": KnownAttack("kerasrobust.evaluation.autoattack:AutoAttack", "AutoAttack", ("linf", "l2", "l1")),
    "pgd": KnownAttack("kerasrobust.attacks.gradient:PGD", "PGD"),
    "fgsm": KnownAttack("kerasrobust.attacks.gradient:FGSM", "FGSM"),
    "rfgsm": KnownAttack("kerasrobust.attacks.gradient:RFGSM", "R-FGSM"),
    "fgsm-rs": KnownAttack("kerasrobust.attacks.gradient:FGSMRS", "FGSM-RS"),
    "bim": KnownAttack("kerasrobust.attacks.gradient:BIM", "BIM"),
    "mifgsm": KnownAttack("kerasrobust.attacks.mifgsm:MIFGSM", "MI-FGSM"),
    "apgd-ce": KnownAttack("kerasrobust.attacks.apgd:APGDCE", "APGD-CE", ("linf", "l2", "l1")),
    "apgd-dlr": KnownAttack("kerasrobust.attacks.apgd:APGDDLR", "APGD-DLR", ("linf", "l2", "l1")),
    "apgd-t": KnownAttack("kerasrobust.attacks.apgd:APGDT", "APGD-T", ("linf", "l2", "l1")),
    "apgd-margin": KnownAttack("kerasrobust.attacks.apgd:APGDMargin", "APGD-Margin", ("linf", "l2", "l1")),
    "apgd-nearest": KnownAttack("kerasrobust.attacks.apgd_nearest:APGDNearest", "APGD-Nearest"),
    "deepfool": KnownAttack("kerasrobust.attacks.deepfool:DeepFool", "DeepFool"),
    "superdeepfool": KnownAttack("kerasrobust.attacks.superdeepfool:SuperDeepFool", "SuperDeepFool", ("l2",)),
    "fab": KnownAttack("kerasrobust.attacks.fab:FAB", "FAB", ("linf", "l2", "l1")),
    "fab-t": KnownAttack("kerasrobust.attacks.fab:FABT", "FAB-T", ("linf", "l2", "l1")),
    "cw": KnownAttack("kerasrobust.attacks.cw:CW", "CW", ("l2",)),
    "ddn": KnownAttack("kerasrobust.attacks.ddn:DDN", "DDN", ("l2",)),
    "fmn": KnownAttack("kerasrobust.attacks.fmn:FMN", "FMN", ("linf", "l2", "l1", "l0")),
    "pdpgd": KnownAttack("kerasrobust.attacks.pdpgd:PDPGD", "PDPGD", ("l1",)),
    "sigma-zero": KnownAttack("kerasrobust.attacks.sigma_zero:SigmaZero", "σ-zero", ("l0",)),
    "universal": KnownAttack("kerasrobust.attacks.universal:Universal", "Universal perturbation"),
    "patch": KnownAttack("kerasrobust.attacks.patch:Patch", "Patch", ("l0",), in_ball=False),
    "universal-patch": KnownAttack(
        "kerasrobust.attacks.universal_patch:UniversalPatch", "Universal patch", ("l0",), in_ball=False
    ),
    "spatial": KnownAttack(
        "kerasrobust.attacks.spatial:Spatial", "Spatial", ("l0",), in_ball=False, gradient_free=True
    ),
    "sparse-rs": KnownAttack(
        "kerasrobust.attacks.sparse_rs:SparseRS", "Sparse-RS", ("l0",), in_ball=False, gradient_free=True
    ),
    "square": KnownAttack("kerasrobust.attacks.square:Square", "Square", ("linf", "l2", "l1"), gradient_free=True),
    "rays": KnownAttack("kerasrobust.attacks.rays:RayS", "RayS", ("linf",), gradient_free=True),
    "surfree": KnownAttack("kerasrobust.attacks.surfree:SurFree", "SurFree", ("l2",), gradient_free=True),
    "boundary": KnownAttack("kerasrobust.attacks.boundary:Boundary", "Boundary attack", ("l2",), gradient_free=True),
    "hopskipjump": KnownAttack("kerasrobust.attacks.hopskipjump:HopSkipJump", "HopSkipJump", gradient_free=True),
}


def confirming_name(attack: str) -> str:
    """Returns what is written for an attack that runs once more, to confirm what a cheaper version has left."""
    return f"{attack} (confirming)"


def registered_name(written: str) -> str:
    """Returns an attack's own name from what is written for it.

    Example:
        >>> registered_name("square (confirming)"), registered_name("square")
        ('square', 'square')
    """
    return written.removesuffix(confirming_name(""))


def norm_of(attacks: Iterable[str]) -> Norm:
    """Returns the norm of some attacks where none is said: linf, unless one of them hasn't got it.

    Those that no ball holds have no say in it.

    Example:
        >>> norm_of(["pgd"]), norm_of(["pgd", "cw"])
        ('linf', 'l2')
    """
    known = (ATTACKS[name] for name in attacks if name in ATTACKS)
    return next((attack.norm for attack in known if attack.in_ball and attack.norm != "linf"), "linf")


@dataclass(frozen=True)
class KnownSource:
    """Where a `data.dataset.Source` is, imported when it is needed, and how help says what it takes."""

    home: str
    takes: str


SOURCES = {
    "tfds": KnownSource("kerasrobust.data.tfds:SOURCE", "a TFDS name"),
    "shapes": KnownSource("kerasrobust.data.shapes:SOURCE", "`shapes` (embedded, synthetic)"),
    "file": KnownSource("kerasrobust.data.files:ARRAYS", "an .npz or .h5 file"),
    "folder": KnownSource("kerasrobust.data.folders:FOLDER", "a folder of images"),
}
"""The last one that takes a name reads it; the first takes any."""


@dataclass(frozen=True)
class KnownCorruption:
    """Where a corruption's function is, imported when it is needed, what people call it, and what group it is of.

    The group `extra` is for validation: it isn't among the fifteen that means are over.
    """

    home: str
    title: str
    group: Literal["noise", "blur", "weather", "digital", "extra"]


_NOISE, _BLUR, _WEATHER, _DIGITAL, _SPATTER = (
    f"kerasrobust.data.corruptions.{module}:" for module in ("noise", "blur", "weather", "digital", "spatter")
)
CORRUPTIONS = {
    "gaussian_noise": KnownCorruption(f"{_NOISE}gaussian_noise", "Gaussian noise", "noise"),
    "shot_noise": KnownCorruption(f"{_NOISE}shot_noise", "shot noise", "noise"),
    "impulse_noise": KnownCorruption(f"{_NOISE}impulse_noise", "impulse noise", "noise"),
    "defocus_blur": KnownCorruption(f"{_BLUR}defocus_blur", "defocus blur", "blur"),
    "glass_blur": KnownCorruption(f"{_BLUR}glass_blur", "glass blur", "blur"),
    "motion_blur": KnownCorruption(f"{_BLUR}motion_blur", "motion blur", "blur"),
    "zoom_blur": KnownCorruption(f"{_BLUR}zoom_blur", "zoom blur", "blur"),
    "snow": KnownCorruption(f"{_WEATHER}snow", "snow", "weather"),
    "frost": KnownCorruption(f"{_WEATHER}frost", "frost (procedural)", "weather"),
    "fog": KnownCorruption(f"{_WEATHER}fog", "fog", "weather"),
    "brightness": KnownCorruption(f"{_WEATHER}brightness", "brightness", "weather"),
    "contrast": KnownCorruption(f"{_DIGITAL}contrast", "contrast", "digital"),
    "elastic_transform": KnownCorruption(f"{_DIGITAL}elastic_transform", "elastic transform", "digital"),
    "pixelate": KnownCorruption(f"{_DIGITAL}pixelate", "pixelate", "digital"),
    "jpeg_compression": KnownCorruption(f"{_DIGITAL}jpeg_compression", "JPEG compression", "digital"),
    "speckle_noise": KnownCorruption(f"{_NOISE}speckle_noise", "speckle noise", "extra"),
    "gaussian_blur": KnownCorruption(f"{_BLUR}gaussian_blur", "Gaussian blur", "extra"),
    "spatter": KnownCorruption(f"{_SPATTER}spatter", "spatter", "extra"),
    "saturate": KnownCorruption(f"{_DIGITAL}saturate", "saturate", "extra"),
}
"""Those of Hendrycks and Dietterich 2019: the fifteen in the paper's order, then the four for validation."""

SEVERITIES = (1, 2, 3, 4, 5)


def uncorrupted(name: str) -> str:
    """Returns the name of the data that a name says to corrupt, and any other name as it is.

    Example:
        >>> uncorrupted("cifar10+fog:3"), uncorrupted("c+d.npz")
        ('cifar10', 'c+d.npz')
    """
    base, _, last = name.rpartition("+")
    known = base and last.partition(":")[0] in CORRUPTIONS
    return uncorrupted(base) if known else name


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0,1": ((1.0,), (0.0,)),
    "0,255": ((255.0,), (0.0,)),
    "-1,1": ((2.0,), (-1.0,)),
    "imagenet": (
        tuple(1 / deviation for deviation in _DEVIATION),
        tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "caffe": ((255.0,), (-103.939, -116.779, -123.68)),
}
"""Factors and offsets, one or one for each channel, that take pixels in [0, 1] to what a model eats. `imagenet` and
`caffe` are the modes "torch" and "caffe" of `keras.applications.imagenet_utils.preprocess_input`; `caffe` takes BGR."""


SPLIT_TERM = re.compile(r"\s*(\w*)\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*")
"""A term of a split in TFDS's notation: a part's name, and where a slice of it begins and ends."""


def is_split(written: str) -> bool:
    """Returns whether a split is in TFDS's notation, whatever the parts of the data are called.

    Example:
        >>> is_split("test[:10%]+train"), is_split("test[:10")
        (True, False)
    """
    return all(term.strip() and SPLIT_TERM.fullmatch(term) for term in written.split("+"))
