"""Spatial against a grid and a resampling written in NumPy, and against shifts and turns done by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerasrobust.attacks import Spatial
from kerasrobust.attacks.spatial import warp
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier


def resampled(image: np.ndarray, degrees: float, down: float, right: float) -> np.ndarray:
    """Returns an image, (H, W, C), turned and shifted, in float64, pixel by pixel."""
    height, width, _ = image.shape
    found = np.zeros(image.shape)
    angle = np.deg2rad(degrees)
    for row, column in product(range(height), range(width)):
        # Up and to the right of the middle, before the shift and before the turn.
        up = (height - 1) / 2 - (row - down)
        across = (column - right) - (width - 1) / 2
        from_right = across * np.cos(angle) + up * np.sin(angle)
        from_up = up * np.cos(angle) - across * np.sin(angle)
        there, here = (height - 1) / 2 - from_up, (width - 1) / 2 + from_right
        top, left = int(np.floor(there)), int(np.floor(here))
        for y, x in product((top, top + 1), (left, left + 1)):
            if 0 <= y < height and 0 <= x < width:
                found[row, column] += (1 - abs(there - y)) * (1 - abs(here - x)) * image[y, x]
    return found


def grid(image: np.ndarray, degrees: float, share: float, rotations: int, translations: int) -> np.ndarray:
    """Returns the image in every place of the grid."""
    down, right = (round(share * side) for side in image.shape[:2])
    places = product(
        np.linspace(-degrees, degrees, rotations),
        np.linspace(-down, down, translations),
        np.linspace(-right, right, translations),
    )
    return np.array([resampled(image, *place) for place in places])


class Linear:
    """A linear classifier of images of any shape, in TensorFlow and in NumPy."""

    def __init__(self, shape: tuple[int, int, int], classes: int = 3) -> None:
        draw = np.random.default_rng(3)
        self.shape, self.kernel = shape, draw.normal(size=(int(np.prod(shape)), classes)).astype(np.float32)

    def network(self) -> Any:
        def call(x: tf.Tensor) -> tf.Tensor:
            return tf.reshape(x, [-1, self.kernel.shape[0]]) @ self.kernel

        return as_classifier(call, image_shape=self.shape, input_range=(0, 1), colors="rgb")

    def margins(self, x: np.ndarray, label: int) -> np.ndarray:
        logits = x.reshape(len(x), -1) @ self.kernel.astype(np.float64)
        others = np.delete(logits, label, axis=1).max(axis=1)
        found: np.ndarray = logits[:, label] - others
        return found


@pytest.mark.parametrize(
    ("shape", "share", "degrees", "rotations", "translations"),
    [((6, 9, 1), 0.3, 40.0, 5, 3), ((5, 4, 3), 0.2, 30.0, 4, 2), ((16, 16, 1), 0.16, 30.0, 3, 3)],
)
def test_it_is_the_worst_of_the_grid(
    shape: tuple[int, int, int], share: float, degrees: float, rotations: int, translations: int
) -> None:
    model = Linear(shape)
    x = np.random.default_rng(8).random((6, *shape)).astype(np.float32)
    y = np.array([int((image.reshape(-1) @ model.kernel).argmax()) for image in x])
    attack = Spatial(degrees=degrees, shift=share, rotations=rotations, translations=translations)
    network = model.network()
    result = attack(network, x, y, early_stop=False)
    worst = []
    for image, label, x_adv in zip(x, y, result.x_adv, strict=True):
        candidates = grid(image.astype(np.float64), degrees, share, rotations, translations)
        margins = model.margins(candidates, label)
        np.testing.assert_allclose(x_adv, candidates[margins.argmin()], atol=2e-5)
        worst.append(margins.min())
    np.testing.assert_array_equal(result.success, np.array(worst) < 0)
    assert result.success.any()
    assert result.forwards == len(x) * (attack.step_count() + 2)
    # Early stop ends at the first that succeeds, and succeeds on the same images.
    early = attack(network, x, y)
    np.testing.assert_array_equal(early.success, result.success)
    assert early.forwards < result.forwards


def test_a_shift_is_a_shift_and_a_quarter_turn_is_one() -> None:
    x = np.random.default_rng(1).random((3, 5, 5, 2)).astype(np.float32)
    zero = tf.zeros(3)
    np.testing.assert_array_equal(warp(x, zero, zero, zero), x)
    moved = warp(x, zero, zero + 2, zero - 1).numpy()
    expected = np.zeros_like(x)
    expected[:, 2:, :-1] = x[:, :-2, 1:]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_allclose(warp(x, zero + 90, zero, zero), np.rot90(x, axes=(1, 2)), atol=1e-5)
    # Half a pixel is a mean, and what comes in is black.
    half = warp(x, zero, zero, zero + 0.5).numpy()
    np.testing.assert_allclose(half[:, :, 1:], (x[:, :, :-1] + x[:, :, 1:]) / 2, atol=1e-6)
    np.testing.assert_allclose(half[:, :, 0], x[:, :, 0] / 2, atol=1e-6)


def test_each_image_of_a_batch_has_a_place_of_its_own() -> None:
    x = np.random.default_rng(1).random((3, 5, 6, 1)).astype(np.float32)
    degrees, down, right = (np.array(part, np.float32) for part in ([0, 20, -7], [1, 0, 0.5], [0, 2, -1]))
    found = warp(x, tf.constant(degrees), tf.constant(down), tf.constant(right)).numpy()
    for place in range(3):
        expected = resampled(x[place].astype(np.float64), degrees[place], down[place], right[place])
        np.testing.assert_allclose(found[place], expected, atol=2e-5)


def test_the_papers_grid_has_775_places_and_no_shift_above_3_pixels_of_32() -> None:
    attack = Spatial()
    assert attack.step_count() == 775
    assert attack.threat() == "±30° and ±10 %"
    assert attack.radius() is None
    # A single white pixel in the middle goes no further than the corners of the grid.
    x = np.zeros((1, 33, 33, 1), np.float32)
    x[0, 16, 16] = 1

    def brightest(logit: tuple[int, int]) -> float:
        def call(x: tf.Tensor) -> tf.Tensor:
            return tf.stack([tf.fill(tf.shape(x)[:1], 0.5), x[:, logit[0], logit[1], 0]], axis=1)

        network = as_classifier(call, image_shape=(33, 33, 1), input_range=(0, 1), colors="rgb")
        return float(Spatial(rotations=1)(network, x, np.zeros(1, np.int64)).success[0])

    assert [brightest(place) for place in ((19, 13), (13, 19), (20, 16), (16, 20))] == [1, 1, 0, 0]


def test_of_a_target_it_is_what_comes_nearest() -> None:
    model = Linear((6, 9, 1))
    x = np.random.default_rng(8).random((8, 6, 9, 1)).astype(np.float32)
    y = (x.reshape(8, -1) @ model.kernel).argmax(axis=1)
    target = (y + 1) % 3
    attack, network = Spatial(rotations=3, translations=3, shift=0.2, targeted=True), model.network()
    result = attack(network, x, y, target=target, early_stop=False)
    best = []
    for image, goal, x_adv in zip(x, target, result.x_adv, strict=True):
        leads = model.margins(grid(image.astype(np.float64), 30, 0.2, 3, 3), goal)
        best.append(leads.max())
        np.testing.assert_allclose(model.margins(x_adv[None], goal), best[-1], atol=1e-4)
    np.testing.assert_array_equal(result.success, np.array(best) > 0)
    assert result.success.any()
    assert not Spatial(degrees=0, shift=0, targeted=True)(network, x, y, target=target).success.any()


@pytest.mark.parametrize(
    "settings", [{"degrees": -1}, {"degrees": 181}, {"shift": 1.5}, {"rotations": 0}, {"translations": 0}]
)
def test_a_grid_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^Expected .* Received: .* Try "):
        Spatial(**settings)
