"""A run's `report.html`: one self-contained file with the table, the curves, the images, and how it was measured.

Nothing in it is loaded from elsewhere and nothing runs in it: the style sheet, the charts (SVG) and the images (PNG
data URIs) are inline. Every figure is computed from the run's result, in the sentences too. The page is the template
`report.html.j2`. No TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.entries import CertificateEntry, Row
from kerasrobust.records import Result
from kerasrobust.runs import write_whole
from kerasrobust.show import figures
from kerasrobust.show.audited import audit_of
from kerasrobust.show.charts import draw, legend, result_panels
from kerasrobust.show.confusion import confusion_maps
from kerasrobust.show.corrupted import CorruptionMap, Picture, title_of
from kerasrobust.show.heat import draw_heat
from kerasrobust.show.links import csv_link, map_link, svg_link
from kerasrobust.show.literature import bibtex, to_cite
from kerasrobust.show.png import data_uri, smaller
from kerasrobust.show.summaries import summarize

_RUN = ("kind", "model", "data", "seed", "precision", "precisions", "device")
_TRAININGS = {
    "standard": "clean images", "fgsm": "FGSM images", "pgd": "PGD images",
    "adr": "PGD images and its average's labels",
}  # fmt: skip
_DRAWN = {
    "draw": draw, "draw_heat": draw_heat, "legend": legend, "csv_link": csv_link, "map_link": map_link,
    "svg_link": svg_link,
}  # fmt: skip
_PICTURE = 128
"""Pixels on a side of a picture of corruptions, at most."""
_FACTORS = (50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class ExampleStrip:
    """One image before and after an attack, with what the model predicts for both.

    Attributes:
        attack: the registered name.
        epsilon: in units of an image in [0, 1]; None for a minimum-norm attack.
        norm: of `distance`, which is that of `x_adv` from `x`; in words where the threat is no ball
            (`figures.is_no_ball`), `distance` being the number of values that changed.
        x: (H, W, C) with 1, 3 or 4 channels; uint8, or float in [0, 1]. So is `x_adv`.
        label: the true class by name, as `prediction` and `prediction_adv` are.
        eot: passes that each gradient was averaged over.
        confidence: the probability in [0, 1] of `prediction`; `confidence_adv` that of `prediction_adv`.
    """

    model: str
    attack: str
    epsilon: float | None
    norm: str
    x: np.ndarray
    x_adv: np.ndarray
    label: str
    prediction: str
    prediction_adv: str
    confidence: float
    confidence_adv: float
    distance: float
    eot: int = 1


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    *,
    examples: Sequence[ExampleStrip],
    title: str,
    command: str,
    settings: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    about: Mapping[str, str] | None = None,
) -> Path:
    """Writes `report.html` into a run's folder, all of it or nothing.

    Args:
        folder: the run's, which exists.
        result: the run's `result.json`: a study's (`rows`) or an attack's (`attacks`).
        examples: images in the order in which they are shown.
        title: the heading.
        command: what repeats the run.
        settings: the run's configuration; nested mappings are shown with dotted names.
        pictures: one image as it is and under corruptions.
        about: when, for how long and on what machine it ran.

    Raises:
        OSError: if the folder can't be written to.

    Example:
        >>> write_report(folder, result, examples=[], title="Study", command="kerasrobust study", settings={})
        ... # doctest: +SKIP
    """
    page = _page(
        result, examples, title=title, command=command, settings=settings, pictures=_pictured(pictures),
        about=about or {},
    )  # fmt: skip
    target = folder / "report.html"
    write_whole(target, page)
    return target


def _page(result: Mapping[str, Any], examples: Sequence[ExampleStrip], **given: Any) -> str:
    """Returns the page; the template escapes all that it is given."""
    import jinja2  # Only where a report is written: it takes 50 ms.

    known = Result.parse(result)
    rows = known.rows or ()
    assessed = bool(rows) and rows[-1].examples is not None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    plain = ("accuracy", "budget", "change", "confidence", "distance", "epsilon", "interval", "norm", "published")
    environment.filters |= {name: getattr(figures, f"format_{name}") for name in plain} | {
        "attack": figures.attack_name,
        "made_on": figures.made_on,
        "eot": figures.with_eot,
        "noise": figures.format_noise,
        "corruption": title_of,
        # No line may end between a figure and its sign.
        "kept": lambda words: words.replace(" %", "\N{NO-BREAK SPACE}%"),
        "grouped": lambda value: "" if value is None else f"{value:,}",
        "seconds": lambda value: "" if value is None else figures.format_seconds(value),
    }
    run = {key: result[key] for key in _RUN if result.get(key) is not None}
    settings, about = dict(given.pop("settings")), given.pop("about")
    recipes = settings.pop("recipes", {})
    tables = {"Run": about | run, "Settings": settings, "Versions": known.versions}
    tables |= _attack_tables(known)
    return environment.get_template("report.html.j2").render(
        given,
        result=known,
        summary=summarize(known),
        networks={} if assessed else figures.by_network(rows),
        threats=figures.by_network(rows) if assessed else {},
        trainings=_TRAININGS,
        has_published=any(row.published is not None for row in rows),
        panels=result_panels(known),
        all_smoothed=known.certificate is not None and not rows,
        audit=audit_of(known),
        models=[_shown(name, one) for name, one in known.models],
        **_DRAWN,
        examples=_strips(examples),
        method=list(_method(known)),
        papers=list(to_cite(known)),
        bibtex=bibtex(known.versions),
        budgets=_budgets(rows),
        tables={name: list(_flat(values, prefix="")) for name, values in tables.items()},
        recipes=_beside({name: dict(_flat(values, prefix="")) for name, values in recipes.items()}),
    )


def _shown(name: str, result: Result) -> dict[str, Any]:
    """Returns what is shown of one model beside the table of all."""
    return {
        "name": name,
        "result": result,
        "corruptions": CorruptionMap.parse(result.corruptions),
        "confused": _confused(result),
        "maps": list(confusion_maps(result)),
        "attacked": any(entry.robust_accuracy is not None for entry in result.by_class),
    }


def _attack_tables(result: Result) -> dict[str, dict[str, Any]]:
    """Returns the settings of each attack that say something, under headings that tell attacks of one name apart."""
    tables: dict[str, dict[str, Any]] = {}
    for entry in result.attacks:
        # Norm and radius stand in its line of the table above, or there is no ball.
        own = {name: value for name, value in entry.settings.items() if name not in ("norm", "epsilon")}
        known = {name: value for name, value in own.items() if value is not None}
        heading = f"Attack {figures.with_eot(entry.name, entry.settings.get('eot'))}"
        same = [name for name in tables if name == heading or name.startswith(f"{heading}, number ")]
        # Within several radii the settings are the same.
        if known and known not in [tables[name] for name in same]:
            tables[f"{heading}, number {len(same) + 1}" if same else heading] = known
    return tables


def _beside(recipes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Returns settings of several networks: what is the same in all, and a line for each that isn't."""
    names = dict.fromkeys(name for own in recipes.values() for name in own)
    lines = {name: [own.get(name, "") for own in recipes.values()] for name in names}
    return {
        "names": list(recipes),
        "same": [(name, values[0]) for name, values in lines.items() if len(set(values)) == 1],
        "lines": {name: values for name, values in lines.items() if len(set(values)) > 1},
    }


def _confused(result: Result) -> dict[int, str]:
    """Returns by class the other class that its images are taken for most often, under attack where there was one, and
    in how many cases.
    """
    names, found = [entry.name for entry in result.by_class], {}
    for number, row in enumerate(result.confusion_under_attack or result.confusion):
        others = {other: count for other, count in enumerate(row) if other != number and count}
        if others and len(row) == len(names):
            worst = max(others, key=lambda other: others[other])
            found[number] = f"{names[worst]} ({others[worst]:,})"
    return found


def _strips(examples: Sequence[ExampleStrip]) -> dict[str, list[dict[str, Any]]]:
    """Returns what is drawn of each example, under a heading for each network and attack."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for example in examples:
        norm = figures.format_norm(example.norm)
        budget = figures.format_budget(example.epsilon, example.norm) or f"smallest {norm} distance"
        under = figures.with_eot(figures.attack_name(example.attack), example.eot)
        heading = f"{example.model} under {under}, {budget}"
        groups.setdefault(heading, []).append(_strip(example))
    return groups


def _strip(example: ExampleStrip) -> dict[str, Any]:
    clear, perturbed = (
        image.astype(np.float64) / 255 if image.dtype == np.uint8 else image.astype(np.float64)
        for image in (example.x, example.x_adv)
    )
    difference = perturbed - clear
    largest = float(np.abs(difference).max(initial=0.0))
    factor = next((factor for factor in _FACTORS if factor * largest <= 0.5), 1)
    return vars(example) | {
        "original": data_uri(clear),
        "amplified": data_uri(0.5 + factor * difference),
        "perturbed": data_uri(perturbed),
        "factor": factor,
        "confidence": f"{100 * example.confidence:.0f} %",
        "confidence_adv": f"{100 * example.confidence_adv:.0f} %",
    }


def _pictured(pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
    """Returns what is drawn of an image, by corruption; large ones are made smaller, as there are dozens of them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures:
        pixels = picture.image / 255.0 if picture.image.dtype == np.uint8 else picture.image
        entry = vars(picture) | {"drawn": data_uri(smaller(pixels, _PICTURE))}
        groups.setdefault(picture.kind, []).append(entry)
    return groups


def _method(result: Result) -> Iterable[str]:
    """Yields how the figures were made: of attacks, unless there are none, of corruptions, of certificates."""
    corruptions = CorruptionMap.parse(result.corruptions)
    if result.rows is not None or (result.certificate is None and corruptions is None):
        yield from _attacked(result)
    elif corruptions is not None:
        yield f"Measured on {figures.format_images(result)}."
    if corruptions is not None:
        yield corruptions.source
        yield (
            "Intervals are at 95 %: Wilson's of one corruption at one severity, from resampling the images of means, "
            "as all are over the same images, and for a randomized network."
        )
    if result.certificate is not None:
        yield from _certified(result, result.certificate)


def _attacked(result: Result) -> Iterable[str]:
    rows = result.rows or ()
    yield (
        f"Measured on {figures.format_images(result)}. An attack counts as successful where the attacked image, "
        "classified again in float32, is not given its true label; what the model gets wrong from the start counts as "
        "wrong."
    )
    if result.randomized or any(row.randomized for row in rows):
        yield (
            "Intervals are at 95 %: Wilson's for deterministic networks; for randomized ones, whose accuracy is the "
            "mean over fresh passes, from resampling the examples."
        )
    else:
        yield (
            "Intervals are at 95 %: Wilson's for a deterministic network, from resampling the examples for a "
            "randomized one."
        )
    if any((row.eot or 1) > 1 for row in rows):
        yield (
            "EOT k: each gradient is the mean over k draws of the network's noise, so that the attack doesn't follow a "
            "single draw."
        )
    if any(row.noise != "on" for row in rows):
        yield (
            "Noise off, frozen: the same weights without their noise, and held to one draw of it for all images; both "
            "are deterministic networks, attacked and judged as such."
        )
    surrogates = dict.fromkeys(entry.surrogate for entry in result.attacks if entry.surrogate)
    if surrogates:
        yield (
            f"Transfer: gradients are those of {', '.join(surrogates)}, on which the examples were made; the attacked "
            "model was asked for its verdicts alone. It can be weaker than that against attacks on its own gradients."
        )
    distances = [entry.median_distance for entry in result.attacks] + [row.median_distance for row in rows]
    if any(distance is not None for distance in distances):
        yield (
            "Median distance: over the images that were right before the attack, a failed attack counting as infinite."
        )


def _certified(result: Result, found: CertificateEntry) -> Iterable[str]:
    if result.rows is None:
        yield f"Measured on {figures.format_images(result)}."
    yield (
        f"The smoothed network says of an image what the network says "
        f"most often of it under {found.noise} noise of standard deviation {found.sigma or 0:.4g} in each pixel, which "
        f"isn't clipped. Some samples choose a class; others, {found.samples or 0:,} an image, bound the share of its "
        "votes from below (Clopper and Pearson's exact bound)."
    )
    yield (
        f"From that follows the {figures.format_norm(found.norm)} radius within which nothing changes the vote, with "
        f"confidence {figures.format_confidence(found.confidence)} for each image by itself. Where the class might "
        "have no majority the network abstains, which counts as wrong; so it does on images that were abandoned before "
        "all samples, as these would hardly (with a probability of 1e-9) have certified any radius of interest."
    )
    yield "Intervals are Wilson's at 95 %: of which images were drawn, not of the confidence of their certificates."


def _budgets(rows: Sequence[Row]) -> list[tuple[str, str]]:
    settings: dict[tuple[str, str, int, int], set[float]] = {}
    for row in rows:
        if row.attack:
            key = figures.attack_name(row.attack), row.norm or "", row.steps or 1, row.eot or 0
            settings.setdefault(key, set()).update(() if row.epsilon is None else (row.epsilon,))
    found = []
    for (attack, norm, steps, eot), epsilons in settings.items():
        words = [figures.format_norm(norm), f"{steps} steps" if steps > 1 else "", f"EOT {eot}" if eot > 1 else ""]
        if not figures.is_no_ball(norm):
            radii = ", ".join(map(figures.format_epsilon, sorted(epsilons)))
            words.append(f"epsilon {radii}" if radii else "no budget")
        found.append((attack, ", ".join(filter(None, words))))
    return found


def _flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    """Yields nested settings by their dotted names, as text."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None and key in ("epsilon", "epsilons", "step_size"):
            radii = value if isinstance(value, list | tuple) else [value]
            written = (figures.format_epsilon(item) if isinstance(item, float) else str(item) for item in radii)
            yield name, ", ".join(written)
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        else:
            yield name, "" if value is None else str(value)
