"""An evaluation as notebooks show it: a table, a data frame, curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.errors import InputError
from kerasrobust.records import Result
from kerasrobust.runs import write_whole
from kerasrobust.show.charts import result_panels
from kerasrobust.show.export.pictures import Figure, standalone
from kerasrobust.show.figures import attack_name, format_norm
from kerasrobust.show.tables import Figure as Share
from kerasrobust.show.tables import as_html, attack_table


@dataclass(frozen=True)
class Drawing:
    """Charts, as SVG that needs no style sheet; a notebook shows them.

    Attributes:
        svgs: one text a chart.
    """

    svgs: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Drawing({len(self.svgs)} chart{'' if len(self.svgs) == 1 else 's'})"

    def _repr_html_(self) -> str:
        return "\n".join(self.svgs)

    def save(self, path: str | Path) -> list[Path]:
        """Writes the charts; the second of several is called `NAME-2.svg`. Returns the paths.

        Raises:
            InputError: for a path that doesn't end in .svg.
            OSError: where it can't be written.
        """
        path = Path(path)
        if path.suffix != ".svg":
            raise InputError(f"Expected a path that ends in .svg. Received: {path}. Try {path.with_suffix('.svg')}.")
        numbers = ["", *(f"-{number}" for number in range(2, len(self.svgs) + 1))]
        paths = [path.with_stem(f"{path.stem}{number}") for number in numbers]
        for target, svg in zip(paths, self.svgs, strict=True):
            write_whole(target, svg)
        return paths


def html(entry: Mapping[str, Any]) -> str:
    """Returns the table of attacks and the charts of what `Evaluation.entry` gives."""
    result = Result.parse(entry)
    table = attack_table(
        result.figures,
        synthetic=False,
        clean=Share(result.clean_accuracy, result.clean_interval),
        together=Share(result.robust_accuracy, result.robust_interval),
    )
    return "\n".join([as_html(table), *_svgs(result)])


def drawing(entry: Mapping[str, Any]) -> Drawing:
    """Returns the charts of what `Evaluation.entry` gives.

    Raises:
        InputError: where there is no curve.
    """
    found = _svgs(Result.parse(entry))
    if not found:
        raise InputError(
            "Expected an attack whose figures are a curve. Received: none. Take one that looks for the nearest "
            "example, such as fmn, or one that counts queries, such as square."
        )
    return Drawing(found)


def frame(entry: Mapping[str, Any]) -> Any:
    """Returns the figures of what `Evaluation.entry` gives as a `pandas.DataFrame`.

    Raises:
        InputError: where pandas isn't installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("Expected the package pandas. Received: none. pip install pandas.") from None
    result = Result.parse(entry)
    rows: list[dict[str, Any]] = []

    def add(attack: str, accuracy: float | None, interval: tuple[float, float] | None, **known: Any) -> None:
        low, high = interval or (None, None)
        columns = dict.fromkeys(("norm", "epsilon", "eot")) | {"accuracy": accuracy, "low": low, "high": high}
        columns |= dict.fromkeys(("median_distance", "gradients", "forwards"))
        rows.append({"attack": attack} | columns | known)

    add("clean", result.clean_accuracy, result.clean_interval)
    for item in result.figures:
        names = "norm", "epsilon", "median_distance", "gradients", "forwards"
        known = {name: getattr(item, name) for name in names}
        add(item.name, item.robust_accuracy, item.interval, eot=item.settings.get("eot"), **known)
    add("all together", result.robust_accuracy, result.robust_interval)
    return pandas.DataFrame(rows)


def _svgs(result: Result) -> tuple[str, ...]:
    return tuple(
        standalone(
            Figure.of_panel(
                panel, "curve", f"{attack_name(panel.attack)}, {format_norm(panel.norm)}".rstrip(", "), synthetic=False
            )
        )
        for panel in result_panels(result)
    )
