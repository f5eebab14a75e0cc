"""What a window changes in a network's logits, computed in part, is what the whole network says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrobust import twins
from kerasrobust.attacks import driver
from kerasrobust.attacks.square import Square
from kerasrobust.errors import Cancelled
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops.tracing import has_onednn, on_gpu

SHAPE = (16, 16, 3)

pytestmark = pytest.mark.skipif(on_gpu() or not has_onednn(), reason="twins lay no images beside each other here")


def chain(kernel: int = 3, pool: bool = True, ending: str = "linear") -> keras.Model:
    keras.utils.set_random_seed(0)
    parts: list[Any] = [keras.Input(SHAPE), layers.Rescaling(4.0, -2.0)]
    for filters in (8, 16):
        parts += [layers.Conv2D(filters, kernel, padding="same", use_bias=False), layers.BatchNormalization()]
        parts += [layers.ReLU(), layers.MaxPooling2D()] if pool else [layers.ReLU()]
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(10, activation=ending)])


def twin_of(model: keras.Model, precision: str) -> Classifier:
    return twins.of(as_classifier(model), precision, images(4))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *SHAPE), np.float32)


@pytest.mark.parametrize("precision", ["folded", "bfloat16"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_logits_of_patched_images_are_those_of_the_whole_network(precision: str, kernel: int) -> None:
    twin, count, draw = twin_of(chain(kernel), precision), 6, np.random.default_rng(1)
    local = twins.local_of(twin, SHAPE)
    assert local is not None
    tolerance = 1e-5 if precision == "folded" else 0.05
    best = images(count)
    logits, kept = local.begin(tf.constant(best))
    np.testing.assert_allclose(logits, twin(tf.constant(best)), atol=tolerance)
    for side in (16, 1, 2, 3, 4, 5, 7, 9, 3, 1, 2, 16, 2):
        corners = draw.integers(0, 16 - side + 1, (count, 2)).astype(np.int32)
        corners[:2] = 0, 16 - side  # Both ends of both sides.
        patch = draw.random((side, side, count, 3), np.float32)
        chosen = draw.random(count) < 0.5
        patched = best.copy()
        for number, (row, column) in enumerate(corners):
            patched[number, row : row + side, column : column + side] = patch[:, :, number]
        window = tf.constant(corners), (tf.constant(side), tf.constant(side))
        found, moved, kept = local.step(
            tf.constant(best), kept, window, tf.constant(patch), lambda _, chosen=chosen: tf.constant(chosen)
        )
        np.testing.assert_allclose(found, twin(tf.constant(patched)), atol=tolerance)
        best[chosen] = patched[chosen]
        np.testing.assert_array_equal(moved, best)


def branched() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)])
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(x)))))


@pytest.mark.parametrize(
    "make",
    [branched, lambda: chain(pool=False), lambda: chain(ending="softmax")],
    ids=["branched", "not pooled", "softmax"],
)
def test_a_network_that_is_no_chain_is_computed_whole(make: Callable[[], keras.Model]) -> None:
    assert twins.local_of(twin_of(make(), "folded"), SHAPE) is None


def test_images_of_other_channels_and_the_network_itself_are_computed_whole() -> None:
    model = chain()
    assert twins.local_of(twin_of(model, "folded"), (16, 16, 1)) is None
    assert twins.local_of(as_classifier(model), SHAPE) is None


def test_what_would_keep_too_much_of_each_image_is_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = twin_of(chain(), "bfloat16")
    local = twins.local_of(model, SHAPE)
    # Of 16 x 16 pixels: after the first pooling 8 x 8 with a border and 8 channels, then 4 x 4 and 16, two bytes each.
    assert local is not None and local.kept_bytes() == 2 * (10 * 10 * 8 + 4 * 4 * 16)
    monkeypatch.setattr(twins.local, "MOST_KEPT", 2_111)
    assert twins.local_of(model, SHAPE) is None


@pytest.mark.parametrize("targeted", [False, True])
def test_square_finds_the_same_either_way(targeted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = chain(), images(12)
    order = model.predict(x, verbose=0).argsort(axis=1)
    y, goal = order[:, -1], {"target": order[:, -2]} if targeted else {}
    attack = Square(epsilon=0.02, queries=60, targeted=targeted)

    def run() -> Any:
        return attack(as_classifier(model), x, y, precision="folded", batch_size=8, **goal)

    ours = run()
    monkeypatch.setattr(driver.twins, "local_of", lambda *_: None)
    whole = run()
    assert 0 < ours.success.mean() < 1
    np.testing.assert_array_equal(ours.success, whole.success)
    np.testing.assert_array_equal(ours.queries, whole.queries)
    np.testing.assert_allclose(ours.x_adv, whole.x_adv, atol=1e-6)
    assert (ours.forwards, ours.gradients) == (whole.forwards, whole.gradients)


@pytest.mark.parametrize("precision", ["folded", "bfloat16"])
@pytest.mark.parametrize("in_parts", [(True, True), (True, False), (False, True)])
def test_a_batch_goes_on_from_what_was_saved(
    precision: str, in_parts: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that computes in parts, too, if the one before didn't, and the other way round."""
    monkeypatch.setattr("kerasrobust.attacks.batch.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("kerasrobust.attacks.batch.CHUNK_SECONDS", 0.0005)
    model, x = chain(), images(6)
    y = model.predict(x, verbose=0).argmax(axis=1)
    asked, local_of = 0, twins.local_of

    def on_a_machine(in_parts: bool) -> None:
        monkeypatch.setattr(driver.twins, "local_of", local_of if in_parts else lambda *_: None)

    def run(folder: Path | None = None, stop: int | None = None) -> np.ndarray:
        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked == stop

        attack = Square(epsilon=0.02, queries=40)
        found = evaluate(
            as_classifier(model), x, y, attacks=attack, precision=precision, audit=False, resume_dir=folder,
            should_stop=should_stop,
        )  # fmt: skip
        return found.worst.x_adv

    whole = run()
    asked = 0
    on_a_machine(in_parts[0])
    with pytest.raises(Cancelled):
        run(tmp_path, stop=4)
    asked = 0
    saved = max(path.stat().st_size for path in tmp_path.rglob("*.npz"))
    assert saved < 8 * x.nbytes  # What can be made anew isn't there.
    on_a_machine(in_parts[1])
    if all(in_parts):
        np.testing.assert_array_equal(run(tmp_path), whole)
    else:
        np.testing.assert_allclose(run(tmp_path), whole, atol=1e-6)
