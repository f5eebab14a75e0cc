"""The arithmetic in which a model computes while it is attacked, chosen by what a short probe measures."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of
from kerasrobust.events import Emit, Log
from kerasrobust.names import Precision
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.cloning import check_graph, kept_in_float32
from kerasrobust.networks.files.foreign import quiet
from kerasrobust.networks.logits import logits_of
from kerasrobust.networks.probe import is_compiled, probe_images
from kerasrobust.ops import half, losses
from kerasrobust.ops.tracing import Traced, full_float32, on_gpu
from kerasrobust.twins.folding import Twin, make_twin
from kerasrobust.twins.margins import margin_gaps

PROBES = 128  # Images that the probe takes gradients of; fewer if they are large.
GPU_PROBES = 1024  # On a GPU, where below that calls take longer than what they compute (measured on an H200).
COMPARED = 64  # Images on which margins are compared in each call: a hundredth of what an attack costs.
GPU_TIMES = 10  # Gradients that are taken in one call there.
ROUNDS = 3  # How often each arithmetic is timed; the fastest time counts.
# A network whose gradients of all probes take less is attacked as it is: a twin would save less than it costs.
CHEAP_SECONDS = 2e-3
# Share of the model's own time that a twin may take at most: less of a gain may be noise, and runs should repeat.
GAIN = 0.8
ALIKE = 0.9  # Median cosine of a network's gradients with its twin's; below it the twin is another network.
# How far the margins may be apart, as a share of their median: beyond it, success on one means little for the other.
APART = 0.25

MEANING = {
    "float32": "in float32, by the network as it is",
    "folded": "in float32, by a faster twin of the network",
    "bfloat16": "in bfloat16, by a faster twin of the network",
    "folded-xla": "in float32, by a faster twin of the network that XLA compiled",
    "bfloat16-xla": "in bfloat16, by a faster twin of the network that XLA compiled",
}
"""The arithmetics, described for people."""


def meaning_of(precision: str, classifier: Classifier) -> str:
    """Returns what a precision that was chosen means for a model, for people: "float32" is its own arithmetic.

    Example:
        >>> meaning_of("float32", as_classifier(mixed_float16_model))
        'in float16 with scaled losses, by the network as it is'
    """
    model = classifier.model
    if precision != "float32":
        return MEANING[precision]
    dtypes = {getattr(layer, "compute_dtype", "") for layer in getattr(model, "_flatten_layers", list)()}
    if is_compiled(model):  # A SavedModel tells by its operations alone.
        spec = tf.TensorSpec((1, *classifier.probed.shape))
        if half.in_graph(tf.function(classifier, autograph=False).get_concrete_function(spec).graph):
            dtypes = {"float16"}
    if "float16" in dtypes:
        return "in float16 with scaled losses, by the network as it is"
    return MEANING[precision].replace("float32", "bfloat16") if "bfloat16" in dtypes else MEANING[precision]


def checked_precision(precision: str) -> str:
    """Returns the precision; raises InputError for an unknown one."""
    known = get_args(Precision)
    if precision not in known:
        raise InputError(f"Expected a precision out of {', '.join(known)}. Received: {precision!r}. Choose one.")
    return precision


def chosen_precision(classifier: Classifier, precision: str, x: np.ndarray, emit: Emit | None = None) -> str:
    """Returns the arithmetic in which a model is attacked: what `precision` means for it.

    "float32" is the model as it was given. "folded" is float32 too, with batch normalisation folded into the layers
    before it. "bfloat16" is the folded network in bfloat16. With "-xla", XLA compiles it, for batches of one size.
    "auto" is whichever gives gradients fastest on this machine now, and bfloat16 only if its gradients point where the
    model's do. XLA is never tried: on a processor it takes two to four times as long, and on a GPU compiling takes
    longer than most attacks (both measured).

    Args:
        classifier: the model as it was given.
        precision: one of `names.Precision`.
        x: float32 (N, H, W, C), the images to come, of which a few are used.
        emit: takes a `Log` line where "auto" leaves out a twin because it fails, as with layers that can't compute in
            bfloat16.

    Returns:
        One of `names.Precision` except "auto".

    Raises:
        InputError: for an unknown precision, or one that is impossible for the model.

    Example:
        >>> chosen_precision(as_classifier(model), "auto", x)
        'bfloat16'
    """
    if checked_precision(precision) == "float32":
        return precision
    if precision != "auto":
        with quiet():  # What Keras says of a copy's layers, it has said of the model's.
            _check_twin(classifier, precision)
        return precision
    if not is_graph(classifier.network) or not classifier.repeats:
        return "float32"
    images = _tried(x)
    twins = _twins(classifier)
    if images.shape not in twins.chosen:
        with quiet():
            twins.chosen[images.shape] = _fastest(classifier, images)
    chosen = twins.chosen[images.shape]
    if emit is not None and twins.failed:
        which = " and ".join(twins.failed)
        reason = next(iter(twins.failed.values()))
        whose = f"The twin of {classifier.name!r} in {which} fails ({reason})"
        emit(Log(level="info", message=f"{whose}: gradients are computed {MEANING[chosen]}."))
    return chosen


def of(classifier: Classifier, precision: str, x: np.ndarray) -> Classifier:
    """Returns the classifier whose gradients an attack takes: the twin; verdicts stay with the one that was given.

    Its `slack` is the margin error: by how much the two disagree about the margins of a few of the images, 0 for none.
    An example that falls by less hasn't fallen for certain.

    It has the weights of now; for "float32" it is `classifier` itself, whose `slack` is set: on a GPU attacks compute
    in TF32, and verdicts don't. Arguments and errors are those of `chosen_precision`.

    Example:
        >>> crafting = twins.of(as_classifier(model), "bfloat16", x)
    """
    chosen = chosen_precision(classifier, precision, x)
    images = x[:COMPARED]
    if chosen == "float32":
        classifier.slack = _rounding(classifier, images) if on_gpu() else 0.0
        return classifier
    twin = _twin(classifier, chosen)
    twin.classifier.slack = _gap(classifier, twin.run, images)
    return twin.classifier


def _gap(classifier: Classifier, run: Callable[..., np.ndarray], images: np.ndarray) -> float:
    """Returns by how much the margins of a network, as verdicts see it, are apart at most from those of `run`."""
    if not len(images):
        return 0.0
    key = _key(classifier)
    with full_float32():
        own = classifier.run(images, *key)
    gaps, _ = margin_gaps(own, run(images, *key))
    return float(np.max(gaps))


def _rounding(classifier: Classifier, images: np.ndarray) -> float:
    """Returns by how much a GPU's rounding moves a network's margins: attacks compute in TF32, verdicts don't."""
    able = classifier.repeats and not classifier.arrays and tf.config.experimental.tensor_float_32_execution_enabled()
    return _gap(classifier, classifier.run, images) if able else 0.0


class _Made:
    """A twin as attacks see it, kept from call to call."""

    def __init__(self, classifier: Classifier, precision: str) -> None:
        twin = of_model(classifier.network, precision)
        forward, any_batch = logits_of(twin.model), classifier.any_batch
        if precision.endswith("-xla"):
            forward, any_batch = tf.function(forward, jit_compile=True, autograph=False), False
        probed = dataclasses.replace(classifier.probed, arrays=False, warnings=())
        shape = classifier.image_shape
        self.classifier = Classifier(
            twin.model, forward, probed, name=twin.model.name, image_shape=shape, any_batch=any_batch,
            adapter=classifier.adapter,
        )  # fmt: skip
        # As a graph, since operation by operation it takes five times as long.
        self.refresh = Traced(twin.refresh)
        self._graphs: dict[Any, Traced] = {}

    def run(self, images: np.ndarray, *key: tf.Tensor) -> np.ndarray:
        """Returns the logits of images, rounded as in attacks: by a graph, one for each shape."""
        shape = images.shape[1:] if self.classifier.any_batch else images.shape
        if shape not in self._graphs:
            self._graphs[shape] = self.classifier.graph()
        return self._graphs[shape](tf.constant(images), *key).numpy()


@dataclass
class _Twins:
    """What is kept about the twins of a classifier."""

    made: dict[str, _Made] = field(default_factory=dict)  # By precision.
    chosen: dict[tuple[int, ...], str] = field(default_factory=dict)  # What "auto" means, by the shape of the images.
    alike: bool | None = None  # Whether they give the network's logits, once compared.
    failed: dict[str, str] = field(default_factory=dict)  # Why, by precision, where "auto" has tried in vain.


# Freed with the classifier, so nothing in them may refer to it.
_TWINS: weakref.WeakKeyDictionary[Classifier, _Twins] = weakref.WeakKeyDictionary()


def _twins(classifier: Classifier) -> _Twins:
    return _TWINS.setdefault(classifier, _Twins())


def _twin(classifier: Classifier, precision: str) -> _Made:
    """Returns the twin of a classifier, with the weights of now."""
    made = _twins(classifier).made
    if precision not in made:
        if not isinstance(classifier.network, keras.Model):
            raise InputError(
                f"Expected a Keras model for {precision}. Received: {classifier.name!r}, whose graph is fixed. "
                "Use float32."
            )
        if precision.endswith("-xla") and classifier.randomized:
            raise InputError(
                f"Expected a network without noise for {precision}. Received: {classifier.name!r}, for which XLA would "
                f"draw other noise than TensorFlow. Use {precision.removesuffix('-xla')}."
            )
        made[precision] = _Made(classifier, precision)
        try:
            try_out(made[precision].classifier.model, classifier.probed.shape)
        except InputError:
            del made[precision]
            raise
    made[precision].refresh()
    return made[precision]


def _check_twin(classifier: Classifier, precision: str) -> None:
    """Raises InputError for a model whose twin computes something else: a layer's configuration may be incomplete."""
    _twin(classifier, precision)
    if not classifier.repeats:
        return
    twins = _twins(classifier)
    if twins.alike is None:
        # In float32, as bfloat16 rounds.
        images = probe_images(classifier.probed.shape)
        twins.alike = _margin_error(classifier, _twin(classifier, "folded"), images) <= APART
    if not twins.alike:
        raise InputError(
            f"Expected layers that can be rebuilt from their configuration, for {precision}. Received: "
            f"{classifier.name!r}, whose copy gives other logits: what `get_config` of its own layers leaves out is "
            "lost. Use float32."
        )


def of_model(model: keras.Model, precision: str, training: bool = False) -> Twin:
    """Returns the twin of a model in a precision, for gradients of its images or, in training, of its weights.

    Args:
        model: a built functional or Sequential Keras model.
        precision: one that `chosen_precision` has chosen; whether XLA compiles it is up to the caller.
        training: whether the twin itself is to be trained.

    Raises:
        InputError: for a model that can't be rebuilt.

    Example:
        >>> twin = twins.of_model(model, "bfloat16")
    """
    try:
        check_graph(model)
    except InputError as error:
        raise InputError(f"{str(error).split('. Rebuild')[0]}, whose twin can't be made. Use float32.") from error
    policy = "mixed_bfloat16" if precision.startswith("bfloat16") else "float32"
    kept = kept_in_float32(model, policy)

    def of_layer(layer: Any) -> str:
        # What scales the images: rounded to bfloat16 first, they would lose most of the steps inside epsilon.
        scaling = isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
        if scaling or id(layer) in kept:
            return "float32"
        # What isn't trained keeps its weights as they are multiplied, so that no pass has to round them.
        fixed = not training and type(layer) in (keras.layers.Conv2D, keras.layers.Dense)
        return policy.removeprefix("mixed_") if fixed else policy

    try:
        with quiet():
            return make_twin(model, of_layer, training)
    except Exception as error:  # Somebody's own layers may raise anything.
        raise InputError(
            "Expected layers that can be rebuilt from their configuration, for a twin of the network. "
            f"Received: {model.name!r} ({reason_of(error, 120)}). Use float32."
        ) from error


def try_out(twin: keras.Model, shape: Any, training: bool = False) -> None:
    """Takes a gradient of a twin, whose layers may be able to be built in an arithmetic and not to compute in it.

    Args:
        twin: the copy of a network.
        shape: height, width and channels of its images.
        training: take it in training mode.

    Raises:
        InputError: if that fails, whatever the layers raise.
    """
    try:
        with quiet(), tf.GradientTape(watch_accessed_variables=training) as tape:
            images = tf.constant(probe_images(shape))
            tape.watch(images)
            total = tf.reduce_sum(
                tf.cast(twin(images, training=True) if training else logits_of(twin)(images), tf.float32)
            )
        tape.gradient(total, twin.trainable_variables if training else images)
    except Exception as error:  # Somebody's own layers may raise anything.
        raise InputError(
            "Expected layers that can compute in the arithmetic of a twin. "
            f"Received: {twin.name!r} ({reason_of(error, 120)}). Use float32."
        ) from error


def _tried(x: np.ndarray) -> np.ndarray:
    """Returns the images that the probe takes gradients of."""
    most = GPU_PROBES if on_gpu() else PROBES
    count = int(np.clip(2**12 * most // np.prod(x.shape[1:]), 8, most))
    return np.resize(x[:count], (count, *x.shape[1:]))


def _key(classifier: Classifier) -> tuple[tf.Tensor, ...]:
    """Returns the key of the noise with which a network and its twin are compared, for networks with noise."""
    return (tf.constant([0, 3]),) if classifier.randomized and classifier.seedable else ()


def _margin_error(classifier: Classifier, twin: _Made, images: np.ndarray) -> float:
    """Returns how far the margins of a twin are from the model's at most, as a share of their median."""
    key = _key(classifier)
    gaps, median = margin_gaps(classifier.run(images, *key), twin.run(images, *key))
    return float(np.max(gaps) / max(median, 1e-30))


def _fastest(classifier: Classifier, images: np.ndarray) -> str:
    """Returns the arithmetic whose gradients take least time and point where the model's do."""
    candidates = ["float32", "folded", *(["bfloat16"] if has_bfloat16() else [])]
    key = _key(classifier)
    x = tf.constant(images)
    slopes: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    graphs: dict[str, Traced] = {}

    def measure(name: str) -> None:
        began = time.perf_counter()
        graphs[name](x).numpy()
        seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - began)

    failed = _twins(classifier).failed
    for name in candidates:
        try:
            slope = _gradient(classifier if name == "float32" else _twin(classifier, name).classifier, *key)
            graphs[name] = Traced(slope)
            slopes[name] = graphs[name](x).numpy().reshape(len(images), -1)
            if on_gpu():
                graphs[name] = Traced(_repeated(slope, GPU_TIMES))
                graphs[name](x)  # Traces it.
        except Exception as error:  # Somebody's own layers may raise anything.
            if name == "float32":  # No gradient at all, which the attacks see by themselves.
                return "float32"
            failed[name] = reason_of(error.__cause__ or error, 120)
            continue
        measure(name)
        if seconds["float32"] < CHEAP_SECONDS * (GPU_TIMES if on_gpu() else 1):
            return "float32"
    for _ in range(ROUNDS):
        for name in seconds:
            measure(name)
    own = slopes["float32"]
    sizes = {name: np.linalg.norm(slope, axis=1) for name, slope in slopes.items()}

    def alike(name: str) -> bool:
        products = np.sum(own * slopes[name], axis=1)
        scale = np.maximum(sizes["float32"] * sizes[name], 1e-30)
        along = bool(np.median(products / scale) >= ALIKE)
        return along and _margin_error(classifier, _twin(classifier, name), images) <= APART

    able = [name for name in seconds if name != "float32" and alike(name)]
    best = min(able, key=seconds.__getitem__, default="float32")
    return best if seconds[best] <= GAIN * seconds["float32"] else "float32"


def _gradient(classifier: Classifier, *key: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the gradient of the margins by the images, for a graph: the work that attacks repeat."""

    def slope(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = classifier(x, *key)
            lead = tf.reduce_sum(losses.margin(logits, tf.argmax(logits, axis=1)))
        return tape.gradient(lead, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return slope


def _repeated(slope: Callable[[tf.Tensor], tf.Tensor], times: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what takes a gradient several times, each at images that the one before has moved by next to nothing."""

    def moved(x: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(x + 1e-9 * slope(x), x.shape)

    def follow(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda number, _: number < times, lambda number, x: (number + 1, moved(x)), (0, x))[1]

    return follow


def has_bfloat16() -> bool:
    """Returns whether the processor computes in bfloat16 instead of emulating it; on a GPU the probe finds out."""
    if on_gpu():
        return True
    try:
        with open("/proc/cpuinfo") as file:
            words = next((line.split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:  # Not Linux: unknown, so bfloat16 isn't tried.
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(words))
