"""Planted defects, each found by its code; and nothing found where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import FGSM, PGD, DeepFool, Square
from kerasrobust.data.load import load_data
from kerasrobust.evaluation import audit
from kerasrobust.evaluation.checks import black_box
from kerasrobust.evaluation.checks import model as checks
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout, noise_off
from kerasrobust.networks.saving import load_model

X = images(120, seed=6)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base() -> keras.Model:
    """A linear classifier whose classes are told apart by brightness patterns, far enough from its boundaries."""
    kernel = np.random.default_rng(1).normal(size=(PIXELS, 4)).astype(np.float32)
    return linear_model(kernel / 2, -(kernel.sum(axis=0) / 4).astype(np.float32))


@pytest.fixture(scope="module")
def y(base: keras.Model) -> np.ndarray:
    return labels_of(base, X, 0)


def codes(evaluation: Evaluation) -> set[str]:
    return {finding.code for finding in evaluation.findings}


def audited(model: Any, y: np.ndarray, x: np.ndarray = X, **settings: Any) -> Evaluation:
    return evaluate(model, x, y, attacks=PGD(epsilon=0.01, steps=6), batch_size=64, thorough=True, **settings)


def test_a_sound_model_raises_nothing(base: keras.Model, y: np.ndarray) -> None:
    found = audited(base, y)
    assert found.findings == [] and found.warnings == []
    assert found.audit is not None
    assert found.audit.left_out == []
    assert set(found.audit.checked) == {code for check in audit.CHECKS for code in check.codes}


class InGraphs(keras.Model):
    """A subclassed model that works in graphs alone, as `predict` calls it."""

    def __init__(self, inner: keras.Model, softmax: bool) -> None:
        super().__init__()
        self.inner, self.softmax = inner, softmax

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns logits or probabilities."""
        if tf.executing_eagerly():
            raise RuntimeError("Outside of a graph.")
        return tf.nn.softmax(self.inner(x)) if self.softmax else self.inner(x)


@pytest.mark.parametrize("softmax", [True, False])
def test_a_model_that_works_in_graphs_alone_is_audited(softmax: bool, base: keras.Model, y: np.ndarray) -> None:
    model = InGraphs(base, softmax)
    model.predict(X[:2], verbose=0)
    found = audited(model, y)
    assert found.audit is not None and found.audit.left_out == []
    assert ("softmax-output" in codes(found)) is softmax
    assert found.clean_accuracy == audited(base, y).clean_accuracy


@pytest.mark.parametrize("masked", [-1e9, -np.inf])
def test_a_masked_class_raises_nothing(masked: float, base: keras.Model, y: np.ndarray) -> None:
    found = audited(lambda x: tf.pad(base(x), [[0, 0], [0, 1]], constant_values=masked), y)
    assert found.findings == []


def test_a_pgd_trained_model_raises_nothing(tfds_dir: Path) -> None:
    x, labels = load_data("cifar10", "test[:200]", data_dir=tfds_dir)
    model = load_model(ROOT / "saved_models" / "convnet-pgd")
    found = evaluate(model, x, labels, attacks="pgd", thorough=True)
    assert found.findings == []
    assert found.audit is not None and found.audit.left_out == []


def misled(base: keras.Model, leap: float = 1e-4) -> Callable[[tf.Tensor], tf.Tensor]:
    """A network whose gradients are right on 8-bit images, and point the other way everywhere else."""

    @tf.custom_gradient
    def turn(x: tf.Tensor) -> Any:
        levels = x * 255
        on_grid = tf.reduce_max(tf.abs(levels - tf.round(levels)), axis=[1, 2, 3], keepdims=True) < leap * 255
        return tf.identity(x), lambda up: tf.where(on_grid, up, -up)

    return lambda x: base(turn(x), training=False)


def as_said(model: Callable[[tf.Tensor], tf.Tensor], x: np.ndarray = X) -> Classifier:
    return as_classifier(model, image_shape=x.shape[1:], input_range=(0, 1), colors="rgb")


PLANTED: dict[str, Callable[[keras.Model], Callable[[tf.Tensor], tf.Tensor]]] = {
    "softmax-output": lambda base: lambda x: tf.nn.softmax(base(x, training=False)),
    "zero-gradient": lambda base: lambda x: base(tf.round(x * 64) / 64, training=False),
    "saturated-loss": lambda base: lambda x: 1000.0 * base(x, training=False),
    "input-range": lambda base: as_said(lambda x: base(x / 255, training=False)),
    "input-layout": lambda base: lambda x: base(tf.transpose(x, (0, 2, 1, 3)), training=False),
}


@pytest.mark.parametrize("code", PLANTED)
def test_planted_defects_are_found_by_their_codes(code: str, base: keras.Model, y: np.ndarray) -> None:
    found = audited(PLANTED[code](base), y)
    assert code in codes(found)
    (finding,) = [item for item in found.findings if item.code == code]
    assert len(finding.message) > 40 and finding.message.endswith(".")
    # What it leads to may be found too, but no other defect.
    assert codes(found) & set(PLANTED) <= {code, "saturated-loss"}


def labels_by(plain: np.ndarray, turned: np.ndarray, shares: tuple[float, float], spread: int) -> np.ndarray:
    """Returns labels of 100 images on `shares` of which a model is right as they are, and with the sides exchanged.

    Where it is right neither way, the label is the next of the first `spread` classes.
    """
    differ, same = np.flatnonzero(plain != turned), np.flatnonzero(plain == turned)
    first, second = (int(100 * share) for share in shares)
    y = np.full(len(plain), -1)
    y[differ[:first]] = plain[differ[:first]]
    y[differ[first : first + second]] = turned[differ[first : first + second]]
    rest = same[: 100 - first - second]
    y[rest] = (plain[rest] + 1) % spread
    return y


@pytest.mark.parametrize(
    ("classes", "shares", "told"),
    [(2, (0.04, 0.42), False), (4, (0.02, 0.28), False), (4, (0.02, 0.5), True), (2, (0.02, 0.7), True)],
)
def test_a_layout_counts_that_is_right_more_often_than_by_guessing(
    classes: int, shares: tuple[float, float], told: bool
) -> None:
    """Of two classes 42 % are fewer than a coin gets right, of four 28 % are no more than chance."""
    kernel = np.random.default_rng(1).normal(size=(PIXELS, classes)).astype(np.float32)
    model = linear_model(kernel, -(kernel.sum(axis=0) / 2).astype(np.float32))
    x = images(1000, seed=8)
    plain, turned = (model.predict(pixels, verbose=0).argmax(axis=1) for pixels in (x, x.transpose(0, 2, 1, 3)))
    y = labels_by(plain, turned, shares, classes)
    x, y = x[y >= 0], y[y >= 0]
    right = [(model.predict(pixels, verbose=0).argmax(axis=1) == y).mean() for pixels in (x, x.transpose(0, 2, 1, 3))]
    assert right == pytest.approx(shares)
    found = evaluate(as_said(model), x, y, attacks=FGSM(epsilon=0.01))
    assert ("input-layout" in codes(found)) is told


def test_a_layout_counts_that_is_right_more_often_than_the_commonest_class() -> None:
    """Half are right with the sides exchanged, and 60 % are of one class."""
    said = np.arange(100) % 4
    y = np.where(np.arange(100) < 60, 0, said)
    turned = np.where(np.arange(100) % 2 == 0, y, (y + 1) % 4)
    logits = np.eye(4)[turned]
    assert (turned == y).mean() == 0.5
    assert not checks._tells(logits, y)
    assert checks._tells(logits, np.where(turned == y, turned, said))


def test_a_keras_softmax_is_told_though_it_is_attacked_before_it(base: keras.Model, y: np.ndarray) -> None:
    model = keras.Sequential([*base.layers, keras.layers.Softmax()])
    found = audited(model, y)
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("softmax-output", "info")
    assert found.robust_accuracy == audited(base, y).robust_accuracy


def test_a_batch_that_only_attacked_images_depend_on(base: keras.Model, y: np.ndarray) -> None:
    edge = X.max()

    def shifted(x: tf.Tensor) -> tf.Tensor:
        return base(x) + 1e4 * tf.reduce_mean(tf.nn.relu(x - edge)) * tf.one_hot(1, base.output_shape[-1])

    assert "batch-dependence" in codes(audited(shifted, y))


class Around(keras.Model):
    """A subclass whose call takes no `training`: behind Resizing Keras 3.15's BatchNormalization then normalises by the
    batch, in `predict`, too.
    """

    def __init__(self, *layers: keras.layers.Layer) -> None:
        super().__init__()
        self.inner = keras.Sequential([keras.Input(X.shape[1:], dtype="int32"), *layers])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.inner(x)


def test_a_batch_that_images_depend_on_behind_whole_numbers() -> None:
    """All images in [0, 1) are 0 as whole numbers, and get the same answer; attacked ones reach 1."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inside = layers.Resizing(6, 6), layers.Flatten(), layers.Dense(4), layers.BatchNormalization()
    model = Around(*inside)
    found = evaluate(model, X, np.zeros(len(X), int), attacks=PGD(epsilon=0.5, steps=2), audit=True)
    assert "batch-dependence" in codes(found)


def test_batchnorm_in_training_mode(small: keras.Model) -> None:
    labels = labels_of(small, X, 0)
    before = [np.array(weight) for weight in small.weights]
    found = audited(lambda x: small(x, training=True), labels)
    for weight, value in zip(small.weights, before, strict=True):
        weight.assign(value)
    assert "batch-dependence" in codes(found)
    assert "batch-dependence" not in codes(audited(small, labels))


def test_noise(randomized: keras.Model) -> None:
    labels = labels_of(randomized, X, 0)
    found = audited(randomized, labels, passes=6)
    (finding,) = [item for item in found.findings if item.code == "randomized"]
    assert finding.severity == "warning" and "pgd" in finding.message
    averaged = evaluate(randomized, X[:40], labels[:40], attacks=PGD(steps=2, eot=3), passes=6)
    (finding,) = [item for item in averaged.findings if item.code == "randomized"]
    assert finding.severity == "info"
    assert 0 < finding.evidence["images_that_differ"] <= 1


def test_gradients_that_mislead(base: keras.Model) -> None:
    """PGD's random start leaves the grid on which gradients are right: one step wins, the loss falls, a box wins."""
    x = (np.round(X * 255) / 255).astype(np.float32)
    labels = labels_of(base, x, 0)
    found = evaluate(misled(base), x, labels, attacks=PGD(epsilon=0.03, steps=6), batch_size=64, thorough=True)
    assert {"one-step-wins", "loss-falls", "radius-not-fatal", "black-box-wins"} <= codes(found)
    by_code = {item.code: item for item in found.findings}
    one_step = by_code["one-step-wins"].evidence
    assert one_step["one_step"] > one_step["many_steps"]


@keras.saving.register_keras_serializable(package="tests")
class Drowned(keras.layers.Layer):
    """Passes the images on, and turns their gradients around where a value is exactly 0, as dropout has it."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def turn(x: tf.Tensor) -> Any:
            dropped = tf.reduce_any(tf.equal(x, 0), axis=[1, 2, 3], keepdims=True)
            return tf.identity(x), lambda up: tf.where(dropped, -up, up)

        return turn(x)


@pytest.mark.parametrize("drowned", [True, False])
def test_gradients_that_drown_in_noise(drowned: bool, base: keras.Model, y: np.ndarray) -> None:
    """Without the noise they point the right way."""
    inputs = keras.Input(SHAPE)
    hidden = RandomDropout(0.05)(inputs)
    noisy = keras.Model(inputs, base(Drowned()(hidden) if drowned else hidden))
    x = np.clip(X, 1 / 255, 1)
    with noise_off():
        right = labels_of(base, x, 0)
    attacks = PGD(epsilon=0.05, steps=10)
    found = evaluate(noisy, x, right, attacks=attacks, batch_size=64, thorough=True, passes=6)
    assert found.audit is not None and "noise-free-wins" in found.audit.checked
    assert ("noise-free-wins" in codes(found)) is drowned
    if drowned:
        (told,) = [item for item in found.findings if item.code == "noise-free-wins"]
        assert told.evidence["broken"] > 0.5 * (64 - told.evidence["own"]) and "surrogate" in told.message
        # Attacks of a step, or without gradients, may break less for other reasons.
        for weak in (FGSM(epsilon=0.05), Square(epsilon=0.05, queries=20)):
            found = evaluate(noisy, x, right, attacks=weak, batch_size=64, thorough=True, passes=6)
            assert "noise-free-wins" not in codes(found)
    assert "noise-free-wins" not in audited(base, y).audit.checked  # type: ignore[union-attr]


def test_where_a_black_box_wins_it_is_restarted(base: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_box, "RESTARTS", 3)
    monkeypatch.setattr(black_box, "QUERIES", 100)
    x = (np.round(X * 255) / 255).astype(np.float32)
    labels = labels_of(base, x, 0)
    attacks = [PGD(epsilon=0.03, steps=10), Square(epsilon=0.03, queries=30)]
    told = {}
    for thorough in (True, False):
        found = evaluate(misled(base), x, labels, attacks=attacks, batch_size=64, thorough=thorough)
        (told[thorough],) = [item for item in found.findings if item.code == "black-box-wins"]
    more = told[True].evidence
    assert 0 < more["restarts_broken"] <= more["restarts_left"] < 64
    assert "3 restarts of Square" in told[True].message and "restarts" not in told[False].message
    assert {key: more[key] for key in told[False].evidence} == told[False].evidence


def test_a_black_box_of_the_evaluation_itself_counts(base: keras.Model) -> None:
    x = (np.round(X * 255) / 255).astype(np.float32)
    labels = labels_of(base, x, 0)
    attacks = [PGD(epsilon=0.03, steps=6), Square(epsilon=0.03, queries=100)]
    found = evaluate(misled(base), x, labels, attacks=attacks, batch_size=64)
    assert "black-box-wins" in codes(found)
    assert "black-box-wins" not in codes(evaluate(base, x, labels, attacks=attacks, batch_size=64))


def test_nan_gradients(base: keras.Model, y: np.ndarray) -> None:
    x = X.copy()
    x[:, 0, 0, 0] = 0.0
    labels = labels_of(base, x, 0)
    found = audited(lambda z: base(z, training=False) + 1e-9 * tf.sqrt(z[:, 0, 0, :1]), labels, x)
    assert "nan-gradient" in codes(found)


NO_NUMBERS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "root": tf.sqrt,
    "logarithm": tf.math.log,
    "quotient": lambda room: tf.nn.relu(room) / tf.nn.relu(room),
}


@pytest.mark.parametrize("attack", [PGD(epsilon=0.05, steps=5), Square(epsilon=0.05, queries=60)])
@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_number_is_wrong(kind: str, attack: Any) -> None:
    """Above a mean brightness of 0.7, which images that are nearer to it than epsilon reach; NaN would be class 0."""

    def model(x: tf.Tensor) -> tf.Tensor:
        room = 0.7 - tf.reduce_mean(x, axis=(1, 2, 3))[:, None]
        nothing = 0 * NO_NUMBERS[kind](room)
        return tf.concat([1 + 10 * room, nothing, nothing], axis=1)

    x = X[:40] - X[:40].mean(axis=(1, 2, 3), keepdims=True) + np.linspace(0.6, 0.72, 40)[:, None, None, None]
    x = x.astype(np.float32)
    found = evaluate(as_said(model), x, np.zeros(40, int), attacks=attack)
    brightness = x.mean(axis=(1, 2, 3))
    assert found.clean_accuracy == (brightness < 0.7).mean() < 1
    lost = found.worst.x_adv.mean(axis=(1, 2, 3)) >= 0.7
    np.testing.assert_array_equal(found.per_example, ~lost)
    assert lost.sum() > (brightness >= 0.7).sum() + 2
    if attack.name == "pgd":
        np.testing.assert_array_equal(lost, brightness >= 0.65)
    (finding,) = [item for item in found.findings if item.code == "nan-logits"]
    assert finding.severity == "error"
    assert finding.evidence == pytest.approx({"clean": (brightness >= 0.7).mean(), "share": lost.mean()})


@pytest.mark.parametrize("factor", [1e36, 1e39])
def test_infinite_logits_are_said(factor: float, linear: keras.Model) -> None:
    """Of 1e39 times a number float32 makes an infinity; attacks don't take two of them for a success."""

    def model(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.cast(linear(x, training=False), tf.float64) * factor, tf.float32)

    y = linear.predict(X, verbose=0).argmax(axis=1)
    found = evaluate(as_said(model), X, y, attacks=PGD(epsilon=1e-4, steps=3))
    infinite = np.isposinf(model(tf.constant(X))).any(axis=1).mean()
    said = {item.code: item.evidence for item in found.findings if item.code == "infinite-logits"}
    assert said == ({} if factor < 1e38 else {"infinite-logits": {"share": pytest.approx(infinite)}})
    assert infinite == 0 or infinite > 0.3


def turned(by: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[keras.Model], Callable[[tf.Tensor], tf.Tensor]]:
    """Returns what makes a network whose gradients are none of its own, as if an operation had a wrong one."""

    @tf.custom_gradient
    def same(x: tf.Tensor) -> Any:
        return tf.identity(x), by

    return lambda base: lambda x: base(same(x), training=False)


WRONG = {
    "reversed": turned(tf.negative),
    "of another place": turned(lambda up: tf.roll(up, [3, 2], [1, 2])),
    "of noise": turned(lambda up: tf.reduce_max(abs(up)) * tf.random.stateless_normal(tf.shape(up), [1, 2])),
}


@pytest.mark.parametrize("kind", WRONG)
def test_gradients_of_another_function_are_found(kind: str, base: keras.Model, y: np.ndarray) -> None:
    found = evaluate(WRONG[kind](base), X, y, attacks=PGD(epsilon=0.01, steps=3), thorough=True)
    (finding,) = [item for item in found.findings if item.code == "wrong-gradient"]
    assert finding.severity == "error" and finding.evidence["agreement"] < 0.15


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_pooling_layer_has_right_gradients_on_images_of_one_value(value: float) -> None:
    """The largest of two differences that are 0: it grows by as much along its gradient as along minus that."""
    model = keras.Sequential([
        keras.Input((16, 16, 1)), keras.layers.Conv2D(1, (1, 2)), keras.layers.MaxPooling2D((1, 2)),
        keras.layers.Flatten(), keras.layers.Dense(2),
    ])  # fmt: skip
    kernel = np.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    model.set_weights([kernel, np.zeros(1), np.tile([1.0, 0.0], (16 * 7, 1)), np.array([1.0, 0.0])])
    x, y = np.full((40, 16, 16, 1), value, np.float32), np.zeros(40, int)
    step = np.where(np.arange(16) % 2 == 0, 0.01, -0.01).astype(np.float32)[:, None]
    both = model.predict(np.stack([x[0] + step, x[0] - step]), verbose=0)
    np.testing.assert_allclose(both[:, 0], 1 + 16 * 7 * 0.02, rtol=1e-4)
    for base, told in ((model, False), (WRONG["reversed"](model), True)):
        found = evaluate(as_said(base, x), x, y, attacks=PGD(epsilon=0.01, steps=3), thorough=True)
        assert found.audit is not None and "wrong-gradient" in found.audit.checked
        assert ("wrong-gradient" in codes(found)) is told


IN_FLOAT8: dict[str, Callable[[], keras.Layer]] = {
    "linear": keras.layers.Identity,
    "dense": lambda: keras.layers.Dense(32, activation="relu"),
    "convolution": lambda: keras.layers.Conv2D(4, 3, activation="relu"),
}


@pytest.mark.parametrize("kind", IN_FLOAT8)
def test_gradients_of_a_network_trained_in_float8_are_found(kind: str) -> None:
    """They are cut off at the largest one of the training, which is of a mean over the batch."""
    keras.utils.set_random_seed(0)
    middle = [IN_FLOAT8[kind](), keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(6.0, offset=-3.0), *middle])
    labels = model.predict(X, verbose=0).argmax(axis=1)
    model.quantize("float8")
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, labels, epochs=6, verbose=0)
    found = evaluate(model, X, labels, attacks=DeepFool(norm="linf"), epsilon=0.03)
    true = evaluate(model, X, labels, attacks=Square(epsilon=0.03, queries=100), audit=False)
    assert found.robust_accuracy > true.robust_accuracy + 0.3, "there is something to find"
    (finding,) = [item for item in found.findings if item.code == "wrong-gradient"]
    assert finding.severity == "error" and finding.evidence["agreement"] > 7


def test_rounding_to_8_bits(base: keras.Model) -> None:
    """Perturbations of 0.4/255 are rounded away on images that are 8-bit ones; those of 8/255 are not."""
    x = (np.round(X * 255) / 255).astype(np.float32)
    logits = np.asarray(base(x, training=False))
    order = np.sort(logits, axis=1)
    near = np.argsort(order[:, -1] - order[:, -2])[:40]
    labels = logits.argmax(axis=1)
    tiny = evaluate(base, x[near], labels[near], attacks=PGD(epsilon=0.45 / 255, steps=10))
    if tiny.robust_accuracy < 0.7:
        assert "rounding" in codes(tiny)
    assert "rounding" not in codes(evaluate(base, x, labels, attacks=PGD(epsilon=8 / 255, steps=6)))
    nearest = evaluate(base, x[near], labels[near], attacks=DeepFool(norm="linf"), epsilon=8 / 255)
    assert {item.severity for item in nearest.findings if item.code == "rounding"} <= {"info"}


def test_few_examples(base: keras.Model, y: np.ndarray) -> None:
    found = evaluate(base, X[:10], y[:10], attacks=FGSM(epsilon=0.01))
    (finding,) = [item for item in found.findings if item.code == "few-examples"]
    assert finding.evidence["examples"] == 10
    assert "few-examples" not in codes(evaluate(base, X, y, attacks=FGSM(epsilon=0.001)))


def test_it_costs_a_tenth_at_most(base: keras.Model) -> None:
    """Counts images in backward passes, whoever asks for them."""
    seen = 0

    def count(images: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += len(images)
        return np.float32(0)

    @tf.custom_gradient
    def counted(x: tf.Tensor) -> Any:
        def back(up: tf.Tensor) -> tf.Tensor:
            return up + tf.ensure_shape(tf.numpy_function(count, [x], tf.float32), ())

        return tf.identity(x), back

    def model(x: tf.Tensor) -> tf.Tensor:
        return base(counted(x), training=False)

    x = np.concatenate([X, images(120, seed=7)])
    labels = labels_of(base, x, 0)
    attack = PGD(epsilon=0.001, steps=20)
    network = as_classifier(model, image_shape=SHAPE)  # A bare function would be traced anew in each call.
    spent = []
    for asked in (False, True):
        seen = 0
        found = evaluate(network, x, labels, attacks=attack, batch_size=240, audit=asked)
        spent.append((seen, found))
    (without, _), (with_it, found) = spent
    assert found.audit is not None and found.audit.gradients > 0 and found.audit.left_out == []
    assert with_it - without <= found.audit.gradients + audit.FEWEST <= 0.1 * 20 * 240 + audit.FEWEST
    # Too little is spent to be audited in full: what can't be afforded is named.
    cheap = evaluate(network, x, labels, attacks=FGSM(epsilon=0.001), batch_size=240)
    assert cheap.audit is not None
    assert cheap.audit.gradients <= 24
    assert "radius-not-fatal" in cheap.audit.left_out


def test_shapes_of_images_do_not_matter(base: keras.Model) -> None:
    assert SHAPE[0] == SHAPE[1], "the check of the layout exchanges them"
    tall = keras.Sequential([keras.Input((8, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).random((20, 8, 6, 1)).astype(np.float32)
    assert evaluate(tall, x, labels_of(tall, x, 0), attacks=PGD(epsilon=0.001, steps=3)).audit is not None
