"""SavedModels of any origin: which of their functions maps images to logits, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.files.foreign import ForeignNetwork, quiet, random_images, reading
from kerasrobust.ops.intake import in_pieces, rounded

_SIGNATURES = ("serving_default", "serve")  # TensorFlow's own name, then that of Keras 3.
_LEVELS = 255
_ADVICE = "Export a signature from float32 images (None, height, width, channels) to logits."


@dataclass(frozen=True)
class _Endpoint:
    """A function of a SavedModel.

    Attributes:
        function: the concrete function.
        inputs: the specs of its inputs by their names, in its order; those that it has a default for are left out.
        named: whether its inputs are given by name.
    """

    function: Any
    inputs: dict[str, tf.TensorSpec]
    named: bool

    @property
    def outputs(self) -> dict[str, tf.TensorSpec]:
        outputs = self.function.structured_outputs
        if isinstance(outputs, dict) and not any(map(tf.nest.is_nested, outputs.values())):
            return dict(outputs)
        return {f"output_{index}": spec for index, spec in enumerate(tf.nest.flatten(outputs))}

    def run(self, feeds: dict[str, tf.Tensor], output: str) -> tf.Tensor:
        """Returns one of its outputs."""
        found = self.function(**feeds) if self.named else self.function(*feeds.values())
        # In the order of `outputs`, which is that of the sorted names of a dict.
        names = sorted(self.outputs) if isinstance(self.function.structured_outputs, dict) else list(self.outputs)
        return dict(zip(names, tf.nest.flatten(found), strict=True))[output]


class SavedModelNetwork(ForeignNetwork):
    """A function of a SavedModel as a callable from images to its outputs, for `as_classifier`.

    A batch of fixed size is filled up or split. A single number beside the images, as a `keep_prob`, gets the value
    that it has in prediction; images in integers are 255 times ours, rounded, with the gradient passed through. `notes`
    says so.

    Args:
        path: the folder with `saved_model.pb`.
        output: the name of the output with the logits, if there are several.

    Attributes:
        variables: those that the function uses.

    Raises:
        InputError: for a corrupt folder, or one without a function that maps a batch of images to logits.

    Example:
        >>> logits = SavedModelNetwork("exported")(x)
    """

    def __init__(self, path: str | Path, *, output: str | None = None) -> None:
        super().__init__(path)
        with quiet(), reading(self.path):
            # Kept: the functions hold the variables only weakly.
            self._loaded = tf.saved_model.load(str(path))
            endpoints = list(_endpoints(self._loaded))
        if not endpoints:
            raise InputError(
                f"Expected a SavedModel with a signature, or with a traced __call__. Received: {path}, which has none. "
                "Save it with tf.saved_model.save(module, folder, signatures=...)."
            )
        problems = []
        for self._endpoint in endpoints:
            try:
                self._images = self._image_input()
                self._others = self._other_inputs()
                self._output = self._logits_output(output)
                break
            except InputError as error:
                problems.append(error)
        else:
            raise problems[0]
        self.variables: tuple[tf.Variable, ...] = tuple(self._endpoint.function.variables)
        spec = self._endpoint.inputs[self._images]
        if spec.shape.rank is not None:
            self.image_shape = tuple(spec.shape[1:])
        self._batch = None if spec.shape.rank is None else spec.shape[0]
        self._dtype = spec.dtype
        self._levels = None if spec.dtype.is_floating else self._on_levels()
        self.scales = self._levels is not None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs (N, classes) for float32 images of `image_shape` in [0, 1], (N, ...)."""
        x = tf.convert_to_tensor(x)
        if self._batch is None:
            return self._run(x)
        outputs = in_pieces(self._run, x, self._batch)
        return tf.ensure_shape(outputs, (x.shape[0], self._endpoint.outputs[self._output].shape[-1]))

    def _run(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs for a batch of the size that the function takes."""
        if self._levels is None:
            return self._call(tf.cast(x, self._dtype))
        return self._levels(rounded(_LEVELS * tf.cast(x, tf.float32)))

    def _call(self, images: tf.Tensor) -> tf.Tensor:
        feeds = {name: images if name == self._images else self._others[name] for name in self._endpoint.inputs}
        return self._endpoint.run(feeds, self._output)

    def _image_input(self) -> str:
        """Returns the name of the input that takes the images."""
        inputs = self._endpoint.inputs
        fitting = [
            name for name, spec in inputs.items()
            if (spec.dtype.is_floating or (spec.dtype.is_integer and spec.dtype != tf.int8))
            and spec.shape.rank in (4, 3, 2, None)
        ]  # fmt: skip
        # One of unknown shape may be the images, or a number beside them; one of fewer axes, grey or flat images.
        most = max((inputs[name].shape.rank or 0 for name in fitting), default=0)
        chosen = [name for name in fitting if (inputs[name].shape.rank or 0) == most]
        if len(chosen) != 1:
            what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(inputs.items()))
            raise InputError(
                f"Expected a SavedModel with one input that is a batch of images. Received: {self.path} with ({what}). "
                f"{_ADVICE}"
            )
        return chosen[0]

    def _other_inputs(self) -> dict[str, tf.Tensor]:
        """Returns the values of the inputs beside the images; raises InputError for more than single numbers."""
        values, notes = {}, []
        for name, spec in self._endpoint.inputs.items():
            if name == self._images:
                continue
            if spec.shape.rank not in (0, None) or not (spec.dtype.is_floating or spec.dtype.is_bool):
                raise InputError(
                    f"Expected a SavedModel with images as its one input, or single numbers beside them. Received: "
                    f"{self.path} with {name}: {spec.dtype.name} {spec.shape}. {_ADVICE}"
                )
            # What is kept is all of it, what is dropped is nothing, and it isn't trained but predicts.
            drops = any(word in name.lower() for word in ("rate", "drop")) and "keep" not in name.lower()
            predicts = any(word in name.lower() for word in ("infer", "predict", "eval", "determin"))
            value: float | bool = predicts if spec.dtype.is_bool else 0.0 if drops else 1.0
            values[name] = tf.constant(value, spec.dtype)
            notes.append(("given-input", f"{self.name!r} takes {name!r} beside the images, and is given {value}."))
        self.notes = notes
        return values

    def _logits_output(self, wanted: str | None) -> str:
        """Returns the name of the output with the logits: the only one of its shape, the one called so, or `wanted`."""
        outputs = self._endpoint.outputs
        fitting = [name for name, spec in outputs.items() if spec.dtype.is_floating and spec.shape.rank in (2, None)]
        named = [name for name in fitting if "logit" in name.lower()]
        chosen = [wanted] if wanted in fitting else named if len(named) == 1 else fitting
        if len(chosen) != 1 or (wanted is not None and wanted not in fitting):
            what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(outputs.items()))
            kind = "one output (N, classes), or one called 'logits'" if wanted is None else f"an output {wanted!r}"
            raise InputError(
                f"Expected a SavedModel with {kind}. Received: {self.path} with ({what}). Name the one with the logits "
                "by --output NAME (load_model(..., output=NAME))."
            )
        return chosen[0]

    def _on_levels(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function on whole floating levels (N, H, W, C) from 0 to 255, with gradients where possible."""
        found = _with_gradient(self._endpoint, self._images, self._others, self._output)
        images = random_images(self.image_shape)
        levels = tf.round(_LEVELS * np.resize(images, (self._batch or len(images), *images.shape[1:])))
        if found and not np.allclose(found(levels), self._call(tf.cast(levels, self._dtype)), rtol=1e-3, atol=1e-5):
            found = None
        how = "gradients pass the rounding as if it weren't there" if found else "it gives no gradients"
        message = f"{self.name!r} takes {self._dtype.name}: images are multiplied by {_LEVELS} and rounded; {how}."
        self.notes.append(("integer-input", message))
        return found or (lambda levels: self._call(tf.cast(levels, self._dtype)))


def _endpoints(loaded: Any) -> Iterator[_Endpoint]:
    """Yields what a SavedModel can be called by: its signatures, the usual ones first, or its traced `__call__`."""
    signatures = dict(loaded.signatures)
    # The usual one may take something else than images, such as encoded files.
    order = [*(name for name in _SIGNATURES if name in signatures), *sorted(set(signatures) - set(_SIGNATURES))]
    for name in order:
        function = signatures[name]
        parameters = function.function_type.parameters
        specs = function.structured_input_signature[1]
        needed = {key: spec for key, spec in specs.items() if key not in parameters or not parameters[key].optional}
        yield _Endpoint(function, needed, named=True)
    if not signatures:
        functions = list(getattr(vars(loaded).get("__call__"), "concrete_functions", []))
        # Traced for training as well as for prediction, as hub modules are.
        for function in sorted(functions, key=lambda function: True in _constants(function)):
            specs = [part for part in tf.nest.flatten(function.structured_input_signature) if _is_spec(part)]
            yield _Endpoint(function, {spec.name or f"input_{i}": spec for i, spec in enumerate(specs)}, named=False)


def _is_spec(part: Any) -> bool:
    return isinstance(part, tf.TensorSpec)


def _constants(function: Any) -> list[Any]:
    """Returns the arguments that a function was traced with and doesn't take any more."""
    return [part for part in tf.nest.flatten(function.structured_input_signature) if isinstance(part, bool)]


def _with_gradient(
    endpoint: _Endpoint, images: str, others: dict[str, tf.Tensor], output: str
) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Returns a function on integers as one on floating levels, which enter where it casts the integers; None if it
    does something else with them, so that it has no gradient.
    """
    # There is no public function for it.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with quiet():
        frozen = convert_variables_to_constants_v2(
            endpoint.function, lower_control_flow=False, aggressive_inlining=True
        )
    graph = frozen.graph.as_graph_def()
    specs = [part.name for part in tf.nest.flatten(endpoint.function.structured_input_signature) if _is_spec(part)]
    places = {name: tensor.name for name, tensor in zip(specs, frozen.inputs, strict=True)}
    if images not in places:
        return None
    casts = _casts(graph, places[images].partition(":")[0])
    if not casts:
        return None
    index = (sorted(endpoint.outputs) if endpoint.named else list(endpoint.outputs)).index(output)
    dtype = endpoint.inputs[images].dtype

    @tf.function(autograph=False)
    def run(levels: tf.Tensor) -> tf.Tensor:
        feeds = {places[name]: value for name, value in others.items()} | {places[images]: tf.cast(levels, dtype)}
        feeds |= {f"{name}:0": tf.cast(levels, kind) for name, kind in casts.items()}
        (found,) = tf.graph_util.import_graph_def(graph, feeds, [frozen.outputs[index].name], name="")
        return found

    return run


def _casts(graph: Any, entry: str) -> dict[str, tf.DType]:
    """Returns the nodes of a graph that make floating numbers of the integers at a node, and what kind each makes."""
    same, before = {entry}, 0
    while len(same) > before:  # Other integers hold the levels as well.
        before = len(same)
        same |= {node.name for node in graph.node if _source(node) in same and _kind(node).is_integer}
    return {node.name: _kind(node) for node in graph.node if _source(node) in same and _kind(node).is_floating}


def _source(node: Any) -> str:
    """Returns the node whose values a node hands on, perhaps in another kind of numbers; empty for any other."""
    return node.input[0].partition(":")[0] if node.op in ("Identity", "Cast") and _kind(node) != tf.int8 else ""


def _kind(node: Any) -> tf.DType:
    return tf.as_dtype(node.attr["DstT" if node.op == "Cast" else "T"].type or tf.string)
