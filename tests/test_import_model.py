"""`import`: someone's model among the saved models, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import Outcome, call, events
from keras import layers as L

from kerasrobust.events import ModelSaved, StageFinished
from kerasrobust.networks.saving import SavedModelNetwork, load_model
from kerasrobust.runs import state

SHAPE = (32, 32, 3)
X = np.random.default_rng(1).random((4, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(SHAPE), L.Conv2D(2, 5, 4), L.Flatten(), L.Dense(10)], name="theirs")
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def sources(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with someone's models: `net.keras`, `net.h5`, the SavedModel `exported`, and things that are none."""
    folder = tmp_path_factory.mktemp("sources")
    network.save(folder / "net.keras")
    network.save(folder / "net.h5")
    network.export(folder / "exported", verbose=False)
    (folder / "exported" / "README").write_text("theirs")
    (folder / "text.keras").write_text("not a model")
    (folder / "text.txt").write_text("not a model")
    (folder / "empty").mkdir()
    shutil.copytree(folder / "exported", folder / "cut")
    data = folder / "cut" / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    shutil.copy(folder / "net.keras", folder / "-net.keras")
    return folder


@pytest.fixture
def adopt(tmp_path: Path) -> Callable[..., Outcome]:
    return lambda *words: call("import", *words, "--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")


def card_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text())


@pytest.mark.parametrize("source", ["net.keras", "net.h5"])
def test_a_keras_file(
    source: str, sources: Path, network: keras.Model, adopt: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = adopt("--model", sources / source)
    assert (outcome.status, outcome.err) == (0, "")
    folder = tmp_path / "models" / "net"
    assert {path.name for path in folder.iterdir()} >= {"saved_model.pb", "model.keras", "card.json"}
    np.testing.assert_array_equal(load_model(folder)(X), network(X))
    card = card_of(folder)
    assert card["name"] == "net" and card["source"] == str(sources / source) and card["attacks"] == []
    assert card["command"].startswith("python -m kerasrobust.run import ")
    assert f"import --model {sources / source} " in card["command"]
    assert (card["image_shape"], card["classes"], card["randomized"]) == ([32, 32, 3], 10, False)
    # Convolution 5*5*3*2 + 2, dense 7*7*2*10 + 10.
    assert card["parameters"] == sum(layer["parameters"] for layer in card["layers"]) == 152 + 990
    assert [layer["type"] for layer in card["layers"]] == ["Conv2D", "Flatten", "Dense"]


def test_a_saved_model_is_copied_as_it_is(
    sources: Path, network: keras.Model, adopt: Callable[..., Outcome], tmp_path: Path
) -> None:
    (sources / "exported" / "variables").chmod(0o555)
    outcome = adopt("--model", sources / "exported", "--name", "theirs")
    (sources / "exported" / "variables").chmod(0o755)
    assert (outcome.status, outcome.err) == (0, "")
    folder = tmp_path / "models" / "theirs"
    for path in (sources / "exported").rglob("*"):
        copy = folder / path.relative_to(sources / "exported")
        assert copy.is_dir() if path.is_dir() else copy.read_bytes() == path.read_bytes()
    assert not (folder / "model.keras").exists()
    model = load_model("theirs", models_dir=tmp_path / "models")
    assert isinstance(model, SavedModelNetwork)
    np.testing.assert_allclose(model(tf.constant(X)), network(X), atol=1e-5)
    card = card_of(folder)
    assert (card["image_shape"], card["classes"], card["source"]) == ([32, 32, 3], 10, str(sources / "exported"))
    assert {layer["type"] for layer in card["layers"]} == {"Variable"}
    assert sorted(tuple(layer["shape"]) for layer in card["layers"]) == [(2,), (5, 5, 3, 2), (10,), (98, 10)]
    assert card["parameters"] == 1142

    run = tmp_path / "runs" / "theirs"
    assert state(run) == "done"
    assert json.loads((run / "result.json").read_text()).items() >= {"kind": "import", "classes": 10}.items()
    log = events(run)
    assert [event.name for event in log if isinstance(event, ModelSaved)] == ["theirs"]
    assert [event.stage for event in log if isinstance(event, StageFinished)] == ["prepare", "save"]

    # What the other commands make of it.
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    assert "theirs" in call("models", *places).out
    attack = call("attack", "--model", "theirs", "--attack", "fgsm", "--split", "test[:8]", "--name", "one", *places)
    assert (attack.status, attack.err) == (0, "")
    lines = json.loads(call("compare", "theirs", "one", "--json", *places).out)
    assert [(line["name"], line["attack"]) for line in lines] == [("theirs", None), ("one", "fgsm")]


def first(kind: str) -> keras.Model:
    """A network of channels-first images: by its convolutions, without any, or around one that takes them last."""
    seen = keras.Input((3, 8, 8))
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(2, 3), L.Flatten()])
    hidden = {
        "convolution": lambda: L.Flatten()(L.Conv2D(2, 3, data_format="channels_first")(seen)),
        "dense": lambda: L.Flatten()(seen),
        "turned": lambda: inner(L.Permute((2, 3, 1))(seen)),
    }
    return keras.Model(seen, L.Dense(4)(hidden[kind]()))


@pytest.mark.parametrize("kind", ["convolution", "dense", "turned"])
@pytest.mark.parametrize("form", ["m.keras", "m"])
def test_channels_first_models_are_imported_and_attacked(
    kind: str, form: str, adopt: Callable[..., Outcome], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model, x = first(kind), np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    model.save(tmp_path / form) if form == "m.keras" else model.export(tmp_path / form, verbose=False)
    y = model.predict(x.transpose(0, 3, 1, 2) / np.float32(255), verbose=0).argmax(axis=1)
    y[:3] = (y[:3] + 1) % 4
    np.savez(tmp_path / "own.npz", x=x, y=y)
    assert adopt("--model", tmp_path / form, "--name", "theirs").status == 0
    assert card_of(tmp_path / "models/theirs")["image_shape"] == [8, 8, 3]
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models", "--name", "one")
    words = ("--data", tmp_path / "own.npz", "--attack", "fgsm", "--epsilon", "8/255")
    outcome = call("attack", "--model", "theirs", *words, *places)
    assert (outcome.status, outcome.err) == (0, "")
    result = json.loads((tmp_path / "runs/one/result.json").read_text())
    assert result["clean_accuracy"] == 0.75
    with h5py.File(tmp_path / "runs/one/examples.h5") as file:
        after = model.predict(file["x_adv"][()].transpose(0, 3, 1, 2), verbose=0).argmax(axis=1)
    assert result["robust_accuracy"] == (after == y).mean()


def test_noise_is_found(adopt: Callable[..., Outcome], tmp_path: Path) -> None:
    class Noise(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(x, axis=[1, 2]) + tf.raw_ops.RandomUniform(shape=[3], dtype=tf.float32)

    module = Noise()
    tf.saved_model.save(module, str(tmp_path / "noise"), signatures=module.__call__)
    assert adopt("--model", tmp_path / "noise").status == 0
    card = card_of(tmp_path / "models" / "noise")
    assert card["randomized"] is True and (card["layers"], card["parameters"]) == ([], 0)
    assert "unseeded-noise" in [warning["code"] for warning in card["warnings"]]
    (line,) = json.loads(call("models", "--models-dir", tmp_path / "models", "--json").out)
    assert line["randomized"] is True


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_nothing_is_replaced_unless_asked(sources: Path, adopt: Callable[..., Outcome], tmp_path: Path) -> None:
    assert adopt("--model", sources / "exported", "--name", "net").status == 0
    before = everything(tmp_path)
    assert "a finished run" in adopt("--model", sources / "exported", "--name", "net").message
    assert "other model" in adopt("--model", sources / "net.keras", "--name", "net").message
    assert "which exists" in adopt("--model", sources / "net.keras").message
    assert everything(tmp_path) == before
    assert adopt("--model", sources / "net.keras", "--overwrite").status == 0
    assert (tmp_path / "models" / "net" / "model.keras").is_file()
    # Nor by itself, asked or not.
    before = everything(tmp_path)
    for source in ("net", "net/model.keras", ""):
        message = adopt("--model", tmp_path / "models" / source, "--name", "net", "--overwrite").message
        assert "a model from elsewhere" in message
    assert everything(tmp_path) == before
    (tmp_path / "models" / "mine").mkdir()
    (tmp_path / "models" / "mine" / "thesis.tex").touch()
    assert "something else" in adopt("--model", sources / "net.keras", "--name", "mine", "--overwrite").message
    assert adopt("--model", tmp_path / "models" / "net", "--name", "copy").status == 0


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("missing.keras", "where there is nothing"),
        ("text.keras", "a readable model"),
        ("text.txt", "something else"),
        ("empty", "a folder without a model"),
        ("cut", "a readable model"),
        ("-net.keras", "a plain name"),
    ],
)
def test_what_is_no_model_leaves_nothing_behind(
    source: str, part: str, sources: Path, adopt: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert part in adopt("--model", sources / source).message
    assert [path for path in tmp_path.rglob("*") if path.name not in ("runs", "models")] == []


def test_an_empty_path(adopt: Callable[..., Outcome]) -> None:
    assert "the path of a model" in adopt("--model", "").message
    assert "--model" in adopt().message


def test_a_place_that_cannot_be_written(sources: Path, adopt: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    for source in ("exported", "net.keras"):
        assert "a place to write the model" in adopt("--model", sources / source, "--name", source[:3]).message


def test_help_lists_it() -> None:
    assert "import" in call("--help").out
    assert "--model" in call("import", "--help").out
