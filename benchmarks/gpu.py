"""Checks the project on one GPU and measures it there, beside the same work written plainly.

    python benchmarks/gpu.py [SECTION ...] [--data FILE.npz] [--out FOLDER]

Sections, all of them by default: device (what runs tell of it, and how memory grows), equal (the same figures as on
the processor), arithmetic (what `auto` chooses, and the time of gradients in each), pgd, autoattack (with how busy the
GPU is), training, layouts, eot, nvml. Without a GPU all run on the processor, with fewer images. Each runs to its end
whatever happens in the others; the exit status is 1 where one failed. `gpu.json` and `gpu.md` go to the folder.

`GPU.md` has what came of it. CIFAR-10 comes from TFDS_DATA_DIR, or from a file with x_train, y_train, x_test, y_test,
uint8.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import training_step
from convnet_weights import weights_of
from gpu_plain import ALPHA, EPSILON, STEPS

import kerasrobust as kr
from kerasrobust import twins
from kerasrobust.config import AttackConfig
from kerasrobust.events import RunStarted
from kerasrobust.jobs.engine import run
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops.tracing import Traced, full_float32, on_gpu
from kerasrobust.twins import folding
from kerasrobust.twins.precision import _gradient, _repeated
from tui.system import Sampler

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
"""How often each time is taken; the least of them counts."""

ARITHMETICS = ("float32", "folded", "bfloat16", "folded-xla", "bfloat16-xla")


def least(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Returns the least seconds of a few calls, after one that traces and warms up."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class Busy:
    """How busy the GPU is while work is done: the mean of what NVML says ten times a second."""

    def __init__(self) -> None:
        self.sampler = Sampler(Path(tempfile.gettempdir()))
        self.samples: list[float] = []

    @contextmanager
    def during(self) -> Iterator[None]:
        self.samples, done = [], threading.Event()

        def look() -> None:
            while not done.wait(0.1):
                for gpu in self.sampler.sample().gpus[:1]:
                    if gpu.utilisation is not None:
                        self.samples.append(gpu.utilisation)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @property
    def share(self) -> str:
        return f"{np.mean(self.samples):.0f} % of {len(self.samples)} samples" if self.samples else "no figure"


def plain_pgd(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns PGD on a batch as a textbook writes it in Keras, all of it in one `tf.function`."""

    @tf.function
    def attack(x: tf.Tensor, y: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        x_adv = tf.clip_by_value(x + tf.random.uniform(tf.shape(x), -EPSILON, EPSILON), 0.0, 1.0)
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                tape.watch(x_adv)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x_adv, training=False))
            x_adv = x_adv + ALPHA * tf.sign(tape.gradient(loss, x_adv))
            x_adv = tf.clip_by_value(tf.clip_by_value(x_adv, x - EPSILON, x + EPSILON), 0.0, 1.0)
        return x_adv

    return attack


@dataclass
class Bench:
    """What the sections share.

    Attributes:
        data: name or file of the images.
        rows: what was measured, by section: what, figure.
        failed: the sections that broke.
        section: the one that runs.
    """

    data: str
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    section: str = ""

    def say(self, what: str, figure: str) -> None:
        self.rows.setdefault(self.section, []).append((what, figure))
        print(f"{self.section:>10}  {what}: {figure}", flush=True)

    @cached_property
    def small(self) -> bool:
        return not on_gpu()

    @cached_property
    def model(self) -> keras.Model:
        return kr.load_model(str(ROOT / "saved_models" / "convnet-pgd"))

    def images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return kr.load_data(self.data, f"test[:{count}]")

    def robust(self, x_adv: np.ndarray, y: np.ndarray) -> str:
        """Returns the share of images that the network gets right, in full float32."""
        with full_float32():
            logits = np.concatenate([
                self.model(x_adv[at : at + 500], training=False).numpy() for at in range(0, len(y), 500)
            ])  # fmt: skip
        return f"{100 * np.mean(logits.argmax(axis=1) == y):.1f} % robust"


def device(bench: Bench) -> None:
    events: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        config = AttackConfig(
            model=str(ROOT / "saved_models" / "convnet-pgd"), data=bench.data, split="test[:64]", attack="fgsm",
            runs_dir=Path(folder),
        )  # fmt: skip
        run(config, events.append)
    bench.say("in the events", ", ".join(next(e for e in events if isinstance(e, RunStarted)).devices))
    for gpu in tf.config.list_physical_devices("GPU"):
        bench.say("details", str(tf.config.experimental.get_device_details(gpu)))
        used = Sampler(Path(tempfile.gettempdir())).sample().gpus[0]
        share = 100 * (used.memory_used or 0) / (used.memory_total or 1)
        bench.say("memory after a small attack", f"{share:.1f} % of {(used.memory_total or 0) / 2**30:.0f} GiB")
        if share > 50:
            raise AssertionError("Memory doesn't grow: a small attack took most of it.")


def equal(bench: Bench) -> None:
    """The processor is seen by a process of its own, from which the GPU is hidden."""
    count = 64 if bench.small else 512
    x, y = bench.images(count)
    ours = judged(bench.model, x, y)
    if bench.small:
        bench.say("on the processor alone", f"{100 * np.mean(~ours['pgd_success']):.1f} % robust by PGD")
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", x=x, y=y, x_adv=ours["x_adv"])
        command = [sys.executable, __file__, "--processor", folder]
        subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}, check=True, timeout=200)
        theirs = dict(np.load(Path(folder) / "out.npz"))
    for part, what in (("clean", "clean images"), ("again", "adversarial examples found on the GPU")):
        same = np.mean(ours[f"{part}_logits"].argmax(axis=1) == theirs[f"{part}_logits"].argmax(axis=1))
        for kind in ("", "tf32_"):
            gap = np.abs(ours[f"{kind}{part}_logits"] - theirs[f"{part}_logits"]).max()
            bench.say(f"largest gap of logits, {what}, {kind or 'full float32 '}".rstrip("_ "), f"{gap:.2g}")
        bench.say(f"same class, {what}", f"{100 * same:.2f} % of {count}")
    for name in ("pgd", "apgd-ce"):
        same = np.mean(ours[f"{name}_success"] == theirs[f"{name}_success"])
        left = [100 * np.mean(~found[f"{name}_success"]) for found in (ours, theirs)]
        bench.say(
            f"{name}: robust on GPU, processor; same verdicts", f"{left[0]:.2f} %, {left[1]:.2f} %; {100 * same:.2f} %"
        )
        if abs(left[0] - left[1]) > 1:
            raise AssertionError(f"{name} finds other figures on the GPU.")
    for step in (0, 4):
        found = (f"{part['losses'][step]:.5f}" for part in (ours, theirs))
        bench.say(f"loss of PGD training, step {step + 1}: GPU, processor", ", ".join(found))
    if abs(ours["losses"][0] - theirs["losses"][0]) > 1e-3:
        raise AssertionError("The first step of training has another loss on the GPU.")


def judged(model: keras.Model, x: np.ndarray, y: np.ndarray, x_adv: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns what two attacks and a few steps of training give on the device of this process."""
    found: dict[str, np.ndarray] = {}
    for attack in (kr.attacks.PGD(epsilon=EPSILON, steps=STEPS), kr.attacks.APGDCE(epsilon=EPSILON, steps=20)):
        result = attack(model, x, y, precision="float32")
        name = "pgd" if isinstance(attack, kr.attacks.PGD) else "apgd-ce"
        found[f"{name}_success"] = result.success
    found["x_adv"] = result.x_adv
    for part, images in (("clean", x), ("again", found["x_adv"] if x_adv is None else x_adv)):
        found[f"tf32_{part}_logits"] = model(images, training=False).numpy()
        with full_float32():
            found[f"{part}_logits"] = model(images, training=False).numpy()
    keras.utils.set_random_seed(0)
    trained = kr.AdversarialModel(keras.models.clone_model(model), kr.training.PGD(epsilon=EPSILON, steps=7))
    trained.network.set_weights(model.get_weights())
    # XLA would draw the random start with another generator.
    trained.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    found["losses"] = np.array([trained.train_on_batch(x[:64], y[:64], return_dict=True)["loss"] for _ in range(5)])
    return found


def gradient_seconds(classifier: Any, images: tf.Tensor) -> float:
    """Returns the seconds of a gradient of the margins by images, of ten in one graph, as `auto` measures it."""
    ten = Traced(_repeated(_gradient(classifier), 10))
    return least(lambda: ten(images).numpy()) / 10


def arithmetic(bench: Bench) -> None:
    x, _ = bench.images(64 if bench.small else 1024)
    images, classifier = tf.constant(x), as_classifier(bench.model)
    bench.say("auto", twins.chosen_precision(classifier, "auto", x))
    for name in ARITHMETICS[:3] if bench.small else ARITHMETICS:
        try:
            seconds = gradient_seconds(twins.of(classifier, name, x), images)
            bench.say(f"gradient of {len(x)} images, {name}", f"{1e3 * seconds:.3f} ms")
        except Exception as error:  # What a device can't do is a figure, too.
            bench.say(f"gradient of {len(x)} images, {name}", f"fails: {str(error)[:200]}")
    if not bench.small:
        with full_float32():
            bench.say("float32 without TF32", f"{1e3 * gradient_seconds(classifier, images):.3f} ms")


def pgd(bench: Bench) -> None:
    """Every time is from arrays to arrays; ours has the verdicts before and after in it."""
    x, y = bench.images(96 if bench.small else 4000)
    sizes = (32,) if bench.small else (256, 2000)
    classifier, textbook = as_classifier(bench.model), plain_pgd(bench.model)

    def plain(size: int, steps: int) -> np.ndarray:
        parts = []
        for at in range(0, len(x), size):
            batch = tf.constant(x[at : at + size]), tf.constant(y[at : at + size])
            parts.append(textbook(*batch, tf.constant(steps)).numpy())
        return np.concatenate(parts)

    def ours(size: int, steps: int, precision: str, early_stop: bool) -> kr.attacks.AttackResult:
        attack = kr.attacks.PGD(epsilon=EPSILON, steps=steps, step_size=ALPHA)
        return attack(classifier, x, y, precision=precision, batch_size=size, early_stop=early_stop)

    for size in sizes:
        for steps in (1, STEPS) if bench.small else (1, STEPS, 100):
            base = least(partial(plain, size, steps))
            bench.say(
                f"PGD-{steps}, {size} at once, plain Keras", f"{base:.4f} s; {bench.robust(plain(size, steps), y)}"
            )
            for precision, stop in (("auto", True), ("auto", False), ("float32", True), ("float32", False)):
                call = partial(ours, size, steps, precision, stop)
                seconds, result = least(call), call()
                what = f"PGD-{steps}, {size} at once, {precision}{'' if stop else ', no early stop'}"
                left = f"{100 * np.mean(~result.success):.1f} % robust"
                bench.say(what, f"{seconds:.4f} s, {base / seconds:.2f} times plain Keras; {left}, {result.precision}")
    others(bench, x, y, sizes)


def others(bench: Bench, x: np.ndarray, y: np.ndarray, sizes: tuple[int, ...]) -> None:
    """Runs the same attack in PyTorch and JAX, where they are there, in processes without TensorFlow's libraries."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", x=x, y=y)
        np.savez(Path(folder) / "network.npz", **weights_of(bench.model))
        kept = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "XLA_FLAGS")}
        kept |= {"PYTHONPATH": str(ROOT / "benchmarks"), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        for kind in ("torch", "jax"):
            command = [sys.executable, str(ROOT / "benchmarks" / "gpu_plain.py"), kind, folder, *map(str, sizes)]
            try:
                done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=True)
            except subprocess.CalledProcessError as error:
                bench.say(kind, f"status {error.returncode}: {error.stderr.strip()[-200:]}")
                continue
            except subprocess.TimeoutExpired:
                bench.say(kind, "not done in two minutes")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            for size, seconds in found["seconds"].items():
                bench.say(f"{found['name']}, plainly, {size} at once", f"{seconds:.4f} s")
            bench.say(f"{kind} judged by the Keras model", bench.robust(np.load(Path(folder) / f"{kind}.npy"), y))


def autoattack(bench: Bench) -> None:
    x, y = bench.images(16 if bench.small else 1000)
    attack = kr.attacks.AutoAttack(norm="linf", epsilon=EPSILON, version="standard")
    busy, began = Busy(), time.perf_counter()
    with busy.during():
        found = kr.evaluate(bench.model, x, y, attacks=attack, audit=False, batch_size=len(x))
    seconds = time.perf_counter() - began
    parts = ", ".join(f"{part.attack.name} {part.result.seconds:.2f}" for part in found.attacks)
    left = f"{100 * found.robust_accuracy:.1f} % robust"
    bench.say(f"{len(x)} images at once", f"{seconds:.2f} s ({parts}); {found.precision}; {left}")
    bench.say("GPU busy", busy.share)


def training(bench: Bench) -> None:
    rates: dict[str, float] = {}
    steps = 4 if bench.small else 40
    kinds = ("plain", "ours") if bench.small else ("plain", "jit", "ours", "float32")
    for kind in kinds:
        try:
            trained = training_step.model(kind)
            fit = partial(trained.fit, training_step.batches(bench.data), steps_per_epoch=steps, verbose=0)
            rates[kind] = steps * training_step.BATCH / least(fit, 1 if bench.small else 2)
            chosen = getattr(trained, "_chosen", "")
            bench.say(f"PGD-7 training, {kind}", f"{rates[kind]:.0f} images/s {chosen}")
        except Exception as error:  # A way that a device can't take is a figure, too.
            bench.say(f"PGD-7 training, {kind}", f"fails: {str(error)[:300]}")
    bench.say("ours / plain Keras", f"{rates['ours'] / rates['plain']:.2f}")


def layouts(bench: Bench) -> None:
    x, _ = bench.images(64 if bench.small else 512)
    images, chosen = tf.constant(x), folding.beside_pays
    for beside in (False, True):
        folding.beside_pays = lambda model, beside=beside: beside
        try:
            for name in ("folded",) if bench.small else ("folded", "bfloat16"):
                made = as_classifier(keras.models.clone_model(bench.model))  # A twin of its own.
                seconds = gradient_seconds(twins.of(made, name, x), images)
                bench.say(f"{name}, images {'beside each other' if beside else 'as usual'}", f"{1e3 * seconds:.3f} ms")
        except Exception as error:  # A layout that a device can't compute is a figure, too.
            bench.say(f"images {'beside each other' if beside else 'as usual'}", f"fails: {str(error)[:200]}")
        finally:
            folding.beside_pays = chosen


def eot(bench: Bench) -> None:
    x, y = bench.images(16 if bench.small else 256)
    classifier = as_classifier(kr.load_model(str(ROOT / "saved_models" / "convnet-random-pgd")))
    attack = kr.attacks.PGD(epsilon=EPSILON, steps=5 if bench.small else 20, eot=8)
    for size in (16, 128) if bench.small else (256, 2048):
        seconds = least(lambda size=size: attack(classifier, x, y, batch_size=size, passes=4), 2)
        bench.say(f"{len(x)} images, 8 passes, {size} rows at once", f"{seconds:.3f} s")


def nvml(bench: Bench) -> None:
    sampler = Sampler(Path(tempfile.gettempdir()))
    sample = sampler.sample()
    for gpu in sample.gpus:
        bench.say("NVML", str(gpu))
        if None in (gpu.utilisation, gpu.memory_used, gpu.memory_total, gpu.temperature, gpu.power):
            raise AssertionError("The UI would lack a figure of this GPU.")
    if not sample.gpus:
        bench.say("NVML", sampler.problem)


SECTIONS = (device, nvml, equal, pgd, autoattack, training, eot, arithmetic, layouts)


def facts() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    card = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    ).stdout.strip() if on_gpu() else "none"  # fmt: skip
    return {"card and driver": card, "python": platform.python_version(), **versions, "kerasrobust": kr.__version__}


def processor(folder: Path) -> None:
    """What `equal` runs in a process from which the GPU is hidden."""
    with np.load(folder / "in.npz") as stored:
        model = kr.load_model(str(ROOT / "saved_models" / "convnet-pgd"))
        np.savez(folder / "out.npz", **judged(model, stored["x"], stored["y"], stored["x_adv"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help="some of them; all without")
    parser.add_argument("--data", default="cifar10", help="name or .npz file of the images")
    parser.add_argument("--out", type=Path, default=Path("runs") / "gpu", help="where gpu.json and gpu.md go")
    parser.add_argument("--processor", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processor:
        processor(options.processor)
        return 0
    known = {section.__name__: section for section in SECTIONS}
    if unknown := set(options.sections) - set(known):
        parser.error(f"Expected sections out of {', '.join(known)}. Received: {', '.join(sorted(unknown))}.")
    bench = Bench(options.data)
    for name, section in known.items():
        if options.sections and name not in options.sections:
            continue
        bench.section, began = name, time.perf_counter()
        try:
            section(bench)
        except Exception:
            traceback.print_exc()
            bench.failed.append(name)
        bench.say("took", f"{time.perf_counter() - began:.1f} s")
        write(bench, options.out)
    print(f"Failed: {', '.join(bench.failed)}." if bench.failed else "All sections ran to their end.")
    return int(bool(bench.failed))


def write(bench: Bench, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = facts()
    (folder / "gpu.json").write_text(json.dumps({"facts": about, "rows": bench.rows, "failed": bench.failed}, indent=1))
    lines = [f"- {name}: {value}" for name, value in about.items()]
    for section, rows in bench.rows.items():
        lines += ["", f"## {section}", "", "| what | figure |", "|---|---|"]
        lines += [f"| {what} | {figure} |" for what, figure in rows]
    (folder / "gpu.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
