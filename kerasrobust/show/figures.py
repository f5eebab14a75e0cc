"""How figures are written.

Console, report and terminal UI share these, so that a figure reads the same in all. No TensorFlow and no NumPy here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from kerasrobust.entries import CertificateEntry, Row
from kerasrobust.names import ATTACKS, registered_name
from kerasrobust.records import Result

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
_ATTACKS = {
    **{name: known.title for name, known in ATTACKS.items()},
    "corruptions": "common corruptions", "certified": "certified, smoothed",
    "pgd-frozen": "PGD, noise frozen", "pgd-transfer": "PGD, transferred",
    **{f"pgd-eot-{passes}": f"PGD, EOT {passes}" for passes in (1, 5, 20, 50)},
}  # fmt: skip


def format_accuracy(value: float | None) -> str:
    """Returns a share in [0, 1] as a percentage with one decimal; nothing for None.

    Example:
        >>> format_accuracy(0.278)
        '27.8 %'
    """
    return "" if value is None else f"{100 * value:.1f} %"


def format_published(value: float | None) -> str:
    """Returns a share in [0, 1] with the digits that it was printed with, which are four at most.

    Example:
        >>> format_published(0.1157), format_published(0.4)
        ('11.57 %', '40 %')
    """
    return "" if value is None else f"{100 * value:.4g} %"


def format_interval(interval: Sequence[float] | None) -> str:
    """Returns an interval [low, high] of shares in per cent, without the sign.

    Example:
        >>> format_interval([0.2412, 0.3189])
        '24.1-31.9'
    """
    if not interval or len(interval) != 2:
        return ""
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f}"


def format_epsilon(value: float | None) -> str:
    """Returns an epsilon as people write it: in 1/255 where it is a multiple of that, else as a decimal.

    Example:
        >>> format_epsilon(8 / 255), format_epsilon(0.5), format_epsilon(None)
        ('8/255', '0.5', '')
    """
    if value is None:
        return ""
    short = f"{value:.2g}"
    steps = round(value * 255, 1)
    # 0.2 is 51/255 as well, but nobody means that; and the value may have passed through float32.
    if not math.isclose(float(short), value, rel_tol=1e-6) and math.isclose(steps, value * 255, rel_tol=1e-6):
        return f"{steps:g}/255"
    return f"{value:.4g}"


def format_distance(value: float | None, norm: str | None = None) -> str:
    """Returns a distance with three digits, and an Linf one of whole grey levels in 1/255.

    Example:
        >>> format_distance(0.21349, "l2"), format_distance(8 / 255, "linf"), format_distance(math.inf)
        ('0.213', '8/255', 'infinite')
    """
    if value is None:
        return ""
    if math.isinf(value):
        return "infinite"
    written = format_epsilon(value)
    return written if norm == "linf" and written.endswith("/255") else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Returns a duration: seconds under two minutes, clock notation above.

    Example:
        >>> format_seconds(0.43), format_seconds(75), format_seconds(3723)
        ('0.4 s', '75 s', '1:02:03')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_count(count: int, noun: str) -> str:
    """Returns how many there are of something that takes an s where they are several.

    Example:
        >>> format_count(1, "image"), format_count(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_done(done: int, total: int | None, unit: str) -> str:
    """Returns how much of something is done: of a budget of seconds, how much of it is used.

    Example:
        >>> format_done(1200, 5000, "image"), format_done(19, 90, "second")
        ('1,200/5,000 images', '19 s of 90 s used')
    """
    if unit == "byte":
        return f"{done / 1e6:.1f}" + (f"/{total / 1e6:.1f} MB" if total is not None else " MB")
    if unit == "second":
        # Events have whole ones.
        given = [f"{count} s" if count < 10 else format_seconds(count) for count in (done, total) if count is not None]
        return f"{' of '.join(given)} used"
    return format_count(done, unit) if total is None else f"{done:,}/{format_count(total, unit)}"


def format_confidence(value: float | None) -> str:
    """Returns a confidence below 1 with as many digits as it needs.

    Example:
        >>> format_confidence(0.999), format_confidence(0.95)
        ('99.9 %', '95 %')
    """
    return "" if value is None else f"{100 * value:.10g} %"


def attack_name(attack: str) -> str:
    """Returns an attack's name as the field writes it, and one that isn't known as it is.

    Example:
        >>> attack_name("apgd-ce"), attack_name("apgd-ce (confirming)"), attack_name("mine")
        ('APGD-CE', 'APGD-CE (confirming)', 'mine')
    """
    name = registered_name(attack)
    return _ATTACKS.get(name, name) + attack.removeprefix(name)


def format_budget(epsilon: float | None, norm: str | None) -> str:
    """Returns an epsilon with its norm (`8/255 L∞`), or the words for a threat that is no ball; nothing for None."""
    written = format_epsilon(epsilon)
    return f"{written} {format_norm(norm)}".strip() if written or is_no_ball(norm) else ""


def is_no_ball(norm: str | None) -> bool:
    """Returns whether what stands for a norm says in words what an attack may do, as it isn't bounded by a distance.

    Example:
        >>> is_no_ball("8x8 pixels"), is_no_ball("linf"), is_no_ball(None)
        (True, False, False)
    """
    return bool(norm) and norm not in _NORMS


def format_change(distance: float, norm: str | None) -> str:
    """Returns how far an image was moved in its norm, or how much of it was changed where the threat is no ball.

    Example:
        >>> format_change(0.5, "l2"), format_change(192.0, "8x8 pixels")
        ('L2 distance 0.5', '192 values changed')
    """
    if is_no_ball(norm):
        return f"{distance:,.0f} values changed"
    return f"{format_norm(norm)} distance {format_distance(distance, norm)}"


def format_norm(norm: str | None) -> str:
    """Returns a norm's name as the field writes it; nothing for None."""
    return _NORMS.get(norm or "", norm or "")


def format_noise(row: Row) -> str:
    """Returns what was done to the noise of a randomized network (`on`, `off`, `frozen`); nothing for any other.

    Example:
        >>> format_noise(Row(model="convnet", randomized=True)), format_noise(Row(model="convnet"))
        ('on', '')
    """
    return row.noise if row.randomized or row.noise != "on" else ""


def with_noise(words: str, noise: str) -> str:
    """Returns words with what was done to a network's noise, where that wasn't left on.

    Example:
        >>> with_noise("PGD", "frozen"), with_noise("PGD", "on")
        ('PGD, noise frozen', 'PGD')
    """
    return words if noise == "on" else f"{words}, noise {noise}"


def with_eot(words: str, eot: Any) -> str:
    """Returns words with the passes that each gradient was averaged over, where those were several.

    Example:
        >>> with_eot("PGD", 10), with_eot("PGD", 1)
        ('PGD, EOT 10', 'PGD')
    """
    return f"{words}, EOT {eot}" if isinstance(eot, int) and eot > 1 else words


def made_on(words: str, surrogate: str | None) -> str:
    """Returns words with the model on which adversarial examples were made, where that isn't the attacked one.

    Example:
        >>> made_on("PGD", "convnet"), made_on("PGD", None)
        ('PGD, made on convnet', 'PGD')
    """
    return f"{words}, made on {surrogate}" if surrogate else words


def format_images(result: Result, examples: int | None = None) -> str:
    """Returns on what the result was measured, such as `1,000 images of cifar10 test[:1000]`; `examples` of them, where
    that is given.
    """
    data, total = result.data, result.data.examples
    known = examples or total
    count = format_count(known, "image") if known else "images"
    if examples and total and examples < total:
        count = f"{examples:,} of the {format_count(total, 'image')}"
    source = " ".join(filter(None, (data.name, data.measured)))
    return f"{count} of {source}" if source else count


def by_network(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each network, in the order of first appearance: those with its noise on, off, and frozen,
    the clean row first in each.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.network, []).append(row)
    return {name: sorted(group, key=_order) for name, group in groups.items()}


def _order(row: Row) -> tuple[bool, bool, bool]:
    return row.noise != "on", row.noise == "frozen", row.attack is not None


def noise_words(found: CertificateEntry) -> str:
    """Returns the noise of a certificate, such as `gaussian noise of sigma 0.25 (100,000 samples an image)`."""
    many = "" if found.samples is None else f" ({found.samples:,} samples an image)"
    return f"{found.noise} noise of sigma {found.sigma or 0:.4g}{many}"
