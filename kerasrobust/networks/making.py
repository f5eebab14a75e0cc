"""Classifiers of models: `as_classifier`, and what is kept with a model from call to call."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import Conventions, applied, notes_of, range_text
from kerasrobust.networks.adapters.inputs import intake_of, layout_of, network_of
from kerasrobust.networks.adapters.predictions import Prediction
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.logits import logits_of, noise_left_out, shows_logits
from kerasrobust.networks.probe import Forward, is_compiled, probe

_ATTRIBUTE = "_kerasrobust_classifier"


def as_classifier(
    model: Any = None,
    *,
    predict: Callable[[np.ndarray], Any] | None = None,
    image_shape: Sequence[int | None] | None = None,
    classes: int | None = None,
    input_range: str | Sequence[float] = "auto",
    colors: str = "auto",
    channels: str = "auto",
    outputs: str = "auto",
    output: str | None = None,
    noise: str = "off",
    resize: bool = False,
    dtype: str | None = None,
) -> Classifier:
    """Returns what attacks see of a model, probed anew. A `Classifier` is returned as it is if nothing is said of it.

    Attacks see images in [0, 1], channels last, and logits; whatever the model takes instead, epsilon means those
    images. "auto" is read off the model's structure and its answers to random images; range and order of colours are
    found out when the first images with labels come (`adapters.ranges`), where one of them fits clearly best.

    **When graphs are used again**, as with `compile` of Keras: attacks and `evaluate`, given a Keras model, a
    `tf.function` or what `load_model` returns, keep its classifier and their graphs, as long as the model lives.
    Weights may change at any time. After changing layers, their settings (also by `adapt`) or values that the model's
    Python code reads, call `as_classifier(model)`: the new classifier replaces the kept one. Verdicts never depend on
    it, as the model itself predicts again. Any other callable is probed and traced in each call; hand over its
    `Classifier` to avoid that.

    Args:
        model: a Keras model (functional, Sequential or subclassed; an `AdversarialModel` stands for its network), what
            `load_model` returns, a `Classifier`, or a callable that maps images to outputs (N, K): made of TensorFlow
            operations, or any Python on NumPy arrays, which has no gradients. It is tried on random images, and the
            attacks call it with batches of one size.
        predict: instead of a model, a function of another library's object, such as `forest.predict_proba`: from an
            array in the object's own range, layout and `dtype` to scores or probabilities (N, classes), or numbers of
            classes (N,), of which attacks see the decision alone; as arrays or tensors of PyTorch. It has no gradients.
            Rows of numbers instead of images are found out.
        image_shape: height, width and channels of the images to come, for a model that doesn't state them.
        classes: the number of classes, if the caller knows it; checked.
        input_range: the pixels that the model takes: "auto", "0,1", "0,255", "-1,1", "imagenet", "caffe", two numbers
            (LOW, HIGH), or "MEAN/STD" of images in [0, 1].
        colors: "rgb", "bgr" or "auto".
        channels: "last", "first" or "auto".
        outputs: "logits", "softmax", "sigmoid" or "auto". One output stands for two classes, with the logits (0, z).
        output: the name of the output that is meant, for a model with several.
        noise: "on" attacks layers that were called with `training=True` with their noise, as `model(x)` has it; "off"
            without, as `predict` has it.
        resize: whether images of another size are resized to the model's, as a part of the model.
        dtype: that of the pixels that a function takes, as "uint8" or "float64"; for integers they are rounded. A
            function of TensorFlow operations gets integers as floating numbers; as `predict` it gets them as they are.

    Returns:
        The classifier. A model that ends in softmax or sigmoid is attacked through its logits.

    Raises:
        InputError: for a model that can't be attacked: several inputs, several outputs without `output`, inputs that
            aren't images, NaN, or another shape or number of classes than stated.

    Example:
        >>> as_classifier(build_model("convnet")).classes
        10
        >>> as_classifier(model, input_range=(0, 255), outputs="sigmoid", channels="first")
        >>> as_classifier(predict=forest.predict_proba, image_shape=(8, 8, 1), input_range=(0, 16)).classes
        10
    """
    if (model is None) == (predict is None):
        raise InputError(
            f"Expected a model or predict=. Received: {'neither' if model is None else 'both'}. Give one of them."
        )
    if predict is not None:
        if not callable(predict):
            raise _unknown_kind(predict, image_shape)
        model = Prediction(predict, classes)
    said = Conventions(
        input_range=range_text(input_range), colors=colors, channels=channels, outputs=outputs, output=output,
        noise=noise, resize=resize, dtype=dtype,
    )  # fmt: skip
    return classifier_with(model, said, image_shape=image_shape, classes=classes)


def classifier_with(
    model: Any,
    said: Conventions,
    *,
    image_shape: Sequence[int | None] | None = None,
    classes: int | None = None,
) -> Classifier:
    """Returns a new classifier of a model of these conventions, and keeps it on the model; see `as_classifier`."""
    _check_stated(image_shape)
    model = _network_of(model)
    if isinstance(model, Classifier):
        if said == Conventions():
            return _fitting(model, image_shape, classes)
        model = model.model
    classifier = _make(model, image_shape, said)
    if isinstance(model, keras.Model) or is_compiled(model):
        # A bound method or an object with slots has nowhere to keep it, so it is made anew each time.
        with contextlib.suppress(AttributeError, TypeError):
            # On the model, so that both are freed together; past Keras' __setattr__, which would track it.
            object.__setattr__(model, _ATTRIBUTE, classifier)
    return _fitting(classifier, image_shape, classes)


def classifier_of(
    model: Any, *, image_shape: Sequence[int | None] | None = None, classes: int | None = None
) -> Classifier:
    """Returns the classifier that is kept for a model, or makes one; see `as_classifier`.

    Example:
        >>> classifier_of(model) is classifier_of(model)
        True
    """
    _check_stated(image_shape)
    model = _network_of(model)
    kept = getattr(model, _ATTRIBUTE, None)
    # Of another model if functools.wraps has copied it.
    if kept is None or kept.model is not model:
        return as_classifier(model, image_shape=image_shape, classes=classes)
    return _fitting(kept, image_shape, classes)


def _network_of(model: Any) -> Any:
    # By module: another person's model may hold a `network` that is only a part of it.
    while hasattr(model, "network") and any(
        t.__module__ == "kerasrobust.training.adversarial" for t in type(model).__mro__
    ):
        model = model.network
    return model


def _check_stated(image_shape: Sequence[int | None] | None) -> None:
    if image_shape is not None and len(image_shape) != 3:
        raise InputError(f"Expected an image shape (height, width, channels). Received: {tuple(image_shape)}.")


def _fitting(classifier: Classifier, image_shape: Sequence[int | None] | None, classes: int | None) -> Classifier:
    """Returns a classifier that fits what its caller knows of the images; raises InputError for another one."""
    if image_shape is not None:
        classifier.check_shape(tuple(image_shape))
    if classes is not None and classes != classifier.classes:
        raise InputError(
            f"Expected a model of {classes} classes. Received: {classifier.name!r} with {classifier.classes}. "
            "Choose the data that the model was trained on."
        )
    return classifier


def _make(model: Any, image_shape: Sequence[int | None] | None, said: Conventions) -> Classifier:
    if not callable(model) or _is_of(model, "torch"):
        raise _unknown_kind(model, image_shape)
    inner: Forward = model
    network, outputs = model, said.outputs
    if isinstance(model, keras.Model):
        network = network_of(model, said, image_shape)
        shape, adapter = intake_of(model, network, said, image_shape)
        name, inner = model.name, logits_of(network, said.noise)
        if shows_logits(network):
            outputs = "logits"
    else:
        name = str(getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__)
        own = getattr(model, "image_shape", None) or (None, None, None)
        if isinstance(model, Prediction):
            own = _rows_of(model, image_shape, said) or own
        # What a file's own reader does isn't done twice.
        if getattr(model, "transposes", False):
            said = dataclasses.replace(said, channels="last")
        if getattr(model, "scales", False) and said.input_range == "0,255":
            said = dataclasses.replace(said, input_range="0,1")
        shape, adapter = layout_of(tuple(own), name, said, image_shape, said.channels == "first")
        if said.dtype is not None:
            adapter = dataclasses.replace(adapter, dtype=said.dtype)
    adapter = applied(adapter, said)
    known = tuple(own or stated for own, stated in zip(shape, image_shape or (None,) * 3, strict=True))
    probed = probe(network, inner, known, name, adapter, outputs)
    any_batch = is_graph(network) and model.inputs[0].shape[0] is None and not probed.untraced
    classifier = Classifier(
        model, inner, probed, name=name, image_shape=shape, any_batch=any_batch, network=network, adapter=adapter,
        conventions=said,
    )  # fmt: skip
    classifier.notes = notes_of(name, adapter, said, probed)
    if isinstance(model, Prediction) and model.labels:
        message = (
            f"{name!r} gives numbers of classes, so only its decisions are seen: attack it by hopskipjump. The figures "
            "of attacks that follow scores, as square, are too high. Give a function that gives scores, if it has one."
        )
        classifier.warnings.append(("decisions-only", message))
    left_out = noise_left_out(network) if is_graph(network) and said.noise == "off" else []
    if left_out:
        message = (
            f"{', '.join(left_out)} of {name!r} was called with training=True. It is attacked without that, as predict "
            "has it; model(x) has it switched on. Give --noise on, or noise='on' to as_classifier, to attack that."
        )
        classifier.warnings.append(("training-noise", message))
    return classifier


def _rows_of(model: Prediction, stated: Sequence[int | None] | None, said: Conventions) -> tuple[int] | None:
    """Returns the length of the rows of numbers that a function takes instead of images, or None."""
    if model.width is not None:
        return (model.width,)
    if stated is None or None in stated:
        return None
    height, width, channels = (int(side or 0) for side in stated)
    image = (channels, height, width) if said.channels == "first" else (height, width, channels)
    row = (math.prod(image),)
    dtype = said.dtype or "float32"
    return row if not model.takes(image, dtype) and model.takes(row, dtype) else None


def _is_of(model: Any, library: str) -> bool:
    return any(base.__module__.partition(".")[0] == library for base in type(model).__mro__)


def _unknown_kind(model: Any, stated: Sequence[int | None] | None) -> InputError:
    """Returns the error for an object that isn't a model for Keras, with the call that attacks it."""
    shape = "(HEIGHT, WIDTH, CHANNELS)" if stated is None else str(tuple(stated))
    common = f"image_shape={shape}, input_range=(LOW, HIGH))"
    methods = [name for name in ("predict_proba", "decision_function", "predict") if hasattr(model, name)]
    if _is_of(model, "torch"):
        function = "lambda x: model.eval()(torch.from_numpy(x))"
        advice = f"Give kerasrobust.as_classifier(predict={function}, channels='first', {common}."
    elif methods:
        advice = f"Give kerasrobust.as_classifier(predict=model.{methods[0]}, {common}."
    else:
        advice = "Load a file with kerasrobust.load_model first."
    return InputError(
        f"Expected a Keras model or a callable that gives logits. Received: {type(model).__name__}. {advice}"
    )
