"""The table of a command's settings, from which command line, form and checks are made. No TensorFlow here.

A config class annotates each setting with its type and an `Option`; `fields` returns them as a tuple of `Field`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.names import (
    EPSILONS,
    RANGES,
    SOURCES,
    Activation,
    AttackLoss,
    Channels,
    Colors,
    Noise,
    Optimizer,
    Outputs,
    Pooling,
    Schedule,
    Training,
)

Group = Literal["own", "model", "common", "output", "outside"]


class Epsilon(float):
    """A radius in units of an image in [0, 1], read from `8/255` as well as from `0.031`.

    Raises:
        InputError: for text that is not a number, and for a radius that is negative, infinite or NaN.

    Example:
        >>> round(Epsilon("8/255"), 4)
        0.0314
    """

    def __new__(cls, value: str | float = 0.0) -> Epsilon:
        try:
            top, _, bottom = str(value).partition("/")
            number = float(top) / float(bottom) if bottom else float(top)
        except (ValueError, ZeroDivisionError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0) or str(value).endswith("/"):
            raise InputError(
                f"Expected a radius (epsilon) as a number of at least 0, such as 8/255 or 0.031. Received: {value}. "
                "Give it in units of an image in [0, 1]."
            )
        return super().__new__(cls, number)


def scaling(input_range: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Returns the factors and offsets, one or one for each channel, that take [0, 1] to a range; None for "auto".

    Raises:
        InputError: for a range that can't be read.

    Example:
        >>> scaling("-1,1")
        ((2.0,), (-1.0,))
    """
    if input_range == "auto":
        return None
    if input_range in RANGES:
        return RANGES[input_range]
    mean, slash, deviation = input_range.partition("/")
    try:
        means, deviations = ([float(word) for word in part.split(",")] for part in (mean, deviation or "1"))
        if slash and all(number > 0 for number in deviations) and len(means) in (1, len(deviations)):
            means = means * (len(deviations) // len(means))
            pairs = list(zip(means, deviations, strict=True))
            return tuple(1 / d for _, d in pairs), tuple(-m / d for m, d in pairs)
        # From a larger to a smaller number where black and white are exchanged.
        if not slash and len(means) == 2 and means[0] != means[1] and all(map(math.isfinite, means)):
            return (means[1] - means[0],), (means[0],)
    except ValueError:
        pass
    raise InputError(
        f"Expected a range of pixels: auto, {', '.join(RANGES)}, two numbers LOW,HIGH, or MEAN/STD of images in [0, 1] "
        f"as 0.5,0.5,0.5/0.2,0.2,0.2. Received: {input_range!r}. Choose one."
    )


def written(value: Any) -> str:
    """Returns a value as a person types it: radii as n/255 where possible."""
    if isinstance(value, Epsilon):
        levels = round(value * 255)
        return f"{levels}/255" if 0 < levels <= 255 and levels / 255 == value else repr(float(value))
    return str(value)


@dataclass(frozen=True)
class Option:
    """What the type of a setting doesn't say.

    Attributes:
        help: one or more sentences for people.
        what: its name in messages, such as `number of steps`.
        least: the smallest value allowed.
        group: whether it is the command's own, about how the model takes images, common to all commands, about the
            output, or outside the form (because
            it only matters on a terminal, or is set by the UI itself).
        positional: whether it is typed without the option's name.
    """

    help: str
    what: str = ""
    least: float | None = None
    group: Group = "own"
    positional: bool = False


_EXPECTED: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    Epsilon: ("a radius such as 8/255", "radii such as 4/255 8/255"),
    str: ("text", "words"),
    Path: ("a path", "paths"),
}


@dataclass(frozen=True, kw_only=True)
class Field(Option):
    """One setting of a command.

    Attributes:
        name: its name in the config class.
        type: the type of its value, or of each of its values.
        default: the default as text, empty for None; None for a required setting.
        choices: all possible values, if there is a fixed list.
        is_optional: whether it may be None.
        is_list: whether it has several values.
    """

    name: str
    type: Any
    default: str | None
    choices: tuple[str, ...]
    is_optional: bool
    is_list: bool

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        return self.type is bool

    @property
    def expected(self) -> str:
        """What to type, such as `a whole number`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return "yes or no" if self.is_switch else _EXPECTED[self.type][self.is_list]

    def read(self, words: Sequence[str]) -> Any:
        """Returns the value of words as they are typed.

        Raises:
            ValueError: for a word of another type; an InputError if the type itself explains what is wrong.
        """
        if self.is_list:
            return tuple(self.type(word) for word in words)
        (word,) = words
        if self.is_optional and (word == "None" or (word.lower() == "none" and self.type not in (str, Path))):
            return None
        return self.type(word)

    def restore(self, value: Any) -> Any:
        """Returns a value read from JSON as the type of this setting; values of other types are left as they are."""
        if isinstance(value, list):
            return tuple(self.restore(item) for item in value)
        if (self.type is Path and isinstance(value, str)) or (self.type is Epsilon and value is not None):
            return self.type(value)
        return value

    def check(self, value: Any) -> None:
        """Raises InputError for a value outside the choices or below the smallest one."""
        if self.choices and value not in self.choices:
            raise unknown_name(self.name, str(value), self.choices)
        if self.least is not None and value is not None and not (math.isfinite(value) and value >= self.least):
            raise InputError(
                f"Expected a {self.what or self.label} of at least {self.least:g}. Received: {value}. "
                "Give a larger one."
            )


def text(value: Any) -> str:
    """Returns a setting's value as the form shows it.

    Example:
        >>> text((Epsilon("4/255"), Epsilon("8/255"))), text(True), text(None)
        ('4/255 8/255', 'yes', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(written, value)) if isinstance(value, tuple) else written(value)


def fields(config: type) -> tuple[Field, ...]:
    """Returns the table of a config class, in the order of its dataclass fields; what is outside of the run comes last,
    as people write it.
    """
    return _fields(cast(Hashable, config))


@functools.cache
def _fields(config: Any) -> tuple[Field, ...]:
    hints = get_type_hints(config, include_extras=True)
    table = [_field(item, *get_args(hints[item.name])) for item in dataclasses.fields(config)]
    return tuple(sorted(table, key=lambda item: item.group == "outside"))


def _field(item: dataclasses.Field[Any], hint: Any, option: Option) -> Field:
    is_list = get_origin(hint) is tuple
    is_literal = get_origin(hint) is Literal
    parts = () if is_literal else get_args(hint)
    return Field(
        **vars(option),
        name=item.name,
        type=str if is_literal else next((part for part in parts if part not in (NoneType, ...)), hint),
        default=None if item.default is dataclasses.MISSING else text(item.default),
        choices=get_args(hint) if is_literal else (),
        is_optional=NoneType in parts,
        is_list=is_list,
    )


# Settings that several commands share.
SavedModel = Annotated[
    str,
    Option(
        "A saved model's name under --models-dir, or a path: .keras, .h5, .tflite, .onnx, or a SavedModel folder of "
        "any origin."
    ),
]
Code = Annotated[
    Path | None,
    Option(
        "Python file with the model's own layers and functions. It is run, and so are Lambda layers in the model.",
        group="model",
    ),
]
Output = Annotated[
    str | None, Option("Name of the output with the logits, for a model of several outputs.", group="model")
]
InputRange = Annotated[
    str,
    Option(
        f"Pixels that the model takes: auto (found out on images), {', '.join(RANGES)}, LOW,HIGH, or MEAN/STD of "
        "images in [0, 1]. Epsilon always means images in [0, 1].",
        group="model",
    ),
]
ColorOrder = Annotated[Colors, Option("Order of the colours that the model takes; `auto` finds it out.", group="model")]
ChannelPlace = Annotated[
    Channels, Option("Where the model has the channels; `auto` reads it off the model.", group="model")
]
OutputKind = Annotated[
    Outputs,
    Option(
        "What the model gives; `auto` finds it out. One output stands for two classes; `regression`: it was trained "
        "towards 0 and 1, with the threshold 0.5; `multi-label`: each output is a label by itself, as it is where "
        "images have several labels.",
        group="model",
    ),
]
LayerNoise = Annotated[
    Noise,
    Option(
        "Whether layers that were called with training=True keep their noise, as in model(x), or not, as in predict.",
        group="model",
    ),
]
Resize = Annotated[bool, Option("Resize images of another size to the model's, inside the model.", group="model")]
_SOURCES = [known.takes for known in SOURCES.values()]
_DATA = f"Data set: {', '.join(_SOURCES[:-1])}, or {_SOURCES[-1]}; with `+fog:3` behind it under that corruption"
Data = Annotated[str, Option(f"{_DATA}.")]
CardData = Annotated[str | None, Option(f"{_DATA}. Without it that of the model's card, or `shapes`.")]
Keys = Annotated[
    str | None, Option("IMAGES,LABELS: names of the arrays in an .npz or .h5 file; x,y without it.", group="common")
]
Size = Annotated[
    str | None,
    Option(
        "N or HEIGHTxWIDTH: the images of a folder are resized to cover that, and cropped at the centre; "
        "`stretch:N` stretches them, as the loaders of Keras do.",
        group="common",
    ),
]
Split = Annotated[str, Option("Part of the data, in TFDS's syntax.")]
SomeSplit = Annotated[
    str | None,
    Option(
        "Part of the data, in TFDS's syntax; without it all images of an own file or folder, the test images of other "
        "data, but at most 1,000 (audit: 500, randomness and certify: 200)."
    ),
]
RADII = f"Without it {', '.join(f'{radius} in {norm}' for norm, radius in EPSILONS.items())}."
TrainSplit = Annotated[str, Option("Part of the data to train on.")]
AttackedSplit = Annotated[str, Option("Part of the data that is attacked.")]
StudyEot = Annotated[int, Option("Passes of the attacks with EOT on randomized networks.", "number of EOT passes", 2)]
Passes = Annotated[
    int, Option("Fresh passes that judge each example of a randomized network.", "number of fresh passes", 1)
]
TrainingObjective = Annotated[
    Training,
    Option(
        "Objective: clean images (standard, gaussian with noise), one attack step (fgsm, nfgsm, free), PGD (pgd), "
        "PGD with labels from the network's own average (adr), or attacked and clean images together (trades, mart, "
        "alp)."
    ),
]
Beta = Annotated[
    float | None,
    Option(
        "Weight of the change between clean and attacked image in trades, mart and alp; without it 6, 5 and 0.5.",
        least=0,
    ),
]
WeightPerturbation = Annotated[
    float,
    Option("Adversarial weight perturbation (AWP), relative to the weights; 0 for none, 0.005 is usual.", least=0),
]
Sigma = Annotated[float, Option("Deviation of the noise that `gaussian` trains with.")]
Average = Annotated[
    float | None,
    Option(
        "How much of the moving average of the weights is kept from step to step, such as 0.999; the average is then "
        "evaluated and saved. Without it none, but for adr 0.995.",
        least=0,
    ),
]
Smoothing = Annotated[float, Option("Share of each label that is spread over all classes.", least=0)]
TrainingAttackLoss = Annotated[AttackLoss, Option("What the training attack of pgd and adr maximises.")]
StepsByEpoch = Annotated[
    tuple[str, ...],
    Option("PGD steps by epoch, as EPOCH:STEPS: `0:1 5:2` takes 1 step, and 2 from epoch 5 on."),
]
OptimizerName = Annotated[
    Optimizer, Option("SGD with Nesterov momentum; AdamW; Muon for dense kernels, AdamW for others.")
]
RateSchedule = Annotated[
    Schedule,
    Option(
        "Course of the learning rate: `cosine` rises for a tenth of the training and falls to 0; `one-cycle` does so "
        "linearly; `piecewise` falls to a tenth after a half and after three quarters."
    ),
]
Teacher = Annotated[
    str | None, Option("Saved model whose predictions on clean images are the labels (robust distillation).")
]
TrainingCorruptions = Annotated[
    tuple[str, ...],
    Option(
        "Common corruptions in training, such as `gaussian_noise fog`: half of each batch is under one of them, at one "
        "severity, both drawn anew."
    ),
]
LastPooling = Annotated[
    Pooling,
    Option(
        "After the last block of `convnet`: `flatten` it for one more dense layer, or take the `average` over the "
        "image, without that layer."
    ),
]
ActivationName = Annotated[Activation, Option("Of `convnet` and `resnet`; the slope of all but `relu` has no jump.")]
Stem = Annotated[int, Option("Strides of the first convolution; 2 halves the sides of the image first.", least=1)]
