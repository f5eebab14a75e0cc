"""A radius as a text such as "8/255", wherever one is taken in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from conftest import images, labels_of

from kerasrobust import attacks
from kerasrobust.attacks.registry import make_attack
from kerasrobust.errors import InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.settings import radius
from kerasrobust.training import objectives

MAKE: dict[str, Callable[[Any], Any]] = {
    "fgsm": lambda epsilon: attacks.FGSM(epsilon=epsilon),
    "pgd": lambda epsilon: attacks.PGD(epsilon=epsilon),
    "apgd": lambda epsilon: attacks.APGDCE(epsilon=epsilon),
    "square": lambda epsilon: attacks.Square(epsilon=epsilon),
    "fab": lambda epsilon: attacks.FAB(epsilon=epsilon),
    "autoattack": lambda epsilon: AutoAttack(epsilon=epsilon),
    "by name": lambda epsilon: make_attack("mifgsm", epsilon=epsilon),
}
WRONG = ["8/", "1/0", "eight", "8/255/2", "nan", "-1/255", [0.1, 0.2], np.zeros((20, 20)), {}]


@pytest.mark.parametrize("name", MAKE)
def test_attacks_take_a_text(name: str) -> None:
    assert type(MAKE[name]("8/255").epsilon) is float
    assert MAKE[name]("8/255").epsilon == 8 / 255
    assert MAKE[name]("0.031").epsilon == 0.031
    assert MAKE[name](np.float32(0.25)).epsilon == 0.25
    with pytest.raises(InputError, match="Did you mean 8/255"):
        MAKE[name]("8")


def refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    line = str(caught.value)
    assert line.startswith("Expected a radius (epsilon) as a number") and "Received: " in line and "\n" not in line


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_what_is_no_radius_is_refused_in_one_line(name: str, wrong: Any) -> None:
    refused(lambda: MAKE[name](wrong))


@pytest.mark.parametrize("name", ["pgd", "trades", "nfgsm", "free"])
def test_objectives_refuse_a_text_in_one_line(name: str) -> None:
    refused(lambda: objectives.OBJECTIVES[name](epsilon="8/255"))  # type: ignore[arg-type]


def test_evaluations_take_a_text(linear: keras.Model) -> None:
    x = images(40)
    y = labels_of(linear, x, 4)
    for attack in ("fgsm", "deepfool"):
        found, plain = (evaluate(linear, x, y, attacks=attack, epsilon=value) for value in ("2/255", 2 / 255))
        assert found.attacks[0].epsilon == 2 / 255
        np.testing.assert_array_equal(found.per_example, plain.per_example)
    for wrong in (each for each in WRONG if not isinstance(each, list)):  # a list is several radii
        refused(lambda wrong=wrong: evaluate(linear, x, y, attacks="fgsm", epsilon=wrong))  # type: ignore[misc]


@pytest.mark.parametrize(("norm", "usual"), [("linf", 8 / 255), ("l2", 0.5), ("l1", 12), ("l0", 24)])
def test_the_usual_radius_stands_for_none(norm: str, usual: float) -> None:
    assert radius(None, norm) == usual
