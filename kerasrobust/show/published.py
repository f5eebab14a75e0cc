"""What others have published of small robust networks on CIFAR-10 (Linf 8/255, no extra data). No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from kerasrobust.show.figures import format_accuracy, format_published
from kerasrobust.show.tables import make_table


@dataclass(frozen=True, kw_only=True)
class Published:
    """One network of somebody else.

    Attributes:
        parameters: in millions.
        clean: share of the test images that are right; None where the source doesn't say.
        autoattack: the same under AutoAttack in Linf at 8/255.
        cost: multiply-adds of the training as multiples of `BUDGET`, estimated; None where too little is known.
        source: repository on GitHub, and the file in it.
    """

    network: str
    parameters: float
    training: str
    clean: float | None
    autoattack: float
    cost: float | None
    source: str


BUDGET = 2.0e15
"""Multiply-adds that two CPU cores do in 150 minutes of our training."""

SMALL = (
    Published(
        network="plain CNN, 64-64-128-128", parameters=1.15, training="PGD, 200 epochs", clean=0.7626,
        autoattack=0.3968, cost=9.5, source="MTandHJ/PyTorch-Robust, PGD-AT/README.md",
    ),
    Published(
        network="ResNet-32", parameters=0.46, training="logit pairing (ALP), 200 epochs", clean=0.7712,
        autoattack=0.4489, cost=13, source="MTandHJ/PyTorch-Robust, ALP/README.md (commit 0ed60166)",
    ),
    Published(
        network="MobileNetV2", parameters=2.3, training="self-distillation (ADR), 200 epochs, three seeds", clean=None,
        autoattack=0.4272, cost=None, source="7i10/ard_codex_bootstrap, docs/ADR_CIFAR10_REPLICATION_RESULTS.md",
    ),
)  # fmt: skip
"""The best that were found of each kind."""


def published_table() -> Table:
    """Returns the table of these networks, to stand below ours."""
    table = make_table(synthetic=False)
    table.title = "Published: small networks on CIFAR-10, AutoAttack in Linf at 8/255"
    sources = (f"{one.network}: {one.source}" for one in SMALL)
    table.caption = "\n".join(
        (
            "Trained with PyTorch on GPUs, without extra data. Cost: multiply-adds of the training, as estimated "
            f"multiples of the {BUDGET:.1e} that two CPU cores do in 150 minutes.",
            *sources,
        )
    )
    table.caption_style = "dim"
    for heading in ("network", "million\nparameters", "training", "clean", "AutoAttack", "cost"):
        left = heading in ("network", "training")
        table.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for one in SMALL:
        table.add_row(
            one.network,
            f"{one.parameters:g}",
            one.training,
            format_accuracy(one.clean),
            format_published(one.autoattack),
            "" if one.cost is None else f"{one.cost:g} x",
        )
    return table
