"""Sets of TensorFlow Datasets: found by name, downloaded with progress, read without its chatter."""

from __future__ import annotations

import contextlib
import difflib
import http.client
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.data.dataset import Dataset, Source, checked, first_line
from kerasrobust.data.pipeline import unwatched
from kerasrobust.data.split import default_split, empty_split
from kerasrobust.errors import InputError, folder_meant, unknown_name
from kerasrobust.events import Emit, Log, Progress

PROBE_SECONDS = 8.0  # TFDS tries for minutes where there is no network.
READING_BATCH = 1024


def _advice(path: Path) -> str:
    """Returns what makes data of a file of another kind."""
    if not path.exists():
        return "Check the path."
    if path.suffix.lower() == ".npy":
        return f"Put images and labels into one file: np.savez('data.npz', x=np.load('{path.name}'), y=labels)."
    if {suffix.lower() for suffix in path.suffixes} & {".zip", ".tar", ".tgz", ".gz"}:
        return "Unpack it, and give the folder."
    return "Convert it: np.savez('data.npz', x=images, y=labels)."


def load(
    name: str, split: str | None, *, most: int, data_dir: str | Path | None, emit: Emit | None = None, **unused: Any
) -> Dataset:
    """Reads a split of a TFDS set, downloading the set first where it isn't in `data_dir`; see `load.load_dataset`."""
    path = Path(name).expanduser()
    if name.startswith(("/", "~", "./", "../")) or (path.suffix and path.is_file()):
        raise InputError(
            "Expected an .npz or .h5 file, or a folder with a sub-folder of images for each class. Received: "
            f"{name!r}, which is {'another kind of file' if path.exists() else 'not there'}. {_advice(path)}"
        )
    with _quiet_tfds() as tfds:
        import tensorflow as tf

        builder = _builder(tfds, name, data_dir)
        image, label = _image_and_label(tfds, name, builder.info)
        if not builder.is_prepared():
            _download(tfds, name, builder, emit)
        splits = builder.info.splits
        split = default_split({part: splits[part].num_examples for part in splits}, most) if split is None else split
        try:
            count = splits[split].num_examples
        except (ValueError, KeyError) as error:
            raise InputError(
                f"Expected a split of {name!r}, or a slice of one such as 'test[:1000]'. Received: {split!r}. "
                f"There are {', '.join(f'{part} ({splits[part].num_examples})' for part in splits)}."
            ) from error
        if count < 1:
            raise empty_split(split)
        try:
            wanted = tfds.decode.PartialDecoding({image: True, label: True})
            # One file after the other, so that a slice keeps the order of the whole.
            reading = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
            examples = builder.as_dataset(split=split, decoders=wanted, read_config=reading, shuffle_files=False)
            batches = unwatched(examples.map(lambda example: (example[image], example[label])).batch(READING_BATCH))
            parts = list(batches.as_numpy_iterator())
        except tf.errors.InvalidArgumentError as error:  # What batching raises for images of several sizes.
            raise InputError(
                f"Expected images of one size. Received: {name!r} ({first_line(error)}). "
                "Resize them into a file or a folder."
            ) from error
        except (OSError, tf.errors.OpError) as error:
            raise InputError(
                f"Expected readable files of {name!r}. Received: {builder.data_dir} ({first_line(error)}). "
                "Remove that folder, so that it is made again, or give another data directory."
            ) from error
        images, labels = checked(
            name, np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
        )
        names = tuple(builder.info.features[label].names)
    return Dataset(name=name, split=split, images=images, labels=labels, class_names=names)


def _builder(tfds: Any, name: str, data_dir: str | Path | None) -> Any:
    from google.protobuf import json_format

    known = tfds.list_builders(with_community_datasets=False)
    match = re.fullmatch(r"(\w+)(/[^:]+)?(:[\d.*]+)?", name)  # Other people's name spaces need other packages.
    try:
        if match:
            return tfds.builder(name, data_dir=data_dir)
    except (ValueError, TypeError, OSError, ImportError, AssertionError, json_format.ParseError) as error:
        if match and match[1] in known:
            raise InputError(
                f"Expected a set that TFDS can open. Received: {name!r} ({first_line(error)}). "
                f"Try {match[1]!r} without version and configuration, or another data directory."
            ) from error
    if Path(name).is_dir():
        raise folder_meant(name)
    # Not all of the hundreds of names: the well-known and the nearest.
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    others = ", any TFDS image set, an .npz or .h5 file, a folder of images as ./folder"
    raise unknown_name("data set", name, {"shapes", "cifar10", "mnist", *near}, others)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[Any]:
    """Yields the TFDS module, without progress bars and with its log at errors."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        yield tfds
    finally:
        log.setLevel(level)


def _image_and_label(tfds: Any, name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the two features that matter: the supervised pair, or the only ones of their kind."""
    features = info.features
    keys = info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        images, labels = [keys[0]], [keys[1]]
    else:
        images, labels = list(features), list(features)
    images = [key for key in images if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in labels if isinstance(features[key], tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"Expected a set for image classification. Received: {name!r} with {', '.join(features)}. "
            "Choose one with one image and one class label, such as 'cifar10'."
        )
    return images[0], labels[0]


def _download(tfds: Any, name: str, builder: Any, emit: Emit | None) -> None:
    urls = builder.url_infos or {}  # None if no checksums are recorded.
    address = next(iter(urls), "https://storage.googleapis.com")
    instead = "Give the data directory that holds it, an .npz or .h5 file, a folder of images, or 'shapes'"
    if not reachable(address):
        raise InputError(
            f"Expected data set {name!r} in {builder.data_dir}, or a network to download it from. "
            f"Received: no answer from {urllib.request.Request(address).host}. {instead}."
        )
    root = Path(builder.data_dir).parents[builder.info.full_name.count("/")]
    folder = root / "downloads"
    emit = emit or (lambda event: None)
    emit(Log(level="info", message=f"Downloading {name} to {root}."))
    try:
        total = sum(info.size for info in urls.values()) or None
        _watched(lambda: builder.download_and_prepare(download_dir=str(folder)), folder, total, emit)
    except (OSError, ValueError, AssertionError, ImportError, tfds.download.DownloadError) as error:
        raise InputError(
            f"Expected a download of {name!r} to {root}. Received: {first_line(error)}. {instead}, or try again."
        ) from error


def _watched(work: Callable[[], None], folder: Path, total: int | None, emit: Emit) -> None:
    """Does the work in another thread, and emits about 5 times a second how many bytes the folder has gained."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # Raised again below, in the caller's thread.
            failures.append(error)

    before, started = _bytes_in(folder), time.monotonic()
    worker = threading.Thread(target=guarded, daemon=True)  # Daemon: Ctrl-C ends the process without waiting for it.
    worker.start()
    while worker.is_alive():
        worker.join(0.2)
        done = _bytes_in(folder) - before
        rate = done / (time.monotonic() - started)
        left = max(total - done, 0) / rate if total and rate else None
        emit(Progress(unit="byte", done=done, total=total, rate=rate, seconds_left=left))
    if failures:
        raise failures[0]


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # Renamed or removed since it was listed.
            total += file.stat().st_size
    return total


def reachable(address: str, seconds: float = PROBE_SECONDS) -> bool:
    """Returns whether the server of a URL answers within `seconds`, even if with an error."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
        except (urllib.error.HTTPError, http.client.HTTPException):
            answered.set()
        except (OSError, ValueError):  # No route, no name, refused, too late; no such scheme.
            return
        answered.set()

    # In a thread, because looking up a name has no time limit of its own.
    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    worker.join(seconds)
    return answered.is_set()


def is_local(name: str, data_dir: str | Path | None) -> bool:
    """Returns whether a set, or a configuration of it, lies in the folder of TFDS's sets."""
    with _quiet_tfds() as tfds:
        root = Path(data_dir or tfds.core.constants.DATA_DIR)
    return any((root / name).glob("**/dataset_info.json"))


SOURCE = Source(takes=lambda name: True, load=load)
