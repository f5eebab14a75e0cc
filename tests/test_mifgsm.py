"""MI-FGSM's variants: TI's and NI's steps by hand, DI's images by TensorFlow's own resizing, and what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from conftest import PIXELS, SHAPE, images, labels_of, linear_model, soft
from test_attacks_exact import MIDDLE, closed_form

import kerasrobust as kr
from kerasrobust.attacks import MIFGSM
from kerasrobust.attacks.algorithm import Images
from kerasrobust.attacks.mifgsm import blurred, gaussian, shrinking, shrunk
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier

Y = np.arange(40) % 4
STEPS: dict[str, Any] = {"epsilon": 0.07, "step_size": 0.03, "steps": 4, "momentum_decay": 0.6, "keep_best": False}


def convolved(slope: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The mean of shifted gradients, weighted by the kernel, with zeros beyond the edges: pixel by pixel."""
    half = len(kernel) // 2
    height, width = slope.shape[1:3]
    padded = np.pad(slope, ((0, 0), (half, half), (half, half), (0, 0)))
    found = np.zeros_like(slope)
    for row, column in np.ndindex(kernel.shape):
        found += kernel[row, column] * padded[:, row : row + height, column : column + width]
    return found


def test_the_kernel_is_a_gaussian_of_one_pixel() -> None:
    """Where it has 7 pixels: they are 3 deviations away from the middle at most, each the next one's step."""
    kernel = gaussian(7).astype(np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert kernel[3, 4] / kernel[3, 3] == pytest.approx(np.exp(-1 / 2), rel=1e-5)
    assert kernel[5, 1] / kernel[3, 3] == pytest.approx(np.exp(-(4 + 4) / 2), rel=1e-5)
    np.testing.assert_array_equal(gaussian(1), [[1]])


@pytest.mark.parametrize("size", [1, 3, 7, 15])
def test_a_blurred_gradient_is_a_convolution_of_each_channel(size: int) -> None:
    slope = np.random.default_rng(3).normal(size=(3, 8, 10, 3))
    found = blurred(tf.constant(slope, tf.float32), size).numpy()
    np.testing.assert_allclose(found, convolved(slope, gaussian(size)), atol=2e-6)


def walked(
    weights: tuple[np.ndarray, np.ndarray], norm: str, ahead: bool, kernel: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Four steps in NumPy, in float64; returns the images, and which entries of them are sure."""
    x, velocity, unsure = MIDDLE.astype(np.float64), np.zeros(MIDDLE.shape), np.zeros(MIDDLE.shape, bool)
    for _ in range(4):
        # In L2 by the root of the number of values, as each of them is about 1.
        shift = 0.03 * 0.6 * velocity / (1 if norm == "linf" else np.sqrt(PIXELS))
        slope = closed_form(*weights, x + shift if ahead else x, Y).reshape(x.shape)
        slope = slope if kernel is None else convolved(slope, kernel)
        velocity = 0.6 * velocity + slope / np.abs(slope).mean(axis=(1, 2, 3), keepdims=True)
        unsure |= np.abs(velocity) < 1e-3
        if norm == "linf":
            x = np.clip(x + 0.03 * np.sign(velocity), MIDDLE - 0.07, MIDDLE + 0.07)
        else:
            length = np.linalg.norm(velocity.reshape(40, -1), axis=1).reshape(40, 1, 1, 1)
            x = x + 0.03 * velocity / length
            gap = np.linalg.norm((x - MIDDLE).reshape(40, -1), axis=1).reshape(40, 1, 1, 1)
            x = MIDDLE + (x - MIDDLE) / np.maximum(1, gap / 0.07)
    return x, ~unsure


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("variants", ["ti", "ni", "ni-ti"])
def test_the_steps_by_hand(variants: str, norm: Any, weights: tuple[np.ndarray, np.ndarray]) -> None:
    kernel, bias = soft(weights)
    gauss = gaussian(5).astype(np.float64) if "ti" in variants else None
    model = linear_model(kernel, bias)
    attack = MIFGSM(norm=norm, variants=variants, kernel_size=5, **STEPS)
    found = attack(model, MIDDLE, Y, early_stop=False).x_adv
    wanted, sure = walked((kernel, bias), norm, "ni" in variants, gauss)
    assert sure.mean() > 0.98
    np.testing.assert_allclose(found[sure], wanted[sure], atol=2e-6)
    other, _ = walked((kernel, bias), norm, "ni" not in variants, gauss)
    plain, _ = walked((kernel, bias), norm, "ni" in variants, None)
    # The steps differ from those without, or nothing were shown.
    assert np.abs(other - wanted).max() > 1e-5
    assert gauss is None or np.abs(plain - wanted).max() > 1e-3


def drawn(diversity: float, smallest: float = 0.5, shape: tuple[int, ...] = (12, 10, 3)) -> tuple[np.ndarray, Any]:
    x = np.random.default_rng(2).uniform(0.2, 1, (200, *shape)).astype(np.float32)
    keys = tf.constant(np.arange(400).reshape(200, 2), tf.int32)
    numbers = {"diversity": tf.constant(diversity), "smallest": tf.constant(smallest)}
    examples = Images(tf.constant(x), tf.zeros(200, tf.int32), keys)
    return x, lambda age: shrinking(examples, tf.fill([200], age), numbers)


def test_diverse_images_are_those_of_resizing_and_padding() -> None:
    """The size and place of each are read off its zeros; TensorFlow's own resizing and padding then give the same."""
    x, draw = drawn(1.0)
    found = shrunk(tf.constant(x), *draw(3)).numpy()
    sizes, places = [], []
    for image, made in zip(x, found, strict=True):
        rows, columns = (np.flatnonzero(made.any(axis=axis)) for axis in ((1, 2), (0, 2)))
        height, width = len(rows), len(columns)
        assert rows[-1] - rows[0] == height - 1 and columns[-1] - columns[0] == width - 1
        resized = tf.image.resize(image, (height, width), method="bilinear", antialias=False)
        wanted = tf.image.pad_to_bounding_box(resized, rows[0], columns[0], 12, 10)
        np.testing.assert_allclose(made, wanted, atol=1e-5)
        sizes.append((height, width))
        places.append((rows[0], columns[0]))
    heights, widths = zip(*sizes, strict=True)
    assert set(heights) == set(range(6, 12)) and set(widths) == set(range(5, 10))  # Never the full size.
    assert all(h - 6 == pytest.approx(6 / 5 * (w - 5), abs=1.2) for h, w in sizes)  # About the same shape.
    edges = [12 - height - top for (height, _), (top, _) in zip(sizes, places, strict=True)]
    assert min(edges) == 0 and min(top for top, _ in places) == 0 and len({left for _, left in places}) > 3


def test_an_image_is_drawn_anew_in_each_step_and_as_often_as_its_probability_says() -> None:
    x, draw = drawn(0.3)
    first, second = (shrunk(tf.constant(x), *draw(age)).numpy() for age in (0, 1))
    changed = [(made != x).any(axis=(1, 2, 3)) for made in (first, second)]
    assert abs(np.mean(changed) - 0.3) < 0.07 and (changed[0] != changed[1]).any()
    np.testing.assert_array_equal(first[~changed[0]], x[~changed[0]])
    np.testing.assert_array_equal(shrunk(tf.constant(x), *drawn(0.0)[1](0)).numpy(), x)
    np.testing.assert_array_equal(shrunk(tf.constant(x), *drawn(1.0, smallest=1.0)[1](0)).numpy(), x)
    # Several passes at once: each copy as the first.
    twice = shrunk(tf.constant(np.concatenate([x, x])), *draw(0)).numpy()
    np.testing.assert_array_equal(twice, np.concatenate([first, first]))


def test_never_diverse_is_plain(small: keras.Model) -> None:
    x = images(12, seed=2)
    y = labels_of(small, x, 2)
    plain = MIFGSM(epsilon=0.03, steps=4)(small, x, y)
    never = MIFGSM(epsilon=0.03, steps=4, variants="di", diversity=0.0)(small, x, y)
    np.testing.assert_array_equal(never.x_adv, plain.x_adv)
    assert 0 < plain.success.mean() < 1
    # A forward pass more for each gradient, as the score is that of the image itself.
    assert never.gradients == plain.gradients and never.forwards - plain.forwards == plain.gradients
    last = MIFGSM(epsilon=0.03, steps=4, variants="di", diversity=0.0, keep_best=False)(small, x, y)
    assert last.forwards == MIFGSM(epsilon=0.03, steps=4, keep_best=False)(small, x, y).forwards
    diverse = MIFGSM(epsilon=0.03, steps=4, variants="di", diversity=1.0)
    found = diverse(small, x, y)
    assert (found.x_adv != plain.x_adv).any()
    # What an image draws doesn't depend on its batch, nor on who has left it.
    parts = [diverse(small, x[part], y[part], batch_size=3) for part in (slice(0, 5), slice(5, 12))]
    np.testing.assert_allclose(np.concatenate([part.x_adv for part in parts]), found.x_adv, atol=1e-6)


def test_the_gradient_of_a_diverse_image_reaches_all_of_it(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """For a linear network one step follows the transposed map of the weights' gradient, done in NumPy."""
    kernel, bias = soft(weights)
    attack = MIFGSM(norm="l2", epsilon=0.4, step_size=0.4, steps=1, variants="di", diversity=1.0, keep_best=False)
    seen: list[np.ndarray] = []

    def network(x: tf.Tensor) -> tf.Tensor:
        tf.numpy_function(lambda pixels: seen.append(pixels.copy()), [x], [])
        return tf.reshape(x, (-1, PIXELS)) @ tf.constant(kernel) + bias

    model = as_classifier(network, image_shape=SHAPE, input_range="0,1", colors="rgb")
    seen.clear()
    found = attack(model, MIDDLE, Y, early_stop=False).x_adv
    made = next(pixels for pixels in seen if len(pixels) == 40 and (pixels == 0).any())
    slope = closed_form(kernel, bias, made, Y).reshape(MIDDLE.shape)
    for place in range(40):
        rows, columns = (np.flatnonzero(made[place].any(axis=axis)) for axis in ((1, 2), (0, 2)))
        with tf.GradientTape() as tape:
            image = tf.constant(MIDDLE[place])
            tape.watch(image)
            resized = tf.image.resize(image, (len(rows), len(columns)))
            padded = tf.image.pad_to_bounding_box(resized, rows[0], columns[0], 8, 8)
            total = tf.reduce_sum(padded * slope[place].astype(np.float32))
        step = tape.gradient(total, image).numpy()
        np.testing.assert_allclose(found[place], MIDDLE[place] + 0.4 * step / np.linalg.norm(step), atol=1e-5)


@pytest.mark.parametrize("variants", ["di", "di-ti-ni"])
def test_randomized_networks_seeds_and_targets(variants: str, randomized: keras.Model, linear: keras.Model) -> None:
    x = images(10, seed=2)
    y = labels_of(randomized, x, 1)
    attack = MIFGSM(epsilon=0.1, steps=3, eot=3, variants=variants)
    one, again, other = (attack(randomized, x, y, seed=seed, passes=4) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.x_adv, again.x_adv)
    assert (one.x_adv != other.x_adv).any() and one.correct_rate.mean() < one.clean_rate.mean()
    aimed = MIFGSM(epsilon=0.2, steps=6, variants=variants, kernel_size=3, targeted=True)(
        linear, MIDDLE, Y, target=(Y + 1) % 4
    )
    now = np.asarray(linear(aimed.x_adv)).argmax(axis=1)
    np.testing.assert_array_equal(aimed.success, now == (Y + 1) % 4)
    assert aimed.success.mean() > 0.9 > 0.5 > (np.asarray(linear(MIDDLE)).argmax(axis=1) == (Y + 1) % 4).mean()


def test_a_resumed_attack_ends_the_same(small: keras.Model, tmp_path: Path) -> None:
    x = images(12, seed=2)
    y = labels_of(small, x, 2)
    asked = iter(range(100))
    attack = MIFGSM(epsilon=0.03, steps=12, variants="di-ni", diversity=0.7)
    settings: dict[str, Any] = {"attacks": attack, "audit": False, "batch_size": 4}
    whole = kr.evaluate(small, x, y, **settings)
    with pytest.raises(kr.Cancelled):
        kr.evaluate(small, x, y, **settings, resume_dir=tmp_path, should_stop=lambda: next(asked) >= 8)
    again = kr.evaluate(small, x, y, **settings, resume_dir=tmp_path)
    np.testing.assert_array_equal(again.worst.x_adv, whole.worst.x_adv)
    assert again.attacks[0].result.gradients == whole.attacks[0].result.gradients


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"variants": "di-si"}, "'si'"), ({"variants": "di,ti"}, "'di,ti'"), ({"kernel_size": 4}, "odd"),
        ({"diversity": 1.5}, "diversity"), ({"smallest": -0.1}, "smallest"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_in_one_line(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        MIFGSM(**settings)
    assert "\n" not in str(caught.value)


def test_on_the_command_line(small: keras.Model, tmp_path: Path) -> None:
    small.save(tmp_path / "m.keras")
    x = images(12, seed=2)
    np.savez(tmp_path / "own.npz", x=x, y=labels_of(small, x, 2))
    words = ["--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--colors", "rgb"]
    common = ("attack", *words, "--runs-dir", tmp_path / "runs", "--attack")
    outcome = call(*common, "mifgsm", "--variants", "di-ti-ni", "--steps", "2", "--name", "one", "--json")
    assert outcome.status == 0, outcome.err
    started = next(event for line in outcome.out.splitlines() if (event := json.loads(line))["type"] == "AttackStarted")
    assert started["settings"]["variants"] == "di-ti-ni"
    assert "di-ti-ni" in (tmp_path / "runs" / "one" / "report.html").read_text()
    assert "Received: --variants" in call(*common, "pgd", "--variants", "di").message
    assert "--variants" in call(*common, "autoattack", "--variants", "di").message
    assert "Did you mean 'di'?" in call(*common, "mifgsm", "--variants", "dii").message
