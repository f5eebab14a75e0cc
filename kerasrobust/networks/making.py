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
from kerasrobust.networks.adapters.inputs import intake_of, layout_of, network_of, of_floats
from kerasrobust.networks.adapters.labels import Labels, check_count
from kerasrobust.networks.adapters.predictions import Prediction, is_of, unknown_kind
from kerasrobust.networks.adapters.preprocessors import front_of, front_words, range_of, with_preprocessor
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.logits import ending, logits_of, shows_logits, through_integers
from kerasrobust.networks.probe import Forward, Probed, is_compiled, probe
from kerasrobust.networks.remarks import about_noise, differ, integer_layers

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
    Weights may change at any time; what images with labels showed is then asked anew. After changing layers, their
    settings (also by `adapt`) or values that the model's Python code reads, call `as_classifier(model)`: the new
    classifier replaces the kept one, with all that is said of the model here. Verdicts never depend on graphs, as the
    model itself predicts again. Any other callable is probed and traced in each call; hand over its `Classifier` to
    avoid that.

    Args:
        model: a Keras model (functional, Sequential or subclassed; an `AdversarialModel` stands for its network), what
            `load_model` returns, a `Classifier`, or a callable that maps images to outputs (N, K): made of TensorFlow
            operations, or any Python on NumPy arrays, which has no gradients. It is tried on random images, and the
            attacks call it with batches of one size. A Keras model that preprocesses in its own `predict`, as those of
            KerasHub do, is attacked with its `preprocessor.image_converter` in front (`adapters.preprocessors`).
        predict: instead of a model, a function of another library's object, such as `forest.predict_proba`: from an
            array in the object's own range, layout and `dtype` to scores or probabilities (N, classes), or numbers of
            classes (N,), of which attacks see the decision alone; as arrays or tensors of PyTorch. It has no gradients.
            Rows of numbers instead of images are found out.
        image_shape: height, width and channels of the images to come, for a model that doesn't state them.
        classes: the number of classes, or of labels, if the caller knows it; checked.
        input_range: the pixels that the model takes: "auto", "0,1", "0,255", "-1,1", "imagenet", "caffe", two numbers
            (LOW, HIGH), or "MEAN/STD" of images in [0, 1].
        colors: "rgb", "bgr" or "auto".
        channels: "last", "first" or "auto".
        outputs: "logits", "softmax", "sigmoid" or "auto". One output stands for two classes, with the logits (0, z);
            "regression" where it was trained towards the numbers 0 and 1, so that its threshold is 0.5, which images
            with labels show. "multi-label" where each output is a label by itself (a logit or a sigmoid); labels with
            several ones an image say so of sigmoids. The classes are the patterns of all labels then.
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
            raise unknown_kind(predict, image_shape)
        model = Prediction(predict, classes)
    said = Conventions(
        input_range=range_text(input_range), colors=colors, channels=channels, outputs=outputs, output=output,
        noise=noise, resize=resize, dtype=dtype,
    )  # fmt: skip
    try:
        return classifier_with(model, said, image_shape=image_shape, classes=classes)
    except InputError as error:
        if is_of(predict, "torch") and error.__cause__ is not None:  # It has failed, as modules do on arrays.
            raise unknown_kind(predict, image_shape) from error
        raise


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
    kept = _kept(model)
    if kept is None:
        return as_classifier(model, image_shape=image_shape, classes=classes)
    return _fitting(kept, image_shape, classes)


def _kept(model: Any) -> Classifier | None:
    kept = getattr(model, _ATTRIBUTE, None)
    # Of another model if functools.wraps has copied it.
    return kept if kept is not None and kept.model is model else None


def conventions_kept(network: keras.Model) -> Conventions:
    """Returns what was said of a Keras model, or found out by images.

    Example:
        >>> conventions_kept(as_classifier(model, input_range=(0, 255)).model).input_range
        '0,255'
    """
    kept = _kept(network)
    return Conventions() if kept is None else kept.conventions


def is_of_labels(model: Any) -> bool:
    """Returns whether it was said of a model that each of its outputs is a label by itself."""
    model = _network_of(model)
    classifier = model if isinstance(model, Classifier) else _kept(model)
    return classifier is not None and classifier.labels is not None


def of_labels(classifier: Classifier, columns: int) -> Classifier:
    """Returns the classifier of all patterns of a network's labels, one output each.

    Args:
        classifier: the network, whose outputs are sigmoids unless it was said that they are labels.
        columns: of the labels at hand.

    Raises:
        InputError: for a network of classes, another number of outputs, and more labels than have patterns enough.

    Example:
        >>> of_labels(as_classifier(model), 3).classes
        8
    """
    probed = classifier.probed
    sigmoids = probed.outputs == "sigmoid" or ending(classifier.network) == "sigmoid"
    if classifier.labels is None and not sigmoids:
        raise InputError(
            f"Expected one label an image for {classifier.name!r}, whose outputs are no sigmoids. Received: several "
            f"labels an image, or none (multi-hot, {columns} columns). Say so if each output is a label by itself: "
            "--outputs multi-label, or outputs= of as_classifier; or give one column as y[:, k]."
        )
    if columns != probed.width:
        raise InputError(
            f"Expected labels of {probed.width} columns, one for each output of {classifier.name!r}. Received: several "
            f"labels an image (multi-hot), {columns} columns. Choose the data that the model was trained on."
        )
    if classifier.labels is not None:
        return classifier
    if classifier.of_labels is None:
        found = _read_as(classifier, _with_labels(classifier.name, probed))
        found.warnings = list(classifier.warnings)
        found.notes = [*classifier.notes, f"{classifier.name!r} gives {columns} labels, each by itself."]
        classifier.of_labels = found
    return classifier.of_labels


def of_one_label(classifier: Classifier, chosen: Any) -> Classifier:
    """Returns the classifier of two classes, no and yes, that one label of a network alone is.

    Args:
        classifier: of several labels.
        chosen: an int32 variable with the number of the label: all graphs follow it.
    """
    labels = Labels(classifier.probed.width, chosen)
    return _read_as(classifier, dataclasses.replace(classifier.probed, labels=labels, classes=2, warnings=()))


def _read_as(classifier: Classifier, probed: Probed) -> Classifier:
    """Returns the same network with its outputs read otherwise; nothing is run for that."""
    found = Classifier(
        classifier.model, classifier.inner, probed, name=classifier.name, image_shape=classifier.image_shape,
        any_batch=classifier.any_batch, network=classifier.network, adapter=classifier.adapter,
        conventions=classifier.conventions,
    )  # fmt: skip
    found.shapes = classifier.shapes
    return found


def _with_labels(name: str, probed: Probed) -> Probed:
    check_count(name, probed.width)
    labels = Labels(probed.width)
    return dataclasses.replace(probed, labels=labels, classes=labels.classes)


def _network_of(model: Any) -> Any:
    wrapped = model
    # By module: another person's model may hold a `network` that is only a part of it.
    while hasattr(model, "network") and any(
        t.__module__ == "kerasrobust.training.adversarial" for t in type(model).__mro__
    ):
        model = model.network
    # Adversarial training calls its network, and so without a preprocessor.
    return with_preprocessor(model) if model is wrapped else model


def _check_stated(image_shape: Sequence[int | None] | None) -> None:
    if image_shape is not None and len(image_shape) != 3:
        raise InputError(f"Expected an image shape (height, width, channels). Received: {tuple(image_shape)}.")


def _fitting(classifier: Classifier, image_shape: Sequence[int | None] | None, classes: int | None) -> Classifier:
    """Returns a classifier that fits what its caller knows of the images; raises InputError for another one."""
    if image_shape is not None:
        classifier.check_shape(tuple(image_shape))
    known = classifier.classes if classifier.labels is None else classifier.labels.count
    if classes is not None and classes != known:
        raise InputError(
            f"Expected a model of {classes} classes. Received: {classifier.name!r} with {known}. "
            "Choose the data that the model was trained on."
        )
    return classifier


def _make(model: Any, image_shape: Sequence[int | None] | None, said: Conventions) -> Classifier:
    if not callable(model) or is_of(model, "torch"):
        raise unknown_kind(model, image_shape)
    inner: Forward = model
    several = said.outputs == "multi-label"
    chosen = network = model
    outputs = "auto" if several else said.outputs
    front = front_of(model)
    if front is not None and said.input_range == "auto":
        said = dataclasses.replace(said, input_range=range_of(model))
    if isinstance(model, keras.Model):
        chosen = network_of(model, said, image_shape)
        network = of_floats(chosen)
        shape, adapter = intake_of(model, network, said, image_shape)
        name, inner = model.name, logits_of(network, said.noise)
        if shows_logits(network) and not (ending(network) == "linear" and outputs not in ("auto", "logits")):
            outputs = "logits"
        if several and ending(network) == "softmax":
            raise InputError(
                f"Expected outputs that are labels by themselves for multi-label. Received: {name!r}, which ends in "
                "softmax. Leave it out, and give one class an image."
            )
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
    exact = inner if network is chosen else through_integers(chosen, network, said.noise)
    rounds = network is not chosen and differ(adapter.around(inner), adapter.around(exact), probed, name)
    if rounds:
        inner, probed = exact, probe(network, exact, probed.shape, name, adapter, probed.outputs)
    if several:
        if probed.outputs == "softmax":  # Few labels may sum to 1 by chance.
            probed = probe(network, inner, probed.shape, name, adapter, "sigmoid")
        probed = _with_labels(name, probed)
    any_batch = is_graph(network) and model.inputs[0].shape[0] is None and not probed.untraced
    classifier = Classifier(
        model, inner, probed, name=name, image_shape=shape, any_batch=any_batch, network=network, adapter=adapter,
        conventions=said,
    )  # fmt: skip
    classifier.notes = notes_of(name, adapter, said, probed, "" if front is None else front_words(front))
    if rounds:
        classifier.warnings.append(integer_layers(name, adapter))
    if isinstance(model, Prediction) and model.labels:
        classifier.warnings.append(model.decisions_only())
    classifier.warnings += about_noise(network, inner, probed, name, adapter, said)
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
