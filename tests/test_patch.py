"""Patch: its optimum on linear models, where it lies, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from conftest import PIXELS, images, labels_of, linear_model

from kerasrobust.attacks import Patch
from kerasrobust.errors import InputError

X = images(20)


def covered(result: Any, x: np.ndarray) -> np.ndarray:
    """Returns top, bottom, left and right of what has changed in each image, both ends included, int (N, 4)."""
    changed = (result.x_adv != x).any(axis=-1)
    found = []
    for image in changed:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        found.append((rows[0], rows[-1], columns[0], columns[-1]))
    return np.array(found)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("size", "place"), [(3, (4, 1)), (5, (0, 3)), (8, (0, 0))])
def test_on_a_linear_model_it_is_the_sign_of_the_difference_of_weights(
    size: int, place: tuple[int, int], targeted: bool
) -> None:
    """Of two classes: white where the other one's weight is larger, black where it is smaller."""
    kernel = np.random.default_rng(7).normal(size=(PIXELS, 2)).astype(np.float32) / 20
    model = linear_model(kernel, np.zeros(2, np.float32))
    y = labels_of(model, X, 0)
    attack = Patch(size=size, place=place, targeted=targeted)
    result = attack(model, X, y, early_stop=False, **({"target": 1 - y} if targeted else {}))
    towards = ((kernel[:, 1] - kernel[:, 0]) * (1 - 2 * y)[:, None]).reshape(X.shape)
    window = (slice(None), slice(place[0], place[0] + size), slice(place[1], place[1] + size))
    expected = X.copy()
    expected[window] = (towards > 0)[window]
    np.testing.assert_array_equal(result.x_adv, expected)
    # Its margin is that of the optimum, and so are its successes.
    gaps = (expected.reshape(20, -1) @ kernel.astype(np.float64)) @ [1, -1] * (1 - 2 * y)
    np.testing.assert_array_equal(result.success, gaps < 0)


def test_a_place_is_drawn_for_each_image_and_restart(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    attack = Patch(size=3, steps=2)
    result = attack(small, X, y, early_stop=False, seed=1)
    top, bottom, left, right = covered(result, X).T
    assert (bottom - top == 2).all()
    assert (right - left == 2).all()
    assert result.distance.max() <= 27
    assert len(set(zip(top.tolist(), left.tolist(), strict=True))) >= 12
    assert {0, 5} <= set(top.tolist()) | set(left.tolist())  # To both edges of the 8 pixels.
    other = covered(attack(small, X, y, early_stop=False, seed=2), X)
    assert (other != covered(result, X)).any(axis=1).mean() > 0.7
    again = covered(Patch(size=3, steps=2, restarts=6)(small, X, y, early_stop=False, seed=1), X)
    assert (again != covered(result, X)).any(axis=1).mean() > 0.4


def test_more_restarts_are_never_worse(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    found = [Patch(size=2, steps=10, restarts=restarts)(small, X, y).success for restarts in (1, 5)]
    assert (found[1] >= found[0]).all()
    assert found[1].sum() > found[0].sum()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"size": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"restarts": 0}, "at least 1"),
        ({"step_size": 0.0}, "step size above 0"),
        ({"place": (-1, 0)}, "at least 0"),
        ({"size": 9}, "fits into images of 8x8. Received: size=9"),
        ({"size": 4, "place": (5, 0)}, "inside images of 8x8"),
        ({"norm": "linf"}, "Expected a norm of patch"),
    ],
)
def test_what_is_no_patch_is_refused(settings: dict[str, Any], line: str, small: keras.Model) -> None:
    with pytest.raises(InputError, match=line):
        Patch(**settings)(small, X[:2], np.zeros(2, np.int64), early_stop=False)


def test_grey_images_and_a_side_that_is_longer() -> None:
    draw = np.random.default_rng(0)
    x = draw.random((6, 4, 7, 1)).astype(np.float32)
    head = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((4, 7, 1)), keras.layers.Flatten(), head])
    result = Patch(size=4, steps=3)(model, x, np.zeros(6, np.int64), early_stop=False)
    top, bottom, left, right = covered(result, x).T
    assert (top == 0).all() and (bottom == 3).all() and (right - left == 3).all()
