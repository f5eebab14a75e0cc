"""Two runs on the same images, image by image: McNemar's exact test. No TensorFlow here."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.errors import InputError
from kerasrobust.names import Norm
from kerasrobust.records import Result
from kerasrobust.runs import read_json
from kerasrobust.show.examples import read_index, same_images
from kerasrobust.show.figures import format_count, format_norm, is_no_ball
from kerasrobust.stats import mcnemar

RATES = "rates.npz"
"""Where an assessment has the share of right passes on each image, by threat, and which images those are."""
IMAGES = ("y", "checksum")
"""Its arrays that are equal where images and labels are; `order` has the images' places in the data."""
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
UNION = "union"
"""The norms of an assessment, and the worst of them on each image."""
THREATS = {
    "clean": "no attack",
    "spatial": "rotation and translation",
    "patch": "a patch",
}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two runs differ on the same images, under the attack of each.

    Attributes:
        examples: how many images both attacked.
        only_first: those that only the first run's model gets wrong under attack; `only_second` likewise.
        p_value: of McNemar's exact test, two-sided: how probable counts as unequal as these are where both models are
            equally robust.
        difference: robust accuracy of the first minus that of the second, on these images.
        under: what both withstand or don't, in words.
        threat: the same by its name, of assessments.
    """

    examples: int
    only_first: int
    only_second: int
    p_value: float
    difference: float
    under: str = "attack"
    threat: str = ""

    def entry(self, first: str, second: str) -> dict[str, Any]:
        """Returns what `result.json` has of it."""
        return {
            "model": first,
            "other": second,
            "threat": self.threat,
            "images": self.examples,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p": self.p_value,
            "difference": self.difference,
        }


def keeps_images(folder: Path) -> bool:
    """Returns whether a run tells what became of each image, so that it can be compared with another by them."""
    return any((folder / name).is_file() for name in ("examples.h5", RATES))


def pairs(first: Path, second: Path) -> list[Paired]:
    """Compares two runs image by image: of attacks or trainings, or two assessments, which have several threats.

    Returns:
        What there is to compare: nothing where the files of the images lack, or hold others.

    Raises:
        InputError: for a damaged file.

    Reference: McNemar 1947; the exact form is a sign test on the examples that differ (Fagerland et al. 2013).
    """
    assessed = [path / RATES for path in (first, second)]
    if all(path.is_file() for path in assessed):
        return list(by_threat(*map(_rates, assessed)))
    found = _of_examples(first, second)
    return [] if found is None else [found]


def by_threat(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Paired]:
    """Yields how two assessments differ under each threat, on the images that both have measured."""
    import numpy as np

    for name in first:
        if name in ("order", *IMAGES) or name not in second:
            continue
        count = min(len(first[name]), len(second[name]))
        if not count or not all(np.array_equal(first[image][:count], second[image][:count]) for image in IMAGES):
            continue
        rates, others = first[name][:count], second[name][:count]
        # By majority of the fresh passes, where a network is random.
        yield _paired(rates <= 0.5, others <= 0.5, rates, others, under=_words(name), threat=name)


def union_of(norms: Sequence[str]) -> str:
    """Returns what the worst of some norms is called in an assessment's file: one of others is another threat.

    Example:
        >>> union_of(["linf", "l2", "l1"]), union_of(["linf", "l2"])
        ('union', 'union-linf-l2')
    """
    return UNION if tuple(norms) == NORMS else "-".join((UNION, *norms))


def norms_text(norms: Sequence[str], word: str) -> str:
    """Returns norms in words.

    Example:
        >>> norms_text(["linf", "l2", "l1"], "or")
        'L∞, L2 or L1'
    """
    *first, last = map(format_norm, norms)
    return f"{', '.join(first)} {word} {last}" if first else last


def _words(threat: str) -> str:
    if threat.split("-")[0] == UNION:
        return f"the worst of {norms_text(threat.split('-')[1:] or NORMS, 'and')}"
    return format_norm(threat) if threat in NORMS else THREATS.get(threat, threat)


def _rates(path: Path) -> dict[str, Any]:
    """Returns the arrays of an assessment's file.

    Raises:
        InputError: for a damaged one.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"Expected what an assessment measured of each image. Received: {path}: {error}.") from error
    if missing := [name for name in IMAGES if name not in found]:
        raise InputError(
            f"Expected what an assessment measured of each image. Received: {path}, without {', '.join(missing)}."
        )
    return found


def _of_examples(first: Path, second: Path) -> Paired | None:
    files = first / "examples.h5", second / "examples.h5"
    if not all(path.is_file() for path in files) or not same_images(*files):
        return None
    if _target(first) != _target(second):  # Another question.
        return None
    (wrong, rates), (other_wrong, other_rates) = (_under_attack(path) for path in files)
    return _paired(wrong, other_wrong, rates, other_rates)


def _paired(wrong: Any, other_wrong: Any, rates: Any, other_rates: Any, **words: str) -> Paired:
    only_first, only_second = int((wrong & ~other_wrong).sum()), int((other_wrong & ~wrong).sum())
    return Paired(
        examples=len(wrong),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        difference=float(rates.mean() - other_rates.mean()),
        **words,
    )


def _target(folder: Path) -> str:
    return Result.parse(read_json(folder / "result.json") or {}).target


def _under_attack(path: Path) -> tuple[Any, Any]:
    """Returns per example whether the model is wrong under attack, bool (N,), and the share of right passes."""
    import numpy as np

    index = read_index(path)
    # A minimum-norm attack has one distance per example: one further away than the radius counts as it was before.
    attacks = Result.parse(read_json(path.with_name("result.json")) or {}).attacks
    # Above what float32 makes of a distance that is the radius itself: older files don't tell the two kinds apart.
    radius = ((attacks[0].epsilon if attacks else None) or 0.0) * (1 + 1e-5)
    outside = np.isnan(index.epsilon) & (index.distance > radius) & (not is_no_ball(index.norm))
    return np.where(outside, ~index.correct, index.success), np.where(outside, index.correct, index.correct_rate)


def sentence(first: str, second: str, pair: Paired) -> str:
    """Returns how two runs of these names differ on the same images, as a sentence."""
    probability = format_probability(pair.p_value)
    what = "accuracy" if pair.under == THREATS["clean"] else "robust accuracy"
    return (
        f"{first} and {second} on the same {format_count(pair.examples, 'image')} under {pair.under}: "
        f"{pair.only_first:,} only {first} gets wrong, {pair.only_second:,} only {second} "
        f"(McNemar's exact test: p {probability}); "
        # Not -0.0.
        f"{what} differs by {0.0 + 100 * pair.difference:+.1f} points."
    ) + _too_few(pair)


def _too_few(pair: Paired) -> str:
    """Returns what there is to say where the examples can't bear out the difference.

    How many would: where the shares of examples that differ either way stay what they are, McNemar's statistic
    (b - c)^2 / (b + c) grows with their number, and 3.84 is its 95 % quantile.
    """
    gap, differing = abs(pair.only_first - pair.only_second), pair.only_first + pair.only_second
    if pair.p_value < 0.05 or not gap:
        return ""
    wanted = math.ceil(pair.examples * 3.84 * differing / gap**2 / 100) * 100
    more = f"; about {wanted:,} would" if wanted > pair.examples else ""
    return f" So few examples don't bear out a difference{more} (few-examples)."


def format_probability(value: float) -> str:
    """Returns a p-value with its sign, as `= 0.031` or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"= {value:.2g}" if value < 0.1 else f"= {value:.2f}"
