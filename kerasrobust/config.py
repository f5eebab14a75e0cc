"""What each command takes, one frozen dataclass for each; `settings` has what they share. No TensorFlow here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.fields import (
    RADII,
    ActivationName,
    AttackedSplit,
    Average,
    Beta,
    CardData,
    Data,
    Epsilon,
    Keys,
    LastPooling,
    OptimizerName,
    Option,
    Passes,
    RateSchedule,
    Sigma,
    Size,
    Smoothing,
    SomeSplit,
    Split,
    Stem,
    StepsByEpoch,
    StudyEot,
    Teacher,
    TrainingAttackLoss,
    TrainingCorruptions,
    TrainingObjective,
    TrainSplit,
    WeightPerturbation,
    fields,
)
from kerasrobust.names import (
    ATTACKS,
    CORRUPTIONS,
    OBJECTIVES_WITH,
    TARGETS,
    BallNorm,
    Norm,
    NormOrAuto,
    Version,
    norm_of,
)
from kerasrobust.settings import (
    EPSILON,
    CommandConfig,
    ModelConfig,
    RunConfig,
    check_epsilon,
    check_sigma,
    radius,
    variants_of,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelConfig):
    """Train a network, on clean or on adversarial images, and save it.

    `--preset NAME` starts from a recipe instead of the defaults; `kerasrobust --help` lists them.
    """

    kind: ClassVar[str] = "train"

    model: Annotated[
        str, Option("Architecture (lenet, convnet, resnet), or a saved model's name or path to train on from.")
    ] = "convnet"
    data: Data = "shapes"
    split: Annotated[str, Option("Part of the data to train on, in TFDS's syntax.")] = "train"
    test_split: Annotated[str, Option("Part of the data that the accuracies in the card are measured on.")] = "test"
    training: TrainingObjective = "standard"
    randomize: Annotated[float | None, Option("Rate of always-on dropout put into the network; none without it.")] = (
        None
    )
    epochs: Annotated[int, Option("Passes over the training data.", "number of epochs", 1)] = 30
    epsilon: Annotated[Epsilon, Option("Radius of the ball that the training attack searches.")] = EPSILON
    norm: Annotated[BallNorm, Option("Norm of that ball.")] = "linf"
    steps: Annotated[int, Option("PGD steps in each training step; the replays of `free`.", "number of steps", 1)] = 7
    step_size: Annotated[Epsilon | None, Option("Length of a PGD step; 2.5 epsilon / steps without it.")] = None
    clean_share: Annotated[float, Option("Share of each batch that stays clean in adversarial training.")] = 0.0
    warmup_epochs: Annotated[
        float, Option("Epochs over which epsilon grows from 0.", "number of warm-up epochs", 0)
    ] = 0.0
    steps_by_epoch: StepsByEpoch = ()
    attack_loss: TrainingAttackLoss = "cross-entropy"
    beta: Beta = None
    awp: WeightPerturbation = 0.0
    sigma: Sigma = 0.25
    average: Average = None
    teacher: Teacher = None
    label_smoothing: Smoothing = 0.0
    optimizer: OptimizerName = "sgd"
    schedule: RateSchedule = "cosine"
    learning_rate: Annotated[float, Option("Largest learning rate.")] = 0.1
    weight_decay: Annotated[float, Option("Decay of the kernels, times the learning rate, at each step.", least=0)] = (
        5e-4
    )
    augment: Annotated[
        bool, Option("Whether images are flipped and shifted by up to 4 pixels while they are trained on.")
    ] = True
    validation_share: Annotated[float, Option("Share of the training data kept aside to choose the best epoch.")] = 0.04
    corruptions: TrainingCorruptions = ()
    widths: Annotated[tuple[int, ...], Option("Filters of each block of `convnet`.")] = (32, 64, 128)
    depth: Annotated[int, Option("Blocks in each stage of `resnet`.", least=1)] = 2
    width: Annotated[int, Option("Filters in the first stage of `resnet`.", least=1)] = 16
    convolutions: Annotated[int, Option("Convolutions in each block of `convnet`.", least=1)] = 1
    pooling: LastPooling = "flatten"
    activation: ActivationName = "relu"
    stem: Stem = 1
    keys: Keys = None
    size: Size = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"Expected widths of at least 1. Received: {self.widths}. Try 32 64 128.")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise InputError(f"Expected a learning rate above 0. Received: {self.learning_rate}. Try 0.1.")
        shares = "clean_share", "validation_share", "average", "label_smoothing", "awp"
        for what, value in ((name.replace("_", " "), getattr(self, name)) for name in shares):
            if value is not None and not 0 <= value < 1:
                raise InputError(f"Expected a {what} in [0, 1). Received: {value}. Choose a smaller one.")
        for kind in self.corruptions:
            if kind not in CORRUPTIONS:
                raise unknown_name("corruption", kind, CORRUPTIONS)
        if self.randomize is not None and not 0 < self.randomize < 1:
            raise InputError(f"Expected a dropout rate between 0 and 1. Received: {self.randomize}. Try 0.15.")
        check_sigma(self.sigma)
        check_epsilon(self.epsilon, self.norm)
        for item in fields(type(self)):
            kinds = OBJECTIVES_WITH.get(item.name, (self.training,))
            if self.training not in kinds and getattr(self, item.name) != getattr(type(self), item.name):
                raise InputError(
                    f"Expected --training {' or '.join(kinds)} for --{item.name.replace('_', '-')}. "
                    f"Received: {self.training}. Leave it out, or choose another --training."
                )


@dataclass(frozen=True, kw_only=True)
class AttackConfig(ModelConfig):
    """Attack a saved model and report its robust accuracy."""

    kind: ClassVar[str] = "attack"
    most: ClassVar[int] = 1000
    resumes_unnamed: ClassVar[bool] = True

    attack: Annotated[
        str,
        Option(
            "Name of an attack; or several with commas between them, each on what those before it have left, except "
            "those for the nearest example (fmn,ddn): each of these on all images, and the nearest counts."
        ),
    ] = "pgd"
    version: Annotated[
        Version,
        Option(
            "AutoAttack's version; `auto` is `rand` for a randomized network, else `standard`; `adaptive` looks for "
            "the same verdict at a fraction of the cost."
        ),
    ] = "auto"
    confirm: Annotated[bool, Option("Run the whole of `standard` on what `--version adaptive` has left.")] = False
    target: Annotated[
        str | None,
        Option(
            f"Class that images are driven to, for a targeted attack: {', '.join(TARGETS)}, or a class by its name or "
            "number."
        ),
    ] = None
    surrogate: Annotated[
        str | None,
        Option(
            "Saved model, by name or path, whose gradients the attack takes instead of the model's own (transfer); the "
            "verdicts stay the model's. What it takes is found out, or stands in its card."
        ),
    ] = None
    data: CardData = None
    split: SomeSplit = None
    norm: Annotated[
        NormOrAuto,
        Option(
            "Norm of the ball; l1 for the attacks apgd-*, fmn, pdpgd and square, l0 (values that change) for fmn and "
            "sigma-zero; `auto` is linf, or the attack's own where it hasn't got that."
        ),
    ] = "auto"
    epsilon: Annotated[
        Epsilon | None,
        Option(
            "Radius of the ball; for minimum-norm attacks the radius at which robust accuracy is read off; sparse-rs, "
            f"spatial and the patches have none. {RADII}"
        ),
    ] = None
    epsilons: Annotated[
        tuple[Epsilon, ...],
        Option("Several radii instead of --epsilon, such as 2/255 4/255 8/255: each on what the smaller ones left."),
    ] = ()
    steps: Annotated[
        int | None,
        Option(
            "Steps of an iterative attack; the attack's own number without it (pgd 20; patch 50; apgd-*, ddn, fab, "
            "fmn, sigma-zero, universal and universal-patch 100; apgd-nearest 300).",
            "number of steps",
            1,
        ),
    ] = None
    step_size: Annotated[Epsilon | None, Option("Length of a step; 2.5 epsilon / steps without it.")] = None
    queries: Annotated[
        int | None,
        Option("Queries of black-box attacks (spatial has none): 5,000.", "number of queries", 1),
    ] = None
    restarts: Annotated[int, Option("Random starts; the best counts.", "number of restarts", 1)] = 1
    variants: Annotated[
        str | None,
        Option(
            "Of mifgsm, joined by `-` as in di-ti-ni, so that more examples transfer: gradients of shrunk and padded "
            "images (di), blurred gradients (ti), gradients one step ahead (ni)."
        ),
    ] = None
    patch_size: Annotated[
        int | None, Option("Side of the square of patch and universal-patch in pixels: 8 without it.", least=1)
    ] = None
    budget: Annotated[
        int | None, Option("Pixels that sparse-rs may change: 24 without it.", "number of pixels", least=1)
    ] = None
    patch: Annotated[
        str | None,
        Option("File of a patch that universal-patch takes instead of training one: the patch.npy of a run."),
    ] = None
    perturbation: Annotated[
        str | None,
        Option("File of a perturbation that universal takes instead of training one: the perturbation.npy of a run."),
    ] = None
    eot: Annotated[
        int | None,
        Option(
            "Passes over which each gradient of a randomized network is averaged: 1 without it, 20 in AutoAttack's "
            "`rand`.",
            "number of EOT passes",
            1,
        ),
    ] = None
    passes: Passes = 20
    keys: Keys = None
    size: Size = None

    @property
    def ball(self) -> tuple[Norm, float]:
        """Norm and radius, the largest of several; where they aren't said those that the attack usually has."""
        norm = norm_of(map(str.strip, self.attack.split(","))) if self.norm == "auto" else self.norm
        return norm, radius(max(self.epsilons, default=self.epsilon), norm)

    @property
    def in_ball(self) -> bool:
        """Whether what the attack may do is a ball; otherwise the attack has no epsilon, and no norm to choose."""
        return all(ATTACKS[name.strip()].in_ball for name in self.attack.split(","))

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name.strip() for name in self.attack.split(",")]
        for name in names:
            if name not in ATTACKS:
                raise unknown_name("attack", name, ATTACKS)
        if len({ATTACKS[name].in_ball for name in names}) > 1:
            free = ", ".join(name for name in names if not ATTACKS[name].in_ball)
            raise InputError(
                f"Expected one threat for all attacks of a list. Received: {self.attack}, of which {free} has no ball. "
                "Run it by itself."
            )
        if "," in self.attack and "autoattack" in self.attack:
            raise InputError(
                f"Expected autoattack alone, or a list of others. Received: {self.attack}. Name its parts instead."
            )
        if self.version != "auto" and self.attack != "autoattack":
            raise InputError(f"Expected --version with autoattack only. Received: it with {self.attack}. Leave it out.")
        if self.confirm and self.version != "adaptive":
            raise InputError(
                f"Expected --confirm with --version adaptive only. Received: it with {self.version}. Leave it out."
            )
        if self.target is not None and ("," in self.attack or self.attack == "autoattack"):
            raise InputError(
                f"Expected one attack for --target. Received: {self.attack}. Name one that takes targets, such as pgd."
            )
        variants_of(self.variants)
        if self.epsilons and (self.epsilon is not None or self.target is not None):
            other = "epsilon" if self.epsilon is not None else "target"
            raise InputError(f"Expected --epsilons without --{other}. Received: both. Leave one of them out.")
        norm, epsilon = self.ball
        if self.in_ball:
            for each in self.epsilons or (epsilon,):
                check_epsilon(each, norm)


@dataclass(frozen=True, kw_only=True)
class BallConfig(ModelConfig):
    """What the commands take that examine a saved model within one ball."""

    most: ClassVar[int] = 500

    data: CardData = None
    split: SomeSplit = None
    norm: Annotated[BallNorm, Option("Norm of the ball.")] = "linf"
    epsilon: Annotated[Epsilon | None, Option(f"Radius of the ball. {RADII}")] = None
    keys: Keys = None
    size: Size = None

    @property
    def ball(self) -> tuple[BallNorm, float]:
        """Norm and radius, where that isn't said the usual one."""
        return self.norm, radius(self.epsilon, self.norm)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_epsilon(self.ball[1], self.norm)


@dataclass(frozen=True, kw_only=True)
class AuditConfig(BallConfig):
    """Look for reasons to doubt a model's robust accuracy, as measured by PGD."""

    kind: ClassVar[str] = "audit"
    resumes_unnamed: ClassVar[bool] = True

    steps: Annotated[int, Option("PGD steps.", "number of steps", 1)] = 20
    eot: Annotated[
        int, Option("Passes over which each gradient of a randomized network is averaged.", "number of EOT passes", 1)
    ] = 1
    passes: Passes = 20
    thorough: Annotated[
        bool,
        Option(
            "Also test the attack itself, on images that it has left, with a last layer made for each so that an "
            "adversarial example is known to be there (binarization test). A minute or so."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class RandomnessConfig(BallConfig):
    """Ask whether a randomized network's noise really defends, or only hides gradients.

    PGD with the noise frozen, with gradients over 1, 5, 20 and 50 passes, and transferred from the network without its
    noise, all at the same number of gradient evaluations.
    """

    kind: ClassVar[str] = "randomness"
    most: ClassVar[int] = 200

    gradients: Annotated[
        int,
        Option(
            "Gradient evaluations per image of each attack, in whole hundreds.", "number of gradient evaluations", 50
        ),
    ] = 500
    passes: Annotated[int, Option("Fresh passes that judge each example.", "number of fresh passes", 2)] = 50

    def again(self, name: str) -> str:
        return f"start it again with --name {name} to repeat it."


@dataclass(frozen=True, kw_only=True)
class StudyConfig(RunConfig):
    """The whole study: train seven networks, attack each, and compare, in one table and one report."""

    kind: ClassVar[str] = "study"
    resumes_finished: ClassVar[bool] = True

    data: Data = "cifar10"
    split: TrainSplit = "train"
    test_split: AttackedSplit = "test[:1000]"
    epochs: Annotated[
        int | None, Option("Epochs of every training, instead of each recipe's own number.", "number of epochs", 1)
    ] = None
    epsilons: Annotated[
        tuple[Epsilon, ...], Option("Radii of the attacks. The adversarial trainings are always at 8/255.")
    ] = (Epsilon("2/255"), Epsilon("4/255"), Epsilon("8/255"), Epsilon("16/255"))
    steps: Annotated[int, Option("PGD steps of the attacks.", "number of steps", 1)] = 20
    eot: StudyEot = 20
    retrain: Annotated[
        bool, Option("Train all networks, also those that --models-dir holds, trained with the very same settings.")
    ] = False
    keys: Keys = None
    size: Size = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilons:
            raise InputError("Expected at least one epsilon. Received: none. Try --epsilons 4/255 8/255.")
        for epsilon in self.epsilons:
            check_epsilon(epsilon, "linf")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(StudyConfig):
    """The study's first five networks on the embedded, synthetic data, in a few minutes."""

    kind: ClassVar[str] = "demo"

    data: Annotated[str, Option("Data set; `shapes` is embedded and synthetic.")] = "shapes"
    split: TrainSplit = "train[:5000]"
    test_split: AttackedSplit = "test[:400]"
    eot: StudyEot = 10


@dataclass(frozen=True, kw_only=True)
class ImportConfig(ModelConfig):
    """Take someone's model into the folder of saved models, with a card of its own.

    Without --name it gets the name of its file or folder.
    """

    kind: ClassVar[str] = "import"

    model: Annotated[str, Option("Path of the model: .keras, .h5, or a SavedModel folder of any origin.")]
    data: Annotated[
        str | None, Option("Data set with labels that its range of pixels is found out on, once; none without it.")
    ] = None
    split: Split = "test"
    keys: Keys = None
    size: Size = None

    def again(self, name: str) -> str:
        return "start the import again."


@dataclass(frozen=True, kw_only=True)
class CompareConfig(CommandConfig):
    """Put finished runs and saved models side by side."""

    kind: ClassVar[str] = "compare"

    subjects: Annotated[tuple[str, ...], Option("Names or folders of runs and of saved models.", positional=True)]


@dataclass(frozen=True, kw_only=True)
class ModelsConfig(CommandConfig):
    """List the saved models with what is known of them."""

    kind: ClassVar[str] = "models"
