"""What Python and notebooks show of an evaluation, and what they refuse in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

import kerasrobust as kr
from kerasrobust.evaluation.evaluate import Evaluation

X = np.random.default_rng(0).uniform(size=(24, 4, 4, 1)).astype(np.float32)
Y = (X.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def brightness(x: Any) -> Any:
    """Tells bright images from dark ones."""
    level = keras.ops.sum(x, axis=(1, 2, 3)) - 8.0
    return keras.ops.stack([-level, level], axis=1)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return kr.evaluate(brightness, X, Y, attacks=["fmn", "fgsm"], norm="linf", epsilon="8/255", audit=False)


def test_results_are_printed_in_a_line(found: Evaluation) -> None:
    assert repr(found.worst).startswith("AttackResult(") and " of 24 images fooled" in repr(found.worst)
    for value in (found, found.worst, found.attacks[0]):
        assert len(repr(value)) < 1500 and "array(" not in repr(value)


def test_a_notebook_shows_the_table_and_the_curve(found: Evaluation) -> None:
    page = found._repr_html_()
    assert "clean" in page and "fmn" in page and "all together" in page and page.count("<svg") >= 1
    assert found.plot()._repr_html_() in page


def test_curves_are_saved_as_files(found: Evaluation, tmp_path: Path) -> None:
    (path,) = found.plot().save(tmp_path / "curve.svg")
    assert path.read_text().startswith("<svg")
    with pytest.raises(kr.InputError, match=r"ends in \.svg"):
        found.plot().save(tmp_path / "curve.png")
    with pytest.raises(kr.InputError, match="such as fmn"):
        kr.evaluate(brightness, X, Y, attacks="fgsm", audit=False).plot()


def test_pandas_has_a_line_for_each_figure(found: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    clean, *attacks, together = found.to_pandas()
    assert [row["attack"] for row in attacks] == ["fmn", "fgsm"]
    assert clean["accuracy"] == found.clean_accuracy and together["accuracy"] == found.robust_accuracy
    assert attacks[1]["epsilon"] == 8 / 255 and list(clean) == list(attacks[0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(kr.InputError, match="pip install pandas"):
        found.to_pandas()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kr.evaluate(brightness, X, Y, attacks=kr.attacks.PGD), "the class PGD. Put brackets behind it: PGD()"),
        (lambda: kr.evaluate(brightness, X, Y, attacks=[kr.AutoAttack]), "the class AutoAttack"),
        (lambda: kr.AutoAttack(attacks=[kr.attacks.PGD]), "the class PGD"),
        (lambda: kr.AdversarialModel(kr.build_model("lenet"), objective=kr.training.PGD), "the class PGD"),
        (lambda: kr.evaluate(brightness, X, Y, attacks=3), "Received: 3. Try 'pgd'"),
        (lambda: kr.attacks.PGD(step_size="2/255"), "Expected step_size as a number"),
        (lambda: kr.attacks.PGD(steps="20"), "Expected steps as a number"),
        (lambda: kr.attacks.Square(queries="many"), "Expected queries as a number"),
        (lambda: kr.training.PGD(steps="7"), "Expected steps as a number"),
    ],
)
def test_a_forgotten_bracket_and_text_for_a_number(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(kr.InputError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
