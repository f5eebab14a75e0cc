"""What is measured: each task a few contenders that do the same work, and the targets that the project has set itself.

The first contender of a task is its base; the ratio of another is its seconds over the base's, round by round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

Options = tuple[dict[str, Any], ...]

WIDTHS = ((8, 16, 32), (16, 32, 64), (32, 64, 128), (64, 128, 256))
"""Sizes of the ConvNet of the scaling task; the third is the usual one."""


@dataclass(frozen=True)
class Target:
    """A figure to reach, from below or from above."""

    value: float
    at_most: bool = False

    def met(self, figure: float) -> bool:
        return figure <= self.value if self.at_most else figure >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of doing a task's work.

    Attributes:
        label: in the table.
        worker: whose process does it.
        function: of the worker.
        arguments: of the function.
        options: further arguments to choose from: each is tried once before the rounds, the fastest is taken.
        trial: the function that is tried instead, where the work itself takes minutes.
        probe: how many images the warm-up takes instead of all; where it says that a round would take more than
            `limit` seconds, the rounds take as many, and their seconds are scaled.
        limit: see `probe`; None where the rounds take all images anyway.
        work: how much of it there is, in a unit of the task; the ratio is also given by unit.
        target: for the ratio; by unit where the task says so.
    """

    label: str
    worker: str
    function: str
    arguments: dict[str, Any]
    options: Options = ()
    trial: str | None = None
    probe: int | None = None
    limit: float | None = None
    work: float = 1.0
    target: Target | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What contenders are compared at.

    Attributes:
        name: on the command line; several tasks may share one.
        title: of its section.
        text: what was done, for the reader.
        contenders: the base first.
        norm: of the distances that the referee takes; None where there is nothing to judge.
        rounds: how often each contender runs; None for what the command line says.
        by_work: whether ratios are divided by the work.
        fastest: a target for the fastest contender beside the base.
        seconds: a target for the base's seconds.
        memory: a target for the base's figure of that name.
        differ: whether to count the images on which a verdict differs from the base's.
    """

    name: str
    title: str
    text: str
    contenders: Sequence[Contender]
    norm: str | None = None
    rounds: int | None = None
    by_work: bool = False
    fastest: Target | None = None
    seconds: Target | None = None
    memory: Target | None = None
    differ: bool = False


@dataclass(frozen=True)
class Sizes:
    """How much of everything: smaller for a trial of the program itself."""

    examples: int = 512
    autoattack: int = 500
    rounds_autoattack: int = 1
    train_steps: int = 40
    models: tuple[str, ...] = field(default=("convnet-pgd", "convnet"))


def batches(count: int, *sizes: int) -> Options:
    """Returns batch sizes to choose from, none larger than all images; all of them at once is always among them."""
    return tuple({"batch_size": size} for size in sorted({min(size, count) for size in (*sizes, count)}))


def modes(options: Options, *names: str) -> Options:
    return tuple({"mode": name} | option for name, option in product(names, options))


def ours_pgd(model: str, count: int, label: str = "kerasrobust", **arguments: Any) -> Contender:
    return Contender(
        label=label, worker="ours", function="pgd", arguments={"model": model, "count": count, **arguments},
        options=batches(count, 128, 256),
    )  # fmt: skip


def cleverhans_pgd(model: str, count: int, target: float) -> Contender:
    return Contender(
        label="CleverHans", worker="cleverhans", function="pgd", arguments={"model": model, "count": count},
        options=modes(batches(count, 128), "eager", "graph"), target=Target(target),
    )  # fmt: skip


def pgd(sizes: Sizes) -> list[Task]:
    common = {"model": "convnet-pgd", "count": sizes.examples}
    two = ("eager", "graph")
    options = batches(sizes.examples, 128)
    contenders = [
        ours_pgd("convnet-pgd", sizes.examples, early_stop=False),
        cleverhans_pgd("convnet-pgd", sizes.examples, 2.0),
        Contender(label="Foolbox", worker="foolbox", function="pgd", arguments=common, options=modes(options, *two),
                  target=Target(3.5)),
        Contender(label="ART", worker="art", function="pgd", arguments=common, options=modes(options, *two),
                  target=Target(4.5)),
        Contender(label="torchattacks, as it comes", worker="torch", function="pgd", arguments=common,
                  options=modes(options, "eager"), target=Target(3.5)),
        Contender(label="torchattacks, other memory layout or compiled", worker="torch", function="pgd",
                  arguments=common, options=modes(options, "channels_last", "compile"), target=Target(3.5)),
    ]  # fmt: skip
    text = (
        f"PGD-20 on {sizes.examples} CIFAR-10 test images, `convnet-pgd`, Linf 8/255, step 2.5 epsilon / 20, one "
        'random start, every image attacked for all its steps (ours: `early_stop=False`, `precision="auto"`).'
    )
    return [Task(name="pgd", title="PGD-20", text=text, contenders=contenders, norm="linf")]


def evaluation(sizes: Sizes) -> list[Task]:
    return [
        Task(
            name="evaluation",
            title=f"PGD-20 as an evaluation, `{model}`",
            text=(
                f"The same attack on {sizes.examples} images of `{model}`, as our evaluation runs it: images that fell "
                "are done (`early_stop=True`). CleverHans has no such thing."
            ),
            contenders=[
                ours_pgd(model, sizes.examples, early_stop=True),
                cleverhans_pgd(model, sizes.examples, target),
            ],
            norm="linf",
        )
        for model, target in (("convnet-pgd", 3.0), ("convnet", 8.0))
    ]


def gradients(sizes: Sizes) -> list[Task]:
    common = {"model": "convnet-pgd", "count": sizes.examples}
    ours = ours_pgd("convnet-pgd", sizes.examples, early_stop=False)
    contenders = [
        Contender(label="20 bare gradients, float32", worker="ours", function="gradients",
                  arguments={**common, "times": 20}),
        Contender(**{**vars(ours), "label": "kerasrobust, PGD-20", "target": Target(0.6, at_most=True)}),
    ]  # fmt: skip
    text = (
        f'Our PGD-20 (`early_stop=False`, `precision="auto"`) on {sizes.examples} images of `convnet-pgd`, beside 20 '
        f"gradients of the same Keras model in float32, {sizes.examples} images in each call of a `tf.function`, in "
        "the same process."
    )
    return [Task(name="gradients", title="PGD-20 beside bare gradients", text=text, contenders=contenders)]


def deepfool(sizes: Sizes) -> list[Task]:
    common = {"model": "convnet-pgd", "count": sizes.examples}
    options = batches(sizes.examples, 32, 128)
    contenders = [
        Contender(label="kerasrobust", worker="ours", function="deepfool", arguments=common | {"batch_size": 256}),
        Contender(label="Foolbox", worker="foolbox", function="deepfool", arguments=common,
                  options=modes(options, "eager", "graph")),
        # Minutes for all of them: it takes time for each batch of its own, so some tell.
        Contender(label="ART", worker="art", function="deepfool", arguments=common, probe=128, limit=20,
                  options=modes(({"batch_size": min(128, sizes.examples)},), "eager", "graph")),
        # One image after the other, so neither batches nor layouts matter.
        Contender(label="torchattacks", worker="torch", function="deepfool", probe=64, limit=300,
                  arguments=common | {"batch_size": sizes.examples, "mode": "eager"}),
    ]  # fmt: skip
    text = (
        f"DeepFool in L2, at most 50 steps, all 10 classes, overshoot 0.02, {sizes.examples} images of `convnet-pgd`. "
        "Distances are medians over the images that are right before the attack; a failure counts as infinite."
    )
    return [Task(name="deepfool", title="DeepFool", text=text, contenders=contenders, norm="l2", fastest=Target(3.0))]


def autoattack(sizes: Sizes) -> list[Task]:
    common = {"model": "convnet-pgd", "count": sizes.autoattack}
    options = batches(sizes.autoattack, 128, 250)
    contenders = [
        Contender(label="kerasrobust", worker="ours", function="autoattack", arguments=common, options=options,
                  trial="pgd", probe=32),
        Contender(label="torchattacks, the four attacks", worker="torch", function="autoattack", arguments=common,
                  options=modes(options, "eager"), trial="pgd", probe=8, target=Target(4.0)),
    ]  # fmt: skip
    text = (
        f"AutoAttack `standard` on {sizes.autoattack} images of `convnet-pgd`, Linf 8/255. Of torchattacks the four "
        "attacks one after the other, each on what is left, with 100 steps, 9 targets (FAB `multi_targeted`) and 5,000 "
        "queries given explicitly: its own `AutoAttack` runs 10 steps and another schedule of Square. Batch sizes are "
        "those that are best for PGD-20. Its attacks need the usual memory layout (`channels_last` ends in an error)."
    )
    return [
        Task(name="autoattack", title="AutoAttack", text=text, contenders=contenders, norm="linf",
             rounds=sizes.rounds_autoattack, differ=True)
    ]  # fmt: skip


def smoothing(sizes: Sizes) -> list[Task]:
    count, samples = max(4, sizes.examples // 32), 2_000 if sizes.examples >= 512 else 200
    tasks = []
    for model, least in (("convnet-gaussian", 0.0), ("convnet-gaussian", 0.5), ("convnet", 0.0)):
        common = {"model": model, "count": count, "samples": samples, "least_radius": least}
        contenders = [
            Contender(label="kerasrobust", worker="ours", function="smoothing", arguments=common,
                      options=({"batch_size": 256}, {"batch_size": 1024}), probe=4),
            Contender(label="ART", worker="art", function="smoothing", arguments=common, probe=4, limit=20,
                      options=modes(({"batch_size": 32}, {"batch_size": 256}, {"batch_size": 1024}), "eager", "graph"),
                      target=Target(5.0)),
        ]  # fmt: skip
        of = f"those above {least:g} in L2" if least else "all of them"
        text = (
            f"Certificates by Gaussian noise of deviation 0.25 for {count} images of `{model}`, 100 samples to choose "
            f"the class and {samples:,} for the bound, alpha 0.001; of interest are {of}. Ours abandons images that "
            "practically can't get one any more; ART, which has no such thing, takes all samples of each, in its own "
            "batches of 32, or in larger ones."
        )
        title = f"Randomized smoothing, `{model}`, radii above {least:g}"
        tasks.append(Task(name="smoothing", title=title, text=text, contenders=contenders))
    return tasks


def training(sizes: Sizes) -> list[Task]:
    def contender(label: str, kind: str, target: float | None) -> Contender:
        return Contender(
            label=label, worker="ours", function="train", arguments={"kind": kind, "steps": sizes.train_steps},
            target=None if target is None else Target(target),
        )  # fmt: skip

    text = (
        f'Adversarial training with PGD-7, batch 128, {sizes.train_steps} steps a round, `build_model("convnet")` from '
        "the same initial weights, SGD with momentum. Beside ours the same step written plainly in Keras: 7 gradients "
        "in a Python loop of `train_step`. Accuracies (256 test images, PGD-20) show that all three learn the same; "
        "they are of the networks after the last round."
    )
    contenders = [
        contender("kerasrobust", "ours", None),
        contender("plain Keras, `jit_compile=False`", "plain", 2.0),
        contender("plain Keras, `jit_compile=True`", "jit", 4.0),
    ]
    return [Task(name="training", title="Adversarial training", text=text, contenders=contenders)]


def options(sizes: Sizes) -> list[Task]:
    """The options of training one by one, beside the default."""
    ways = {
        "the default": "ours",
        'attack and weights\' gradient in float32, on the network itself (`precision="float32"`)': "float32",
        'on twins in float32 (`precision="folded"`)': "folded",
        "a mixed_bfloat16 network, no twins": "mixed",
        "`steps_per_execution=8`": "several steps",
        "`jit_compile=True`": "xla",
    }
    contenders = [
        Contender(label=label, worker="ours", function="train", arguments={"kind": kind, "steps": sizes.train_steps})
        for label, kind in ways.items()
    ]
    contenders.append(
        Contender(label="the input pipeline alone", worker="ours", function="feed",
                  arguments={"steps": sizes.train_steps})
    )  # fmt: skip
    text = (
        f"Adversarial training as above, {sizes.train_steps} steps a round, each option by itself. The last row is "
        "what `tf.data` needs for the batches of as many steps of a training run: shuffled, flipped, cropped."
    )
    return [Task(name="options", title="Options of training", text=text, contenders=contenders)]


def eot(sizes: Sizes) -> list[Task]:
    count = min(128, sizes.examples)
    fixed = {"count": count, "batch_size": 256}
    attack = [
        Contender(label="PGD-20, `convnet-pgd`", worker="ours", function="pgd",
                  arguments={"model": "convnet-pgd", **fixed}),
        Contender(label="EOT-20 PGD-20, `convnet-random-pgd`", worker="ours", function="pgd", work=20,
                  arguments={"model": "convnet-random-pgd", "eot": 20, **fixed}, target=Target(1.3, at_most=True)),
    ]  # fmt: skip
    noise = [
        Contender(label=label, worker="ours", function="gradients",
                  arguments={"model": "convnet-random-pgd", "count": count, "times": 20, "noise": on})
        for label, on in (("20 gradients, `noise_off`", False), ("20 gradients with noise", True))
    ]  # fmt: skip
    text = (
        f"{count} images, `early_stop=False`. The ratio is divided by the 20 passes of each gradient. Accuracies of "
        "the randomized network are of one noisy pass."
    )
    return [
        Task(name="eot", title="EOT", text=text, contenders=attack, norm="linf", by_work=True),
        Task(name="eot", title="What the noise costs", contenders=noise,
             text=f"Gradients in float32 of `convnet-random-pgd`, {count} images in each call. The noise's share of "
                  "the time is 1 - 1 / ratio."),
    ]  # fmt: skip


def cold(sizes: Sizes) -> list[Task]:
    del sizes
    text = (
        "PGD-20 on 16 images from a process that has just been started: imports, loading `convnet-pgd` and the images "
        "(an .npy file), the attack; until its result is printed. The files are in the system's cache."
    )
    contender = Contender(label="kerasrobust", worker="new", function="start", arguments={"count": 16})
    return [
        Task(name="cold", title="First result", text=text, contenders=[contender], seconds=Target(8.0, at_most=True))
    ]


def memory(sizes: Sizes) -> list[Task]:
    count = 10_000 if sizes.examples >= 512 else sizes.examples
    text = (
        f"PGD-20 on {count} images of `convnet-pgd`, batch 256, `early_stop=False`, in a process that has just "
        "attacked one batch: by how much the memory in use rises above what it was then, images and results included. "
        "Seconds are those of the whole process."
    )
    contender = Contender(label="kerasrobust", worker="new", function="memory", arguments={"count": count})
    return [
        Task(name="memory", title="Memory", text=text, contenders=[contender], memory=Target(2.0, at_most=True))
    ]  # fmt: skip


def scaling(sizes: Sizes) -> list[Task]:
    count = sizes.examples
    models = {widths: multiplications(widths) for widths in WIDTHS}
    rows: dict[str, list[tuple[str, float, dict[str, Any]]]] = {
        "examples": [(f"{n} images", n, {"count": n}) for n in (count // 4, count // 2, count, 2 * count, 4 * count)],
        "steps": [(f"{n} steps", n, {"count": count, "steps": n}) for n in (5, 10, 20, 40, 80)],
        "model size": [
            (f"widths {', '.join(map(str, widths))}", work, {"count": count, "widths": list(widths)})
            for widths, work in models.items()
        ],
        "EOT passes": [
            (f"EOT {n}", n, {"count": min(128, count), "eot": n, "model": "convnet-random-pgd"})
            for n in (1, 2, 5, 10, 20)
        ],
    }
    about = {
        "examples": "Work: images.",
        "steps": "Work: steps.",
        "model size": '`build_model("convnet", widths=...)`, random weights. Work: multiplications of a forward pass.',
        "EOT passes": f"`convnet-random-pgd`, {min(128, count)} images. Work: passes of each gradient.",
    }
    return [
        Task(
            name="scaling",
            title=f"How time grows: {what}",
            text=f"Our PGD-20, {count} images of `convnet-pgd`, batch 256, `early_stop=False`, but for what varies. "
            f"{about[what]}",
            contenders=[
                Contender(label=label, worker="ours", function="pgd", work=work,
                          arguments={"model": "convnet-pgd", "batch_size": 256} | arguments)
                for label, work, arguments in values
            ],
            by_work=True,
        )
        for what, values in rows.items()
    ]  # fmt: skip


def multiplications(widths: Sequence[int], side: int = 32, channels: int = 3, classes: int = 10) -> int:
    """Returns how many multiplications a forward pass of the ConvNet takes for one image."""
    total = 0
    for filters in widths:
        total += side * side * 9 * channels * filters
        side, channels = side // 2, filters
    return total + side * side * channels * channels + channels * classes


TASKS: dict[str, Callable[[Sizes], list[Task]]] = {
    "pgd": pgd, "evaluation": evaluation, "gradients": gradients, "deepfool": deepfool, "autoattack": autoattack,
    "smoothing": smoothing, "training": training, "options": options, "eot": eot, "cold": cold, "memory": memory,
    "scaling": scaling,
}  # fmt: skip
