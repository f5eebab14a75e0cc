from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasrobust.data import tfds as tfds_sets
from kerasrobust.data.load import load_dataset
from kerasrobust.data.tfds import reachable
from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log, Progress

TFDS = os.environ.get("TFDS_DATA_DIR") or str(Path(__file__).parents[2] / "shared/data/tfds")
needs_cifar = pytest.mark.skipif(
    not Path(TFDS, "cifar10").is_dir(), reason=f"CIFAR-10 is not in {TFDS}; set TFDS_DATA_DIR to where TFDS has it"
)


# CIFAR-10 by way of TFDS


@needs_cifar
def test_cifar10_is_the_known_one() -> None:
    import tensorflow as tf

    train, test = (load_dataset("cifar10", split, data_dir=TFDS) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)
    assert not train.synthetic
    assert np.bincount(train.y).tolist() == [5000] * 10
    assert np.bincount(test.y).tolist() == [1000] * 10
    # As on cs.toronto.edu/~kriz/cifar.html
    assert " ".join(test.class_names) == "airplane automobile bird cat deer dog frog horse ship truck"
    # The channels' means and deviations that the field normalises CIFAR-10 by.
    for channel, (mean, deviation) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        share = np.bincount(train.images[..., channel].ravel(), minlength=256) / (50_000 * 32 * 32)
        levels = np.arange(256) / 255
        assert share @ levels == pytest.approx(mean, abs=1e-4)
        assert np.sqrt(share @ levels**2 - (share @ levels) ** 2) == pytest.approx(deviation, abs=1e-4)
    # The first examples in the file, read without TFDS.
    file = next(Path(TFDS, "cifar10").glob("*/cifar10-test.tfrecord-00000-of-*"))
    schema = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    for place, record in enumerate(tf.data.TFRecordDataset(str(file)).take(20)):
        example = tf.io.parse_single_example(record, schema)
        assert test.y[place] == example["label"]
        assert (test.images[place] == tf.io.decode_png(example["image"]).numpy()).all()


@needs_cifar
def test_cifar10_has_tfds_splits(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    whole = load_dataset("cifar10", "test[:100]", data_dir=TFDS)
    assert len(whole) == 100
    both = load_dataset("cifar10", "test[50:100]+train[:10]", data_dir=TFDS)
    assert (both.images[:50] == whole.images[50:]).all()
    assert len(both) == 60
    assert len(load_dataset("cifar10:3.*.*", "test[99%:]", data_dir=TFDS)) == 100
    said = capfd.readouterr()
    assert not said.out
    # What TensorFlow's C++ says is the business of whoever owns the process' standard error.
    assert not [line for line in said.err.splitlines() if "tfds" in line.lower() or "%|" in line]


@needs_cifar
@pytest.mark.parametrize("split", ["tst", "test[", "test[:x]", "test[20000:]", "test[:20000]", ""])
def test_wrong_splits_of_tfds_name_the_right_ones(split: str) -> None:
    with pytest.raises(InputError, match=r"train \(50000\), test \(10000\)"):
        load_dataset("cifar10", split, data_dir=TFDS)


@needs_cifar
def test_an_empty_split_of_tfds_is_refused() -> None:
    with pytest.raises(InputError, match="at least one example"):
        load_dataset("cifar10", "test[:0]", data_dir=TFDS)


@needs_cifar
@pytest.mark.parametrize("name", ["cifar10:1.0.0", "cifar10/fog"])
def test_versions_and_configurations_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="Try 'cifar10' without version"):
        load_dataset(name, data_dir=TFDS)


@needs_cifar
@pytest.mark.parametrize("fault", ["truncated", "missing", "overwritten", "information"])
def test_damaged_tfds_files_are_named(tmp_path: Path, fault: str) -> None:
    folder = next(Path(TFDS, "cifar10").iterdir())
    copy = tmp_path / "cifar10" / folder.name
    copy.mkdir(parents=True)
    for file in folder.iterdir():
        if "train" not in file.name:
            shutil.copyfile(file, copy / file.name)
    records = next(copy.glob("*-test.tfrecord*"))
    if fault == "truncated":
        os.truncate(records, 1_000_000)
    elif fault == "missing":
        records.unlink()
    elif fault == "overwritten":
        with records.open("r+b") as file:
            file.seek(500_000)
            file.write(b"\0" * 5000)
    else:
        (copy / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"Expected (readable files of 'cifar10'|a set that TFDS can open)") as caught:
        load_dataset("cifar10", data_dir=str(tmp_path))
    assert "{{" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"), [("cifra10", "cifar10"), ("minst", "mnist"), ("shaeps", "shapes"), ("huggingface:mnist", "mnist")]
)
def test_unknown_names_get_the_nearest(name: str, near: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{near}'") as caught:
        load_dataset(name)
    assert len(str(caught.value)) < 300
    assert not capfd.readouterr().out


@pytest.mark.parametrize("name", ["imdb_reviews", "coco"])
def test_sets_for_other_tasks_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a set for image classification"):
        load_dataset(name, data_dir=str(tmp_path))


# Downloads


def test_without_network_it_says_what_to_do_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds_sets, "reachable", lambda address: False)
    with pytest.raises(InputError, match=r"(?s)a network to download it from.*storage\.googleapis\.com.*'shapes'"):
        load_dataset("mnist", data_dir=str(tmp_path / "sets"))
    assert not (tmp_path / "sets").exists()


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def test_a_server_that_answers_is_reachable_even_if_it_refuses() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert reachable(f"http://127.0.0.1:{server.server_port}/file")
        server.shutdown()


def test_silence_and_refusal_are_not_reachable_and_silence_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert not reachable(f"http://127.0.0.1:{port}/", seconds=0.5)  # Or it never comes back.
    assert not reachable(f"http://127.0.0.1:{port}/")
    assert not reachable("nonsense://x")
    assert tfds_sets.PROBE_SECONDS < 10


@pytest.fixture(scope="module")
def local_set() -> str:
    """The name of a TFDS set that is made without a network, slowly enough to be watched."""
    import tensorflow_datasets as tfds

    class RobustTiny(tfds.core.GeneratorBasedBuilder):
        """Grey squares of three shades."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent
        fails = False

        def _info(self) -> Any:
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "picture": tfds.features.Image(shape=(None, None, 3)),
                        "kind": tfds.features.ClassLabel(names=["dark", "grey", "light"]),
                        "note": tfds.features.Text(),
                    }
                )
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            dl_manager.download_dir.mkdir(parents=True, exist_ok=True)
            (dl_manager.download_dir / "archive").write_bytes(b"\0" * 4321)
            if RobustTiny.fails:
                raise tfds.download.DownloadError("the server hung up")
            time.sleep(0.3)
            return {"test": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for key in range(12):
                size = 8 if key or not RobustTiny.fails else 9
                picture = np.full((size, 8, 3), 80 * (key % 3), np.uint8)
                yield key, {"picture": picture, "kind": key % 3, "note": "x"}

    return RobustTiny.name


def test_a_download_is_watched_and_then_read(
    local_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tfds_sets, "reachable", lambda address: True)
    events: list[Event] = []
    dataset = load_dataset(local_set, data_dir=str(tmp_path), emit=events.append)
    assert dataset.class_names == ("dark", "grey", "light")
    assert dataset.images.shape == (12, 8, 8, 3)
    assert (dataset.images[:, 0, 0, 0] == 80 * dataset.labels).all()  # Any order, but together.
    assert isinstance(events[0], Log)
    assert str(tmp_path) in events[0].message
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress
    assert {event.unit for event in progress} == {"byte"}
    assert max(event.done for event in progress) >= 4321
    said = capfd.readouterr()
    assert "Dl Completed" not in said.err + said.out
    # And once it is there, no network is asked for.
    monkeypatch.setattr(tfds_sets, "reachable", lambda address: pytest.fail("asked the network"))
    assert len(load_dataset(local_set, "test[:5]", data_dir=str(tmp_path))) == 5


def test_a_download_that_fails_says_so(local_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds_sets, "reachable", lambda address: True)
    monkeypatch.setattr(tfds.builder_cls(local_set), "fails", True)
    with pytest.raises(InputError, match="the server hung up"):
        load_dataset(local_set, data_dir=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        load_dataset(local_set, data_dir=str(tmp_path / "file"))
