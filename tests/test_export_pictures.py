"""Figures and images that `export` writes, read back as XML and by TensorFlow's PNG."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import call, events
from exports import export, lines, write_run

from kerasrobust.events import Metrics, Row, as_dict
from kerasrobust.show.charts import panels
from kerasrobust.show.export import pictures

pytest_plugins = ["exports"]


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

    bare: Callable[..., bytes] = partial(resvg_py.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **given: bare(**given | {"skip_system_fonts": True}))
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


def test_figures_that_are_no_charts_are_a_bug() -> None:
    figure = pictures.Figure(name="x", title="x", chart="<g/>", legend=())
    with pytest.raises(ValueError, match="Expected a chart with a viewBox"):
        pictures.standalone(figure)
    assert panels([]) == []
