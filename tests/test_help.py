"""Help, the version, and how words become settings: no model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cli import ROOT, call

import kerasrobust
from kerasrobust.commands import COMMANDS, config_class
from kerasrobust.fields import fields
from kerasrobust.run import parse


def test_help_of_each_command_says_its_options() -> None:
    for kind, option in (("train", "--training"), ("attack", "--eot"), ("study", "--epsilons"), ("demo", "--split")):
        outcome = call(kind, "--help")
        assert (outcome.status, outcome.err) == (0, "")
        assert option in outcome.out
        for common in ("--name", "--seed", "--batch-size", "--precision", "--runs-dir", "--models-dir", "--data-dir",
                       "--overwrite", "--quiet", "--json", "--device"):  # fmt: skip
            assert common in outcome.out


@pytest.mark.parametrize("kind", COMMANDS)
def test_help_lists_every_option_with_its_default(kind: str) -> None:
    text = " ".join(call(kind, "--help").out.split())
    for item in fields(config_class(kind)):
        place = text.index(item.name.upper() if item.positional else f" {item.option}")
        assert " ".join(item.help.split()) in text[place:]
        if item.default and not item.is_switch:
            assert f"(default: {item.default})" in text[place:]
    assert text.index("common options:") < text.index(" --runs-dir ")


def test_a_switch_is_turned_on_and_off_and_the_last_word_counts() -> None:
    for line, augment in (("", True), ("--no-augment", False), ("--no-augment --augment", True)):
        assert getattr(parse(["train", *line.split()]), "augment") is augment  # noqa: B009
    assert getattr(parse(["train", "--epochs", "3", "--widths", "4", "--epochs=5"]), "epochs") == 5  # noqa: B009
    assert getattr(parse(["compare", "a", "--json", "b"]), "subjects") == ("a", "b")  # noqa: B009


def test_options_without_a_command_mean_the_demo() -> None:
    assert "kerasrobust demo" in call("--quiet", "--help").out
    assert call("--help").out == call("help").out == call("-h").out


def test_the_version_and_the_package_as_a_program() -> None:
    assert call("--version").out == f"kerasrobust {kerasrobust.__version__}\n"
    words = [sys.executable, "-m", "kerasrobust", "--version"]
    found = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (found.returncode, found.stdout) == (0, f"kerasrobust {kerasrobust.__version__}\n")


MODEL_COMMANDS = ("attack", "audit", "assess", "randomness", "certify", "corruptions", "import")


@pytest.mark.parametrize("kind", MODEL_COMMANDS)
def test_the_model_needs_no_option(kind: str) -> None:
    assert parse([kind, "net", "--seed", "3"]) == parse([kind, "--seed", "3", "--model", "net"])
    assert f"usage: kerasrobust {kind} MODEL [options]" in call(kind, "--help").out
    for words in (["net", "other"], ["net", "--model", "other"]):
        assert "Expected options of" in call(kind, *words).message
    assert "Expected the option --model" in call(kind).message


def test_help_of_attack_names_each_attack_with_its_norms_before_the_general_options() -> None:
    text = call("attack", "--help").out
    for line in ("  pgd                     PGD: linf, l2", "  patch                   Patch: none, no ball"):
        assert line in text.splitlines()
    assert text.index("attacks, and") < text.index("  hopskipjump ") < text.index("common options:")
