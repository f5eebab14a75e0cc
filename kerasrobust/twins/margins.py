"""How far the margins of a network and its twin are apart."""

from __future__ import annotations

import numpy as np


def margin_gaps(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns how far the margins of two networks' logits (N, K) are apart, and the median of the first one's.

    A class that is masked, by -1e9 or -inf, neither wins nor is it compared: what rounding does to it is nothing.
    """
    own, other = own[:, _in_play(own)], other[:, _in_play(own)]
    if own.shape[1] < 2:
        return np.zeros(1), 1.0
    one, two = _margins(own), _margins(other)
    gaps = np.abs(np.subtract(two, one, out=np.zeros_like(one), where=one != two))
    return np.nan_to_num(gaps, nan=np.inf, posinf=np.inf), float(np.median(np.abs(one[np.isfinite(one)])))


def _margins(logits: np.ndarray) -> np.ndarray:
    """Returns the lead of each class over the best other one, (N, K)."""
    top = np.sort(logits, axis=1)[:, -2:]
    return logits - np.where(logits == top[:, 1:], top[:, :1], top[:, 1:])


def _in_play(logits: np.ndarray) -> np.ndarray:
    """Returns which classes aren't masked, bool (K,): those that are of the size that most are."""
    largest = np.abs(logits).max(axis=0, initial=0.0, where=np.isfinite(logits))
    usual = np.sort(largest)[(len(largest) - 1) // 2]
    return np.isfinite(logits).any(axis=0) & (largest <= 1e4 * max(usual, 1.0))
