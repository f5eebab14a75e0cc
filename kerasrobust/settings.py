"""What every run is: a frozen dataclass, validated, to JSON and back; and the radii of balls. No TensorFlow here.

`config` has one for each command. Command line and form are made from these classes by `fields.fields`. What can be
known without data and model is checked here.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.fields import (
    ChannelPlace,
    Code,
    ColorOrder,
    Epsilon,
    InputRange,
    LayerNoise,
    Option,
    Output,
    OutputKind,
    Resize,
    SavedModel,
    fields,
    scaling,
    written,
)
from kerasrobust.names import (
    EPSILONS,
    VARIANTS,
    Precision,
)

EPSILON = Epsilon("8/255")
"""The usual radius on colour images."""


def radius(epsilon: float | str | None, norm: str) -> float:
    """Returns a radius, or the usual one of the norm: 8/255 in Linf, 0.5 in L2, 12 in L1, 24 values in L0.

    Raises:
        InputError: for what is no number, and no text of one such as "8/255".
    """
    if epsilon is None:
        return float(Epsilon(EPSILONS.get(norm, EPSILON)))
    try:
        number: float | str = float(epsilon)
    except (TypeError, ValueError):
        number = " ".join(str(epsilon).split())
    return float(Epsilon(number))


def radii(epsilons: Iterable[float | str], norm: str) -> tuple[float, ...]:
    """Returns several radii, each once and the smallest first.

    Raises:
        InputError: as `radius` and `check_epsilon` do.
    """
    found = sorted({radius(epsilon, norm) for epsilon in epsilons})
    for epsilon in found:
        check_epsilon(epsilon, norm)
    return tuple(found)


def read_epsilon(settings: Any) -> None:
    """Checks the `epsilon` of a frozen dataclass that has a `norm`, and makes a number of a text such as "8/255".

    Raises:
        InputError: as `radius` and `check_epsilon` do.
    """
    if settings.epsilon is not None and not isinstance(settings.epsilon, int | float):
        object.__setattr__(settings, "epsilon", radius(settings.epsilon, settings.norm))
    check_epsilon(settings.epsilon, settings.norm)


def check_epsilon(epsilon: float, norm: str) -> None:
    """Raises InputError for a radius that is negative or non-finite, an Linf radius above 1, and an L0 radius below."""
    Epsilon(epsilon)
    if isinstance(epsilon, str):
        raise InputError(f"Expected a radius (epsilon) as a number. Received: text, {epsilon!r}. Leave out the quotes.")
    if norm == "l0" and 0 < epsilon < 1:
        raise InputError(
            f"Expected an L0 epsilon of at least 1, as it counts changed values. Received: {epsilon:g}. Try 24."
        )
    if norm == "linf" and epsilon > 1:
        raise InputError(
            f"Expected an Linf epsilon of at most 1, as images lie in [0, 1]. Received: {epsilon:g}. "
            f"Did you mean {epsilon:g}/255?"
        )


def check_numbers(settings: Any) -> None:
    """Raises InputError for text where a dataclass has a number; `epsilon`, which may be text, has its own check."""
    for item in dataclasses.fields(settings):
        value, kinds = getattr(settings, item.name), str(item.type).removesuffix(" | None")
        if kinds in ("int", "float") and isinstance(value, str) and item.name != "epsilon":
            raise InputError(f"Expected {item.name} as a number. Received: text, {value!r}. Leave out the quotes.")


def check_made(value: Any, what: str) -> None:
    """Raises InputError for a class where an object of it belongs, such as `PGD` instead of `PGD()`."""
    if isinstance(value, type):
        raise InputError(
            f"Expected {what}, made with its settings. Received: the class {value.__name__}. "
            f"Put brackets behind it: {value.__name__}()."
        )


def check_minutes(minutes: float) -> None:
    """Raises InputError for a budget that is no number of minutes above 0."""
    if not (isinstance(minutes, numbers.Real) and 0 < minutes < math.inf):
        raise InputError(f"Expected a budget above 0 minutes. Received: {minutes!r}. Try 10.")


def check_seed(seed: int) -> None:
    """Raises InputError for what is no whole number from 0 to where seeds end in Keras and TensorFlow."""
    if not (isinstance(seed, numbers.Integral) and 0 <= seed < 2**31):
        raise InputError(f"Expected a seed from 0 to 2147483647. Received: {seed!r}. Try 0.")


def check_sigma(sigma: float) -> None:
    """Raises InputError for a standard deviation of noise that isn't above 0, or is infinite."""
    if not (isinstance(sigma, numbers.Real) and 0 < sigma < math.inf):
        raise InputError(f"Expected a sigma above 0. Received: {sigma!r}. Try 0.25.")


def check_name(name: str) -> None:
    """Raises InputError for what can't be the name of a run or of a saved model."""
    if not name or Path(name).name != name or name.startswith((".", "-")) or "\0" in name:
        raise InputError(
            f"Expected a plain name. Received: {name!r}. Leave out slashes and leading dots; "
            "the folder is set by --runs-dir and --models-dir."
        )


def check_command(command: str) -> None:
    """Raises InputError for what aren't the words of a command, as a shell would take them."""
    try:
        words, problem = shlex.split(command), "a character 0" if "\0" in command else "no words"
    except ValueError as error:
        words, problem = [], str(error)[:1].lower() + str(error)[1:]
    if not words or "\0" in command:
        raise InputError(
            f"Expected a command and its arguments for --notify. Received: {command!r} ({problem}). "
            "Try 'notify-send kerasrobust'."
        )


def variants_of(written: str | None) -> tuple[str, ...]:
    """Returns the variants of MI-FGSM in a text such as "di-ti"; none of None or an empty one.

    Raises:
        InputError: for an unknown one.
    """
    words = tuple(written.split("-")) if written else ()
    for word in words:
        if word not in VARIANTS:
            raise unknown_name("variant", word, VARIANTS)
    return words


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What every command takes; those that answer at once, without a run, take no more of what is common.

    Attributes of a class:
        kind: the command's name.
    """

    kind: ClassVar[str]

    runs_dir: Annotated[Path, Option("Folder of all runs.", group="outside")] = Path("runs")
    models_dir: Annotated[Path, Option("Folder of saved models.", group="outside")] = Path("saved_models")
    quiet: Annotated[bool, Option("Print the result only.", group="outside")] = False
    json: Annotated[
        bool,
        Option(
            "Print JSON on standard output, and nothing else: an object for each event, or what was asked for.",
            group="outside",
        ),
    ] = False

    def __post_init__(self) -> None:
        for item in fields(type(self)):
            item.check(getattr(self, item.name))


@dataclass(frozen=True, kw_only=True)
class RunConfig(CommandConfig):
    """What every command takes that makes a run.

    Attributes of a class:
        resumes_unnamed: whether the same command resumes an unfinished run also without `--name`.
        resumes_finished: whether a finished run may be started again: its stages are done, so that it ends at once.
    """

    resumes_unnamed: ClassVar[bool] = False
    resumes_finished: ClassVar[bool] = False

    name: Annotated[
        str | None,
        Option(
            "Name of the run's folder, and of the saved model in `train`. Without it one is made from the command and "
            "time.",
            group="output",
        ),
    ] = None
    seed: Annotated[
        int, Option("Of everything random: data order, weights, attacks, noise.", least=0, group="common")
    ] = 0
    batch_size: Annotated[int, Option("Images computed at once.", least=1, group="common")] = 256
    precision: Annotated[
        Precision,
        Option(
            "Of gradients, in training and attacks; `auto` measures what is fastest. Weights and verdicts are float32. "
            "`folded` is float32 too, on a twin of the network whose batch normalisation is in the layers before it. "
            "With `-xla` the twin is compiled by XLA, which takes long and which `auto` never tries.",
            group="common",
        ),
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Option("Where to compute; `auto` takes a GPU where there is one.", group="common"),
    ] = "auto"
    data_dir: Annotated[
        Path | None, Option("Folder of the TensorFlow data sets; TFDS's own default without it.", group="common")
    ] = None
    overwrite: Annotated[bool, Option("Replace a finished run or a saved model of this name.", group="output")] = False
    tags: Annotated[
        str | None,
        Option("Words to find the run by, with commas between them, such as `thesis,baseline`.", group="output"),
    ] = None
    note: Annotated[
        str | None, Option("What one wants to remember of the run, in one's own words.", group="output")
    ] = None
    notify: Annotated[
        str | None,
        Option(
            "Command that is started when the run ends, and when it finds a reason for doubt, without a shell. In its "
            "environment are KERASROBUST_RUN (the name), KERASROBUST_STATUS (done, failed, cancelled, or warning) and "
            "KERASROBUST_MESSAGE.",
            group="output",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        if self.name is not None:
            check_name(self.name)
        if self.tags is not None and not self.tags.strip(" ,"):
            raise InputError(f"Expected words for --tags. Received: {self.tags!r}. Try --tags thesis,baseline.")
        if self.notify is not None:
            check_command(self.notify)

    def again(self, name: str) -> str:
        """Returns how to resume a cancelled run of this name."""
        named = "" if self.resumes_unnamed and self.name is None else f" with --name {name}"
        return f"the same command{named} resumes it."


@dataclass(frozen=True, kw_only=True)
class ModelConfig(RunConfig):
    """What the commands take that examine a model as somebody has it."""

    model: SavedModel
    code: Code = None
    input_range: InputRange = "auto"
    colors: ColorOrder = "auto"
    channels: ChannelPlace = "auto"
    outputs: OutputKind = "auto"
    output: Output = None
    noise: LayerNoise = "off"
    resize: Resize = False

    def __post_init__(self) -> None:
        super().__post_init__()
        scaling(self.input_range)  # Refuses what can't be read.


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Returns the config as JSON has it, with its `kind`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Epsilon):
            return float(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {"kind": config.kind, **{name: plain(value) for name, value in vars(config).items()}}


def is_option(word: str) -> bool:
    """Whether a word is an option rather than a value, which may be a negative number."""
    return word.startswith("--") or re.match(r"-[A-Za-z]", word) is not None


def command_line(config: CommandConfig) -> str:
    """Returns the command of a config: the options that differ from their defaults."""
    words = ["python", "-m", "kerasrobust.run", config.kind]
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    for item in fields(type(config)):
        value = getattr(config, item.name)
        if value == defaults[item.name] or item.name in ("quiet", "json", "overwrite"):
            continue
        if item.is_switch:
            words.append(item.option if value else f"--no-{item.option.removeprefix('--')}")
        else:
            parts = [written(part) for part in (value if item.is_list else (value,))]
            if len(parts) == 1 and is_option(parts[0]) and not item.positional:  # As a note may begin.
                words.append(f"{item.option}={parts[0]}")
            else:
                words += [*([] if item.positional else [item.option]), *parts]
    return shlex.join(words)
