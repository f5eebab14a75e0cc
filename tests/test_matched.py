"""Does randomness help: the paired interval beside what others compute, and the sentence by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kerasrobust.evaluation.matched import Measured, does_randomness_help
from kerasrobust.stats import difference_interval

Z = 1.959963984540054


def answers(right: int, count: int = 1000) -> np.ndarray:
    """The first `right` of all images are right."""
    return (np.arange(count) < right).astype(np.float64)


@pytest.mark.parametrize(("only_first", "only_second", "both"), [(150, 50, 300), (40, 60, 500), (0, 30, 0)])
def test_of_right_and_wrong_it_is_the_interval_of_paired_shares(only_first: int, only_second: int, both: int) -> None:
    """Wald's of a difference of paired shares: (b - c) / N with a variance of (b + c - (b - c)^2 / N) / N^2."""
    count = 1000
    first = answers(both + only_first, count)
    second = answers(both, count)
    second[both + only_first :][:only_second] = 1
    assert (first > second).sum() == only_first and (second > first).sum() == only_second
    gap = (only_first - only_second) / count
    half = Z * math.sqrt(only_first + only_second - (only_first - only_second) ** 2 / count) / count
    assert difference_interval(first, second) == pytest.approx((gap - half, gap + half), abs=2e-3)


def test_how_hard_the_images_are_is_no_matter() -> None:
    hard = np.random.default_rng(0).random(500) * 0.8
    low, high = difference_interval(hard + 0.1 + np.tile([0.01, -0.01], 250), hard)
    assert low == pytest.approx(0.1 - Z * 0.01 / math.sqrt(500), abs=2e-4)
    assert high == pytest.approx(0.1 + Z * 0.01 / math.sqrt(500), abs=2e-4)


def test_where_none_differ_it_is_as_wide_as_that_of_none_in_so_many() -> None:
    # Wilson's upper end of 0 in N: z^2 / (N + z^2).
    room = Z**2 / (40 + Z**2)
    assert difference_interval(answers(10, 40), answers(10, 40)) == pytest.approx((-room, room))


def test_noise_that_images_share_widens_it() -> None:
    first, second = answers(400), np.roll(answers(400), 100)
    low, high = difference_interval(first, second)
    assert low < 0 < high
    wide = difference_interval(first, second, shared=0.05)
    assert wide == pytest.approx((-math.hypot(low, Z * 0.05), math.hypot(high, Z * 0.05)))


def network(clean: int, robust: int, moved: int = 0, count: int = 1000) -> Measured:
    """One that is right on so many images; those under attack begin at number `moved`."""
    return Measured(
        randomized=False,
        attack="PGD",
        clean=answers(clean, count),
        robust=np.roll(answers(robust, count), moved),
    )


def test_the_answer_in_a_sentence() -> None:
    # 400 of 1,000 beside 350 of the same: 50 differ, all one way. 5 +- 1.96 sqrt(50 - 50^2 / 1000) / 10 points.
    told = does_randomness_help(network(600, 400), network(600, 350))
    assert told.startswith("It helps by +5.0 points (95 %: +3.")
    assert "on 1,000 images: the randomized network keeps 40.0 % (37.0-43.1 %) under PGD, 60.0 % clean" in told
    assert "; the matched one without noise 35.0 % (32.1-38.0 %) under PGD, 60.0 % clean." in told
    told = does_randomness_help(network(600, 350), network(600, 400))
    assert told.startswith("It doesn't, the difference being -5.0 points")
    # None differ, and a thousand such images leave room for 0.4 points.
    told = does_randomness_help(network(600, 400), network(600, 400))
    assert told.startswith("It doesn't, the difference being +0.0 points (95 %: -0.4 to +0.4) on 1,000 images")
    # 400 and 400, of which 100 differ each way: 1.96 sqrt(200) / 10 = 2.8 points either way.
    told = does_randomness_help(network(600, 400), network(600, 400, moved=100))
    assert told.startswith("It can't be told on 1,000 images, the difference being +0.0 points (95 %: -2.")


def test_no_verdict_where_clean_accuracies_differ_clearly() -> None:
    told = does_randomness_help(network(650, 400), network(600, 350))
    assert told.startswith("No verdict, as the clean accuracies differ by +5.0 points") and "helps" not in told
    assert "65.0 % clean" in told and "60.0 % clean" in told
    # Half a point is clear on these images, but no matter; 5 of 40 could be chance.
    assert does_randomness_help(network(605, 400), network(600, 350)).startswith("It helps")
    few = network(25, 20, count=40), network(22, 20, count=40)
    assert does_randomness_help(*few).startswith("It can't be told on 40 images")


def test_what_is_kept_between_two_starts_is_the_same() -> None:
    one = network(600, 400)
    again = Measured.parse(one.as_json())
    assert again.as_json() == one.as_json() and again.said() == one.said()
