"""Splits in the notation of TensorFlow Datasets: `train[10%:]`, `test[:100]+train[-50:]`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from kerasrobust.errors import InputError, malformed_split, unknown_name
from kerasrobust.names import SPLIT_TERM, is_split

PARTS = {"test": ("test", "testing"), "validation": ("validation", "valid", "val"), "train": ("train", "training")}
"""Parts that files and folders may have, and how people spell them there."""

_ENDS = ("", "set", "_set", "_data", "_images")
"""What may follow in the name of a folder."""


def parts_named(names: Iterable[str]) -> dict[str, str]:
    """Returns the parts that the names of folders beside each other say; those that say none are left out.

    Names may have words around the part, where two parts or more have the same ones, as `seg_train` and `seg_test` do.

    Example:
        >>> parts_named(["Training", "test-set", "blood_test", "cat"])
        {'Training': 'train', 'test-set': 'test'}
        >>> parts_named(["seg_train", "seg_test"])
        {'seg_train': 'train', 'seg_test': 'test'}
    """
    spelt = {word + end: part for part, words in PARTS.items() for word in words for end in _ENDS}
    said, around = {}, defaultdict[tuple[str, str], dict[str, str]](dict)
    for name in names:
        words = [word.lower() for word in re.split(r"[-_. ]+|(?<=[a-z])(?=[A-Z0-9])", name)]
        if part := spelt.get("_".join(words)):
            said[name] = part
            continue
        for place, word in enumerate(words):
            if part := spelt.get(word):
                around["_".join(words[:place]), "_".join(words[place + 1 :])][name] = part
    for alike in around.values():
        if len(set(alike.values())) > 1:
            said |= alike
    return said


def parts_of(split: str, sizes: Mapping[str, int], *, endless: bool = False) -> list[tuple[str, int, int]]:
    """Reads a split in TFDS's notation.

    Args:
        split: for instance `train[10%:]`, `test[:100]+train[-50:]`; `[:100]` is `all[:100]`.
        sizes: how many examples each named part has; percentages are of these, rounded to the nearest example.
        endless: whether a slice may go past its part's size.

    Returns:
        For each term the part's name, the first example, and the one after the last.

    Raises:
        InputError: if the split is malformed or empty, goes past the end, or names an unknown part.

    Example:
        >>> parts_of("test[:25%]+train[-5:]", {"train": 100, "test": 80})
        [('test', 0, 20), ('train', 95, 100)]
    """
    if not is_split(split):
        raise malformed_split(split)
    parts = []
    for match in filter(None, map(SPLIT_TERM.fullmatch, split.split("+"))):
        part = match[1] or "all"
        if part not in sizes:
            raise unknown_name("split", part, sizes)
        size = sizes[part]
        first = _place(match[2], size, 0)
        end = _place(match[3], size, size)
        if first < 0 or (end > size and not endless):
            raise InputError(
                f"Expected a slice within the {size} examples of {part!r}. Received: {split!r}. "
                f"Take a smaller one, or {part!r} for all of them."
            )
        if end <= first:
            raise empty_split(split)
        parts.append((part, first, end))
    return parts


def default_split(sizes: Mapping[str, int], most: int) -> str:
    """Returns the split that is taken where none is said: all of a set of one part, else its test part, up to `most`.

    Example:
        >>> default_split({"train": 50_000, "test": 10_000}, 1_000), default_split({"all": 60}, 1_000)
        ('test[:1000]', 'all')
    """
    part = next((part for part in ("all", *PARTS) if part in sizes), next(iter(sizes)))
    return part if sizes[part] <= most else f"{part}[:{most}]"


def _place(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    place = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return place + size if place < 0 else place


def empty_split(split: str) -> InputError:
    """Returns the error for a split without examples."""
    return InputError(f"Expected a split with at least one example. Received: {split!r}. Take a larger slice.")
