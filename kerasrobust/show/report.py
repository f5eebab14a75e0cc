"""A run's `report.html`: one self-contained file with the table, the curves, the images, and how it was measured.

Nothing in it is loaded from elsewhere and nothing runs in it: the style sheet, the charts (SVG) and the images (PNG
data URIs) are inline. Every figure is computed from the run's result, in the sentences too. No TensorFlow here.
"""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.show.charts import STYLE, Panel, curve_panel, draw, legend, panels
from kerasrobust.show.figures import (
    Record,
    attack_name,
    by_network,
    format_accuracy,
    format_budget,
    format_distance,
    format_epsilon,
    format_images,
    format_interval,
    format_norm,
    format_published,
    format_seconds,
    summary,
)

_TRAININGS = {"standard": "clean images", "fgsm": "FGSM images", "pgd": "PGD images"}
_FACTORS = (50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class ExampleStrip:
    """One image before and after an attack, with what the model said of both.

    Attributes:
        model: The network's name.
        attack: The attack's registered name.
        epsilon: The budget, in units of an image in [0, 1]; None for a minimum-norm attack.
        norm: `linf` or `l2`.
        x: The image, (H, W, C) with 1, 3 or 4 channels; uint8, or float in [0, 1].
        x_adv: The adversarial image, likewise.
        label: The true class' name.
        prediction: What the model says of `x`.
        prediction_adv: What it says of `x_adv`.
        confidence: The probability that it gives to `prediction`, in [0, 1].
        confidence_adv: Likewise for `prediction_adv`.
        distance: How far `x_adv` is from `x`, in `norm`.
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


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    *,
    examples: Sequence[ExampleStrip],
    title: str,
    command: str,
    settings: Mapping[str, Any],
) -> Path:
    """Writes `report.html` into a run's folder, all of it or nothing.

    Args:
        folder: The run's folder, which exists.
        result: The run's `result.json`: a study's (`rows`) or an attack's (`attacks`).
        examples: Images to show, in the order in which they are shown.
        title: The heading.
        command: What repeats the run.
        settings: The run's configuration; nested mappings are shown with dotted names.

    Returns:
        The file's path.

    Raises:
        OSError: The folder can't be written to.

    Example:
        >>> write_report(folder, result, examples=[], title="Study", command="kerasrobust study", settings={})
        ... # doctest: +SKIP
    """
    rows = result.get("rows") or []
    parts = [
        f"<header><h1>{escape(title)}</h1><p class=lead>{_unbroken(escape(summary(result)))}</p></header>",
        _banner(result),
        _warnings(result),
        _study_section(rows) if rows else "",
        _attack_section(result.get("attacks") or []),
        _curve_section([*panels(rows), *curve_panel(result)]),
        _example_section(examples),
        _method_section(result),
        _settings_section(result, command, settings),
    ]
    page = _PAGE.format(title=escape(title), style=STYLE, body="\n".join(part for part in parts if part))
    target = folder / "report.html"
    temporary = folder / f".report.html.{os.getpid()}"
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def encode_png(image: np.ndarray) -> bytes:
    r"""Returns an image as a PNG file.

    Args:
        image: (H, W, C) with 1, 3 or 4 channels; uint8, or float in [0, 1].

    Raises:
        ValueError: The shape is another one.

    Example:
        >>> encode_png(np.zeros((2, 2, 3), np.uint8))[:4]
        b'\x89PNG'
    """
    colour = {1: 0, 3: 2, 4: 6}.get(image.shape[-1]) if image.ndim == 3 else None
    if colour is None:
        raise ValueError(f"Expected an image (H, W, C) with 1, 3 or 4 channels. Received: shape={image.shape}.")
    pixels = image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    height, width, _ = pixels.shape
    # Each scan line begins with its filter: 0, none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _unbroken(text: str) -> str:
    return text.replace(" %", "&nbsp;%")


def _is_synthetic(result: Mapping[str, Any]) -> bool:
    data = result.get("data") or {}
    return bool(data.get("synthetic", data.get("name") == "shapes"))


def _banner(result: Mapping[str, Any]) -> str:
    if not _is_synthetic(result):
        return ""
    return (
        "<p class=banner role=note><strong>Synthetic data.</strong> These images are generated shapes, not "
        "photographs. The figures show how the methods behave; they say nothing about accuracy on real images"
        + (
            ", and the published ones beside them were measured on others."
            if any(row.get("published") is not None for row in result.get("rows") or [])
            else "."
        )
        + "</p>"
    )


def _warnings(result: Mapping[str, Any]) -> str:
    items = [
        f"<li>{escape(str(warning['message']))} <code>{escape(str(warning['code']))}</code></li>"
        for warning in result.get("warnings") or []
    ]
    return f"<section class=doubts><h2>Reasons for doubt</h2><ul>{''.join(items)}</ul></section>" if items else ""


def _cells(values: Iterable[str]) -> str:
    return "".join(f"<td>{escape(value)}</td>" for value in values)


def _accuracy_cells(accuracy: float | None, interval: Sequence[float] | None) -> str:
    """Returns the cells of an accuracy and its interval; the bar behind the figure is the figure."""
    share = 100 * (accuracy or 0)
    bar = f'<span class=bar><i style="width:{share:.1f}%"></i></span>'
    return f"<td class=figure>{bar}<b>{format_accuracy(accuracy)}</b></td>{_cells([format_interval(interval)])}"


def _study_section(rows: Sequence[Record]) -> str:
    bodies = []
    for name, group in by_network(rows).items():
        first = group[0]
        training = str(first.get("training") or "")
        told = f"{first['model']}, trained on {_TRAININGS.get(training, training)}"
        told += ", randomized" if first.get("randomized") else ""
        lines = [f"<tr class=group><th colspan=9 scope=rowgroup>{escape(name)} <span>{escape(told)}</span></th></tr>"]
        for row in group:
            attack = row.get("attack")
            lines.append(
                f"<tr{'' if attack else ' class=clean'}>"
                + _cells(
                    [
                        attack_name(attack) if attack else "clean",
                        format_norm(row.get("norm")),
                        format_epsilon(row.get("epsilon")),
                        str(row.get("steps") or ""),
                        str(row.get("eot") or ""),
                    ]
                )
                + _accuracy_cells(row.get("accuracy"), row.get("interval"))
                + _cells(
                    [
                        format_distance(row.get("median_distance"), row.get("norm")),
                        format_published(row.get("published")),
                    ]
                )
                + "</tr>"
            )
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    heads = ("Attack", "Norm", "Epsilon", "Steps", "EOT", "Accuracy", "95 % interval", "Median distance", "Published")
    note = (
        "<p class=note>Published: what the original study printed for networks of its own on CIFAR-10 (its Model A is "
        "lenet, its Model B convnet).</p>"
        if any(row.get("published") is not None for row in rows)
        else ""
    )
    return _table_section("Results", heads, "".join(bodies), note)


def _attack_section(attacks: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for attack in attacks:
        lines.append(
            "<tr>"
            + _cells(
                [
                    attack_name(attack["name"]),
                    format_norm(attack.get("norm")),
                    format_epsilon(attack.get("epsilon")),
                ]
            )
            + _accuracy_cells(attack.get("robust_accuracy"), attack.get("interval"))
            + _cells(
                [
                    format_distance(attack.get("median_distance"), attack.get("norm")),
                    format_seconds(attack["seconds"]) if attack.get("seconds") is not None else "",
                    f"{attack['gradients']:,}" if attack.get("gradients") is not None else "",
                    f"{attack['forwards']:,}" if attack.get("forwards") is not None else "",
                ]
            )
            + "</tr>"
        )
    heads = [
        *("Attack", "Norm", "Epsilon", "Robust accuracy", "95 % interval"),
        *("Median distance", "Time", "Gradients", "Forward passes"),
    ]
    return _table_section("Attacks", heads, f"<tbody>{''.join(lines)}</tbody>", "") if lines else ""


def _table_section(heading: str, heads: Iterable[str], bodies: str, note: str) -> str:
    head = "".join(f"<th scope=col>{escape(text)}</th>" for text in heads)
    return (
        f"<section><h2>{heading}</h2><div class=wide><table class=results>"
        f"<thead><tr>{head}</tr></thead>{bodies}</table></div>{note}</section>"
    )


def _curve_section(drawn: Sequence[Panel]) -> str:
    figures = [
        f"<figure><figcaption>{escape(attack_name(panel.attack))}</figcaption>{draw(panel)}{legend(panel)}</figure>"
        for panel in drawn
    ]
    if not figures:
        return ""
    return (
        f"<section><h2>Accuracy over epsilon</h2><div class=charts>{''.join(figures)}</div>"
        "<p class=note>Epsilon 0 is the clean accuracy. Bands are 95 % intervals. A point's figures show when "
        "the pointer rests on it.</p></section>"
    )


def _example_section(examples: Sequence[ExampleStrip]) -> str:
    groups: dict[str, list[str]] = {}
    for example in examples:
        budget = format_budget(example.epsilon, example.norm) or f"smallest {format_norm(example.norm)} distance"
        heading = f"{example.model} under {attack_name(example.attack)}, {budget}"
        groups.setdefault(heading, []).append(_strip(example))
    if not groups:
        return ""
    parts = [
        f"<h3>{escape(heading)}</h3><div class=strips>{''.join(strips)}</div>" for heading, strips in groups.items()
    ]
    return f"<section><h2>Clear and perturbed images</h2>{''.join(parts)}</section>"


def _strip(example: ExampleStrip) -> str:
    clear, perturbed = (
        image.astype(np.float64) / 255 if image.dtype == np.uint8 else image.astype(np.float64)
        for image in (example.x, example.x_adv)
    )
    difference = perturbed - clear
    largest = float(np.abs(difference).max(initial=0.0))
    factor = next((factor for factor in _FACTORS if factor * largest <= 0.5), 1)
    amplified = 0.5 + factor * difference
    fooled = "" if example.prediction_adv == example.label else " class=wrong"
    mistaken = "" if example.prediction == example.label else " class=wrong"
    distance = format_distance(example.distance, example.norm)
    pictures = (
        (
            clear,
            f"original of {example.label}",
            f"<b{mistaken}>{escape(example.prediction)}</b> {_confidence(example.confidence)}",
        ),
        (
            amplified,
            f"perturbation, amplified {factor} times",
            f"change <b>× {factor}</b>",
        ),
        (
            perturbed,
            "adversarial image",
            f"<b{fooled}>{escape(example.prediction_adv)}</b> {_confidence(example.confidence_adv)}",
        ),
    )
    cells = "".join(
        f'<div><img alt="{escape(alternative)}" src="data:image/png;base64,{_base64(image)}"><span>{below}</span></div>'
        for image, alternative, below in pictures
    )
    return (
        f"<figure class=strip><div class=images>{cells}</div><figcaption>true label <b>{escape(example.label)}</b>, "
        f"{escape(format_norm(example.norm))} distance {distance}</figcaption></figure>"
    )


def _base64(image: np.ndarray) -> str:
    return base64.b64encode(encode_png(image)).decode("ascii")


def _confidence(value: float) -> str:
    return f"{100 * value:.0f} %"


def _method_section(result: Mapping[str, Any]) -> str:
    rows = result.get("rows") or []
    sentences = [
        f"Measured on {format_images(result)}. An attack counts as successful where the attacked image, classified "
        "again in float32, is not given its true label; what the model gets wrong from the start counts as wrong.",
    ]
    if result.get("randomized") or any(row.get("randomized") for row in rows):
        sentences.append(
            "Intervals are at 95 %: Wilson's for deterministic networks; for randomized ones, whose accuracy is the "
            "mean over fresh passes, from resampling the examples."
        )
    else:
        sentences.append(
            "Intervals are at 95 %: Wilson's for a deterministic network, from resampling the examples for a "
            "randomized one."
        )
    if any((row.get("eot") or 1) > 1 for row in rows):
        sentences.append(
            "EOT k: each gradient is the mean over k draws of the network's noise, so that the attack doesn't follow a "
            "single draw."
        )
    if any(entry.get("median_distance") is not None for entry in [*rows, *(result.get("attacks") or [])]):
        sentences.append(
            "Median distance: over the images that were right before the attack, a failed attack counting as infinite."
        )
    settings: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.get("attack"):
            key = (attack_name(row["attack"]), format_norm(row.get("norm")), str(row.get("steps") or ""))
            epsilons = settings.setdefault((*key, str(row.get("eot") or "")), [])
            if row.get("epsilon") is not None and row["epsilon"] not in epsilons:
                epsilons.append(row["epsilon"])
    items = []
    for (attack, norm, steps, eot), epsilons in settings.items():
        words = [norm, f"{steps} steps" if steps not in ("", "1") else "", f"EOT {eot}" if eot not in ("", "1") else ""]
        words.append(f"epsilon {', '.join(map(format_epsilon, sorted(epsilons)))}" if epsilons else "no budget")
        items.append(f"<li><b>{escape(attack)}</b> {escape(', '.join(word for word in words if word))}</li>")
    attacks = f"<ul>{''.join(items)}</ul>" if items else ""
    return f"<section><h2>How it was measured</h2><p>{escape(' '.join(sentences))}</p>{attacks}</section>"


def _settings_section(result: Mapping[str, Any], command: str, settings: Mapping[str, Any]) -> str:
    run = {
        key: result[key]
        for key in ("kind", "model", "data", "seed", "precision", "device")
        if result.get(key) is not None
    }
    tables = [("Run", run), ("Settings", settings), ("Versions", result.get("versions") or {})]
    parts = [f"<h3>{name}</h3>{_pairs(values)}" for name, values in tables if values]
    return (
        "<section><h2>To repeat it</h2>"
        f"<pre><code>{escape(command)}</code></pre>"
        f"<div class=tables><div>{'</div><div>'.join(parts)}</div></div></section>"
    )


def _pairs(values: Mapping[str, Any]) -> str:
    lines = [
        f"<tr><th scope=row>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in _flat(values, prefix="")
    ]
    return f"<table class=pairs><tbody>{''.join(lines)}</tbody></table>"


def _flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif key in ("epsilon", "epsilons"):
            several = value if isinstance(value, list | tuple) else [value]
            yield name, ", ".join(format_epsilon(item) if isinstance(item, float) else str(item) for item in several)
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        else:
            yield name, "" if value is None else str(value)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
