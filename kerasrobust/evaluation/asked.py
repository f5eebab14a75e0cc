"""The attacks that an evaluation is asked for, made where they are given by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kerasrobust.attacks import Attack, make_attack
from kerasrobust.errors import InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.names import norm_of
from kerasrobust.settings import check_made, radius

Radii = float | str | Sequence[float | str] | None
"""One radius or several; None for the usual one of a norm."""


def one_radius(epsilon: Radii) -> float | str | None:
    """Returns a radius; None where there are several."""
    return _one_or_several(epsilon)[0]


def asked_for(
    attacks: str | Attack[Any] | AutoAttack | Iterable[str | Attack[Any] | AutoAttack],
    norm: str | None,
    epsilon: Radii,
    eot: int | None,
    targeted: bool,
) -> list[Attack[Any] | AutoAttack]:
    """Returns attacks, made where they are given by name; the arguments are those of `evaluate.evaluate`.

    Raises:
        InputError: for what is no attack, or none that does what is asked for.
    """
    several = isinstance(attacks, Iterable) and not isinstance(attacks, str | type)
    chosen: list[Any] = list(attacks) if several else [attacks]  # type: ignore[arg-type]
    if not chosen:
        raise InputError("Expected at least one attack. Received: none. Try 'pgd'.")
    norm = norm or norm_of(item for item in chosen if isinstance(item, str))
    one, epsilons = _one_or_several(epsilon)
    if epsilons is not None:
        return [_within(chosen, norm, epsilons, eot, targeted)]
    size = radius(one, norm)

    def make(name: str) -> Attack[Any] | AutoAttack:
        if name == AutoAttack.name:
            return AutoAttack(norm=norm, epsilon=size, eot=eot)  # type: ignore[arg-type]
        return make_attack(name, epsilon=size, norm=norm, eot=eot or 1, targeted=targeted)

    for item in chosen:
        check_made(item, "an attack")
        if not isinstance(item, str | Attack | AutoAttack):
            raise InputError(f"Expected attacks, or their names. Received: {item!r}. Try 'pgd'.")
    made = [make(item) if isinstance(item, str) else item for item in chosen]
    for item in made:
        if (isinstance(item, Attack) and item.targeted) != targeted:
            expected = "targeted attacks for a target" if targeted else "a target for targeted attacks"
            raise InputError(
                f"Expected {expected}. Received: {item.name}{'' if targeted else ' and no target'}. Set targeted=True "
                "of attacks such as PGD and give target=, or neither."
            )
    return made


def _one_or_several(epsilon: Radii) -> tuple[float | str | None, Sequence[float | str] | None]:
    """Returns a radius by itself, or several; None for what it isn't."""
    if isinstance(epsilon, Iterable) and not isinstance(epsilon, str) and np.ndim(epsilon) > 0:
        return None, list(epsilon)
    return epsilon, None  # type: ignore[return-value]


def _within(
    chosen: Sequence[Any], norm: str, epsilons: Sequence[float | str], eot: int | None, targeted: bool
) -> AutoAttack:
    """Returns attacks that were given by name, within several radii."""
    unnamed = next((item for item in chosen if not isinstance(item, str)), None)
    if unnamed is not None or targeted or not len(epsilons):
        received = "none" if not len(epsilons) else "a target" if targeted else f"{unnamed!r}"
        raise InputError(
            f"Expected one radius or more, and for several of them attacks by name, without a target. Received: "
            f"{received}. Give one number, or AutoAttack(attacks=..., epsilons=...)."
        )
    names = [] if chosen == [AutoAttack.name] else chosen
    return AutoAttack(norm=norm, epsilons=epsilons, attacks=names, eot=eot)  # type: ignore[arg-type]
