"""Saved models are renamed and deleted, and who names them is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kerasrobust.assessing import AssessConfig, CorruptionsConfig
from kerasrobust.config import AttackConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.runs import list_models, open_run, read_card
from kerasrobust.saved_models import delete_model, mentions, rename_model


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def net(models_dir: Path) -> Path:
    return saved(models_dir / "net")


def saved(folder: Path, **card: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({"name": folder.name, "clean_accuracy": 0.5} | card))
    (folder / "saved_model.pb").write_bytes(b"weights")
    return folder


def test_a_model_gets_another_name_in_its_card_too(net: Path) -> None:
    before = (net / "saved_model.pb").read_bytes()
    there = rename_model(net, "net-pgd")
    assert there == net.with_name("net-pgd") and not net.exists()
    assert read_card(there) == {"name": "net-pgd", "clean_accuracy": 0.5}
    assert (there / "saved_model.pb").read_bytes() == before
    # Of another's making: it says another name, which is its own business.
    (there / "card.json").write_text('{"name": "theirs"}')
    assert read_card(rename_model(there, "net")) == {"name": "theirs"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".net", "-net", "a\0b"])
def test_what_cannot_be_a_name_is_refused(net: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"^Expected a plain name\. Received: .*\.$"):
        rename_model(net, name)
    assert list_models(net.parent) == [net]


def test_a_name_that_is_taken_is_refused_whatever_has_it(net: Path, models_dir: Path) -> None:
    other = saved(models_dir / "other")
    (models_dir / "empty").mkdir()
    (models_dir / "dangling").symlink_to("nowhere")
    for name in ("other", "empty", "dangling", "net"):
        with pytest.raises(InputError, match=r"^Expected a name that is free\. Received: .* Choose another name\.$"):
            rename_model(net, name)
    assert list_models(models_dir) == [net, other]


def test_a_model_is_deleted_and_nothing_else(net: Path, models_dir: Path, tmp_path: Path) -> None:
    theirs = saved(tmp_path / "elsewhere")
    (models_dir / "linked").symlink_to(theirs)
    other = saved(models_dir / "other")
    delete_model(net)
    delete_model(models_dir / "linked")
    assert list(models_dir.iterdir()) == [other] and (theirs / "card.json").exists()
    (models_dir / "mine").mkdir()
    for act in (delete_model, lambda path: rename_model(path, "new")):
        with pytest.raises(InputError, match="Expected a saved model's folder"):
            act(models_dir / "mine")
    assert (models_dir / "mine").is_dir()


def test_what_cannot_be_changed_is_one_message(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    for act in (delete_model, lambda path: rename_model(path, "new")):
        with pytest.raises(InputError, match=r"Received: .*net \(Permission denied\)"):
            act(net)
    assert (net / "saved_model.pb").exists()


def test_what_is_being_written_or_removed_is_no_model_yet(net: Path, models_dir: Path) -> None:
    saved(models_dir / ".net.1a2b3c4d")
    assert list_models(models_dir) == [net]


def test_who_names_a_model_is_found(models_dir: Path, tmp_path: Path) -> None:
    convnet = saved(models_dir / "convnet", training={"model": "convnet"})
    saved(models_dir / "taught", training={"model": "lenet", "teacher": "convnet"})
    saved(models_dir / "trained-on", training={"model": str(convnet)})
    saved(models_dir / "same-architecture", training={"model": "convnet"})
    places: Any = {"runs_dir": tmp_path / "runs", "models_dir": models_dir}
    kept = []
    for name, config in {
        "attacked": AttackConfig(model="convnet", name="attacked", **places),
        "by-path": AttackConfig(model=str(convnet), name="by-path", **places),
        "beside": AssessConfig(model="m", beside="other, convnet", name="beside", **places),
        "reference": CorruptionsConfig(model="m", reference="convnet", name="reference", **places),
        "anew": TrainConfig(model="convnet", name="anew", **places),
        "other": AttackConfig(model="convnet-pgd", name="other", **places),
    }.items():
        run = open_run(config)
        if name != "attacked":
            run.close()
        kept.append(run)
    found = mentions(convnet, models_dir, tmp_path / "runs")
    assert sorted(found) == [
        "run attacked, under way", "run beside", "run by-path", "run reference", "the card of taught",
        "the card of trained-on",
    ]  # fmt: skip
    kept[0].close()
