from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrobust.data import shapes
from kerasrobust.errors import InputError


def test_images_and_labels_are_of_the_promised_kind() -> None:
    images, labels = shapes.generate(1000, seed=0)
    assert images.shape == (1000, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [100] * 10
    assert len(set(shapes.CLASS_NAMES)) == 10


def test_equal_seeds_repeat_and_others_do_not() -> None:
    first, second, other = shapes.generate(50, seed=3), shapes.generate(50, seed=3), shapes.generate(50, seed=4)
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (first[0] != other[0]).any(axis=(1, 2, 3)).all()


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 1200), count=st.integers(1, 700))
def test_any_part_can_be_drawn_alone(start: int, count: int) -> None:
    images, labels = shapes.generate(count, seed=1, start=start)
    whole, all_labels = shapes.generate(start + count, seed=1)
    assert (images == whole[start:]).all()
    assert (labels == all_labels[start:]).all()


def test_five_thousand_take_under_a_second() -> None:
    shapes.generate(1, seed=0)
    started = time.process_time()
    shapes.generate(5000, seed=0)
    assert time.process_time() - started < 2  # Alone it is 0.4 s: the bound leaves room for a busy machine.


def test_the_texture_is_well_below_an_attack_and_the_shape_well_above(monkeypatch: pytest.MonkeyPatch) -> None:
    with_texture, labels = shapes.generate(500, seed=0)
    monkeypatch.setattr(shapes, "TEXTURE", 0.0)
    without, same_labels = shapes.generate(500, seed=0)
    assert (labels == same_labels).all()
    difference = np.abs(with_texture.astype(int) - without)
    assert 1 <= difference.max() <= 4  # 3 and the rounding
    darkest, brightest = np.percentile(without.mean(-1), [2, 98], axis=(1, 2))
    assert np.median(brightest - darkest) > 2 * 16


def _texture_spectrum(images: np.ndarray) -> np.ndarray:
    """The energy at the frequencies of stripes 1, 2 and 4 pixels wide, along either axis or both."""
    grey = images.mean(-1) - images.mean(axis=(1, 2, 3))[:, None, None]
    energy = np.abs(np.fft.fft2(grey)) ** 2
    return energy.reshape(len(images), -1)


def test_the_texture_tells_the_class_and_survives_a_mirror() -> None:
    """A classifier made of the textures' known frequencies alone reads nearly every label."""
    labels = np.repeat(np.arange(10), 20)
    shifts = np.random.default_rng(0).integers(0, 8, (200, 2))
    pure = _texture_spectrum(shapes.texture(labels, shifts)[..., None])
    templates = np.stack([pure[labels == label].mean(0) for label in range(10)])
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    assert (np.argmax(pure @ templates.T, axis=1) == labels).all()
    images, labels = shapes.generate(1000, seed=5)
    for seen in (images.astype(float), images[:, :, ::-1].astype(float)):
        fine = seen - (np.roll(seen, 8, 1) + np.roll(seen, -8, 1) + np.roll(seen, 8, 2) + np.roll(seen, -8, 2)) / 8
        right = np.argmax(_texture_spectrum(fine) @ templates.T, axis=1) == labels
        assert right.mean() > 0.3  # Chance is 0.1; crude as this classifier is.


def test_pictures_of_a_class_differ_in_colour_place_and_size() -> None:
    images, labels = shapes.generate(1000, seed=2)
    circles = images[labels == 0].astype(float) / 255
    assert circles.mean(axis=(1, 2)).std(axis=0).min() > 0.05
    bright = circles.mean(-1) > circles.mean(-1).mean(axis=(1, 2), keepdims=True)
    area = bright.mean(axis=(1, 2))
    assert area.std() > 0.05
    rows = (bright * np.arange(32)[:, None]).sum(axis=(1, 2)) / bright.sum(axis=(1, 2))
    assert rows.std() > 1


@pytest.mark.parametrize("arguments", [{"count": 0}, {"count": 5, "start": -1}, {"count": 5, "seed": -1}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="Expected a count of at least 1"):
        shapes.generate(**{"seed": 0, **arguments})


def test_no_tensorflow_is_needed() -> None:
    program = (
        "import sys; from kerasrobust.data.load import load_dataset; "
        "assert len(load_dataset('shapes', 'test[:10]')) == 10; "
        "sys.exit('tensorflow' in sys.modules or 'tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
