"""Small models and data for the command line: a plugin, so that whoever needs no model imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two small untrained networks for `shapes`: `tiny`, and `noisy` with dropout that stays on."""
    import keras

    from kerasrobust.networks.architectures import build_model
    from kerasrobust.networks.randomizing import randomize
    from kerasrobust.networks.saving import save_model

    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(5)
    network = build_model("convnet", widths=(4, 8))
    save_model(network, folder / "tiny", {"data": "shapes"})
    save_model(randomize(network, 0.3), folder / "noisy", {"data": "shapes"})
    return folder


@pytest.fixture(scope="session")
def agreed(models_dir: Path) -> Path:
    """An .npz file of 3,000 images with the classes that `tiny` gives them, so that it is right on all of them."""
    from kerasrobust.attacks.verdict import predict
    from kerasrobust.data import shapes
    from kerasrobust.networks.making import as_classifier
    from kerasrobust.networks.saving import load_model

    images, _ = shapes.generate(3000, 1)
    model = as_classifier(load_model(models_dir / "tiny"))
    y = predict(model, images.astype(np.float32) / np.float32(255)).argmax(axis=1)
    path = models_dir.parent / "agreed.npz"
    np.savez(path, x=images, y=y)
    return path


@pytest.fixture
def places(tmp_path: Path, models_dir: Path) -> Iterator[list[str]]:
    """The options for a fresh folder of runs and the session's models; nothing may be written to the latter."""
    before = sorted(models_dir.rglob("*"))
    yield ["--runs-dir", str(tmp_path / "runs"), "--models-dir", str(models_dir)]
    assert sorted(models_dir.rglob("*")) == before
