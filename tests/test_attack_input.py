"""What attacks take, and what they refuse in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, labels_of, same

from kerasrobust.attacks import (
    FGSM,
    PGD,
    Attack,
    DeepFool,
)
from kerasrobust.errors import InputError

MIDDLE = images(40)


@pytest.mark.parametrize("attack", [PGD(norm="l2", epsilon=1), DeepFool(overshoot=0, steps=2), FGSM(epsilon=1)])
def test_whole_numbers_are_taken_as_settings(attack: Attack, linear: keras.Model) -> None:
    y = labels_of(linear, MIDDLE, 0)
    assert np.isfinite(attack(linear, MIDDLE, y).x_adv).all()


def test_other_dtypes_and_lists_are_taken(linear: keras.Model) -> None:
    y = labels_of(linear, MIDDLE, 0)
    expected = FGSM(epsilon=0.01)(linear, MIDDLE, y)
    same(FGSM(epsilon=0.01)(linear, MIDDLE.astype(np.float64), y.tolist()), expected)
    same(FGSM(epsilon=np.float64(0.01))(linear, tf.constant(MIDDLE), tf.constant(y.astype(np.int32))), expected)


@pytest.mark.parametrize("attack", [PGD(epsilon=0.3), PGD(norm="l2", epsilon=1.0), DeepFool()])
def test_gradients_that_are_no_numbers_do_not_spoil_the_image(attack: Attack) -> None:
    """The root's slope at 0 is infinite, and infinity less infinity is no number."""

    def broken(x: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(x, (-1, PIXELS))
        return flat[:, 10:13] + tf.sqrt(tf.maximum(flat[:, :3] - 0.9, 0.0))

    result = attack(broken, MIDDLE, MIDDLE.reshape(40, -1)[:, 10:13].argmax(axis=1))
    assert np.isfinite(result.x_adv).all()
    assert result.success.all()


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: PGD(epsilon=-0.1), "epsilon"),
        (lambda: PGD(epsilon=float("nan")), "epsilon"),
        (lambda: PGD(epsilon=8), "8/255"),
        (lambda: PGD(norm="l1"), "norm"),
        (lambda: PGD(steps=0), "step"),
        (lambda: PGD(step_size=-1.0), "step size"),
        (lambda: PGD(step_size=float("nan")), "step size"),
        (lambda: PGD(restarts=0), "restart"),
        (lambda: FGSM(eot=0), "EOT"),
        (lambda: DeepFool(targeted=True), "deepfool"),
        (lambda: DeepFool(steps=0), "step"),
        (lambda: DeepFool(candidates=0), "candidate"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(make: Callable[[], Attack], part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        make()
    assert "\n" not in str(caught.value)


Y = np.zeros(40, np.int64)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"x": MIDDLE * 255}, "0, 1"),
        ({"x": np.where(MIDDLE > 0.6, np.nan, MIDDLE)}, "NaN"),
        ({"x": (MIDDLE * 999).astype(np.int32)}, "int32"),
        ({"x": MIDDLE[:, :4]}, "8x8x3"),
        ({"x": MIDDLE[:0], "y": Y[:0]}, "at least one"),
        ({"y": Y[:-1]}, "labels"),
        ({"y": Y + 4}, "labels"),
        ({"y": Y - 1}, "labels"),
        ({"target": Y}, "target"),
        ({"targeted": True}, "target"),
        ({"targeted": True, "target": Y[:3]}, "target"),
        ({"targeted": True, "target": Y + 4}, "target"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_bad_input_is_refused_in_one_line(settings: dict[str, Any], part: str, linear: keras.Model) -> None:
    call: dict[str, Any] = {"x": MIDDLE, "y": Y} | settings
    attack = FGSM(targeted=call.pop("targeted", False))
    with pytest.raises(InputError, match=part) as caught:
        attack(linear, call.pop("x"), call.pop("y"), **call)
    assert "\n" not in str(caught.value)


def test_bfloat16_needs_a_keras_model() -> None:
    with pytest.raises(InputError, match="Keras model"):
        FGSM()(lambda x: tf.reshape(x, (-1, PIXELS))[:, :4], MIDDLE, Y, precision="bfloat16")
