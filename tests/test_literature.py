"""What a report says to cite: the papers that the docstrings of attacks name, each once."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from test_report import ATTACK, Page, written

from kerasrobust import names
from kerasrobust.attacks.registry import ATTACKS
from kerasrobust.show.literature import PAPERS

AUTO = ATTACK | {
    "attack": "autoattack",
    "attacks": [ATTACK["attacks"][0] | {"name": name, "norm": "l1"} for name in ("apgd-ce", "apgd-t", "square")],
    "audit": {"checked": [], "left_out": [], "gradients": 0},
}


def test_every_attack_has_its_papers() -> None:
    assert set(PAPERS) == set(names.ATTACKS)


@pytest.mark.parametrize("name", sorted(set(names.ATTACKS) - {"autoattack"}))
def test_they_are_those_of_its_docstring(name: str) -> None:
    docs = [inspect.getdoc(kind) or "" for kind in ATTACKS[name].__mro__]
    said = " ".join(next(text for text in docs if "Reference:" in text).split("Reference:")[1].split())
    first = PAPERS[name][0]
    surname = first.authors.split(",")[0].split()[-1]
    assert re.search(rf"{re.escape(surname)}( et al\.| and \S+)? {first.year}", said), said


def test_a_report_names_what_was_run_each_paper_once(tmp_path: Path) -> None:
    page = Page(written(tmp_path, AUTO))
    for words in ("Ensemble of Diverse Parameter-free Attacks", "Square Attack:", "Mind the Box"):
        assert page.text.count(words) == 1
    assert "Obfuscated Gradients" in page.text and "@software{kerasrobust," in page.text
    assert "Expectation" not in page.text and "Synthesizing Robust" not in page.text


def test_eot_transfer_and_corrupted_data_have_papers_of_their_own(tmp_path: Path) -> None:
    entry = ATTACK["attacks"][0] | {"settings": {"eot": 20}, "surrogate": "other"}
    data = ATTACK["data"] | {"name": "cifar10+fog:3"}
    page = Page(written(tmp_path, ATTACK | {"attacks": [entry], "data": data}))
    for words in ("Synthesizing Robust", "Transferability", "Common Corruptions"):
        assert words in page.text
