"""What the commands take that judge a model beyond attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.fields import CardData, Keys, Option, Size, SomeSplit
from kerasrobust.names import CORRUPTIONS, SEVERITIES
from kerasrobust.settings import ModelConfig

GROUPS = tuple(dict.fromkeys(known.group for known in CORRUPTIONS.values()))
"""The groups of corruptions; the last is for validation."""


@dataclass(frozen=True, kw_only=True)
class CorruptionsConfig(ModelConfig):
    """Measure a model under common corruptions: noise, blur, weather and digital ones, at five severities."""

    kind: ClassVar[str] = "corruptions"
    most: ClassVar[int] = 1000
    resumes_unnamed: ClassVar[bool] = True

    data: CardData = None
    split: SomeSplit = None
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
    keys: Keys = None
    size: Size = None

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
