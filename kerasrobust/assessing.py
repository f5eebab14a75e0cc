"""What the commands take that judge a model beyond attacks. No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.fields import CardData, Epsilon, Keys, Option, Passes, Size, SomeSplit
from kerasrobust.names import CORRUPTIONS, SEVERITIES, SmoothingNoise, Version
from kerasrobust.settings import ModelConfig, check_minutes, check_sigma

GROUPS = tuple(dict.fromkeys(known.group for known in CORRUPTIONS.values()))
"""The groups of corruptions; the last is for validation."""

NOTHING = Epsilon("0")


@dataclass(frozen=True, kw_only=True)
class JudgingConfig(ModelConfig):
    """What the commands take that judge a saved model on some data."""

    most: ClassVar[int] = 1000
    resumes_unnamed: ClassVar[bool] = True

    data: CardData = None
    split: SomeSplit = None
    keys: Keys = None
    size: Size = None


@dataclass(frozen=True, kw_only=True)
class AssessConfig(JudgingConfig):
    """How fragile is a model? Several threats, their worst case and the audit, within a budget of minutes.

    Each threat is measured on as many images as its share of the budget allows.
    """

    kind: ClassVar[str] = "assess"

    beside: Annotated[
        str | None,
        Option("Further saved models, with commas between them, that share the budget and are compared with it."),
    ] = None
    minutes: Annotated[float, Option("Budget; more minutes take more images.")] = 10.0
    version: Annotated[
        Version, Option("AutoAttack's version; `auto` is `rand` for a randomized network, else `adaptive`.")
    ] = "auto"
    sigma: Annotated[
        float | None,
        Option(
            "Standard deviation of the noise that certificates are by. Without it that which the model's card says it "
            "was trained under; without either there are none."
        ),
    ] = None
    passes: Passes = 20

    @property
    def others(self) -> tuple[str, ...]:
        """The models beside the first."""
        return tuple(filter(None, (name.strip() for name in (self.beside or "").split(","))))

    def named_twice(self) -> InputError:
        """Returns the error that one model stands twice among the first and those beside it."""
        return InputError(
            f"Expected other models beside {self.model}. Received: --beside {self.beside}, where one model is named "
            "twice. Name it once."
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None:
            check_sigma(self.sigma)
        if self.beside is not None and not self.others:
            raise InputError(f"Expected the names of models. Received: --beside {self.beside!r}. Try --beside convnet.")
        if len({self.model, *self.others}) <= len(self.others):
            raise self.named_twice()
        check_minutes(self.minutes)


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(JudgingConfig):
    """Certify a model by randomized smoothing: the radius within which nothing changes its vote under noise.

    Gaussian noise certifies in L2, uniform noise in L1. Networks that weren't trained under such noise (`train
    --training gaussian`) mostly abstain.
    """

    kind: ClassVar[str] = "certify"
    most: ClassVar[int] = 200

    sigma: Annotated[float, Option("Standard deviation of the noise in each pixel of an image in [0, 1].")] = 0.25
    smoothing_noise: Annotated[
        SmoothingNoise, Option("Noise that is voted under: gaussian (certifies in L2) or uniform (L1).")
    ] = "gaussian"
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma)
        if not 0 < self.alpha < 0.5:
            raise InputError(f"Expected alpha between 0 and 0.5. Received: {self.alpha}. Try 0.001.")


@dataclass(frozen=True, kw_only=True)
class CorruptionsConfig(JudgingConfig):
    """Measure a model under common corruptions: noise, blur, weather and digital ones, at five severities."""

    kind: ClassVar[str] = "corruptions"

    severity: Annotated[str, Option("Severities, with commas between them.")] = ",".join(map(str, SEVERITIES))
    kinds: Annotated[
        str | None,
        Option(
            f"Corruptions with commas between them, or their groups: {', '.join(GROUPS)}, or all. Without it the "
            "fifteen that the mean is over; `extra` has the four for validation. All: "
            f"{', '.join(CORRUPTIONS)}."
        ),
    ] = None
    reference: Annotated[
        str | None,
        Option(
            "Saved model, by name or path, in relation to whose errors the mean corruption error (mCE) is. Without it "
            "errors are given as they are."
        ),
    ] = None
    passes: Annotated[
        int, Option("Fresh passes over each corrupted image, by a randomized network.", "number of fresh passes", 1)
    ] = 5

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities that were asked for, in ascending order."""
        words = [word.strip() for word in self.severity.split(",")]
        wrong = [word for word in words if word not in map(str, SEVERITIES)]
        if wrong:
            raise InputError(
                f"Expected severities from {SEVERITIES[0]} to {SEVERITIES[-1]}, with commas between them. "
                f"Received: {self.severity!r}. Try {self.__class__.severity}."
            )
        return tuple(sorted(set(map(int, words))))

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions that were asked for, in the order of the registry."""
        words = [word.strip() for word in (self.kinds or ",".join(GROUPS[:-1])).split(",")]
        for word in words:
            if word not in CORRUPTIONS and word not in GROUPS and word != "all":
                raise unknown_name("corruption", word, [*CORRUPTIONS, *GROUPS, "all"])
        return tuple(
            kind for kind, known in CORRUPTIONS.items() if kind in words or known.group in words or "all" in words
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.severities, self.corruptions  # Refuse what can't be read.
