"""Tables of figures for the console. No TensorFlow here."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from kerasrobust.entries import AttackEntry, CertificateEntry, LabelEntry, Row
from kerasrobust.events import AttackFinished
from kerasrobust.show import figures
from kerasrobust.show.fitting import FittingTable

SYNTHETIC = "Synthetic data: generated shapes, not photographs. The figures say nothing about real images."


def study_table(rows: Iterable[Row], *, synthetic: bool) -> Table:
    """Returns the study's table: one section per network, published figures beside.

    Noise is on, off or frozen where the network is randomized, and none elsewhere. An epsilon of another norm than Linf
    carries its norm (`0.5 L2`). The table fits 80 columns; its caption says if the
    data are synthetic.

    Example:
        >>> row = Row(model="lenet", training="standard", randomized=False, accuracy=0.66)
        >>> study_table([row], synthetic=False).row_count
        1
    """
    table = make_table(synthetic)
    table.add_column("network", overflow="fold")
    table.add_column("noise", no_wrap=True)
    table.add_column("attack", overflow="fold")
    for header in ("epsilon", "EOT", "accu-\nracy", "95 %\ninterval", "median\ndist.", "pub-\nlished"):
        table.add_column(header, justify="right", no_wrap=True)
    for group in figures.by_network(rows).values():
        for row in group:
            table.add_row(
                row.network,
                figures.format_noise(row) or "none",
                row.attack or "clean",
                epsilon_text(row.epsilon, row.norm),
                str(row.eot or ""),
                figures.format_accuracy(row.accuracy),
                figures.format_interval(row.interval),
                figures.format_distance(row.median_distance),
                figures.format_published(row.published),
            )
        table.add_section()
    return table


def threat_table(rows: Iterable[Row], *, synthetic: bool) -> Table:
    """Returns the table of models under several threats, each measured on its own number of images."""
    groups = figures.by_network(rows)
    table = make_table(synthetic)
    if len(groups) > 1:
        table.add_column("network", overflow="fold")
    table.add_column("attack", overflow="fold")
    table.add_column("threat", overflow="fold")
    for header in ("accuracy", "95 %\ninterval", "images"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, group in groups.items():
        for place, row in enumerate(group):
            table.add_row(
                # What stays the same from line to line is printed once.
                *(("" if place else name,) if len(groups) > 1 else ()),
                figures.attack_name(row.attack or "clean"),
                figures.format_budget(row.epsilon, row.norm) or "none",
                figures.format_accuracy(row.accuracy),
                figures.format_interval(row.interval),
                "" if row.examples is None else f"{row.examples:,}",
            )
        table.add_section()
    return table


class Figure(NamedTuple):
    """An accuracy and its 95 % interval."""

    accuracy: float | None
    interval: Sequence[float] | None


def attack_table(
    attacks: Sequence[AttackFinished | AttackEntry],
    *,
    synthetic: bool,
    clean: Figure | None = None,
    together: Figure | None = None,
) -> Table:
    """Returns the table of one model's attacks, in the order in which they ended.

    Args:
        attacks: as they stand in events or results.
        synthetic: whether the data are.
        clean: what is right without an attack, which comes first.
        together: what is right under all of them, which comes last where they are several.
    """
    table = make_table(synthetic)
    table.add_column("attack", overflow="fold")
    table.add_column("norm", no_wrap=True)
    targeted = any(attack.reached is not None for attack in attacks)
    reached = ("target\nreached",) if targeted else ()
    chained = any(attack.attacked is not None for attack in attacks)
    if chained:  # Each runs on what those before it have left.
        table.add_column("images", justify="right", no_wrap=True)
    for header in ("epsilon", "accuracy", "95 %\ninterval", *reached, "median\ndistance", "time", "gradients"):
        table.add_column(header, justify="right", no_wrap=True)

    def add(name: str, figure: Figure | None, epsilon: float | None = None) -> None:
        if figure is not None and figure.accuracy is not None:
            share = figures.format_accuracy(figure.accuracy), figures.format_interval(figure.interval)
            table.add_row(name, "", *(("",) if chained else ()), figures.format_epsilon(epsilon), *share)

    add("clean", clean)
    for attack in attacks:
        table.add_row(
            figures.made_on(figures.with_eot(attack.name, attack.settings.get("eot")), attack.surrogate),
            attack.norm,
            *(("all" if attack.attacked is None else f"{attack.attacked:,}",) if chained else ()),
            figures.format_epsilon(attack.epsilon),
            figures.format_accuracy(attack.robust_accuracy),
            figures.format_interval(attack.interval),
            *((figures.format_accuracy(attack.reached),) if targeted else ()),
            figures.format_distance(attack.median_distance),
            "" if attack.seconds is None else figures.format_seconds(attack.seconds),
            "" if attack.gradients is None else f"{attack.gradients:,}",
        )
    if len(attacks) > 1:
        table.add_section()
        # Within several radii: what lies within all, within the largest.
        radii = {attack.epsilon for attack in attacks if attack.epsilon is not None} if chained else set()
        add("all together", together, max(radii) if len(radii) > 1 else None)
    return table


def label_table(labels: Iterable[LabelEntry], *, synthetic: bool) -> Table:
    """Returns the table of the labels of one model, each attacked alone."""
    table = make_table(synthetic)
    table.add_column("label", overflow="fold")
    for header in ("images\nthat have it", "clean\naccuracy", "95 %\ninterval", "robust\naccuracy", "95 %\ninterval"):
        table.add_column(header, justify="right", no_wrap=True)
    for label in labels:
        table.add_row(
            label.name,
            figures.format_accuracy(label.share),
            figures.format_accuracy(label.clean_accuracy),
            figures.format_interval(label.clean_interval),
            figures.format_accuracy(label.robust_accuracy),
            figures.format_interval(label.interval),
        )
    return table


def certificate_table(found: CertificateEntry, *, synthetic: bool) -> Table:
    """Returns the certified accuracy at each radius, as figures and drawn."""
    table = make_table(synthetic)
    for header in (f"{figures.format_norm(found.norm)}\nradius", "certified\naccuracy", "95 %\ninterval"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for radius, accuracy, *interval in found.points:
        bar = ProgressBar(total=1, completed=accuracy, width=30)
        table.add_row(f"{radius:.4g}", figures.format_accuracy(accuracy), figures.format_interval(interval), bar)
    return table


def make_table(synthetic: bool) -> Table:
    """Returns an empty table in the style of all of them, captioned where the data are synthetic."""
    # The narrowest box that rich has, without its edges, as nine columns have to fit 80 characters.
    return FittingTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        header_style="bold",
        caption=SYNTHETIC if synthetic else None,
        caption_justify="left",
        caption_style="bold yellow",
        highlight=False,
    )


def printed(*tables: Table) -> str:
    """Returns tables as text of 80 columns, as Python prints what it is given back."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(*tables, sep="\n")
    return captured.get().rstrip()


def as_html(*tables: Table) -> str:
    """Returns tables as HTML, as notebooks show what they are given back."""
    console = Console(width=100, file=io.StringIO(), record=True, force_jupyter=False)
    console.print(*tables, sep="\n")
    return console.export_html(code_format='<pre style="line-height: normal">{code}</pre>', inline_styles=True)


def epsilon_text(value: float | None, norm: str | None) -> str:
    """Returns the epsilon with its norm where that isn't Linf, as 0.5 in L2 is small and in Linf absurd.

    Where the threat is no ball it returns its words.
    """
    if figures.is_no_ball(norm):
        return figures.format_budget(value, norm)
    other = norm.upper() if norm and norm != "linf" else ""
    return f"{figures.format_epsilon(value)} {other}".strip()
