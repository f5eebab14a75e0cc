from __future__ import annotations

import base64
import dataclasses
import os
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerasrobust.entries import Row
from kerasrobust.show.charts import Line, Panel, Point, draw, panels
from kerasrobust.show.corrupted import Picture
from kerasrobust.show.png import encode_png, smaller
from kerasrobust.show.report import ExampleStrip, write_report
from kerasrobust.show.summaries import summary

VOID = {"meta", "img", "br", "line", "circle", "polygon", "polyline"}


class Page(HTMLParser):
    """Reads a page strictly: each tag that isn't void is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag == "td":
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if "td" in self.open:
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def decoded(png: bytes) -> np.ndarray:
    """Reads a PNG of 8 bits whose lines have filter 0, checking every chunk's sum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, data, header = 8, [], b"", b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        kinds.append(kind)
        header = body if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3, 6: 4}[colour]
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


def row(**fields: Any) -> dict[str, Any]:
    return {
        "model": "convnet", "training": "standard", "randomized": False, "attack": None, "norm": None, "epsilon": None,
        "steps": None, "eot": None, "accuracy": 0.836, "interval": [0.812, 0.858], "median_distance": None,
        "published": None,
    } | fields  # fmt: skip


def pgd(level: float, accuracy: float, **fields: Any) -> dict[str, Any]:
    return row(
        **{
            "attack": "pgd", "norm": "linf", "epsilon": level / 255, "steps": 20, "accuracy": accuracy,
            "interval": [max(0, accuracy - 0.02), accuracy + 0.02],
        }
        | fields
    )  # fmt: skip


RANDOM = {"training": "pgd", "randomized": True}
ROWS = [
    row(published=0.69),
    pgd(4, 0.123),
    pgd(8, 0.0456),
    row(attack="deepfool", norm="l2", accuracy=0.0, interval=[0, 0.004], median_distance=0.2131),
    row(**RANDOM, accuracy=0.489),
    pgd(4, 0.4, eot=1, **RANDOM),
    pgd(8, 0.341, eot=1, published=0.2507, **RANDOM),
    pgd(8, 0.291, eot=20, **RANDOM),
]
STUDY: dict[str, Any] = {
    "schema": 1, "kind": "study", "rows": ROWS, "seed": 0, "versions": {"keras": "3.15.1"}, "warnings": [],
    "data": {"name": "cifar10", "split": "test[:1000]", "examples": 1000, "synthetic": False},
}  # fmt: skip
ATTACK: dict[str, Any] = {
    "schema": 1, "kind": "attack", "model": "convnet-pgd", "clean_accuracy": 0.541, "robust_accuracy": 0.297,
    "data": {"name": "cifar10", "split": "test", "examples": 10000, "synthetic": False}, "seed": 3,
    "attacks": [
        {"name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.312, "interval": [0.303, 0.321],
         "median_distance": None, "seconds": 34.2, "gradients": 20480, "forwards": 1024},
        {"name": "fgsm", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.355, "interval": [0.345, 0.365],
         "median_distance": None, "seconds": 2.0, "gradients": 1024, "forwards": 1024},
    ],
    "warnings": [{"code": "few-steps", "message": "More steps <still> help."}],
}  # fmt: skip


def strip(**fields: Any) -> ExampleStrip:
    x = np.full((4, 5, 3), 100 / 255, np.float32)
    x_adv = x + np.float32(8 / 255)
    settings: dict[str, Any] = {
        "model": "convnet", "attack": "pgd", "epsilon": 8 / 255, "norm": "linf", "x": x, "x_adv": x_adv,
        "label": "cat", "prediction": "cat", "prediction_adv": "dog", "confidence": 0.934, "confidence_adv": 0.881,
        "distance": 8 / 255,
    }  # fmt: skip
    return ExampleStrip(**settings | fields)


def written(folder: Path, result: dict[str, Any] = STUDY, **fields: Any) -> str:
    settings: dict[str, Any] = {"examples": [], "title": "A study", "command": "kerasrobust study", "settings": {}}
    path = write_report(folder, result, **settings | fields)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("result", [STUDY, ATTACK, STUDY | {"rows": ROWS[:1]}, {"attacks": []}])
def test_the_file_is_whole_by_itself(tmp_path: Path, result: dict[str, Any]) -> None:
    text = written(tmp_path, result, examples=[strip()])
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert (attributes.get("href") or "data:").startswith("data:")  # A file to save.
        assert (attributes.get("src") or "data:image/png").startswith("data:image/png")
        assert not [name for name in attributes if name.startswith("on")]
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_table_has_each_row_with_interval_and_published_figure(tmp_path: Path) -> None:
    cells = Page(written(tmp_path)).cells
    assert ["clean", "", "", "", "", "", "83.6 %", "81.2-85.8", "", "69 %"] in cells
    assert ["PGD", "L∞", "8/255", "20", "", "", "4.6 %", "2.6-6.6", "", ""] in cells
    assert ["PGD", "L∞", "8/255", "20", "1", "on", "34.1 %", "32.1-36.1", "", "25.07 %"] in cells
    assert ["DeepFool", "L2", "", "", "", "", "0.0 %", "0.0-0.4", "0.213", ""] in cells


def test_the_summary_is_computed_from_the_rows(tmp_path: Path) -> None:
    text = Page(written(tmp_path)).text
    assert "2 networks on 1,000 images of cifar10 test[:1000]: clean, and under PGD and DeepFool." in text
    assert "At 8/255 L∞ the strongest attack takes undefended convnet from 83.6 % to 4.6 % (PGD)." in text
    assert "convnet-random-pgd keeps the most at 8/255 L∞: 29.1 % (27.1-31.1 %), at 48.9 % clean." in text
    assert "over 20 noise draws (EOT) takes PGD on convnet-random-pgd from 34.1 % to 29.1 %." in text
    other = [entry | {"accuracy": 0.777} if entry["epsilon"] == 8 / 255 else entry for entry in ROWS]
    changed = Page(written(tmp_path, STUDY | {"rows": other})).text
    assert "to 77.7 %" in changed
    assert "4.6 %" not in changed


OFF = {"noise": "off", **RANDOM}
STEERED = [
    *ROWS,
    row(**OFF, accuracy=0.512), pgd(8, 0.301, **OFF),
    row(noise="frozen", **RANDOM, accuracy=0.44), pgd(8, 0.25, noise="frozen", **RANDOM),
]  # fmt: skip


def test_noise_off_and_frozen_have_rows_and_a_sentence_of_their_own(tmp_path: Path) -> None:
    verdict = "It can't be told on 1,000 images, the difference being +0.3 points."
    page = Page(written(tmp_path, STUDY | {"rows": STEERED, "verdict": verdict}))
    assert ["PGD", "L∞", "8/255", "20", "", "off", "30.1 %", "28.1-32.1", "", ""] in page.cells
    assert ["clean", "", "", "", "", "frozen", "44.0 %", "81.2-85.8", "", ""] in page.cells
    assert (
        "The same weights of convnet-random-pgd keep under PGD 34.1 % (32.1-36.1 %) with its noise on (clean 48.9 %), "
        "30.1 % (28.1-32.1 %) with its noise off (clean 51.2 %) and 25.0 % (23.0-27.0 %) with its noise frozen "
        "(clean 44.0 %)."
    ) in page.text
    # What was measured without the noise is no figure of the network with it.
    assert "convnet-random-pgd keeps the most at 8/255 L∞: 29.1 % (27.1-31.1 %), at 48.9 % clean." in page.text
    assert f"Does randomness help? {verdict}" in page.text and "held to one draw" in page.text


def test_points_of_steered_noise_are_told_apart() -> None:
    (panel,) = panels([Row.parse(entry) for entry in STEERED])
    lines = {line.label: [(point.at, point.accuracy) for point in line.points] for line in panel.lines}
    assert lines == {
        "convnet": [(0, 0.836), (4 / 255, 0.123), (8 / 255, 0.0456)],
        "convnet-random-pgd, no EOT": [(0, 0.489), (4 / 255, 0.4), (8 / 255, 0.341)],
        "convnet-random-pgd, EOT 20": [(8 / 255, 0.291)],
        "convnet-random-pgd, noise off": [(8 / 255, 0.301)],
        "convnet-random-pgd, noise frozen": [(8 / 255, 0.25)],
    }


def test_attacks_that_ran_on_what_was_left_say_on_how_many_images(tmp_path: Path) -> None:
    first, second = ATTACK["attacks"]
    page = Page(written(tmp_path, ATTACK | {"attacks": [first, second | {"attacked": 3120}]}))
    assert [cells[:4] for cells in page.cells if cells[:1] in (["PGD"], ["FGSM"])] == [
        ["PGD", "L∞", "all", "8/255"], ["FGSM", "L∞", "3,120", "8/255"],
    ]  # fmt: skip


def test_an_attack_has_its_table_and_doubts(tmp_path: Path) -> None:
    page = Page(written(tmp_path, ATTACK))
    assert ["PGD", "L∞", "8/255", "31.2 %", "30.3-32.1", "", "34 s", "20,480", "1,024"] in page.cells
    assert "Robust accuracy under all of its attacks together at 8/255 L∞: 29.7 %." in page.text
    assert re.search(r"After each attack in turn: .*PGD 31.2 %", page.text)
    assert "More steps <still> help. few-steps" in page.text


def test_what_is_no_reason_for_doubt_stands_elsewhere(tmp_path: Path) -> None:
    remark = {"code": "conventions", "message": "It takes [0, 255].", "severity": "info"}
    text = written(tmp_path, ATTACK | {"warnings": [*ATTACK["warnings"], remark]})
    doubts = text[text.index("Reasons for doubt") :].partition("</section>")[0]
    assert "few-steps" in doubts and "It takes" not in doubts
    assert "It takes [0, 255]." in text[text.index("How it was measured") :]


@pytest.mark.parametrize(
    ("norm", "over", "largest", "expected"),
    [
        ("linf", "epsilon", 21.3 / 255, [0, 5, 10, 15, 20]),
        ("l2", "epsilon", 1.37, [0, 0.5, 1]),
        ("l2", "radius", 0.79, [0, 0.2, 0.4, 0.6]),
        ("l1", "epsilon", 24.6, [0, 5, 10, 15, 20]),
        ("", "queries", 5_000, [0, 1_000, 2_000, 3_000, 4_000, 5_000]),
    ],
)
def test_many_points_have_round_ticks(norm: str, over: str, largest: float, expected: list[float]) -> None:
    points = [Point(at=largest * step / 20, accuracy=0.5, interval=None) for step in range(21)]
    drawn = draw(Panel(attack="x", norm=norm, over=over, lines=[Line(label="x", series=0, variant=0, points=points)]))
    below = re.findall(r'<text x="([\d.]+)" y="239" text-anchor="middle">([\d.,]+)</text>', drawn)
    found = sorted((float(label.replace(",", "")), float(across)) for across, label in below)
    assert [label for label, _ in found] == expected
    # Each stands where its value is, from 46 to 348; the last one keeps off the edge.
    unit = 255 if (norm, over) == ("linf", "epsilon") else 1
    for label, across in found:
        assert across == pytest.approx(46 + 302 * label / (unit * largest), abs=13)
    assert (f"{over} in 1/255" in drawn) is (unit == 255)


def test_only_generated_data_are_called_synthetic(tmp_path: Path) -> None:
    assert "ynthetic data" not in Page(written(tmp_path)).text
    for data in ({"name": "shapes"}, {"name": "file.npz", "synthetic": True}):
        assert "Synthetic data." in Page(written(tmp_path, STUDY | {"data": data})).text


def test_curves_run_from_the_clean_accuracy_and_a_lone_epsilon_is_a_point() -> None:
    (panel,) = panels([Row.parse(entry) for entry in ROWS])
    lines = {line.label: [(point.at, point.accuracy) for point in line.points] for line in panel.lines}
    assert lines == {
        "convnet": [(0, 0.836), (4 / 255, 0.123), (8 / 255, 0.0456)],
        "convnet-random-pgd, no EOT": [(0, 0.489), (4 / 255, 0.4), (8 / 255, 0.341)],
        "convnet-random-pgd, EOT 20": [(8 / 255, 0.291)],
    }
    assert panels([Row.parse(row()), Row.parse(pgd(8, 0.1))]) == []


def test_curves_are_drawn_where_their_figures_are(tmp_path: Path) -> None:
    text = written(tmp_path)
    page = Page(text)
    titles = re.findall("<title>(.*?)</title>", text)[1:]
    assert titles[:3] == ["convnet, clean: 83.6 % (81.2-85.8)", "convnet, epsilon 4/255: 12.3 % (10.3-14.3)",
                          "convnet, epsilon 8/255: 4.6 % (2.6-6.6)"]  # fmt: skip
    assert len(titles) == 7
    grid = [attributes for tag, attributes in page.tags if tag == "line" and attributes.get("class") == "grid"]
    zero, full = (float(grid[index]["y1"] or 0) for index in (0, -1))
    curve = next(attributes for tag, attributes in page.tags if tag == "polyline")
    points = [tuple(map(float, point.split(","))) for point in (curve["points"] or "").split()]
    shares = [(zero - down) / (zero - full) for _, down in points]
    assert shares == pytest.approx([0.836, 0.123, 0.0456], abs=1e-3)
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.11)  # 0, 4 and 8 of 255.


def test_images_are_shown_before_changed_and_after(tmp_path: Path) -> None:
    page = Page(written(tmp_path, examples=[strip()]))
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    clear, change, perturbed = (decoded(base64.b64decode(source.split(",")[1])) for source in sources)
    assert clear.shape == (4, 5, 3)
    assert set(clear.flat) == {100}
    assert set(perturbed.flat) == {108}
    assert set(change.flat) <= {207, 208}  # Grey (127.5) and 10 times 8 levels.
    assert "convnet under PGD, 8/255 L∞" in page.text
    assert "cat 93 %change × 10dog 88 %true label cat, L∞ distance 8/255" in page.text


def test_images_of_bytes_and_of_floats_look_the_same(tmp_path: Path) -> None:
    x = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    bytes_ = written(tmp_path, examples=[strip(x=x, x_adv=x + np.uint8(2))])
    floats = written(tmp_path, examples=[strip(x=x / 255, x_adv=(x + np.uint8(2)) / 255)])
    assert bytes_ == floats
    unchanged = Page(written(tmp_path, examples=[strip(x=x, x_adv=x, epsilon=None, norm="l2", distance=0.0)]))
    assert "smallest L2 distance" in unchanged.text


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>&\"<b>"
    result = STUDY | {
        "rows": [row(model=evil), pgd(4, 0.1, model=evil, attack=evil), pgd(8, 0.1, model=evil, attack=evil)],
        "data": {"name": evil, "split": evil, "examples": 3},
        "versions": {evil: evil},
    }
    shown = strip(model=evil, label=evil, prediction=evil, prediction_adv=evil, attack=evil, norm=evil)
    text = written(tmp_path, result, examples=[shown], title=evil, command=evil, settings={evil: {evil: evil}})
    assert "<script" not in text
    assert evil in Page(text).text


def test_settings_versions_and_command_are_told(tmp_path: Path) -> None:
    settings = {"epsilons": [8 / 255, 0.5], "train": {"epochs": 30, "randomize": None}, "epsilon": "8/255"}
    page = Page(written(tmp_path, command="kerasrobust study --seed 0", settings=settings))
    assert "kerasrobust study --seed 0" in page.text
    for name, value in [("seed", "0"), ("keras", "3.15.1"), ("epsilons", "8/255, 0.5"), ("train.epochs", "30")]:
        assert f"{name}{value}" in page.text
    assert "PGD L∞, 20 steps, EOT 20, epsilon 8/255" in page.text
    assert "fresh passes" in page.text


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path)

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, title="Another")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def assessed(name: str, clean: float, of_corruptions: dict[str, Any], **threats: float) -> dict[str, Any]:
    """An assessment's result: clean on 231 images, and each threat on 16."""
    known = {"name": name, "model": name, "training": "pgd", "randomized": False}
    rows = [known | {"accuracy": clean, "examples": 231}]
    rows += [
        known | {"attack": attack, "norm": attack, "accuracy": accuracy, "examples": 16}
        for attack, accuracy in threats.items()
    ]
    cells = [{"kind": "fog", "severity": 1, "accuracy": 0.5, "interval": [0.4, 0.6]}]
    return {"kind": "assess", "model": name, "rows": rows, "corruptions": {"cells": cells} | of_corruptions}


@pytest.mark.parametrize(
    ("clean", "words"),
    [
        (0.8125, "Of 16 images it is right on 81.2 % as they are, and keeps 76.1 % under common corruptions"),
        (0.75, "Of 16 images it is right on 75.0 % as they are, and is right on 76.1 % under common corruptions"),
        (None, "Of 16 images it is right on 76.1 % under common corruptions"),
    ],
)
def test_accuracy_under_corruptions_stands_beside_that_on_the_same_images(clean: float | None, words: str) -> None:
    other = assessed("b", 0.9, {"clean_accuracy": 0.5}, corruptions=0.25)
    of = {} if clean is None else {"clean_accuracy": clean}
    result = assessed("a", 0.615, of, patch=0.5, spatial=0.75, corruptions=0.761)
    alone = summary(result)
    assert words in alone
    assert "It keeps 50.0 % under Patch (patch, 16 images)." in alone
    assert "Of fewer images, easier ones, it is right on 75.0 % under Spatial" in alone
    both = summary(result | {"rows": result["rows"] + other["rows"], "beside": [other | {"rows": None}]})
    assert both.startswith(alone) and "on 50.0 % as they are, and keeps 25.0 % under common corruptions" in both


def picture(kind: str, severity: int, answer: str, image: np.ndarray | None = None) -> Picture:
    image = np.full((2, 3, 3), severity * 40, np.uint8) if image is None else image
    return Picture(kind=kind, severity=severity, image=image, label="cat", answer=answer)


def corrupted(folder: Path, pictures: list[Picture], **more: Any) -> str:
    cells = [{"kind": kind, "severity": 1, "accuracy": 0.5, "interval": [0.4, 0.6]} for kind in ("fog", "frost")]
    found = {"cells": cells, "counted": ["fog", "frost"], "source": "Made here."} | more
    result = {"kind": "corruptions", "model": "m", "corruptions": found}
    return written(folder, result, pictures=pictures, title="m")


def test_one_image_is_shown_under_each_corruption_with_the_networks_answers(tmp_path: Path) -> None:
    shown = [picture("", 0, "cat"), picture("fog", 1, "cat"), picture("fog", 5, "dog"), picture("frost", 3, "cat")]
    page = Page(corrupted(tmp_path, shown))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [
        "cat", "cat under fog, severity 1", "cat under fog, severity 5", "cat under frost (procedural), severity 3",
    ]  # fmt: skip
    for image, one in zip(images, shown, strict=True):
        data = base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(decoded(data), one.image)
    assert "asitiscatfog1cat5dogfrost(procedural)3cat" in page.text.replace(" ", "")
    assert "True label: cat" in page.text and "what m says of it" in page.text
    # What is wrong is marked.
    marks = [attributes for tag, attributes in page.tags if tag == "b" and attributes.get("class") == "wrong"]
    assert len(marks) == 1


def test_without_answers_images_have_their_severity_alone(tmp_path: Path) -> None:
    nameless = [dataclasses.replace(picture(kind, severity, ""), label="") for kind, severity in (("", 0), ("fog", 1))]
    page = Page(corrupted(tmp_path, nameless))
    assert "Below each image, its severity." in page.text and "True label" not in page.text
    assert "wrong" not in {attributes.get("class") for _, attributes in page.tags}
    assert "One image under each" not in Page(corrupted(tmp_path, [])).text


def test_large_images_are_made_smaller_by_their_means(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (301, 200, 1), dtype=np.uint8)
    page = Page(corrupted(tmp_path, [picture("", 0, "cat", image), picture("fog", 1, "cat")]))
    source = next(attributes["src"] for tag, attributes in page.tags if tag == "img") or ""
    small = decoded(base64.b64decode(source.removeprefix("data:image/png;base64,")))
    assert small.shape == (100, 66, 1)
    for row_, column in ((0, 0), (99, 65), (40, 17)):
        block = image[3 * row_ : 3 * row_ + 3, 3 * column : 3 * column + 3]
        assert abs(int(small[row_, column, 0]) - block.mean()) <= 0.5 + 1e-9


def test_a_corruption_has_its_errors_beside_its_name(tmp_path: Path) -> None:
    cells = [
        {"kind": kind, "severity": severity, "accuracy": 0.5, "interval": [0.4, 0.6], "reference": 0.75}
        for kind in ("fog", "frost")
        for severity in (1, 5)
    ]
    kinds = [{"kind": "fog", "relative_ce": 1.25}, {"kind": "frost", "relative_ce": None}]
    page = Page(corrupted(tmp_path, [], cells=cells, kinds=kinds, reference="other"))
    assert "fog mean 50.0 %, CE 200.0 %, relative CE 125.0 %" in page.text
    assert "frost (procedural) mean 50.0 %, CE 200.0 %1" in page.text
    assert page.cells.count(["1", "50.0 %", "40.0-60.0", "75.0 %"]) == 2


def test_no_line_of_a_command_ends_behind_the_hyphens_of_an_option(tmp_path: Path) -> None:
    text = written(tmp_path, command="kerasrobust attack --model 'my net' --data a<b")
    code = re.search(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
    assert code is not None
    assert "<span>--model</span> <span>&#39;my</span> <span>net&#39;</span>" in code[1]
    # Whoever copies it gets the command.
    assert "".join(Page(code[1]).words) == "kerasrobust attack --model 'my net' --data a<b"


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))


@given(arrays.arrays(np.uint8, shapes))
def test_png_round_trips(image: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded(encode_png(image)), image)
    np.testing.assert_array_equal(decoded(encode_png((image / 255).astype(np.float32))), image)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (1, 4, 4, 3)])
def test_png_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected an image"):
        encode_png(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("shape", "expected"), [((1, 187, 1), (1, 93, 1)), ((2, 400, 3), (1, 100, 3))])
def test_pictures_of_one_line_are_made_smaller_too(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape)
    found = smaller(image, 128)
    assert found.shape == expected
    across = -(-shape[1] // 128)
    np.testing.assert_allclose(found[0, 0], image[: min(across, shape[0]), :across].mean(axis=(0, 1)))
