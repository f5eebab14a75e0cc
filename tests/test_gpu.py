"""What is done otherwise beside a GPU, as far as a processor shows it; `benchmarks/gpu.py` runs on a real one."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import images, labels_of

from kerasrobust import twins
from kerasrobust.attacks import PGD, batch, network
from kerasrobust.attacks.verdict import judge, predict
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops import tracing
from kerasrobust.ops.tracing import full_float32, one_piece
from kerasrobust.training import PGD as PGDTraining
from kerasrobust.training import AdversarialModel
from kerasrobust.twins import precision

X = images(12)


def tf32() -> bool:
    return bool(tf.config.experimental.tensor_float_32_execution_enabled())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the code believe that there is a GPU."""
    for module in (tracing, network, batch, precision):
        monkeypatch.setattr(module, "on_gpu", lambda: True)


def rounding(weights: np.ndarray) -> Any:
    """Returns a linear network whose logits are off by 0.01 x, as long as TF32 is on."""

    def forward(x: tf.Tensor) -> tf.Tensor:
        off = tf.py_function(lambda: np.float32(0.01 * tf32()), [], tf.float32)
        return (1 + off) * (tf.reshape(x, [-1, len(weights)]) @ weights)

    return as_classifier(forward, image_shape=X.shape[1:], input_range="0,1", colors="rgb", outputs="logits")


def test_full_float32_ends_as_it_began() -> None:
    assert tf32()  # TensorFlow's default.
    with full_float32():
        with full_float32():
            assert not tf32()
        assert not tf32()
    assert tf32()
    with pytest.raises(ZeroDivisionError), full_float32():
        1 / 0  # noqa: B018
    assert tf32()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with full_float32():
            assert not tf32()
        assert not tf32()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def test_threads_that_judge_at_once_leave_it_on() -> None:
    inside, left = threading.Barrier(2), threading.Event()

    def first() -> None:
        with full_float32():
            inside.wait(10)
        left.set()

    thread = threading.Thread(target=first)
    thread.start()
    with full_float32():
        inside.wait(10)
        left.wait(10)
        assert not tf32()
    thread.join()
    assert tf32()


def test_verdicts_are_in_full_float32(weights: tuple[np.ndarray, np.ndarray]) -> None:
    kernel = weights[0]
    expected = X.reshape(len(X), -1) @ kernel
    np.testing.assert_allclose(predict(rounding(kernel), X), expected, rtol=1e-4, atol=1e-4)
    confidence = judge(rounding(kernel), X, expected.argmax(axis=1)).confidence
    p = np.exp(expected - expected.max(axis=1, keepdims=True))
    np.testing.assert_allclose(confidence, p.max(axis=1) / p.sum(axis=1), rtol=1e-4)


def test_attacks_know_how_far_margins_are_off(gpu: None, weights: tuple[np.ndarray, np.ndarray]) -> None:
    logits = np.sort(X.reshape(len(X), -1) @ weights[0], axis=1)
    # The largest lead, or lag, of any class is off by a hundredth.
    expected = 0.01 * max(logits[:, -1] - logits[:, 0])
    assert twins.of(rounding(weights[0]), "float32", X).slack == pytest.approx(expected, rel=1e-2)


def test_without_a_gpu_there_is_no_slack(weights: tuple[np.ndarray, np.ndarray]) -> None:
    assert twins.of(rounding(weights[0]), "float32", X).slack == 0


def test_gradients_are_mended_without_waiting(gpu: None) -> None:
    given = tf.constant([[1.0, np.nan], [-np.inf, 2.0]])
    found = tf.function(network.finite).get_concrete_function(tf.TensorSpec([2, 2]))
    np.testing.assert_array_equal(found(given), [[1, 0], [0, 2]])
    assert not {"If", "StatelessIf"} & {operation.type for operation in found.graph.get_operations()}


def test_loops_hold_the_operations_themselves(gpu: None) -> None:
    found = tf.function(lambda x: one_piece(lambda x: x * x)(x)).get_concrete_function(tf.TensorSpec([]))
    assert not {operation.type for operation in found.graph.get_operations()} & {
        "PartitionedCall", "StatefulPartitionedCall",
    }  # fmt: skip


def test_the_result_is_the_processors(small: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    y = labels_of(small, X, 2)
    attack = PGD(epsilon=0.1, steps=7)
    there = attack(as_classifier(small), X, y, precision="float32", batch_size=5)
    for module in (tracing, network, batch, precision):
        monkeypatch.setattr(module, "on_gpu", lambda: True)
    here = attack(as_classifier(small), X, y, precision="float32", batch_size=5)
    np.testing.assert_array_equal(here.success, there.success)
    np.testing.assert_allclose(here.x_adv, there.x_adv, atol=1e-6)


def test_a_training_step_reads_no_int32_variable(small: keras.Model) -> None:
    """TensorFlow 2.21 keeps these in the processor's memory, which a step that XLA compiled for a GPU can't reach."""
    model = AdversarialModel(keras.models.clone_model(small), PGDTraining(epsilon=0.1, steps=2))
    model.compile("sgd", jit_compile=False)
    model.train_on_batch(X, np.arange(12) % 4)
    read = [value.dtype for name, value in vars(model).items() if isinstance(value, tf.Variable)]
    read += [tf.as_dtype(variable.dtype) for variable in [*model.variables, *model.optimizer.variables]]
    assert len(read) > 5 and tf.int32 not in read
