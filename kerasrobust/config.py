"""What a run is: frozen dataclasses, one a command, validated, to JSON and back. No TensorFlow here.

The command line and the terminal UI's form are made from these classes: a field's name is the option's, the text below
it is the help. What is checked here is what can be known without data and model.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from kerasrobust.errors import InputError, unknown_name

Norm = Literal["linf", "l2"]
Precision = Literal["auto", "float32", "folded", "bfloat16", "folded-xla", "bfloat16-xla"]
Training = Literal["standard", "fgsm", "pgd"]

AttackNorm = Literal["linf", "l2", "l1"]
Version = Literal["auto", "standard", "plus", "rand"]

ATTACK_NAMES = (
    "autoattack", "pgd", "fgsm", "rfgsm", "fgsm-rs", "bim", "mifgsm", "apgd-ce", "apgd-dlr", "apgd-t", "apgd-margin",
    "deepfool", "fab", "fab-t", "cw", "square", "hopskipjump",
)  # fmt: skip
ARCHITECTURE_NAMES = ("lenet", "convnet", "resnet")


class Epsilon(float):
    """A radius in units of an image in [0, 1], read from `8/255` as well as from `0.031`.

    Raises:
        InputError: for text that is no number, and for a radius that is negative, infinite or NaN.

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
                f"Expected epsilon as a number of at least 0, such as 8/255 or 0.031. Received: {value}. "
                "Give the radius in units of an image in [0, 1]."
            )
        return super().__new__(cls, number)


EPSILON = Epsilon("8/255")
"""The usual radius on colour images."""


def check_epsilon(epsilon: float, norm: str) -> None:
    """Raises InputError for a radius that is negative or no number, and for an Linf radius above the whole range."""
    Epsilon(epsilon)
    if norm == "linf" and epsilon > 1:
        raise InputError(
            f"Expected an Linf epsilon of at most 1, as images lie in [0, 1]. Received: {epsilon:g}. "
            f"Did you mean {epsilon:g}/255?"
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every command takes."""

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[RunConfig]]] = {}

    name: str | None = None
    """Name of the run's folder, and of the saved model in `train`. Without it one is made from the command and time."""
    seed: int = 0
    """Of everything random: data order, weights, attacks, noise."""
    batch_size: int = 256
    """Images computed at once."""
    precision: Precision = "auto"
    """Of gradients, in training and attacks; `auto` measures what is fastest. Weights and verdicts are float32.

    `folded` is float32 too, on a twin of the network whose batch normalisation is in the layers before it. With `-xla`
    the twin is compiled by XLA, which `auto` tries on a GPU only.
    """
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute; `auto` takes a GPU where there is one."""
    runs_dir: Path = Path("runs")
    """Folder of all runs."""
    models_dir: Path = Path("saved_models")
    """Folder of saved models."""
    data_dir: Path | None = None
    """Folder of the TensorFlow data sets; TFDS's own default without it."""
    overwrite: bool = False
    """Replace a finished run or a saved model of this name."""
    quiet: bool = False
    """Print the result only."""
    json: bool = False
    """Print the events on standard output, one JSON object a line, and nothing else."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            RunConfig.kinds[cls.kind] = cls

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise unknown_name(name, str(getattr(self, name)), get_args(hint))
        _at_least("batch size", self.batch_size, 1)
        _at_least("seed", self.seed, 0)
        if self.seed >= 2**31:  # Where seeds end in Keras and TensorFlow.
            raise InputError(f"Expected a seed below 2147483648. Received: {self.seed}. Give a smaller one.")
        if self.name is not None and (
            not self.name or Path(self.name).name != self.name or self.name.startswith((".", "-"))
        ):
            raise InputError(
                f"Expected a plain name for --name. Received: {self.name!r}. Leave out slashes and leading dots; "
                "the folder is set by --runs-dir and --models-dir."
            )


def _at_least(what: str, value: float | None, least: float) -> None:
    if value is not None and not (math.isfinite(value) and value >= least):
        raise InputError(f"Expected a {what} of at least {least:g}. Received: {value}. Give a larger one.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Train a network, on clean or on adversarial images, and save it.

    `--preset NAME` starts from a recipe instead of the defaults; `kerasrobust --help` lists them.
    """

    kind: ClassVar[str] = "train"

    model: str = "convnet"
    """Architecture (lenet, convnet, resnet), or a saved model's name or path to train on from."""
    data: str = "shapes"
    """Data set: a TFDS name, `shapes` (embedded, synthetic), an .npz or .h5 file, or a folder of images."""
    split: str = "train"
    """Part of the data to train on, in TFDS's syntax."""
    test_split: str = "test"
    """Part of the data that the accuracies in the card are measured on."""
    training: Training = "standard"
    """Objective: clean images, FGSM from a random start, or PGD."""
    randomize: float | None = None
    """Rate of always-on dropout put into the network; none without it."""
    epochs: int = 30
    """Passes over the training data."""
    epsilon: Epsilon = EPSILON
    """Radius of the ball that the training attack searches."""
    norm: Norm = "linf"
    """Norm of that ball."""
    steps: int = 7
    """PGD steps in each training step."""
    step_size: Epsilon | None = None
    """Length of a PGD step; 2.5 epsilon / steps without it."""
    clean_share: float = 0.0
    """Share of each batch that stays clean in adversarial training."""
    warmup_epochs: float = 0.0
    """Epochs over which epsilon grows from 0."""
    learning_rate: float = 0.1
    """Peak learning rate of SGD with momentum 0.9; it rises for a tenth of the training and falls to 0 as a cosine."""
    weight_decay: float = 5e-4
    """Decay of the weights, times the learning rate, at each step."""
    augment: bool = True
    """Whether images are flipped and shifted by up to 4 pixels while they are trained on."""
    validation_share: float = 0.04
    """Share of the training data kept aside to choose the best epoch."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Filters of each block of `convnet`."""
    depth: int = 2
    """Blocks in each stage of `resnet`."""
    width: int = 16
    """Filters in the first stage of `resnet`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("number of epochs", self.epochs, 1)
        _at_least("number of steps", self.steps, 1)
        _at_least("number of warm-up epochs", self.warmup_epochs, 0)
        _at_least("weight decay", self.weight_decay, 0)
        _at_least("depth", self.depth, 1)
        _at_least("width", self.width, 1)
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"Expected widths of at least 1. Received: {self.widths}. Try 32 64 128.")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise InputError(f"Expected a learning rate above 0. Received: {self.learning_rate}. Try 0.1.")
        for what, value in (("clean share", self.clean_share), ("validation share", self.validation_share)):
            if not 0 <= value < 1:
                raise InputError(f"Expected a {what} in [0, 1). Received: {value}. Choose a smaller one.")
        if self.randomize is not None and not 0 < self.randomize < 1:
            raise InputError(f"Expected a dropout rate between 0 and 1. Received: {self.randomize}. Try 0.15.")
        check_epsilon(self.epsilon, self.norm)


@dataclass(frozen=True, kw_only=True)
class AttackConfig(RunConfig):
    """Attack a saved model and report its robust accuracy."""

    kind: ClassVar[str] = "attack"

    model: str
    """A saved model's name under --models-dir, or a path: .keras, .h5, or a SavedModel folder of any origin."""
    attack: str = "pgd"
    """Attack by name, `autoattack`, or several with commas between them, each on what those before it have left."""
    version: Version = "auto"
    """AutoAttack's version; `auto` is `rand` for a randomized network, else `standard`."""
    data: str = "shapes"
    """Data set: a TFDS name, `shapes` (embedded, synthetic), an .npz or .h5 file, or a folder of images."""
    split: str = "test[:1000]"
    """Part of the data, in TFDS's syntax."""
    norm: AttackNorm = "linf"
    """Norm of the ball; l1 for the attacks apgd-* and square."""
    epsilon: Epsilon = EPSILON
    """Radius of the ball; for minimum-norm attacks the radius at which robust accuracy is read off."""
    steps: int | None = None
    """Steps of an iterative attack; the attack's own number without it (pgd 20, apgd-* and fab 100)."""
    step_size: Epsilon | None = None
    """Length of a step; 2.5 epsilon / steps without it."""
    queries: int | None = None
    """Queries of square: 5,000 without it."""
    restarts: int = 1
    """Random starts; the best counts."""
    eot: int | None = None
    """Passes over which each gradient of a randomized network is averaged: 1 without it, 20 in AutoAttack's `rand`."""
    passes: int = 20
    """Fresh passes that judge each example of a randomized network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in map(str.strip, self.attack.split(",")):
            if name not in ATTACK_NAMES:
                raise unknown_name("attack", name, ATTACK_NAMES)
        if "," in self.attack and "autoattack" in self.attack:
            raise InputError(
                f"Expected autoattack alone, or a list of others. Received: {self.attack}. Name its parts instead."
            )
        if self.version != "auto" and self.attack != "autoattack":
            raise InputError(f"Expected --version with autoattack only. Received: it with {self.attack}. Leave it out.")
        _at_least("number of steps", self.steps, 1)
        _at_least("number of queries", self.queries, 1)
        _at_least("number of restarts", self.restarts, 1)
        _at_least("number of EOT passes", self.eot, 1)
        _at_least("number of fresh passes", self.passes, 1)
        check_epsilon(self.epsilon, self.norm)


@dataclass(frozen=True, kw_only=True)
class AuditConfig(RunConfig):
    """Look for reasons not to believe a model's robust accuracy, as measured by PGD."""

    kind: ClassVar[str] = "audit"

    model: str
    """A saved model's name under --models-dir, or a path: .keras, .h5, or a SavedModel folder of any origin."""
    data: str = "shapes"
    """Data set: a TFDS name, `shapes` (embedded, synthetic), an .npz or .h5 file, or a folder of images."""
    split: str = "test[:500]"
    """Part of the data, in TFDS's syntax."""
    norm: Norm = "linf"
    """Norm of the ball."""
    epsilon: Epsilon = EPSILON
    """Radius of the ball."""
    steps: int = 20
    """PGD steps."""
    eot: int = 1
    """Passes over which each gradient of a randomized network is averaged."""
    passes: int = 20
    """Fresh passes that judge each example of a randomized network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("number of steps", self.steps, 1)
        _at_least("number of EOT passes", self.eot, 1)
        _at_least("number of fresh passes", self.passes, 1)
        check_epsilon(self.epsilon, self.norm)


@dataclass(frozen=True, kw_only=True)
class RandomnessConfig(RunConfig):
    """Ask whether a randomized network's noise defends anything, or only blinds attacks.

    PGD with the noise frozen, with gradients over 1, 5, 20 and 50 passes, and transferred from the network without its
    noise, all at the same number of gradient evaluations.
    """

    kind: ClassVar[str] = "randomness"

    model: str
    """A saved model's name under --models-dir, or a path: .keras, .h5, or a SavedModel folder of any origin."""
    data: str = "shapes"
    """Data set: a TFDS name, `shapes` (embedded, synthetic), an .npz or .h5 file, or a folder of images."""
    split: str = "test[:200]"
    """Part of the data, in TFDS's syntax."""
    norm: Norm = "linf"
    """Norm of the ball."""
    epsilon: Epsilon = EPSILON
    """Radius of the ball."""
    gradients: int = 500
    """Gradient evaluations per image of each attack, in whole hundreds."""
    passes: int = 50
    """Fresh passes that judge each example."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("number of gradient evaluations", self.gradients, 50)
        _at_least("number of fresh passes", self.passes, 2)
        check_epsilon(self.epsilon, self.norm)


@dataclass(frozen=True, kw_only=True)
class StudyConfig(RunConfig):
    """The whole study: train the five networks, attack each, and compare, in one table and one report."""

    kind: ClassVar[str] = "study"

    data: str = "cifar10"
    """Data set: a TFDS name, `shapes` (embedded, synthetic), an .npz or .h5 file, or a folder of images."""
    split: str = "train"
    """Part of the data to train on."""
    test_split: str = "test[:1000]"
    """Part of the data that is attacked."""
    epochs: int | None = None
    """Epochs of every training, instead of each recipe's own number."""
    epsilons: tuple[Epsilon, ...] = (Epsilon("2/255"), Epsilon("4/255"), Epsilon("8/255"), Epsilon("16/255"))
    """Radii of the attacks. The adversarial trainings are at 8/255, whatever stands here."""
    steps: int = 20
    """PGD steps of the attacks."""
    eot: int = 20
    """Passes of the attacks with EOT on randomized networks."""
    retrain: bool = False
    """Train all networks, also those that --models-dir holds, trained with the very same settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("number of epochs", self.epochs, 1)
        _at_least("number of steps", self.steps, 1)
        _at_least("number of EOT passes", self.eot, 2)
        if not self.epsilons:
            raise InputError("Expected at least one epsilon. Received: none. Try --epsilons 4/255 8/255.")
        for epsilon in self.epsilons:
            check_epsilon(epsilon, "linf")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(StudyConfig):
    """The whole study on the embedded, synthetic data, in a few minutes."""

    kind: ClassVar[str] = "demo"

    data: str = "shapes"
    """Data set; `shapes` is embedded and synthetic."""
    split: str = "train[:5000]"
    """Part of the data to train on."""
    test_split: str = "test[:400]"
    """Part of the data that is attacked."""
    eot: int = 10
    """Passes of the attacks with EOT on randomized networks."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig(RunConfig):
    """Take someone's model into the folder of saved models, with a card of its own.

    Without --name it gets the name of its file or folder.
    """

    kind: ClassVar[str] = "import"

    model: str
    """Path of the model: .keras, .h5, or a SavedModel folder of any origin."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig(RunConfig):
    """Put finished runs and saved models side by side."""

    kind: ClassVar[str] = "compare"

    subjects: tuple[str, ...]
    """Names or folders of runs and of saved models."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig(RunConfig):
    """List the saved models with what is known of them."""

    kind: ClassVar[str] = "models"


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Returns the config as JSON has it, with its `kind`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Epsilon):
            return float(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    fields = {item.name: plain(getattr(config, item.name)) for item in dataclasses.fields(config)}
    return {"kind": config.kind, **fields}


def from_dict(record: dict[str, Any]) -> RunConfig:
    """Returns the config that `to_dict` wrote. Fields that this version doesn't know are skipped.

    Raises:
        InputError: for an unknown kind, or values that are not valid.
    """
    kind = str(record.get("kind"))
    if kind not in RunConfig.kinds:
        raise unknown_name("command", kind, RunConfig.kinds)
    made = RunConfig.kinds[kind]
    hints = get_type_hints(made)
    values = {
        item.name: _restored(record[item.name], str(hints[item.name]))
        for item in dataclasses.fields(made)
        if item.name in record
    }
    try:
        return made(**values)
    except (TypeError, OverflowError) as error:  # The latter for numbers of hundreds of digits.
        raise InputError(f"Expected the settings of a {kind!r} run. Received: {error}. Check config.json.") from error


def _restored(value: Any, hint: str) -> Any:
    """Returns a JSON value as the type that a field's hint names."""
    if isinstance(value, list):
        return tuple(_restored(item, hint) for item in value)
    if "Path" in hint and isinstance(value, str):
        return Path(value)
    if "Epsilon" in hint and value is not None:
        return Epsilon(value)
    return value


def command_line(config: RunConfig) -> str:
    """Returns the command that repeats a run: the options that differ from their defaults."""
    words = ["python", "-m", "kerasrobust.run", config.kind]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value == item.default or item.name in ("quiet", "json", "overwrite"):
            continue
        if item.name == "subjects":
            words += list(value)
        elif isinstance(value, bool):
            words += [f"--{'' if value else 'no-'}{item.name.replace('_', '-')}"]
        else:
            parts = value if isinstance(value, tuple) else (value,)
            words += [f"--{item.name.replace('_', '-')}", *(written(part) for part in parts)]
    return shlex.join(words)


def written(value: Any) -> str:
    """Returns a setting as a person types it: radii as n/255 where they are such."""
    if isinstance(value, Epsilon):
        levels = round(value * 255)
        return f"{levels}/255" if 0 < levels <= 255 and levels / 255 == value else repr(float(value))
    return str(value)
