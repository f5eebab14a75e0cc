"""What `export` writes, read back by other programs' readers: csv, LaTeX, XML, TensorFlow's PNG, TensorBoard."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cli import ROOT, call, events
from hypothesis import given
from hypothesis import strategies as st
from schemas import faults

from kerasrobust.errors import InputError
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Metrics, Row, as_dict, to_json
from kerasrobust.exporting import ExportFormat
from kerasrobust.show.charts import panels
from kerasrobust.show.examples import write_examples
from kerasrobust.show.export import latex, pictures, tensorboard
from kerasrobust.show.export.command import FORMATS
from kerasrobust.show.export.model_card import threats
from kerasrobust.show.export.sheets import Drawn, sheets, to_csv
from kerasrobust.show.export.subject import Subject

RECORDINGS = ROOT / "tests" / "recordings"
DEMO = ROOT / "tests" / "tui" / "recordings"
HOSTILE = 'a_b & 50 % #1 {x} $y$ ~^ <i> [z] "q" --long \\end{tabular} | *é*'
PGD = {
    "name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.278, "interval": [0.2412345, 0.3189],
    "median_distance": 0.0314, "seconds": 12.5, "gradients": 12345, "forwards": 678,
}  # fmt: skip
FMN = PGD | {
    "name": "fmn", "norm": "l2", "epsilon": None, "median_distance": None,
    "curve": [[0.0, 0.9, 0.8, 0.95], [0.5, 0.4, 0.3, 0.5], [1.0, 0.1, 0.05, 0.2]],
}  # fmt: skip


def write_run(folder: Path, *, examples: int = 0, **more: Any) -> Path:
    """Makes a run of an attack on a network with a hostile name, with as many examples as are asked for."""
    folder.mkdir(parents=True)
    result = {
        "schema": 1, "kind": "attack", "seed": 3, "model": HOSTILE, "attack": "pgd", "versions": {"keras": "3.15.1"},
        "data": {"name": "photos", "split": "test[:1000]", "examples": 1000, "synthetic": False},
        "precision": "float32", "clean_accuracy": 0.9, "clean_interval": [0.88, 0.92], "attacks": [PGD],
        "robust_accuracy": 0.278, "interval": [0.2412345, 0.3189],
        "warnings": [{"code": "rounding", "message": 'Says "no", twice,\nand é.', "severity": "warning"}],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | more))
    config = {"kind": "attack", "model": "net", "attack": "pgd", "epsilon": 8 / 255, "data": "photos"}
    (folder / "config.json").write_text(json.dumps(config))
    if examples:
        rng = np.random.default_rng(0)
        y = np.arange(examples) % 3
        part = {
            "x": rng.random((examples, 4, 5, 3), np.float32), "x_adv": rng.random((examples, 4, 5, 3), np.float32),
            "y": y, "prediction": y, "prediction_adv": (y + 1) % 3, "success": y > 0, "correct_rate": 1.0 - (y > 0),
            "distance": np.full(examples, 0.5, np.float32), "confidence": np.full(examples, 0.9, np.float32),
            "confidence_adv": np.full(examples, 0.6, np.float32), "attack": "pgd", "epsilon": None, "eot": 1,
        }  # fmt: skip
        write_examples(folder / "examples.h5", [part], model="net", norm="linf", class_names=["cat", "dog", "é"])
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The runs that the tests keep, and the demo that was recorded."""
    shutil.copytree(RECORDINGS, tmp_path / "runs")
    demo = tmp_path / "runs" / "demo"
    shutil.copytree(DEMO / "demo", demo)
    (demo / "events.jsonl").write_bytes(gzip.decompress((DEMO / "demo.jsonl.gz").read_bytes()))
    (demo / "config.json").write_text(json.dumps(as_dict(events(demo)[0])["config"]))
    return tmp_path / "runs"


def export(folder: Path, form: str, *more: str | Path) -> list[Path]:
    """Exports a run into its own folder; returns the files."""
    outcome = call("export", folder, "--format", form, "--json", *more)
    assert outcome.status == 0, outcome.err
    listed = json.loads(outcome.out)
    assert faults("export", listed) == []
    return [Path(item["path"]) for item in listed]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    assert found["findings"] == [{"code": "rounding", "message": 'Says "no", twice, and é.'}]
    assert [[*map(float, list(line.values())[2:])] for line in found["accuracy-over-epsilon"]] == FMN["curve"]


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
        check_latex(files["findings"])[1][1].strip() == "Says {\\ttfamily\\char34}no{\\ttfamily\\char34}, twice, and é."
    )
    rows = check_latex(files["attacks"])
    shown = next(sheet.table for sheet in sheets(Subject.read(folder)) if sheet.name == "attacks")
    assert shown is not None and len(rows) == shown.row_count + 1
    assert [cell.strip() for cell in rows[1]] == [
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


def label(name: str) -> dict[str, Any]:
    share = {"share": 0.5, "clean_accuracy": 0.9, "robust_accuracy": 0.4}
    return {"name": name, "clean_interval": [0.8, 1.0], "interval": [0.3, 0.5], **share}


def drawn_rows() -> list[Row]:
    base: dict[str, Any] = {"model": "a<b", "training": "pgd", "randomized": False, "interval": [0.2, 0.6]}
    under = {"attack": "pgd", "norm": "linf"}
    return [
        Row(**base, accuracy=0.9),
        Row(**base, **under, epsilon=4 / 255, accuracy=0.6),
        Row(**base, **under, epsilon=8 / 255, accuracy=0.4),
    ]


def svg_of(folder: Path) -> tuple[Path, ET.Element]:
    (path,) = export(folder, "svg", "--overwrite")
    return path, ET.fromstring(path.read_text(encoding="utf-8"))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    rows = [as_dict(row) for row in drawn_rows()]
    return write_run(tmp_path / "study", kind="study", rows=rows, attacks=[], examples=3)


def test_svg_stands_by_itself(study: Path) -> None:
    path, root = svg_of(study)
    assert path.name == "pgd-linf-over-epsilon.svg"
    text, space = path.read_text(encoding="utf-8"), "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg" and "var(" not in text and "@" not in text
    assert not re.search(r"(?:href|src|url)\s*[=(]", text)
    style = root.findtext(f"{space}style") or ""
    used = {tuple(sorted(element.get("class", "").split())) for element in root.iter() if element.get("class")}
    for classes in used:  # Each is coloured, or hidden, by a rule for just these classes.
        assert any(
            set(re.findall(r"\.([\w-]+)", rule)) <= set(classes) for rule in re.findall(r"(\.[\w.-]+) \{", style)
        )
    (line,) = [element for element in root.iter(f"{space}polyline") if element.get("class") == "line s0"]
    assert len((line.get("points") or "").split()) == 3
    # The first colour of Okabe and Ito's palette, which is the report's on white.
    assert ".line.s0 {fill: none; stroke: #0072b2;" in style
    words = [element.text for element in root.iter(f"{space}text")]
    assert "PGD, L∞" in words and "a<b-pgd" in words
    inner = next(element for element in root if element.tag == f"{space}svg")
    width, height = (float(root.get(name) or 0) for name in ("width", "height"))
    assert float(inner.get("y") or 0) + float(inner.get("height") or 0) < height and width == 360


def test_of_the_style_sheet_only_light_colours_are_taken() -> None:
    drawn = pictures.style('<g class="line s0 banner bar"><circle class="mark s0"/></g>')
    assert "#0072b2" in drawn and "#58aee6" not in drawn and "display" not in drawn and "background" not in drawn


def test_a_training_is_drawn_by_epoch(runs: Path) -> None:
    files = {path.stem: path for path in export(runs / "demo", "svg")}
    root = ET.fromstring(files["train-convnet-pgd-over-epoch"].read_text(encoding="utf-8"))
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    measured = [
        event.values["robust_accuracy"]
        for event in events(runs / "demo")
        if isinstance(event, Metrics) and event.stage == "train-convnet-pgd" and event.split == "validation"
    ]
    assert [title for title in titles if title.startswith("validation, under attack, epoch")] == [
        f"validation, under attack, epoch {epoch}: {100 * value:.1f} %" for epoch, value in enumerate(measured, start=1)
    ]


def test_lines_of_many_points_have_no_markers() -> None:
    def measured(count: int) -> list[pictures.Measured]:
        values = {"accuracy": 0.5, "val_accuracy": 0.5, "val_robust_accuracy": 0.5}
        return [pictures.Measured(stage="t", epoch=n, step=n, values=values) for n in range(1, count + 1)]

    few, many = (pictures.training_panels(measured(count))[0] for count in (30, 31))
    assert pictures.draw(few).count('class="mark') == 90 and pictures.draw(many).count('class="mark') == 0
    assert pictures.training_panels(measured(1)) == []  # A point is no curve.


def decode(path: Path) -> np.ndarray:
    import tensorflow as tf

    return np.asarray(tf.io.decode_png(path.read_bytes()))


def test_png_is_what_the_svg_shows(study: Path) -> None:
    _, root = svg_of(study)
    images, path = export(study, "png")
    assert images.name == "images"
    pixels = decode(path)
    height, width = (3 * int(root.get(name) or 0) for name in ("height", "width"))
    assert pixels.shape[:2] == (height, width)
    assert (pixels[0, 0, :3] == 255).all()  # White, as on paper.
    blue = (np.abs(pixels[..., :3].astype(int) - (0x00, 0x72, 0xB2)).max(axis=-1) < 8).sum()
    assert blue > 1000  # Line, markers and legend.
    title = pixels[: 3 * 24]  # Nothing but words stands there.
    assert (title[..., :3].max(axis=-1) < 100).sum() > 200


def test_without_a_font_no_png_is_written(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resvg_py

    real: Callable[..., bytes] = resvg_py.svg_to_bytes
    bare = lambda **given: real(**given | {"skip_system_fonts": True})  # noqa: E731
    monkeypatch.setattr(resvg_py, "svg_to_bytes", bare)
    message = call("export", study, "--format", "png").message
    assert "Expected one of the fonts Helvetica" in message and "--format svg" in message
    assert not list((study / "export").glob("*over*"))


def test_without_the_extra_the_images_are_written_all_the_same(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    outcome = call("export", study, "--format", "png")
    assert outcome.status == 0 and [path.name for path in (study / "export").iterdir()] == ["images"]
    assert (
        outcome.err.count("\n") == 1 and "1 left out" in outcome.err and "pip install 'kerasrobust[png]'" in outcome.err
    )
    (study / "examples.h5").unlink()
    message = call("export", study, "--format", "png", "--to", tmp_path / "other").message
    assert "Received: none. pip install 'kerasrobust[png]', or take --format svg." in message
    assert not (tmp_path / "other").exists()


def test_images_are_those_of_the_attack(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", examples=7)
    (images,) = export(folder, "png")
    (arrays,) = export(folder, "npz")
    with np.load(arrays, allow_pickle=False) as known:
        table = lines(images / "images.csv")
        assert len(table) == 7 and len(list(images.glob("*.png"))) == 14
        for place, line in enumerate(table):
            for column, name in (("clear", "x"), ("adversarial", "x_adv")):
                expected = np.rint(known[name][place] * 255)
                np.testing.assert_array_equal(decode(images / line[column]), expected)
            assert line["y"] == ("cat", "dog", "é")[place % 3] and line["epsilon"] == ""
            assert float(line["confidence_adv"]) == known["confidence_adv"][place]
        assert str(known["model"]) == "net" and known["class_names"].tolist() == ["cat", "dog", "é"]


def test_networks_of_a_study_have_images_of_their_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", examples=2)
    (folder / "examples").mkdir()
    for name in ("lenet", "convnet"):
        shutil.copy(folder / "examples.h5", folder / "examples" / f"{name}.h5")
    (folder / "examples.h5").unlink()
    top = folder / "export"
    assert export(folder, "npz") == [top / "examples" / "convnet.npz", top / "examples" / "lenet.npz"]
    assert export(folder, "png") == [top / "images" / "convnet", top / "images" / "lenet"]
    assert len(list((top / "images" / "lenet").glob("*.png"))) == 4


def test_arrays_are_read_in_blocks_and_by_the_program_itself(tmp_path: Path) -> None:
    from kerasrobust.data.load import load_dataset
    from kerasrobust.show.examples import read_pair

    folder = write_run(tmp_path / "run", examples=1100)  # Three blocks.
    (path,) = export(folder, "npz")
    with np.load(path, allow_pickle=False) as known:
        assert known["x"].dtype == np.float32 and known["x"].shape == known["x_adv"].shape == (1100, 4, 5, 3)
        for place in (0, 511, 512, 1099):
            for mine, theirs in zip(
                (known["x"], known["x_adv"]), read_pair(folder / "examples.h5", place), strict=True
            ):
                np.testing.assert_array_equal(mine[place], theirs)
        data = load_dataset(str(path), "all", keys="x_adv,y")
        np.testing.assert_allclose(data.x, known["x_adv"], atol=1e-7)
        assert data.labels.tolist() == known["y"].tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums(data: bytes, expected: int) -> None:
    assert tensorboard.crc32c(data) == expected


def curves_in(folder: Path) -> dict[str, Any]:
    """Returns TensorBoard's own reader of each of its runs in a folder."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    reader = EventMultiplexer().AddRunsFromDirectory(str(folder))
    reader.Reload()
    return {name: reader.GetAccumulator(name) for name in reader.Runs()}


def test_tensorboard_shows_the_curves_of_trainings_and_attacks(runs: Path, tmp_path: Path) -> None:
    export(runs / "demo", "tensorboard", "--to", tmp_path / "logs")
    log, found = events(runs / "demo"), curves_in(tmp_path / "logs")
    for split, names in (("train", ("loss", "accuracy")), ("validation", ("loss", "accuracy", "robust_accuracy"))):
        own = [e for e in log if isinstance(e, Metrics) and (e.stage, e.split) == ("train-convnet-pgd", split)]
        for name in names:
            shown = found[f"train-convnet-pgd/{split}"].Scalars(name)
            # What is measured within an epoch is measured again at its end.
            known = {event.step: (event.time, event.values[name]) for event in own}
            assert len(known) > 3 and [(item.step, item.wall_time) for item in shown] == [
                (step, when) for step, (when, _) in known.items()
            ]
            assert [item.value for item in shown] == pytest.approx([value for _, value in known.values()], rel=1e-6)
    finished = [event for event in log if isinstance(event, AttackFinished)]
    attacks = {name: own for name, own in found.items() if name.startswith("attack-")}
    assert len(attacks) == len(finished)
    ends = sorted(own.Scalars("robust_accuracy")[-1].value for own in attacks.values())
    assert ends == pytest.approx(sorted(event.robust_accuracy for event in finished), rel=1e-6)
    own = attacks["attack-lenet/pgd-linf-8-255"].Scalars("survivors")
    assert own[-1].value == pytest.approx(0.045) and own[0].value > own[-1].value  # As in the table of the demo.
    assert "attack-convnet-random/pgd-linf-8-255-eot-10" in attacks


def progress(survivors: int, gradients: int, **more: Any) -> AttackProgress:
    base: dict[str, Any] = {"attack": "pgd", "done": 10, "total": 10, "step": 1, "steps": 2, "forwards": 1, "time": 1.0}
    return AttackProgress(**base | more, survivors=survivors, gradients=gradients)


def test_a_resume_repeats_nothing_and_attacks_of_one_name_are_apart() -> None:
    start: dict[str, Any] = {"attack": "pgd", "norm": "linf", "epsilon": 0.5, "examples": 10, "time": 0.0}
    happened = [
        AttackStarted(**start, settings={"steps": 5}), progress(8, 100), progress(6, 200),
        AttackStarted(**start, settings={"steps": 5}), progress(5, 200, time=9.0),  # Resumed.
        AttackStarted(**start, settings={"steps": 50}), progress(4, 100),
        Metrics(step=1, epoch=1, values={"loss": 2.0}, split="train", time=1.0),
        Metrics(step=1, epoch=1, values={"loss": 3.0}, split="train", time=2.0),
    ]  # fmt: skip
    found = list(tensorboard.points(happened))
    assert list(dict.fromkeys(point.curves for point in found)) == [
        "run/pgd-linf-0-5",
        "run/pgd-linf-0-5-2",
        "run/train",
    ]
    assert [(point.step, point.value) for point in found if point.curves == "run/pgd-linf-0-5"] == [
        (101, 0.8), (201, 0.6), (201, 0.5),
    ]  # fmt: skip


def test_the_last_of_repeated_figures_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    happened = [Metrics(step=1, epoch=1, values={"loss": value}, split="train") for value in (2.0, 3.0)]
    (folder / "events.jsonl").write_text("".join(to_json(event) + "\n" for event in happened))
    export(folder, "tensorboard", "--to", tmp_path / "logs")
    assert [item.value for item in curves_in(tmp_path / "logs")["run/train"].Scalars("loss")] == [3.0]
    epochs = {path.stem: lines(path) for path in export(folder, "csv")}["epochs"]
    assert [(line["epoch"], line["loss"]) for line in epochs] == [("1", "3.0")]


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


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attacks": [PGD | {"name": "square"}]}, "(black box)"),
        ({"attacks": [PGD | {"surrogate": "other"}]}, "Examples were made on other"),
        ({"attacks": [PGD | {"name": "patch", "norm": "8x8 pixels", "epsilon": None}]}, "may change 8x8 pixels"),
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


def test_figures_that_are_no_charts_are_a_bug() -> None:
    figure = pictures.Figure(name="x", title="x", chart="<g/>", legend=())
    with pytest.raises(ValueError, match="Expected a chart with a viewBox"):
        pictures.standalone(figure)
    assert panels([]) == []


def test_a_damaged_file_of_examples_is_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", examples=2)
    (folder / "examples.h5").write_bytes(b"nothing")
    assert "Expected a file of adversarial examples" in call("export", folder, "--format", "npz").message
    with pytest.raises(InputError):
        FORMATS["png"].parts(Subject.read(folder))
