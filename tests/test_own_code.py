"""Models that need Python code: with consent it is run, without it the SavedModel beside the file stands in."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call, events
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log
from kerasrobust.networks.saving import SavedModelNetwork, load_model, save_model

SHAPE = (32, 32, 3)
X = np.random.default_rng(6).random((5, *SHAPE), np.float32)

CODE = """
import keras
from beside import FACTOR

def curved(x):
    return FACTOR * x * x

@keras.saving.register_keras_serializable("theirs")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = keras.layers.AveragePooling2D(8)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(10)
    def call(self, x):
        return self.head(self.flatten(self.pool(x)))
"""


def head(*layers: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *layers, L.AveragePooling2D(8), L.Flatten(), L.Dense(10)])


KINDS = ["layer", "activation", "subclass", "lambda"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `code.py`, models that need it as `.keras` and `.h5`, in `saved_models/`, and their outputs."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "beside.py").write_text("FACTOR = 1.5\n")
    (folder / "code.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    try:
        space: dict[str, Any] = {"__name__": "a_module_of_theirs"}
        exec(CODE, space)
    finally:
        sys.path.remove(str(folder))
    subclass = space["Net"]()
    subclass(X)
    made = [head(space["Twice"]()), head(L.Conv2D(2, 1, activation=space["curved"])), subclass]
    for kind, model in zip(KINDS, [*made, head(L.Lambda(lambda x: 3 * x))], strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(folder / f"{kind}.keras")
            if kind != "subclass":
                model.save(folder / f"{kind}.h5")
            save_model(model, folder / "saved_models" / kind, {})
        np.save(folder / f"{kind}.npy", model.predict(X, verbose=0))
    forget()
    return folder


def forget() -> None:
    """Lets Keras know no code of theirs, as in a new process."""
    for name in [name for name in keras.saving.get_custom_objects() if name.startswith("theirs>")]:
        del keras.saving.get_custom_objects()[name]


@pytest.fixture(autouse=True)
def unknown() -> None:
    forget()


def refused(*arguments: Any, **named: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_model(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_code_is_run_with_consent_only(kind: str, suffix: str, files: Path) -> None:
    path = files / f"{kind}{suffix}"
    if not path.exists():
        pytest.skip("Keras writes no subclassed model into HDF5")
    message = refused(path)
    name = {"layer": "theirs>Twice", "activation": "curved", "subclass": "Net", "lambda": "a Lambda layer"}[kind]
    assert name in message and "--code FILE.py" in message and 'model.export("folder")' in message
    log: list[Event] = []
    model = load_model(path, code=files / "code.py", emit=log.append)
    np.testing.assert_allclose(model.predict(X, verbose=0), np.load(files / f"{kind}.npy"), atol=1e-5)
    lines = [event.message for event in log if isinstance(event, Log)]
    assert len(lines) == 1 and lines[0].startswith(f"Ran {files / 'code.py'}") and "Net, Twice" in lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_stands_in_for_a_file_that_needs_code(kind: str, files: Path) -> None:
    log: list[Event] = []
    model = load_model(kind, models_dir=files / "saved_models", emit=log.append)
    assert isinstance(model, SavedModelNetwork)
    np.testing.assert_allclose(model(X), np.load(files / f"{kind}.npy"), atol=1e-5)
    (event,) = log
    assert isinstance(event, Log) and "so the SavedModel beside it is taken" in event.message
    with pytest.warns(UserWarning, match="the SavedModel beside it"):
        load_model(files / "saved_models" / kind)
    again = load_model(files / "saved_models" / kind, code=files / "code.py")
    assert isinstance(again, keras.Model)
    np.testing.assert_allclose(again.predict(X, verbose=0), np.load(files / f"{kind}.npy"), atol=1e-5)


def test_a_damaged_keras_file_is_not_hidden_by_the_saved_model(files: Path, tmp_path: Path) -> None:
    folder = save_model(head(), tmp_path / "m", {})
    path = folder / "model.keras"
    path.write_bytes(path.read_bytes()[:-200])
    assert "readable model" in refused(folder)


def test_code_that_lacks_the_class_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def curved(x):\n    return x\n")
    for path in (files / "layer.keras", files / "saved_models" / "layer"):
        message = refused(path, code=tmp_path / "other.py")
        assert "Expected code that defines" in message and "Twice" in message


def reversed_rows() -> L.Layer:
    return L.Lambda(lambda x: tf.reverse(x, [1]))


def nested() -> L.Layer:
    return L.Lambda(lambda x: tf.concat([tf.reverse(part, [1]) for part in tf.split(x, 2, 1)], 1))


def shaped() -> L.Layer:
    return L.Lambda(lambda x: np.float32(0.5) * x, output_shape=SHAPE)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("made", [reversed_rows, nested, shaped])
def test_a_lambda_finds_the_names_of_the_file(made: Callable[[], L.Layer], suffix: str, tmp_path: Path) -> None:
    """Keras 3.15 loads it without `tf`, and then calls it a model without inputs or asks for its output's shape."""
    own = vars(keras.layers.Lambda)["from_config"]
    model = head(made())
    path = tmp_path / f"model{suffix}"
    model.save(path)
    code = tmp_path / "code.py"
    code.write_text("import keras\n")
    lacking = "np" if made is shaped else "tf"
    assert f"Received: none for {lacking}. Import or define it there" in refused(path, code=code)
    code.write_text("import numpy as np\nimport tensorflow as tf\n")
    loaded = load_model(path, code=code)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)
    assert vars(keras.layers.Lambda)["from_config"] is own


def test_layers_made_of_lambda_and_callable_objects_load_as_they_are(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('theirs')\n"
        "class Doubled(keras.layers.Lambda):\n"
        "    def call(self, x):\n"
        "        return 2 * super().call(x)\n"
        "@keras.saving.register_keras_serializable('theirs')\n"
        "class Half:\n"
        "    def __call__(self, x):\n"
        "        return 0.5 * x\n"
        "    def get_config(self):\n"
        "        return {}\n"
        "    @classmethod\n"
        "    def from_config(cls, config):\n"
        "        return cls()\n"
    )
    space: dict[str, Any] = {"__name__": "a_module_of_theirs"}
    exec(code.read_text(), space)
    for name, layer in (("a", space["Doubled"](lambda x: x + 1)), ("b", L.Lambda(space["Half"]()))):
        model = head(layer)
        model.save(tmp_path / f"{name}.keras")
        expected = model.predict(X, verbose=0)
        forget()
        loaded = load_model(tmp_path / f"{name}.keras", code=code)
        np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = 1\n\nraise KeyError('why')\n", "line 3 (KeyError: 'why')"),
        ("def f():\n    return 1 / 0\n\nf()\n", "line 2 (ZeroDivisionError"),
        ("x = 1\ny = = 2\n", "line 2 (SyntaxError"),
        ("import sys\nsys.exit(3)\n", "line 2 (SystemExit: 3)"),
        ("import nothing_that_exists\n", "line 1 (ModuleNotFoundError"),
        (None, "where there is none"),
    ],
)
def test_a_file_that_fails_is_one_line(text: str | None, part: str, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    before = list(sys.path)
    assert part in refused(files / "layer.keras", code=path)
    assert sys.path == before


def test_on_the_command_line(files: Path, tmp_path: Path) -> None:
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    source = files / "layer.keras"
    assert "--code FILE.py" in call("import", "--model", source, *places).message
    code = ("--code", files / "code.py")
    data = ("--data", "shapes", "--split", "test[:20]")
    outcome = call("import", "--model", source, "--name", "mine", *code, *places)
    assert (outcome.status, outcome.err) == (0, "")
    assert "Twice" not in json.dumps(json.loads((tmp_path / "models" / "mine" / "card.json").read_text())["command"])
    forget()
    attack = ("attack", "--attack", "fgsm", *data, *places)
    for name, words in {"with": (*code, "--model", source), "without": ("--model", "mine")}.items():
        outcome = call(*attack, *words, "--name", name)
        assert (outcome.status, outcome.err) == (0, "")
        forget()
    logs = {
        name: [event.message for event in events(tmp_path / "runs" / name) if isinstance(event, Log)]
        for name in ("with", "without")
    }
    assert any(line.startswith("Ran ") for line in logs["with"])
    assert any("SavedModel beside it" in line for line in logs["without"])
    accuracies = [json.loads((tmp_path / "runs" / name / "result.json").read_text())["clean_accuracy"] for name in logs]
    assert accuracies[0] == accuracies[1]
    command = ("train", "--epochs", "1", "--data", "shapes", "--split", "train[:100]", "--test-split", "test[:20]")
    outcome = call(*command, "--model", source, *code, "--name", "trained", *places)
    assert (outcome.status, outcome.err) == (0, "")
