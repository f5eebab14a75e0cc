"""What an attack sees: the logits of any image classifier."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.noise import keyed_noise
from kerasrobust.networks.probe import PROBES, check_shape, gap, not_callable, probe, probe_images
from kerasrobust.ops.tracing import Traced

Shape = tuple[int | None, int | None, int | None]

_ATTRIBUTE = "_kerasrobust_classifier"
# What a model's own code and TensorFlow raise for inputs that it doesn't take.
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, NotImplementedError, tf.errors.OpError)
# What `compile`, `fit`, `evaluate`, `predict` and `load_weights` change, and no outputs depend on.
_FITTED = {
    *("is_gptq_calibrated", "is_awq_calibrated"),
    *("compiled", "loss", "optimizer", "steps_per_execution", "unrolled_steps_per_execution"),
    *("train_function", "test_function", "predict_function", "stop_training", "stop_evaluating", "stop_predicting"),
}
# How far the logits of a pass may be from those of its graph, as a share of a class's largest: ten times what float32
# rounds.
_ROUNDING = 1e-5
# Where code is from that reads nothing but what is compared.
_KNOWN = ("keras", "kerasrobust", "tensorflow", "numpy", "builtins")
# log(1e-30) is -69: below every logit difference that float32 softmax resolves, and far from float32's underflow.
_SMALLEST_PROBABILITY = 1e-30


class Classifier:
    """An image classifier as attacks see it: float32 images in [0, 1] to float32 logits, in inference mode.

    Made by `as_classifier`, which also fills in what the probes found.

    Attributes:
        model: what it was made of.
        name: what reports call the model.
        image_shape: height, width and channels; an entry is None where the model takes any.
        classes: the number of logits.
        randomized: whether two passes over the same images differ.
        seedable: whether that noise follows a key, so that a run repeats.
        arrays: whether the model is called with NumPy arrays, as it isn't TensorFlow code; nothing differentiates it.
        warnings: (code, message) pairs that belong into every result about this model.
        compiled: compiled attacks, kept here so that they live as long as the model does.
        any_batch: whether one graph of it serves batches of any size.
        slack: how far its margins may be from those of the model that gives the verdict.
        gap: how far its logits are from those of the model outside a graph, relative to a class's largest; None where
            the model is all that Keras says of it, or nothing can be compared.
    """

    def __init__(self, model: Any, forward: Callable[[tf.Tensor], tf.Tensor], *, name: str, image_shape: Shape) -> None:
        self.model = model
        self.name = name
        self.image_shape = image_shape
        self.classes = 0
        self.randomized = False
        self.seedable = False
        self.arrays = False
        self.warnings: list[tuple[str, str]] = []
        self.compiled: dict[Any, Any] = {}
        self.structure: list[Any] = []
        self.changing: set[tuple[int, str]] = set()
        self.slack = 0.0
        self.gap: float | None = None
        self.any_batch = False
        self.probed: set[tuple[int, ...]] = set()
        self._forward = forward
        self._probabilities = False
        self._passes: dict[Any, Any] = {}

    @property
    def repeats(self) -> bool:
        """Whether its passes repeat: it has no noise, or noise that follows a key, entry by entry."""
        return self.seedable or not self.randomized

    @tf.autograph.experimental.do_not_convert
    def __call__(self, x: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the logits, inside or outside a `tf.function` and under a gradient tape.

        Args:
            x: float32 (N, H, W, C) in [0, 1].
            key: int32 (2,), a stateless seed that the model's noise follows; None for fresh noise.

        Returns:
            float32 (N, classes).

        Example:
            >>> logits = as_classifier(model)(x, key=tf.constant([0, 1]))
        """
        if key is None:
            outputs = self._forward(x)
        else:
            with keyed_noise(key):
                outputs = self._forward(x)
        flat = tf.nest.flatten(outputs)
        if len(flat) != 1:
            raise InputError(
                f"Expected a classifier with one output. Received: {self.name!r} with {len(flat)} outputs. "
                "Wrap it in a function that returns the logits alone."
            )
        outputs = tf.cast(flat[0], tf.float32)
        if self._probabilities:
            outputs = tf.math.log(tf.maximum(outputs, _SMALLEST_PROBABILITY))
        return outputs

    def run(self, x: np.ndarray | tf.Tensor, key: tf.Tensor | None = None) -> np.ndarray:
        """Returns the logits as an array, from a pass that is compiled once per shape of images, or of a batch."""
        arguments = [tf.convert_to_tensor(x, tf.float32)]
        shape = arguments[0].shape[1:] if self.any_batch else arguments[0].shape
        if key is not None:
            arguments.append(tf.cast(key, tf.int32))
        signature = (*shape, len(arguments))
        if signature not in self._passes:
            self._passes[signature] = Traced(self, _of_any_size if self.any_batch else None)
        return self._passes[signature](*arguments).numpy()


def _of_any_size(arguments: tuple[tf.Tensor, ...]) -> tuple[Any, ...]:
    images, *key = arguments
    return tf.TensorSpec((None, *images.shape[1:]), images.dtype), *key


def as_classifier(
    model: Any, *, image_shape: Sequence[int | None] | None = None, classes: int | None = None
) -> Classifier:
    """Returns what attacks see of a model. The same model gives the same object again, with its compiled attacks.

    Another object comes back once a Keras model has changed by more than its weights: other layers, other settings of
    them. Where it holds Python code of somebody's own, which may read anything, a pass over random images is compared
    too: what doesn't show there isn't seen. Where passes can't be compared, and for callables, the object is a new one
    each time, with new probes and graphs, as nothing tells what they read. Hand over the classifier to have a
    callable's used again; a `tf.function` keeps them too, as it keeps what it has read itself.

    Args:
        model: a Keras model (functional, Sequential or subclassed; an `AdversarialModel` stands for its network), what
            `load_model` returns, a `Classifier`, or a callable that maps float32 (N, H, W, C) in [0, 1] to logits
            (N, K): made of TensorFlow operations, or any Python on NumPy arrays, which has no gradients. It is tried on
            random images, and the attacks ask it about batches of one size.
        image_shape: height, width and channels of the images to come, for a model that doesn't tell.
        classes: the number of classes, where the caller knows it; checked.

    Returns:
        The classifier. A model that ends in softmax is attacked through its logits.

    Raises:
        InputError: for a model that can't be attacked: several inputs or outputs, inputs that aren't images or are
            integers, sigmoid or single outputs, NaN, or another shape or number of classes than stated.

    Example:
        >>> as_classifier(build_model("convnet")).classes
        10
        >>> as_classifier(lambda x: forest.predict_proba(x.reshape(len(x), -1)), image_shape=(8, 8, 1)).classes
        10
    """
    if image_shape is not None and len(image_shape) != 3:
        raise InputError(f"Expected an image shape (height, width, channels). Received: {tuple(image_shape)}.")
    classifier: Classifier
    if isinstance(model, Classifier):
        classifier = model
    else:
        while _is_training_wrapper(model):
            model = model.network
        kept = getattr(model, _ATTRIBUTE, None)
        if kept is None or not _holds(kept, model):
            kept = _make(model, image_shape)
            # Of a model that is built by now: what building sets is no change by a call.
            before = _structure(model, set())
            probe(kept, image_shape)
            if _describes(kept, before):
                kept.changing = _changed(before, _structure(model, set()))
                kept.structure = _structure(model, kept.changing)
                # A bound method or an object with slots has nowhere to keep it, so it is made anew each time.
                with contextlib.suppress(AttributeError, TypeError):
                    # On the model, so that both are freed together; past Keras' __setattr__, which would track it.
                    object.__setattr__(model, _ATTRIBUTE, kept)
        classifier = kept
    if image_shape is not None:
        check_shape(classifier, tuple(image_shape))
    if classes is not None and classes != classifier.classes:
        raise InputError(
            f"Expected a model of {classes} classes. Received: {classifier.name!r} with {classifier.classes}. "
            "Choose the data that the model was trained on."
        )
    return classifier


def twin_of(classifier: Classifier, model: keras.Model, compiled: bool = False) -> Classifier:
    """Returns what attacks see of a model that is a classifier's own twin, so that no probes are needed.

    Args:
        classifier: whose twin it is.
        model: the twin.
        compiled: whether XLA compiles its passes, each for one size of batch.
    """
    twin = _of_keras(model, classifier.image_shape)
    if compiled:
        twin._forward = tf.function(twin._forward, jit_compile=True, autograph=False)
        twin.any_batch = False
    twin.classes, twin.randomized, twin.seedable = classifier.classes, classifier.randomized, classifier.seedable
    twin.probed |= classifier.probed
    twin._probabilities = classifier._probabilities
    return twin


def has_gradient(classifier: Classifier, images: np.ndarray | None = None) -> bool:
    """Tells whether gradients reach the images: False where they are missing, NaN or zero everywhere.

    Args:
        classifier: the model.
        images: float32 (N, H, W, C), of which a few are looked at; noise without them, on which a model that was
            trained on photographs may be flat.

    Example:
        >>> has_gradient(as_classifier(lambda x: tf.round(x)[:, 0, :, 0], image_shape=(8, 8, 3)))
        False
    """
    if classifier.arrays:
        return False
    if images is None:
        images = probe_images(next(iter(classifier.probed)))
    some = tf.constant(np.resize(images, (PROBES, *images.shape[1:])))
    # Of a nearly dead network the answer can hang on the noise: let it at least be the same each time.
    key = tf.constant([0, 1]) if classifier.seedable else None

    @tf.function(autograph=False)
    def gradient() -> tf.Tensor | None:
        with tf.GradientTape() as tape:
            tape.watch(some)
            # Unequal weights, as the sum over softmax-like outputs is constant.
            loss = tf.reduce_sum(classifier(some, key) * tf.range(1.0, classifier.classes + 1.0))
        return tape.gradient(loss, some)

    try:
        value = gradient.get_concrete_function()()
    except LookupError:  # TensorFlow's answer where an operation has no gradient registered.
        return False
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.UnimplementedError):
        return False  # The pass itself worked: it is the gradient of Python code inside the graph that doesn't.
    # Attacks take what is no number as 0.
    return value is not None and bool((np.isfinite(value) & (value.numpy() != 0)).any())


def check_images(classifier: Classifier, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as float32 and int64 arrays, checked against the model.

    Args:
        classifier: the model that they are for.
        x: floating (N, H, W, C) in [0, 1].
        y: integer (N,), from 0 to classes - 1.

    Returns:
        float32 (N, H, W, C) and int64 (N,).

    Raises:
        InputError: for another rank, dtype, length or shape, values outside [0, 1], NaN, labels out of range, or none.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 4 or len(x) == 0:
        raise InputError(
            f"Expected images of shape (N, height, width, channels), at least one. Received: shape {x.shape}. "
            "Add a missing axis as in x[None]; ask for a larger split where there are none."
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"Expected floating images in [0, 1]. Received: dtype {x.dtype}. Divide 8-bit images by 255 as float32."
        )
    x = x.astype(np.float32, copy=False)
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # So spelled, NaN fails too.
        raise InputError(
            f"Expected images in [0, 1] without NaN. Received: values from {low:.4g} to {high:.4g}. "
            "Scale them, and put the model's own normalisation into the model."
        )
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"Expected {len(x)} integer labels of shape ({len(x)},). Received: {y.dtype} of shape {y.shape}. "
            "Give one class index per image (argmax of one-hot labels)."
        )
    if y.min() < 0 or y.max() >= classifier.classes:
        raise InputError(
            f"Expected labels from 0 to {classifier.classes - 1}. Received: {y.min()} to {y.max()}. "
            "Choose the data that the model was trained on."
        )
    check_shape(classifier, x.shape[1:])
    return x, y.astype(np.int64, copy=False)


def _is_training_wrapper(model: Any) -> bool:
    # By module: another person's model may hold a `network` that is only a part of it.
    return hasattr(model, "network") and any(
        t.__module__ == "kerasrobust.training.adversarial" for t in type(model).__mro__
    )


def _describes(classifier: Classifier, structure: list[Any]) -> bool:
    """Tells whether it can be known later that a classifier still says what its model says; measures its `gap`."""
    model = classifier.model
    if not isinstance(model, keras.Model):
        # They are graphs already, which have read what they read: the last is what `load_model` returns.
        fixed = isinstance(model, (tf.types.experimental.Callable, keras.layers.TFSMLayer))
        return fixed or type(model).__module__.partition(".")[0] == "kerasrobust"
    if not _has_own_code(structure):
        return True
    classifier.gap = gap(classifier)
    return classifier.gap is not None


def _holds(kept: Classifier, model: Any) -> bool:
    """Tells whether a classifier that was made before still says what the model says."""
    # Of another model where functools.wraps has copied it, of an older one where a layer or a setting is new.
    if kept.model is not model or kept.structure != _structure(model, kept.changing):
        return False
    if kept.gap is None:
        return True
    now = gap(kept)
    # Twice, as weights may have changed since, and rounding with them.
    return now is not None and now <= 2 * kept.gap + _ROUNDING


def _has_own_code(structure: list[Any]) -> bool:
    """Tells whether a Keras model holds Python code of somebody's own, which may read more than what layers say."""
    parts: list[Any] = []
    for layer, _, settings in structure:
        parts += [layer, *settings.values()]
        # Of a functional model, whose operations needn't be layers, and may be given a function as `map` is.
        for operation in getattr(layer, "operations", []):
            if not isinstance(operation, keras.Layer):
                given = [(node.arguments.args, node.arguments.kwargs) for node in operation._inbound_nodes]
                parts += [operation, *filter(callable, [*vars(operation).values(), *keras.tree.flatten(given)])]
    kinds = [part if inspect.isroutine(part) else type(part) for part in parts]
    return any(str(kind.__module__).partition(".")[0] not in _KNOWN for kind in kinds)


def _structure(model: Any, changing: set[tuple[int, str]]) -> list[Any]:
    """Returns what the graphs of a Keras model hold besides its weights: its layers with their settings, as a rate.

    Args:
        model: any model; nothing is known of one that isn't Keras'.
        changing: attributes that calls change, by layer and name, as a counter: they are no settings.
    """
    found = []
    for layer in model._flatten_layers() if isinstance(model, keras.Model) else []:
        read = {k: v for k, v in vars(layer).items() if k[0] != "_" and k not in _FITTED}
        settings = {k: _setting(v) for k, v in read.items() if (id(layer), k) not in changing}
        found.append((layer, layer.dtype_policy.name, {k: v for k, v in settings.items() if v is not None}))
    return found


def _setting(value: Any) -> Any:
    """Returns an attribute that says what a layer does in a form that can be compared; None for others."""
    if isinstance(value, (list, tuple)):
        parts = tuple(map(_setting, value))
        return None if any(part is None for part in parts) else parts
    if isinstance(value, dict):
        return {name: part for name, one in value.items() if (part := _setting(one)) is not None}
    weight = isinstance(value, (tf.Variable, keras.Variable))  # Graphs read those anew each time.
    if tf.is_tensor(value) and not weight and hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), value.shape, hash(value.tobytes())
    return value if isinstance(value, (bool, int, float, str)) or callable(value) else None


def _changed(before: list[Any], after: list[Any]) -> set[tuple[int, str]]:
    """Returns the attributes that differ in two structures, by layer and name."""
    known = {id(layer): settings for layer, _, settings in before}
    return {
        (id(layer), name)
        for layer, _, settings in after
        if id(layer) in known
        for name in settings.keys() | known[id(layer)].keys()
        if settings.get(name) != known[id(layer)].get(name)
    }


def _make(model: Any, image_shape: Sequence[int | None] | None) -> Classifier:
    if isinstance(model, keras.Model):
        return _of_keras(model, image_shape)
    if not callable(model):
        raise InputError(
            f"Expected a Keras model or a callable that gives logits. Received: {type(model).__name__}. "
            "Load a file with kerasrobust.load_model first."
        )
    name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    shape = getattr(model, "image_shape", None) or (None, None, None)
    return Classifier(model, model, name=str(name), image_shape=shape)


def _of_keras(model: keras.Model, image_shape: Sequence[int | None] | None) -> Classifier:
    if not model.built:
        if image_shape is None or None in image_shape:
            raise InputError(
                f"Expected a built model. Received: {model.name!r} without weights. Call it on a batch of images first."
            )
        try:
            model(tf.zeros((1, *image_shape)), training=False)
        except _FAILURES as error:
            raise not_callable(model.name, tuple(image_shape), error) from error
    if not is_graph(model):
        shape = (model.get_build_config() or {}).get("input_shape")
        spatial: Shape = (None, None, None)
        if isinstance(shape, (tuple, list)) and len(shape) == 4 and not isinstance(shape[0], (tuple, list)):
            spatial = tuple(shape[1:])
        return Classifier(model, lambda x: model(x, training=False), name=model.name, image_shape=spatial)
    inputs, outputs = model.inputs, model.outputs
    for what, tensors in (("input", inputs), ("output", outputs)):
        if len(tensors) != 1:
            raise InputError(
                f"Expected a classifier with one {what}. Received: {model.name!r} with {len(tensors)} {what}s. "
                "Make a keras.Model of the images and the logits alone."
            )
    if len(inputs[0].shape) != 4:
        raise InputError(
            f"Expected a model of images (N, height, width, channels). Received: {model.name!r} with inputs of shape "
            f"{inputs[0].shape}. Attacks here are for images."
        )
    if not keras.backend.is_float_dtype(inputs[0].dtype):
        raise InputError(
            f"Expected a model of floating images. Received: {model.name!r} with {inputs[0].dtype} inputs, which have "
            "no gradient. Rebuild it on float32 images in [0, 1]."
        )
    classifier = Classifier(model, _logits(model), name=model.name, image_shape=tuple(inputs[0].shape[1:]))
    classifier.any_batch = inputs[0].shape[0] is None
    return classifier


def _logits(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the pass up to the logits, on the model's own weights: before a last softmax where Keras shows one."""
    output = model.outputs[0]
    last, node_index, _ = output._keras_history
    activation = _activation(last)
    if activation == "sigmoid":
        raise InputError(
            f"Expected a classifier with logits or softmax outputs. Received: {model.name!r}, which ends in sigmoid. "
            "Attacks here are for one class per image."
        )
    nested = is_graph(last) and len(last.outputs) == 1 and len(last.inputs) == 1
    quantized = getattr(last, "quantization_mode", None) is not None
    if not nested and (activation != "softmax" or quantized):
        return _flat(model, output)
    body = _flat(model, last._inbound_nodes[node_index].input_tensors[0])
    if nested:
        inner = _logits(last)
        return lambda x: inner(body(x))
    if type(last) is not keras.layers.Dense:
        return body

    def dense(x: tf.Tensor) -> tf.Tensor:
        dtype = last.compute_dtype
        outputs = tf.matmul(tf.cast(body(x), dtype), tf.cast(last.kernel, dtype))
        return outputs if last.bias is None else outputs + tf.cast(last.bias, dtype)

    return dense


def _flat(model: keras.Model, output: keras.KerasTensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the pass from the model's one input to a tensor in it, whatever dict or list they are wrapped in."""
    if output is model.inputs[0]:
        return lambda x: x
    part = keras.Model(model.inputs[0], output)
    return lambda x: part(x, training=False)


def _activation(last: Any) -> str | None:
    """Returns "softmax" or "sigmoid" where an operation ends in one."""
    if type(last) in (keras.layers.Dense, keras.layers.Activation):  # A subclass may compute something else.
        return {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}.get(last.activation)
    # The layer, or the operation that keras.ops.softmax leaves in a functional model.
    kind = type(last).__name__.lower()
    return kind if kind in ("softmax", "sigmoid") else None
