"""What the command `export` takes. No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kerasrobust.fields import Option
from kerasrobust.settings import CommandConfig

ExportFormat = Literal["csv", "latex", "markdown", "svg", "png", "npz", "tensorboard"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandConfig):
    """Write a run's tables, figures, images or curves as files for other programs.

    csv and latex: its tables. svg and png: its figures; png also the adversarial images, two files each. npz: the
    adversarial images as arrays. markdown: a section for a model card. tensorboard: the curves of training and attacks.
    """

    kind: ClassVar[str] = "export"

    run: Annotated[str, Option("Name or folder of a run, or of a saved model.", positional=True)]
    format: Annotated[ExportFormat, Option("What to write.")]
    to: Annotated[
        Path | None,
        Option("Folder for the files; without it `export` in the run's folder, for a saved model ./NAME-export."),
    ] = None
    overwrite: Annotated[bool, Option("Replace files that are there already.")] = False
