"""What the commands take that judge a model beyond attacks. No TensorFlow here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from kerasrobust.errors import InputError
from kerasrobust.fields import CardData, Keys, Option, Passes, Size, SomeSplit
from kerasrobust.names import Version
from kerasrobust.settings import ModelConfig


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
