"""Common corruptions beside what others compute: the published program, SciPy, closed forms; and what they promise."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import kerasrobust as kr
from kerasrobust.data.corruptions import edges, filters, weather
from kerasrobust.data.corruptions.corrupting import corrupt, corrupted, parted
from kerasrobust.data.corruptions.draws import Draws
from kerasrobust.data.load import load_dataset
from kerasrobust.data.pipeline import train_pipeline
from kerasrobust.errors import InputError
from kerasrobust.events import Event, Progress
from kerasrobust.names import CORRUPTIONS, SEVERITIES, uncorrupted

ROW, COLUMN, CHANNEL = np.indices((32, 32, 3))
CHECKS = 40 * ((ROW // 6 + COLUMN // 7) % 2)
PATTERN = ((5 * ROW * ROW // 9 + 3 * COLUMN * (CHANNEL + 1) + CHECKS + 31 * CHANNEL) % 256).astype(np.uint8)

# Mean level, and mean change in levels, of that pattern under github.com/hendrycks/robustness,
# ImageNet-C/create_c/make_cifar_c.py (OpenCV 5.0.0, scikit-image 0.26.0, SciPy 1.17.1, Pillow 13.0.0).
PUBLISHED = {
    "defocus_blur": ((124.72, 2.74), (124.67, 7.06), (124.63, 10.48), (124.66, 13.99), (124.63, 19.56)),
    "zoom_blur": ((124.77, 20.19), (125.25, 22.77), (125.62, 26.40), (126.11, 29.52), (126.56, 32.63)),
    "brightness": ((132.16, 7.09), (139.03, 13.96), (144.81, 19.74), (149.36, 24.29), (155.23, 30.16)),
    "contrast": ((124.60, 14.85), (124.62, 29.71), (124.56, 35.66), (124.61, 41.61), (124.57, 50.52)),
    "pixelate": ((125.15, 2.47), (125.22, 7.32), (125.27, 6.23), (125.36, 12.80), (125.54, 15.47)),
    "jpeg_compression": ((125.14, 22.55), (125.19, 25.14), (125.50, 26.35), (125.24, 28.22), (125.07, 29.24)),
    "gaussian_blur": ((124.70, 2.70), (124.64, 10.42), (124.60, 13.28), (124.64, 15.64), (124.60, 19.51)),
    "saturate": ((175.45, 50.38), (189.93, 64.86), (103.85, 21.23), (99.08, 25.99), (98.25, 26.82)),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_is_not_random_is_as_published(kind: str) -> None:
    for severity, (mean, change) in zip(SEVERITIES, PUBLISHED[kind], strict=True):
        found = corrupted(PATTERN[None], kind, severity)[0].astype(float)
        # The published program's sums end just below a whole level here and there, and are cut to the one below.
        assert found.mean() == pytest.approx(mean, abs=0.08)
        assert np.abs(found - PATTERN).mean() == pytest.approx(change, abs=0.08)


# Random ones, by their distribution

GREY = np.full((40, 32, 32, 3), 102, np.uint8)  # 0.4 of white.


@pytest.mark.parametrize(
    ("kind", "deviations"),
    [
        ("gaussian_noise", [0.04, 0.06, 0.08, 0.09, 0.10]),
        ("shot_noise", [(0.4 / photons) ** 0.5 for photons in (500, 250, 100, 75, 50)]),
        ("speckle_noise", [0.4 * by for by in (0.06, 0.1, 0.12, 0.16, 0.2)]),
    ],
)
def test_noise_has_the_published_deviation(kind: str, deviations: list[float]) -> None:
    for severity, deviation in zip(SEVERITIES, deviations, strict=True):
        found = corrupted(GREY, kind, severity) / 255
        # Cut to 8 bits, counts of 250 photons jump by two levels in their middle: 2 % more.
        assert found.std() == pytest.approx(deviation, rel=0.025)
        assert found.mean() == pytest.approx(0.4 - 0.5 / 255, abs=0.003)  # About half a level is cut off.


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (2, 0.02), (3, 0.03), (4, 0.05), (5, 0.07)])
def test_impulses_are_salt_and_pepper_in_equal_parts(severity: int, share: float) -> None:
    found = corrupted(GREY, "impulse_noise", severity)
    assert set(np.unique(found)) == {0, 102, 255}
    for level in (0, 255):
        assert (found == level).mean() == pytest.approx(share / 2, rel=0.1)


def test_haze_is_the_published_fractal() -> None:
    """Mean, deviation within an image and mean step between neighbours are those of 4,000 of the published program."""
    for decay, deviation, step in ((3.0, 0.147, 0.0203), (2.0, 0.1611, 0.0245), (1.75, 0.1702, 0.0288)):
        found = weather.plasma((32, 32), decay, Draws.of("fog", 0, 0, 1500))
        assert found.mean() == pytest.approx(0.5, abs=0.01)
        assert found.std(axis=(1, 2)).mean() == pytest.approx(deviation, rel=0.015)
        for axis in (1, 2):
            assert np.abs(np.diff(found, axis=axis)).mean() == pytest.approx(step, rel=0.015)
    assert found.min() == 0 and found.max() == 1


def test_glass_takes_each_pixel_from_above_and_the_left() -> None:
    """At severity 1 nothing is blurred: a pixel's place is seen in its level."""
    place = np.arange(32, dtype=np.uint8)
    rows, columns = (np.broadcast_to(one, (20, 32, 32))[..., None] for one in (place[:, None], place))
    for places, axis in ((rows, 1), (columns, 2)):
        moved = corrupted(np.ascontiguousarray(places), "glass_blur", 1)[..., 0].astype(int)
        shift = moved - places[..., 0]
        assert set(np.unique(shift[:, 2:, 2:])) == {-1, 0}
        assert shift[:, 2:, 2:].mean() == pytest.approx(-0.5, abs=0.02)
        assert not np.take(shift, [0, 1], axis=axis).any()


def test_motion_to_the_right_mixes_the_pixels_that_lie_there() -> None:
    image = np.zeros((1, 1, 20, 1))
    image[0, 0, 10] = 1
    weights = np.exp(-0.5 * np.arange(13) ** 2)
    found = filters.smeared(image, 6, 1.0, np.array([0.0]))[0, 0, :, 0]
    np.testing.assert_allclose(found[10:3:-1], weights[:7] / weights.sum(), atol=2e-6)
    # Diagonally: one pixel down for one to the right.
    image = np.zeros((1, 20, 20, 1))
    image[0, 10, 10] = 1
    found = filters.smeared(image, 6, 2.0, np.array([45.0]))[0, :, :, 0]
    # Steps are a pixel long, so that ten of them end 7 pixels away.
    assert set(zip(*np.nonzero(found), strict=True)) == {(10 - step, 10 - step) for step in range(8)}


# The parts, beside SciPy


def test_filters_are_those_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    images = np.random.default_rng(0).random((3, 20, 27, 2))
    for sigma in (0.4, 1.0, 2.5):
        expected = [ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest") for image in images]
        np.testing.assert_allclose(filters.gaussian(images, sigma), expected, atol=1e-12)
    expected = [ndimage.gaussian_filter(image, (3, 3, 0), mode="reflect", truncate=3) for image in images]
    found = filters.gaussian(images, 3.0, border="symmetric", deviations=3)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    kernel = np.arange(15.0).reshape(3, 5)
    expected = [ndimage.correlate(image, kernel[..., None], mode="mirror") for image in images]
    np.testing.assert_allclose(filters.correlated(images, kernel), expected, atol=1e-11)


def test_places_between_pixels_are_read_as_scipy_reads_them() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    draw = np.random.default_rng(0)
    images = draw.random((2, 12, 9, 1))
    rows, columns = draw.uniform(-6, 18, (2, 12, 9)), draw.uniform(-5, 14, (2, 12, 9))
    for border, mode in (("symmetric", "reflect"), ("reflect", "mirror"), ("edge", "nearest")):
        expected = [
            ndimage.map_coordinates(image[..., 0], [down, across], order=1, mode=mode)
            for image, down, across in zip(images, rows, columns, strict=True)
        ]
        found = filters.read_at(images, rows, columns, border)[..., 0]  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 32, 50])
@pytest.mark.parametrize("factor", [1.0, 1.01, 1.25, 1.75, 2.25])
def test_enlargements_are_those_of_scipy(size: int, factor: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    line = np.random.default_rng(size).random(size)
    middle = int(np.ceil(size / factor))
    top = (size - middle) // 2
    wide = ndimage.zoom(line[top : top + middle], factor, order=1)
    first = (len(wide) - size) // 2
    np.testing.assert_allclose(filters.zoomed(size, factor) @ line, wide[first : first + size], atol=1e-12)


# The parts, by hand


def test_a_step_has_one_line_of_edges_and_distances_go_by_knights() -> None:
    images = np.zeros((1, 9, 12))
    images[:, :, 6:] = 100
    assert (np.nonzero(edges.edges(images, 50, 150)[0].all(axis=0))[0] == [5]).all()
    assert not edges.edges(images / 10, 50, 150).any()
    there = np.zeros((2, 7, 7), bool)
    there[0, 3, 3] = True
    one, none = edges.distances(there)
    assert [one[3, 5], one[5, 5], one[4, 5], one[6, 4], one[0, 0]] == pytest.approx([2, 2.8, 2.1969, 3.1969, 4.2])
    assert (none == edges.FAR).all()
    np.testing.assert_allclose(one, one.T)


def test_weak_edges_count_where_a_strong_one_is_near() -> None:
    ramp = np.zeros((1, 12, 12))
    ramp[0, :, 6:] = np.linspace(90, 20, 12)[:, None]  # The step's derivative is four times that: from 360 to 80.
    assert edges.edges(ramp, 50, 150)[0].any(axis=1).all()
    assert not edges.edges(ramp / 2.5, 50, 150).any()


def test_equalized_levels_by_hand() -> None:
    images = np.array([[[5, 5], [7, 9]], [[4, 4], [4, 4]]])
    np.testing.assert_array_equal(edges.equalized(images), [[[0, 0], [128, 255]], [[4, 4], [4, 4]]])


# What corruptions promise

ANY = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_is_corrupted_by_seed_and_number_alone(kind: str) -> None:
    whole = corrupt(ANY, kind, 4, seed=3)
    assert whole.dtype == np.float32 and whole.shape == ANY.shape and whole.min() >= 0 and whole.max() <= 1
    np.testing.assert_array_equal(whole, np.rint(whole * 255).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(corrupt(ANY, kind, 4, seed=3), whole)
    np.testing.assert_array_equal(corrupt(ANY[2:4], kind, 4, seed=3, first=2), whole[2:4])
    np.testing.assert_array_equal(corrupt(ANY / np.float32(255), kind, 4, seed=3), whole)
    other = (corrupt(ANY, kind, 4, seed=4) != whole).any()
    assert other != (kind in PUBLISHED)  # What isn't random knows no seed.
    again = corrupt(np.repeat(ANY[:1], 2, axis=0), kind, 4, seed=3)
    assert (again[0] != again[1]).any() != (kind in PUBLISHED)
    assert (whole != ANY / np.float32(255)).any()


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3), (7, 45, 1), (28, 28, 1), (64, 40, 3)])
def test_images_of_any_size_and_grey_ones(kind: str, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    for severity in (1, 3, 5):
        found = corrupt(images, kind, severity)
        assert found.shape == images.shape and np.isfinite(found).all()
    black = corrupt(np.zeros((1, *shape), np.uint8), kind, 3)
    assert np.isfinite(black).all()


def test_grey_images_are_three_equal_channels() -> None:
    grey = ANY[..., :1]
    for kind in ("snow", "frost", "spatter", "brightness", "saturate"):
        colours = corrupt(np.repeat(grey, 3, axis=3), kind, 4).astype(float)
        np.testing.assert_allclose(corrupt(grey, kind, 4)[..., 0], colours @ [0.299, 0.587, 0.114], atol=1.5 / 255)
    np.testing.assert_array_equal(corrupt(grey[..., 0], "fog", 2), corrupt(grey, "fog", 2))


# The published parameters of the others don't grow together.
GROWING = set(CORRUPTIONS) - {"elastic_transform", "glass_blur", "saturate", "frost", "spatter"}


@pytest.mark.parametrize("kind", sorted(GROWING))
def test_an_image_changes_the_more_the_more_severe(kind: str) -> None:
    smooth = filters.gaussian(ANY / 255, 2.0)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    changes = [np.abs(corrupt(smooth, kind, severity) - smooth).mean() for severity in SEVERITIES]
    assert all(one <= other * 1.02 for one, other in pairwise(changes)), changes


def test_in_tf_data() -> None:
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(ANY).batch(5)
    batches = batches.map(lambda x: tf.numpy_function(lambda x: corrupt(x, "fog", 3), [x], tf.float32))
    np.testing.assert_array_equal(next(iter(batches)).numpy(), kr.corrupt(ANY, "fog", 3))


def test_in_training_half_of_each_batch_is_corrupted_anew() -> None:
    data = load_dataset("shapes", "train[:96]")
    stored = {image.tobytes(): label for image, label in zip(data.x, data.labels, strict=True)}

    def epochs(kinds: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        batches = train_pipeline(data, 32, seed=3, augment=False, corruptions=kinds)
        return [(x.numpy(), y.numpy()) for _ in range(2) for x, y in batches]

    found, again = epochs(["jpeg_compression", "gaussian_noise"]), epochs(["jpeg_compression", "gaussian_noise"])
    plain = epochs([])
    for (x, y), (x_again, _), (clear, labels) in zip(found, again, plain, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, labels)
        assert all(stored[image.tobytes()] == label for image, label in zip(x[16:], y[16:], strict=True))
        assert not any(image.tobytes() in stored for image in x[:16])
        assert np.abs(x[:16] - clear[:16]).max() > 0 and x.min() >= 0 and x.max() <= 1
    changes = {round(float(np.abs(x - clear).mean()), 6) for (x, _), (clear, _) in zip(found, plain, strict=True)}
    assert len(changes) == len(found)  # Another kind, severity or seed each time.


@pytest.mark.parametrize(
    ("images", "settings", "words"),
    [
        (ANY, {"kind": "frog"}, "Did you mean 'fog'"),
        (ANY, {"severity": 6}, "from 1 to 5. Received: 6"),
        (ANY, {"severity": 0}, "from 1 to 5. Received: 0"),
        (ANY, {"seed": -1}, "of at least 0. Received: -1"),
        (ANY[..., :2], {}, "1 or 3 channels"),
        (ANY.astype(float), {}, "in \\[0, 1\\]|Divide"),
        (ANY[0, 0], {}, "Expected images of shape"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(images: np.ndarray, settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        corrupt(images, **({"kind": "fog"} | settings))  # type: ignore[arg-type]


# Data by their names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar10+fog:3", ("cifar10", "fog", 3)),
        ("cifar10:3.0.2+shot_noise:5", ("cifar10:3.0.2", "shot_noise", 5)),
        ("./a+b/pets+fog:1", ("./a+b/pets", "fog", 1)),
        ("shapes+fog:3+snow:1", ("shapes+fog:3", "snow", 1)),
        ("a+b.npz+frost:2", ("a+b.npz", "frost", 2)),
        ("a+b.npz", None),
        ("c++", None),
        ("./cats+dogs", None),
        ("/data/1+1:2/x.npz", None),
        ("cifar10", None),
    ],
)
def test_names_say_what_is_corrupted(name: str, said: tuple[str, str, int] | None) -> None:
    assert parted(name) == said
    assert uncorrupted(name) == (name if said is None else uncorrupted(said[0]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shapes+frog:3", "Did you mean 'fog'"),
        ("shapes+fog", "Expected a severity after fog.*Write shapes\\+fog:3"),
        ("shapes+fog:9", "from 1 to 5. Received: 9"),
        ("shapes+fog:", "Expected a severity"),
        ("shapes+fog:high", "Expected a severity"),
    ],
)
def test_other_names_are_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_dataset(name)


def test_data_are_loaded_corrupted() -> None:
    clear, foggy = load_dataset("shapes", "test[:6]"), kr.load_dataset("shapes+fog:3", "test[:6]")
    assert (foggy.name, foggy.split, foggy.synthetic, foggy.classes) == ("shapes+fog:3", "test[:6]", True, 10)
    np.testing.assert_array_equal(foggy.x, corrupt(clear.x, "fog", 3))
    np.testing.assert_array_equal(foggy.y, clear.y)
    both = load_dataset("shapes+fog:3+jpeg_compression:5", "test[:6]")
    np.testing.assert_array_equal(both.x, corrupt(foggy.x, "jpeg_compression", 5))
    x, _ = kr.load_data("shapes+gaussian_noise:1", "test[:6]", seed=1)
    np.testing.assert_array_equal(x, corrupt(load_dataset("shapes", "test[:6]", seed=1).x, "gaussian_noise", 1, seed=1))


def test_files_with_a_plus_in_their_names(tmp_path: Path) -> None:
    labels = np.arange(5)
    np.savez(tmp_path / "a+b.npz", x=ANY, y=labels)
    np.savez(tmp_path / "named+fog:3.npz", x=ANY, y=labels)
    for name in ("a+b.npz", "named+fog:3.npz"):
        np.testing.assert_array_equal(load_dataset(str(tmp_path / name), "all").images, ANY)
    foggy = load_dataset(f"{tmp_path}/a+b.npz+fog:3", "all")
    np.testing.assert_array_equal(foggy.images, corrupted(ANY, "fog", 3))
    folder = tmp_path / "pets+fog:3"  # A folder of that very name is a folder.
    for word in ("cat", "dog"):
        (folder / word).mkdir(parents=True)
        import tensorflow as tf

        (folder / word / "1.png").write_bytes(tf.io.encode_png(ANY[0]).numpy())
    np.testing.assert_array_equal(load_dataset(str(folder), "all").images, ANY[[0, 0]])


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.pace.PERIOD", 0.0)
    monkeypatch.setattr("kerasrobust.data.corruptions.corrupting.AT_ONCE", 3072)
    events: list[Event] = []
    load_dataset("shapes+contrast:3", "test[:4]", emit=events.append)
    told = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(event.seconds_left is not None for event in told)


def test_one_image_by_itself_is_refused_as_it_would_be_taken_for_grey_ones() -> None:
    with pytest.raises(InputError, match=r"Give x\[None\]"):
        corrupt(np.zeros((32, 32, 3), np.float32), "fog", 3)
    assert corrupt(np.zeros((4, 32, 32), np.float32), "fog", 3).shape == (4, 32, 32, 1)
