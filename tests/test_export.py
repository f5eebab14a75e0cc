"""Tables, sections and refusals of `export`: csv and LaTeX, read back by others' readers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cli import ROOT, call, events
from exports import FMN, HOSTILE, PGD, export, lines, write_run
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust.errors import InputError
from kerasrobust.events import Metrics
from kerasrobust.exporting import ExportFormat
from kerasrobust.show.export import latex
from kerasrobust.show.export.command import FORMATS
from kerasrobust.show.export.model_card import threats
from kerasrobust.show.export.sheets import Drawn, sheets, to_csv
from kerasrobust.show.export.subject import Subject

pytest_plugins = ["exports"]


def label(name: str) -> dict[str, Any]:
    share = {"share": 0.5, "clean_accuracy": 0.9, "robust_accuracy": 0.4}
    return {"name": name, "clean_interval": [0.8, 1.0], "interval": [0.3, 0.5], **share}


def test_every_format_is_there() -> None:
    assert set(get_args(ExportFormat)) == set(FORMATS)


def test_csv_has_every_digit_of_the_result(tmp_path: Path) -> None:
    files = export(write_run(tmp_path / "run", attacks=[PGD, FMN]), "csv")
    found = {path.stem: lines(path) for path in files}
    assert set(found) == {"results", "attacks", "findings", "accuracy-over-epsilon"}
    first, second = found["attacks"]
    for name in ("epsilon", "robust_accuracy", "median_distance", "seconds", "gradients"):
        assert float(first[name]) == PGD[name]
    assert [float(first[f"interval_{end}"]) for end in ("low", "high")] == PGD["interval"]
    assert (second["epsilon"], second["median_distance"], second["norm"]) == ("", "", "l2")
    assert {(line["model"], line["data"], line["clean_interval_low"]) for line in found["results"]} == {
        (HOSTILE, "photos", "0.88")
    }
    assert found["findings"] == [{"code": "rounding", "message": 'Says "no", twice, and é.', "severity": "warning"}]
    assert [[*map(float, list(line.values())[2:])] for line in found["accuracy-over-epsilon"]] == FMN["curve"]


def test_sentences_of_older_results_are_exported_without_their_figures(tmp_path: Path) -> None:
    told = ["a and b on the same 8 images under L∞: so.", "a and b on the same 8 images under L2: so."]
    figures = {
        "model": "a",
        "other": "b",
        "images": 8,
        "only_first": 2,
        "only_second": 0,
        "p": 0.5,
        "difference": -0.25,
    }
    pairs = [figures | {"threat": norm} for norm in ("linf", "l2")]
    for name, more in (("old", {}), ("torn", {"pairs": pairs[:1]}), ("new", {"pairs": pairs})):
        (path,) = [
            path
            for path in export(write_run(tmp_path / name, attacks=[PGD], compared=told, **more), "csv")
            if path.stem == "compared"
        ]
        found = lines(path)
        assert [line["comparison"] for line in found] == told
        if name == "new":
            assert ",".join(found[0]) == "model,other,threat,images,only_first,only_second,p,difference,comparison"
            assert (found[1]["threat"], float(found[1]["difference"])) == ("l2", -0.25)
        else:
            assert list(found[0]) == ["comparison"]


def test_csv_of_a_study_and_of_its_trainings(runs: Path) -> None:
    found = {path.stem: lines(path) for path in export(runs / "demo", "csv")}
    rows = json.loads((runs / "demo" / "result.json").read_text())["rows"]
    assert [float(line["accuracy"]) for line in found["study"]] == [row["accuracy"] for row in rows]
    assert [line["attack"] or None for line in found["study"]] == [row["attack"] for row in rows]
    measured = [event for event in events(runs / "demo") if isinstance(event, Metrics) and event.split == "validation"]
    assert [float(line["val_robust_accuracy"]) for line in found["epochs"]] == [
        event.values["robust_accuracy"] for event in measured
    ]
    assert {line["stage"] for line in found["epochs"]} == {event.stage for event in measured}


def test_pandas_reads_the_columns_as_numbers(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    files = export(write_run(tmp_path / "run", attacks=[PGD, FMN]), "csv")
    frame = pandas.read_csv(next(path for path in files if path.stem == "attacks"))
    assert frame["robust_accuracy"].tolist() == [0.278, 0.278] and frame["gradients"].dtype.kind == "i"
    assert np.isnan(frame["epsilon"][1]) and frame["name"].tolist() == ["pgd", "fmn"]


def test_infinity_and_nothing_in_csv() -> None:
    assert to_csv([{"a": float("inf"), "b": None, "c": float("nan")}]) == "a,b,c\ninf,,\n"


@pytest.mark.parametrize(
    ("words", "head", "expected"),
    [
        ("27.8 %", "accuracy", r"$27.8$\,\%"),
        ("40 %", "published", r"$40$\,\%"),
        ("24.1-31.9", "95 % interval", "$[24.1, 31.9]$"),
        ("12,345", "gradients", "$12{,}345$"),
        ("8/255", "epsilon", "$8/255$"),
        ("0.5 L2", "epsilon", r"$0.5$ $\ell_2$"),
        ("linf", "norm", r"$\ell_\infty$"),
        ("8x8 pixels", "norm", "8x8 pixels"),
        ("infinite", "median distance", r"$\infty$"),
        ("infinite", "name", "infinite"),
        ("linf", "name", "linf"),  # A network's.
        ("±30° and ±10 %", "norm", r"$\pm$30$^\circ$ and $\pm$10 \%"),
        ("a--b---c", "name", "a-{}-b-{}-{}-c"),
        ("", "EOT", ""),
    ],
)
def test_cells_of_latex(words: str, head: str, expected: str) -> None:
    assert latex.cell(words, head) == expected


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=40))
def test_no_text_breaks_out_of_its_cell(words: str) -> None:
    written = latex.escape(words)
    bare = re.sub(r"\\[{}$&#_%]", "", written)
    assert not re.search(r"[&#%~]|\n|--", bare)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert set(re.findall(r"\\[A-Za-z]+", bare)) <= {
        f"\\{name}"
        for name in (
            "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar",
            "textasciigrave", "ttfamily", "char", "pm", "circ", "times", "infty", "ell", "le", "ge", "sigma",
            "varepsilon", "ldots",
        )
    }  # fmt: skip


def cells_of(line: str) -> list[str]:
    assert line.endswith(r" \\")
    return re.split(r"(?<!\\)&", line.removesuffix(r" \\"))


def check_latex(path: Path) -> list[list[str]]:
    """Checks that a file's environments and braces are balanced, and its rows as long; returns the rows."""
    text = path.read_text(encoding="utf-8")
    opened: list[str] = []
    for word, name in re.findall(r"(?<!\\)\\(begin|end)\{(\w+)\}", text):
        if word == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    (shapes,) = re.findall(r"\\begin\{(?:tabular|longtable)\}\{(.*)\}", text)
    columns = len(re.sub(r"p\{.*?\}", "l", shapes))
    body = text.partition(r"\toprule")[2]
    rows = [cells_of(line) for line in body.splitlines() if " & " in line]
    assert rows and {len(row) for row in rows} == {columns}
    return rows


def test_latex_has_the_rows_of_the_console(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", attacks=[PGD, FMN])
    files = {path.stem: path for path in export(folder, "latex")}
    assert set(files) == {"results", "attacks", "findings"}
    assert (
        check_latex(files["findings"])[1][2].strip() == "Says {\\ttfamily\\char34}no{\\ttfamily\\char34}, twice, and é."
    )
    rows = check_latex(files["attacks"])
    shown = next(sheet.table for sheet in sheets(Subject.read(folder)) if sheet.name == "attacks")
    assert shown is not None and len(rows) == shown.row_count + 1
    assert [cell.strip() for cell in rows[1]][:5] == ["clean", "", "", r"$90.0$\,\%", "$[88.0, 92.0]$"]
    assert [cell.strip() for cell in rows[2]] == [
        "pgd", r"$\ell_\infty$", "$8/255$", r"$27.8$\,\%", "$[24.1, 31.9]$", "$0.0314$", "12 s", "$12{,}345$",
    ]  # fmt: skip
    results = check_latex(files["results"])
    assert results[1][1].strip() == latex.escape(HOSTILE)


def test_a_long_table_goes_over_pages(runs: Path) -> None:
    (path,) = export(runs / "demo", "latex")
    rows, text = check_latex(path), path.read_text()
    study = json.loads((runs / "demo" / "result.json").read_text())["rows"]
    assert len(rows) == len(study) + 2  # The headings twice.
    assert text.count(r"\begin{longtable}") == 1 and text.count(r"\label") == 1
    assert text.count(r"\midrule") == 2 + 4  # Between five networks.
    assert "Synthetic data" in text


def test_latex_compiles(tmp_path: Path, runs: Path) -> None:
    if (
        shutil.which("pdflatex") is None
        or subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode
    ):
        pytest.skip("There is no pdflatex with booktabs on this machine.")
    folder = write_run(tmp_path / "run", attacks=[PGD, FMN], labels=[label("a_b"), label("[1]")])
    files = [path for run in (folder, runs / "demo", runs / "train") for path in export(run, "latex")]
    document = [r"\documentclass{article}", r"\usepackage{booktabs,longtable}", r"\begin{document}"]
    document += [rf"\input{{{path}}}" for path in files] + [r"\end{document}"]
    (tmp_path / "all.tex").write_text("\n".join(document))
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF") and "Output written" in done.stdout


def test_a_section_for_a_model_card(tmp_path: Path) -> None:
    (path,) = export(
        write_run(tmp_path / "run", audit={"checked": ["rounding"], "left_out": [], "gradients": 0}), "markdown"
    )
    text = path.read_text(encoding="utf-8")
    for words in (
        "1,000 images of photos test[:1000]", "27.8 % (24.1-31.9 %)", "at most 8/255 in L∞", "(white box)",
        "keras 3.15.1", "Seed: 3.", "(`rounding`)", "Looked for: rounding.", "upper bound",
        "```bash\npython -m kerasrobust.run attack --model net --data photos --epsilon 8/255\n```",
    ):  # fmt: skip
        assert words in text, words
    tables = [line for line in text.splitlines() if line.startswith("|")]
    # The columns of two tables, and the ends.
    assert {len(re.split(r"(?<!\\)\|", line)) for line in tables} == {10, 11}
    assert "<i>" not in text and r"a\_b" in text


def test_what_only_a_model_beside_has_is_under_that_one_s_name(tmp_path: Path) -> None:
    points = [[0.0, 0.8, 0.7, 0.9], [0.25, 0.6, 0.5, 0.7]]
    certificate = {"noise": "gaussian", "sigma": 0.25, "norm": "l2", "points": points, "curve": points}
    rows = [{"name": name, "model": name, "training": "", "accuracy": 0.8, "examples": 9} for name in ("net", "other")]
    beside = [{"model": "other", "certificate": certificate}]
    folder = write_run(tmp_path / "run", kind="assess", rows=rows, beside=beside, attacks=[], attack="")
    names = [path.name for path in export(folder, "csv")]
    assert {"certificate-other.csv", "accuracy-over-radius-other.csv"} <= {*names} and "certificate.csv" not in names
    assert "of the vote under" in " ".join(threats(Subject.read(folder)))


def test_what_is_no_reason_for_doubt_is_a_note(tmp_path: Path) -> None:
    found = [{"code": "few-examples", "message": "Few.", "severity": "info"}]
    (path,) = export(write_run(tmp_path / "run", warnings=found), "markdown")
    doubts, notes = path.read_text(encoding="utf-8").partition("### Reasons for doubt")[2].split("### Notes")
    assert "few-examples" not in doubts and "- Few. (`few-examples`)" in notes


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attacks": [PGD | {"name": "square"}]}, "(black box)"),
        ({"attacks": [PGD | {"name": "square (confirming)"}]}, "(black box)"),
        ({"attacks": [PGD | {"surrogate": "other"}]}, "Examples were made on other"),
        ({"attacks": [PGD | {"name": "patch", "norm": "8x8 pixels", "epsilon": None}]}, "may use Patch (8x8 pixels)"),
        ({"attacks": [FMN]}, "looks for the smallest change in L2"),
        ({"attacks": [PGD, PGD | {"norm": "l2", "epsilon": 0.5}]}, "8/255 in L∞ or may change an image by at most 0.5"),
        ({"attacks": [PGD], "target": "next"}, "taken for one class: next."),
        ({"attacks": [PGD], "attack": "autoattack", "version": "rand"}, "AutoAttack, version rand."),
        ({"attacks": []}, "None was measured"),
    ],
)  # fmt: skip
def test_threat_models(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in " ".join(threats(Subject.read(write_run(tmp_path / "run", **more))))


def test_what_a_run_lacks_is_refused_with_what_it_has(tmp_path: Path, runs: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert call("export", folder, "--format", "npz").message == (
        f"Expected a run with adversarial images. Received: {folder}, a run that has only tables (csv, latex), "
        "a result (markdown). Choose one of these with --format."
    )
    message = call("export", runs / "cancelled", "--format", "csv").message
    assert "a run without a result that has only curves of a training or an attack (tensorboard)" in message
    (runs / "cancelled" / "events.jsonl").unlink()
    assert "nothing to export yet. Choose another run." in call("export", runs / "cancelled", "--format", "csv").message
    assert not (folder / "export").exists()
    assert "Did you mean 'latex'?" in call("export", folder, "--format", "latx").message
    assert "Expected a run or model that exists" in call("export", tmp_path / "none", "--format", "csv").message
    assert "Expected a run. Received: none." in call("export", "--format", "csv").message
    assert "Received: other" in call("export", folder, "other", "--format", "csv").message


def test_nothing_is_replaced_unasked_or_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target = write_run(tmp_path / "run", examples=2), tmp_path / "deep" / "er"
    first = export(folder, "png", "--to", target)
    message = call("export", folder, "--format", "png", "--to", target).message
    assert message.startswith(f"Expected a folder without earlier exports. Received: {target}, which has images.")
    (target / "images" / "9999-clear.png").write_bytes(b"")  # Of an export of more images.
    assert export(folder, "png", "--to", target, "--overwrite") == first
    assert len(list((target / "images").iterdir())) == 5
    (target / "images" / "mine.png").write_text("x")
    message = call("export", folder, "--format", "png", "--to", target, "--overwrite").message
    assert f"Received: {target / 'images'}, which holds something else" in message
    assert (target / "images" / "mine.png").exists()
    (tmp_path / "file").write_text("x")
    assert (
        "Expected a folder that can be written"
        in call("export", folder, "--format", "csv", "--to", tmp_path / "file").message
    )

    def fail(*_: Any) -> bytes:
        raise OSError(28, os.strerror(28))

    def interrupt(*_: Any) -> bytes:
        raise KeyboardInterrupt

    # As Ctrl-C does.
    monkeypatch.setattr("kerasrobust.show.export.images.encode_png", interrupt)
    assert call("export", folder, "--format", "png", "--to", tmp_path / "full").status == 130
    assert list((tmp_path / "full").iterdir()) == []
    monkeypatch.setattr("kerasrobust.show.export.images.encode_png", fail)
    assert "No space left" in call("export", folder, "--format", "png", "--to", tmp_path / "full").message
    assert list((tmp_path / "full").iterdir()) == []


def test_a_saved_model_is_exported_beside_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("export", "convnet-pgd", "--models-dir", ROOT / "saved_models", "--format", "csv")
    assert outcome.status == 0
    (line,) = lines(tmp_path / "convnet-pgd-export" / "results.csv")
    card = json.loads((ROOT / "saved_models" / "convnet-pgd" / "card.json").read_text())
    assert float(line["robust_accuracy"]) == card["robust_accuracy"] and line["data"] == "cifar10"
    assert outcome.out.splitlines()[0] == "convnet-pgd-export/results.csv: Clean and robust accuracy: 1 line"


def test_bars_of_the_console_and_empty_columns_are_left_out() -> None:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table("a", "", "b", "empty")
    table.add_row("1", ProgressBar(), Text(" 2 ", "white on black"), "")
    assert Drawn.of(table).rows == [["1", "2"]] and Drawn.of(table).heads == ["a", "b"]


def test_a_damaged_file_of_examples_is_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", examples=2)
    (folder / "examples.h5").write_bytes(b"nothing")
    assert "Expected a file of adversarial examples" in call("export", folder, "--format", "npz").message
    with pytest.raises(InputError):
        FORMATS["png"].parts(Subject.read(folder))
