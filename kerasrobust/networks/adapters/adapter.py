"""What a model takes and gives, said once: its range of pixels, order of colours, layout, and kind of outputs.

Attacks see images in [0, 1], channels last, and logits. An `Adapter` stands between them and a model of other
conventions, so that epsilon means the same for all models. It is made of differentiable operations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.fields import scaling
from kerasrobust.names import RANGES, Channels, Colors, Noise, Outputs
from kerasrobust.networks.adapters.labels import Labels
from kerasrobust.ops.intake import in_pieces, rounded
from kerasrobust.ops.losses import from_probabilities

DTYPES = ("uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""What a function may take pixels as."""

LUMA = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue in a grey image (ITU-R BT.601), as `tf.image.rgb_to_grayscale` has them."""


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What is said of a model; "auto" is found out by probing.

    Attributes:
        input_range: one of `names.RANGES`, "auto", or MEAN/STD with numbers for images in [0, 1], as
            "0.49,0.48,0.45/0.25,0.24,0.26".
        colors: "rgb", "bgr" or "auto".
        channels: "last", "first" or "auto".
        outputs: "logits", "softmax", "sigmoid", "regression" (one number near 0 or 1), "multi-label" (each a label by
            itself) or "auto".
        output: the name of the output that is meant, where there are several.
        noise: whether layers that were called with `training=True` keep their noise: "on", or "off" as in `predict`.
        resize: whether images of another size are resized to the model's.
        dtype: of the pixels that a function takes, one of `DTYPES`; None for float32.

    Raises:
        InputError: for an unknown word or a range that can't be read.

    Example:
        >>> Conventions(input_range="0,255").fixed
        False
    """

    input_range: str = "auto"
    colors: str = "auto"
    channels: str = "auto"
    outputs: str = "auto"
    output: str | None = None
    noise: str = "off"
    resize: bool = False
    dtype: str | None = None

    def __post_init__(self) -> None:
        scaling(self.input_range)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(
                f"Expected dtype to be one of {', '.join(DTYPES)}. Received: {self.dtype!r}. Choose one, as a word."
            )
        words = {"colors": Colors, "channels": Channels, "outputs": Outputs, "noise": Noise}
        for name, known in words.items():
            if getattr(self, name) not in get_args(known):
                raise InputError(
                    f"Expected {name} to be one of {', '.join(get_args(known))}. Received: {getattr(self, name)!r}. "
                    "Choose one."
                )

    @property
    def fixed(self) -> bool:
        """Whether nothing is left that images with labels could show; Caffe's range is one of BGR."""
        return self.input_range == "caffe" or (self.input_range != "auto" and self.colors != "auto")

    def over(self, before: Conventions) -> Conventions:
        """Returns these, and where they say nothing what was said before."""
        return Conventions(**{**vars(before), **self.said()})

    def said(self) -> dict[str, Any]:
        """Returns what differs from the defaults, as cards and results have it."""
        default = Conventions()
        return {name: value for name, value in vars(self).items() if value != getattr(default, name)}


def conventions_of(source: Mapping[str, Any]) -> Conventions:
    """Returns the conventions among the settings of a command or the `conventions` of a card.

    Example:
        >>> conventions_of({"model": "theirs", "input_range": "0,255"}).input_range
        '0,255'
    """
    known = {item.name for item in dataclasses.fields(Conventions)}
    return Conventions(**{name: value for name, value in source.items() if name in known})


def range_text(value: str | Sequence[float]) -> str:
    """Returns a range as it is written: (0, 255) is "0,255".

    Example:
        >>> range_text((-1.0, 1.0))
        '-1,1'
    """
    return value if isinstance(value, str) else ",".join(f"{number:g}" for number in value)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Images as attacks see them, to what a model takes.

    Attributes:
        scale: factors of the pixels, one or one for each channel.
        offset: what is added then.
        bgr: whether the order of the channels is reversed first.
        shape: of one image as the model takes it, without the batch; None for (H, W, C) of any size.
        first: whether the channels come first there.
        channels: how many the model takes; None for those of the images. One is repeated, three become
            grey, a fourth (alpha) is left out.
        side: height and width that images are resized to; None to leave them.
        dtype: of what the model takes; None for float32. Where these are integers, rounding lets the gradient through
            as if it weren't there.
        batch: how many images the model takes at once; None for any number.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    bgr: bool = False
    shape: tuple[int | None, ...] | None = None
    first: bool = False
    channels: int | None = None
    side: tuple[int, int] | None = None
    dtype: str | None = None
    batch: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the model takes integers."""
        return self.dtype is not None and np.dtype(self.dtype).kind != "f"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the model takes, integers as floating numbers, for float32 (N, H, W, C) in [0, 1]."""
        given = x.shape[-1]
        if self.channels == 3 and given == 1:
            x = tf.tile(x, (1, 1, 1, 3))
        elif self.channels == 3 and given == 4:
            x = x[..., :3]
        elif self.channels == 1 and given == 3:
            x = tf.reduce_sum(x * tf.constant(LUMA), axis=-1, keepdims=True)
        if self.side is not None and tuple(x.shape[1:3]) != self.side:
            x = tf.image.resize(x, self.side, antialias=True)
        x = x[..., ::-1] if self.bgr else x
        if self.scale != (1.0,):
            x = x * tf.constant(self.scale, x.dtype)
        if self.offset != (0.0,):
            x = x + tf.constant(self.offset, x.dtype)
        x = tf.transpose(x, (0, 3, 1, 2)) if self.first else x
        if self.shape is not None and len(self.shape) != 3:
            x = tf.reshape(x, (-1, *(size or own for size, own in zip(self.shape, x.shape[1:], strict=False))))
        if self.dtype is None:
            return x
        return rounded(x) if self.whole else tf.cast(x, self.dtype)

    def around(self, forward: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
        """Returns a pass over images as attacks see them, in batches of the size that the model takes."""

        def run(x: tf.Tensor) -> Any:
            x = self(x)
            if self.batch is None or x.shape[0] == self.batch:
                return forward(x)
            return in_pieces(forward, x, self.batch)

        return run


def logits_from(outputs: tf.Tensor, kind: str, labels: Labels | None = None) -> tf.Tensor:
    """Returns logits (N, K) for a model's outputs of a kind; one output becomes two classes, with the logits (0, z).

    Args:
        outputs: float32 (N, K), (N, 1) or (N,).
        kind: "logits"; "softmax", whose logarithm is taken; "sigmoid", whose log-odds are; "regression", of which the
            tangent of the log-odds at 0.5 is.
        labels: how they are read where each is a label by itself.

    Example:
        >>> logits_from(tf.constant([[0.5]]), "sigmoid").numpy()
        array([[0., 0.]], dtype=float32)
    """
    if outputs.shape.rank == 1:
        outputs = outputs[:, None]
    if kind == "regression":
        outputs = 4 * (outputs - 0.5)
    elif kind != "logits":
        outputs = from_probabilities(outputs, sigmoid=kind == "sigmoid")
    if labels is not None:
        return labels.logits(outputs)
    return tf.concat([tf.zeros_like(outputs), outputs], axis=1) if outputs.shape[1] == 1 else outputs


def candidates(channels: int) -> dict[tuple[str, str], Adapter]:
    """Returns the conversions that are tried where nothing is said, by range and order of colours."""
    found = {}
    for name, (scale, offset) in RANGES.items():
        if len(scale) not in (1, channels) or len(offset) not in (1, channels):
            continue
        # Caffe's mean is that of BGR, and the "torch" mode comes with libraries that read RGB.
        orders = {"caffe": ("bgr",), "imagenet": ("rgb",)}.get(name, ("rgb", "bgr") if channels == 3 else ("rgb",))
        for order in orders:
            found[name, order] = Adapter(scale=scale, offset=offset, bgr=order == "bgr")
    return found


def applied(adapter: Adapter, said: Conventions) -> Adapter:
    """Returns an adapter with a range and an order of colours; "auto" is [0, 1] and RGB, or [0, 255] for integers."""
    scale, offset = scaling(said.input_range) or RANGES["0,255" if adapter.whole else "0,1"]
    if adapter.channels is not None and len(scale) not in (1, adapter.channels):
        raise InputError(
            f"Expected a range for images of {adapter.channels} channel(s), which the model takes. Received: "
            f"{said.input_range}, of {len(scale)}. Say the MEAN/STD of its training images as 0.5/0.25."
        )
    # Caffe's networks take BGR, unless it is said otherwise.
    bgr = said.colors == "bgr" or (said.colors == "auto" and said.input_range == "caffe")
    return dataclasses.replace(adapter, scale=scale, offset=offset, bgr=bgr)


def notes_of(name: str, adapter: Adapter, said: Conventions, probed: Any, front: str = "") -> list[str]:
    """Returns one sentence on what was understood of a model, or none for images in [0, 1] to logits.

    `front` says what stands between the adapter and the model, if anything does.
    """
    parts = []
    if said.input_range not in ("auto", "0,1"):
        parts.append(f"takes pixels in {range_words(said.input_range)}")
        if adapter.whole:
            parts.append(f"takes them as {adapter.dtype}, rounded")
    elif adapter.whole and said.input_range == "auto":
        parts.append(f"takes {adapter.dtype} pixels from 0 to 255, rounded, with gradients as if they weren't")
    if front:
        parts.append(front)
    if adapter.bgr:
        parts.append("takes colours in the order BGR")
    if adapter.first:
        parts.append("takes the channels first")
    if adapter.shape is not None:
        parts.append(f"takes images as {'x'.join(map(str, adapter.shape))}")
    if adapter.batch is not None:
        parts.append(f"takes {adapter.batch} at once")
    if probed.width == 1:
        parts.append("gives one output, which stands for two classes")
    if probed.outputs == "regression":
        parts[-1] = "gives one number, near 0 or 1 for the two classes, with the threshold 0.5"
    if probed.labels is not None:
        parts.append(f"gives {probed.labels.count} labels, each by itself")
    if probed.outputs == "sigmoid":
        parts.append("ends in sigmoid, and is attacked through its log-odds")
    return [f"{name!r} {', '.join(parts)}."] if parts else []


def range_words(input_range: str) -> str:
    """Returns a range as sentences have it.

    Example:
        >>> range_words("0,255"), range_words("caffe")
        ('[0, 255]', "caffe's range")
    """
    if input_range.replace(",", "").replace("-", "").replace(".", "").isdigit():
        return f"[{input_range.replace(',', ', ')}]"
    return f"{input_range}'s range" if input_range in RANGES else f"the range {input_range}"


def converted(adapter: Adapter, x: np.ndarray) -> np.ndarray:
    """Returns images with an adapter's range and order of colours, as float32."""
    changed = x[..., ::-1] if adapter.bgr else x
    return (changed * np.array(adapter.scale) + np.array(adapter.offset)).astype(np.float32)


def undone(adapter: Adapter, x: np.ndarray) -> np.ndarray:
    """Returns the images in [0, 1] and RGB whose conversion by an adapter gives `x`: the inverse of `converted`."""
    plain = ((x - np.array(adapter.offset)) / np.array(adapter.scale)).astype(np.float32)
    return plain[..., ::-1] if adapter.bgr else plain
