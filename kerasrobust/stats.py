"""95 % intervals of accuracies, and the test of two models on the same images."""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 2_000


def wilson(right: float, count: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a share, `right` of `count` independent trials.

    Example:
        >>> [round(end, 3) for end in wilson(50, 100)]
        [0.404, 0.596]

    Reference: Wilson 1927; Brown et al. 2001, section 3.1.1.
    """
    if count == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Exact at the ends, where rounding leaves 7e-18.
    return 0.0 if right == 0 else max(0.0, centre - half), 1.0 if right == count else min(1.0, centre + half)


def bootstrap(rates: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean of `rates` (N,), by resampling examples.

    For randomized networks: the passes over one example are not independent trials, so Wilson's formula on their total
    would be far too narrow.

    Reference: Efron and Tibshirani 1993, section 13.3.
    """
    if len(rates) == 0:
        return 0.0, 1.0
    if np.ptp(rates) == 0 and rates[0] in (0, 1):  # All alike: resampling would claim certainty.
        return wilson(float(rates.sum()), len(rates))
    draw = np.random.default_rng(seed)
    means = np.array([rates[draw.integers(0, len(rates), len(rates))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def accuracy_interval(rates: np.ndarray, randomized: bool) -> tuple[float, float]:
    """Returns the 95 % interval of a mean accuracy: Wilson's, or by resampling examples for a randomized network."""
    return bootstrap(rates) if randomized else wilson(float(rates.sum()), len(rates))


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test from the numbers of examples that differ either way.

    Example:
        >>> mcnemar(1, 5)  # 2 (1 + 6) / 2**6
        0.21875
    """
    count = only_first + only_second
    ways, total = 1, 0
    for chosen in range(min(only_first, only_second) + 1):
        total += ways  # math.comb(count, chosen), without computing each anew.
        ways = ways * (count - chosen) // (chosen + 1)
    return min(1.0, 2 * total / 2**count)
