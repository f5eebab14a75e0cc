"""What the commands take that judge a model beyond attacks. No TensorFlow here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kerasrobust.errors import InputError
from kerasrobust.fields import CardData, Epsilon, Keys, Option, Passes, Size, SomeSplit
from kerasrobust.names import SmoothingNoise, Version
from kerasrobust.settings import ModelConfig

NOTHING = Epsilon("0")
VotedNoise = Annotated[SmoothingNoise, Option("Noise that is voted under: gaussian (certifies in L2) or uniform (L1).")]


@dataclass(frozen=True, kw_only=True)
class AssessConfig(ModelConfig):
    """How fragile is a model? Several threats, their worst case and the audit, within a budget of minutes.

    Each threat is measured on as many images as its share of the budget allows.
    """

    kind: ClassVar[str] = "assess"
    most: ClassVar[int] = 1000
    resumes_unnamed: ClassVar[bool] = True

    data: CardData = None
    split: SomeSplit = None
    minutes: Annotated[float, Option("Budget; more minutes take more images.")] = 10.0
    version: Annotated[
        Version, Option("AutoAttack's version; `auto` is `rand` for a randomized network, else `adaptive`.")
    ] = "auto"
    passes: Passes = 20
    keys: Keys = None
    size: Size = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise InputError(f"Expected a budget above 0 minutes. Received: {self.minutes}. Try --minutes 10.")


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(ModelConfig):
    """Certify a model by randomized smoothing: the radius within which nothing changes its vote under noise.

    Gaussian noise certifies in L2, uniform noise in L1. Networks that weren't trained under such noise (`train
    --training gaussian`) mostly abstain.
    """

    kind: ClassVar[str] = "certify"
    most: ClassVar[int] = 200
    resumes_unnamed: ClassVar[bool] = True

    data: CardData = None
    split: SomeSplit = None
    sigma: Annotated[float, Option("Standard deviation of the noise in each pixel of an image in [0, 1].")] = 0.25
    noise: VotedNoise = "gaussian"  # type: ignore[assignment]
    samples: Annotated[
        int, Option("Noisy samples of each image that its bound is made of.", "number of samples", 1)
    ] = 100_000
    selection: Annotated[
        int, Option("Samples before those, which choose the class.", "number of samples that choose the class", 1)
    ] = 100
    alpha: Annotated[float, Option("Probability of each certificate to be wrong.")] = 0.001
    least_radius: Annotated[
        Epsilon, Option("Smallest radius of interest: images that can't reach it any more are abandoned, and abstain.")
    ] = NOTHING
    radii: Annotated[
        tuple[Epsilon, ...], Option("Radii of the table; without them the multiples of half of sigma.")
    ] = ()
    keys: Keys = None
    size: Size = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise InputError(f"Expected a sigma above 0. Received: {self.sigma}. Try 0.25.")
        if not 0 < self.alpha < 0.5:
            raise InputError(f"Expected alpha between 0 and 0.5. Received: {self.alpha}. Try 0.001.")

    def of_model(self) -> dict[str, Any]:
        # The noise of the command isn't that of layers, which is off.
        return {name: value for name, value in super().of_model().items() if name != "noise"}
