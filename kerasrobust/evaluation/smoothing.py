"""Certificates by randomized smoothing: within which radius no change of the image can change the network's vote."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, get_args

import numpy as np

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import NO_CLASS
from kerasrobust.entries import CertificateEntry
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.evaluation.about import about_models
from kerasrobust.evaluation.begun import agree, marks_of
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.evaluation.checks.model import DEPENDS, batch_change
from kerasrobust.evaluation.outcome import CurvePoint, Share
from kerasrobust.evaluation.sampling import FIRST, ROUNDS, Ballot, Smoothing
from kerasrobust.events import Emit, Finding
from kerasrobust.names import SmoothingNoise
from kerasrobust.networks.classifier import Classifier
from kerasrobust.settings import check_sigma
from kerasrobust.show.figures import format_accuracy, format_interval
from kerasrobust.show.tables import as_html, certificate_table
from kerasrobust.stats import accuracy_interval, lowest_share

NORMS = {"gaussian": "l2", "uniform": "l1"}
"""In which norm each noise certifies."""


def certified_radii(
    right: np.ndarray, samples: int, *, noise: str = "gaussian", sigma: float = 0.25, alpha: float = 0.001
) -> np.ndarray:
    """Returns the radii that votes certify, float64 (N,): 0 where the class might have no majority.

    The share p of all votes that the class has is at least the exact one-sided bound of Clopper and Pearson, but for a
    probability of alpha. Within the radius that follows the class keeps the majority:

        gaussian   sigma * Phi^-1(p)          in L2 (Phi: the standard normal distribution function)
        uniform    2 lambda * (p - 1/2)       in L1 (on [-lambda, lambda], lambda = sqrt(3) sigma)

    Args:
        right: integers (N,), votes for the class that was chosen before, by other samples.
        samples: how many voted.
        noise: "gaussian" or "uniform".
        sigma: its standard deviation in each pixel, in units of an image in [0, 1].
        alpha: the probability of each radius to be too large.

    Example:
        >>> certified_radii(np.array([500, 990, 1000]), 1000, sigma=0.5).round(3)
        array([0.   , 0.999, 1.231])

    Reference: Cohen et al. 2019, theorem 1 and section 3.2.2; Yang et al. 2020, table 1 and section A.
    """
    share = lowest_share(right, samples, alpha)
    if noise == "uniform":
        return np.maximum(2 * math.sqrt(3) * sigma * (share - 0.5), 0.0)
    normal = NormalDist()
    values, places = np.unique(share, return_inverse=True)
    quantiles = np.array([normal.inv_cdf(value) if value > 0.5 else 0.0 for value in values])
    return sigma * quantiles[places]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What randomized smoothing certifies of a network on N images.

    The smoothed network says of an image what the network says most often of it under noise. Each certificate holds
    with confidence 1 - alpha by itself: of N certificates up to alpha N may be wrong on average. It is one of the
    smoothed network, whose vote has to be taken under the same noise, never of the network without noise.

    Attributes:
        prediction: int64 (N,), the class of the smoothed network; -1 where it abstains.
        radius: float64 (N,), in units of an image in [0, 1]: closer to the image than that in `norm` nothing changes
            the vote; 0 where it abstains.
        y: int64 (N,), the true classes.
        right: int64 (N,), votes for the class that was chosen, of those that were counted.
        counted: int64 (N,), samples that were counted for each image; fewer than `samples` where it was abandoned.
        noise: "gaussian" or "uniform".
        sigma: its standard deviation.
        samples: that each bound is made of.
        selection: samples before those that chose the class.
        alpha: the probability of each certificate to be wrong.
        least_radius: certificates of no larger radius count as abstentions.
        findings: reasons to doubt the figures.
        conventions: what was said or found out of the model, as `evaluate` returns it.
    """

    prediction: np.ndarray
    radius: np.ndarray
    y: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    noise: SmoothingNoise
    sigma: float
    samples: int
    selection: int
    alpha: float
    least_radius: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    conventions: dict[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> str:
        """That of the radii: "l2" for Gaussian noise, "l1" for uniform noise."""
        return NORMS[self.noise]

    @property
    def clean(self) -> Share:
        """The accuracy of the smoothed network; where it abstains it isn't right."""
        return self.certified(0.0)

    @property
    def abstained(self) -> float:
        """The share of images on which it abstains."""
        return float((self.prediction == NO_CLASS).mean())

    @property
    def largest(self) -> float:
        """The radius that an image gets whose votes all agree: no certificate can be larger."""
        everyone = np.array([self.samples])
        return float(certified_radii(everyone, self.samples, noise=self.noise, sigma=self.sigma, alpha=self.alpha)[0])

    def certified(self, radius: float) -> Share:
        """Returns the certified accuracy at a radius, with its 95 % interval.

        It is the share of images that are right, and stay right whatever moves them by `radius` or less. The interval
        is Wilson's, of which images were drawn; that a certificate can be wrong (alpha) isn't in it.

        Example:
            >>> certificate.certified(0.25).accuracy
        """
        right = ((self.prediction == self.y) & (self.radius > radius)).astype(np.float64)
        return Share(float(right.mean()), accuracy_interval(right, randomized=False))

    def curve(self, radii: Sequence[float] | None = None) -> list[CurvePoint]:
        """Returns the certified accuracy at some radii, or without them at the multiples of sigma / 10.

        Example:
            >>> for radius, accuracy, low, high in certificate.curve():
            ...     print(radius, accuracy)
        """
        shares = [(radius, self.certified(radius)) for radius in (self.multiples(10) if radii is None else radii)]
        return [CurvePoint(radius, share.accuracy, *share.interval) for radius, share in shares]

    def multiples(self, parts: int) -> list[float]:
        """Returns the multiples of sigma / `parts`, from 0 on, at which there can be a certificate."""
        return (np.arange(math.ceil(parts * self.largest / self.sigma)) * self.sigma / parts).tolist()

    def entry(self, radii: Sequence[float] = ()) -> dict[str, Any]:
        """Returns what `result.json` holds of it; `radii` are those of the table."""
        names = ("noise", "sigma", "norm", "samples", "selection", "least_radius", "abstained")
        return {
            **{name: getattr(self, name) for name in names},
            "confidence": 1 - self.alpha,
            "counted": int(self.counted.sum()),
            "points": [list(point) for point in self.curve(radii or self.multiples(2))],
            "curve": [list(point) for point in self.curve()],
        }

    def _repr_html_(self) -> str:
        return as_html(certificate_table(CertificateEntry.parse(self.entry()), synthetic=False))

    def __repr__(self) -> str:
        """Returns the figures; the arrays would fill screens."""
        clean = self.clean
        parts = [
            f"{self.noise} noise, sigma {self.sigma:g}, {self.samples:,} samples, confidence {1 - self.alpha:g} each",
            f"accuracy {format_accuracy(clean.accuracy)} ({format_interval(clean.interval)} %)",
            f"abstained {format_accuracy(self.abstained)}",
            *(
                f"{radius:g} {self.norm} {format_accuracy(accuracy)}"
                for radius, accuracy, *_ in self.curve(self.multiples(2)[1:])
            ),
            f"findings {', '.join(finding.code for finding in self.findings) or 'none'}",
        ]
        return f"Certificate({'; '.join(parts)})"


def certify(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    sigma: float = 0.25,
    noise: SmoothingNoise = "gaussian",
    samples: int = 100_000,
    selection: int = 100,
    alpha: float = 0.001,
    least_radius: float = 0.0,
    seed: int = 0,
    batch_size: int = 256,
    resume_dir: Path | str | None = None,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Certificate:
    """Certifies a network by randomized smoothing: how far its vote under noise can't be changed, image by image.

    Few samples choose a class, and others say how sure it is. Images are abandoned, and abstain, once so few of their
    samples are right that all `samples` would lift the bound over `least_radius` with a probability of 1e-9 at most:
    the larger that is, the sooner. It takes `samples` passes for each of the others; networks that weren't trained
    under such noise (objective `gaussian`) mostly abstain.

    The radii are those of real arithmetic. That pixels and noise are rounded to float32 isn't in them (Voráček and Hein
    2022; Jin et al. 2022 make examples of it), nor that the noise comes from a seeded generator.

    Args:
        model: as of `evaluate`; one that takes floating pixels.
        x: images, as of `evaluate`.
        y: class indices, as of `evaluate`.
        sigma: standard deviation of the noise in each pixel, in units of an image in [0, 1]. Nothing clips it.
        noise: "gaussian" certifies in L2, "uniform" in L1.
        samples: that each bound is made of.
        selection: samples before those that choose the class.
        alpha: the probability of each certificate to be wrong.
        least_radius: the smallest radius of interest, in units of an image in [0, 1].
        seed: of the noise. That of a sample depends on this, the image's place in `x`, and the sample's number.
        batch_size: samples at once, of whichever images.
        resume_dir: a folder where the votes are saved every few seconds: a call that was killed and is repeated with
            the same arguments goes on from there, and ends with the same result.
        emit: takes events: progress, then the findings.
        should_stop: asked about every half second.

    Raises:
        InputError: for images, labels or settings that don't fit, a network that takes whole numbers or gives several
            labels, or a folder of another call.
        Cancelled: when `should_stop` says so.

    Example:
        >>> certificate = certify(model, x, y, sigma=0.25, samples=10_000)
        >>> certificate.clean.accuracy, certificate.certified(0.25).accuracy, certificate.radius

    Reference: Cohen et al. 2019, "Certified Adversarial Robustness via Randomized Smoothing"; Yang et al. 2020,
    "Randomized Smoothing of All Shapes and Sizes".
    """
    check_settings(noise, sigma, samples, selection, alpha, least_radius)
    task = Task.checked(
        model, x, y, precision="float32", seed=seed, batch_size=batch_size, emit=emit, should_stop=should_stop
    )
    check_network(task.classifier)
    check_alone(task)
    radii: dict[str, Any] = {"noise": noise, "sigma": sigma, "alpha": alpha}
    needed = _needed(samples, least_radius, radii)
    smoothing = Smoothing(noise=noise, sigma=sigma, samples=samples, selection=selection, needed=needed)
    checkpoints = Checkpoints(None if resume_dir is None else Path(resume_dir))
    with checkpoints.held():
        sizes = {"seed": task.seed, "batch_size": task.batch_size, "rounds": ROUNDS, "first": FIRST}
        agree(checkpoints, "certificate", {**vars(smoothing), **sizes, **marks_of(task)})
        votes = Ballot(task, smoothing, checkpoints).count()
    sure = (votes.right >= needed) & (votes.chosen != NO_CLASS)
    chance = at_chance(task, task.judge(task.x, 1)) + classes_missing(task)
    findings = about_models(task) + chance + _about(task.classifier)
    for finding in findings if emit is not None else ():
        emit(finding)  # type: ignore[misc]
    return Certificate(
        prediction=np.where(sure, votes.chosen, NO_CLASS),
        radius=np.where(sure, certified_radii(votes.right, samples, **radii), 0.0),
        y=task.y,
        right=votes.right,
        counted=votes.taken,
        noise=noise,
        sigma=sigma,
        samples=samples,
        selection=selection,
        alpha=alpha,
        least_radius=least_radius,
        findings=findings,
        conventions=task.classifier.conventions.said(),
    )


def check_settings(noise: str, sigma: float, samples: int, selection: int, alpha: float, least_radius: float) -> None:
    """Raises InputError for settings of `certify` that can't be, or with which nothing could be certified."""
    if noise not in get_args(SmoothingNoise):
        raise unknown_name("noise", str(noise), get_args(SmoothingNoise))
    check_sigma(sigma)
    if not 0 < alpha < 0.5:
        raise InputError(f"Expected alpha between 0 and 0.5. Received: {alpha}. Try 0.001.")
    if min(samples, selection) < 1:
        raise InputError(
            f"Expected at least one sample for each of class and bound. Received: {selection} and {samples}. "
            "Try 100 and 100000."
        )
    fewest = math.ceil(math.log(alpha) / math.log(0.5) + 1e-6)
    if samples < fewest:
        raise InputError(
            f"Expected at least {fewest} samples, as fewer can't certify anything with alpha {alpha:g}. "
            f"Received: {samples}. Try 100000."
        )
    largest = float(certified_radii(np.array([samples]), samples, noise=noise, sigma=sigma, alpha=alpha)[0])
    if not 0 <= least_radius < largest:
        raise InputError(
            f"Expected a smallest radius from 0 to below {largest:.4g}, the largest that {samples:,} samples under "
            f"{noise} noise of sigma {sigma:g} can certify. Received: {least_radius:g}. Take more samples, or a "
            "smaller one."
        )


def check_network(classifier: Classifier) -> None:
    """Raises InputError for a network that noise can't be added to, or that gives several labels."""
    if classifier.labels is not None:
        raise InputError(
            f"Expected one label an image for a certificate. Received: {classifier.labels.count}. Take one output, by "
            "output= or --output."
        )
    if classifier.adapter.whole:
        raise InputError(
            f"Expected a network of floating pixels, as noise takes them below 0 and above 1. Received: "
            f"{classifier.name!r}, which takes {classifier.adapter.dtype}. Rebuild it with floating inputs."
        )


def check_alone(task: Task) -> None:
    """Raises InputError where answers depend on what is beside an image: then a vote is no answer of it."""
    change = batch_change(task.classifier, task.x)
    if change > DEPENDS:
        raise InputError(
            f"Expected a network that answers each image by itself. Received: {task.classifier.name!r}, whose logits "
            f"change with the other images of a batch by up to {format_accuracy(change)} of the largest. Call it with "
            "training=False."
        )


def _needed(samples: int, least_radius: float, radii: dict[str, Any]) -> int:
    """Returns the fewest votes of `samples` that certify a radius above the least one of interest."""
    low, high = 0, samples  # All votes together do, as was checked.
    while high - low > 1:
        middle = (low + high) // 2
        if certified_radii(np.array([middle]), samples, **radii)[0] > least_radius:
            high = middle
        else:
            low = middle
    return high


def _about(classifier: Classifier) -> list[Finding]:
    """Returns what there is to say of a network that is itself random."""
    if not classifier.randomized:
        return []
    return [
        Finding(
            code="random-base",
            message=(
                f"{classifier.name!r} is itself random, so the vote is over its own noise, too. The certificate holds "
                "only if that is drawn for each sample by itself, which isn't known; and images may get other votes in "
                "batches of another size. Turn its noise off, or certify the network that it was made of."
            ),
            severity="warning",
        )
    ]
