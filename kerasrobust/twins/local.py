"""The logits of images of which only a window has changed: what the window doesn't reach is taken from before.

Four fifths of the queries of Square change five pixels by five or fewer. Of each convolution only the outputs that see
them are computed, from what is kept of the image's best form; those of a candidate that is accepted are kept in turn.

Regions have one size for all images of a batch and a place for each. Windows that are smaller, or that begin too near
the border, get more computed than they touch, which gives the same as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.networks.adapters.adapter import Adapter
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.logits import ending
from kerasrobust.ops import balls
from kerasrobust.ops.tracing import one_piece
from kerasrobust.twins import layouts
from kerasrobust.twins.wiring import neighbours, shared_layers

Kept = tuple[tf.Tensor, ...]
"""For each stage what it takes, with a border of zeros, and at the end what the last one gives: (N, H, W, C) each."""

MOST_KEPT = 2**18
"""Bytes of an image that may be kept: they are in memory for a whole batch. The ConvNet keeps 37,000; a VGG16 on
224x224 pixels would keep a thousand times as much."""

Sides = tuple[tf.Tensor, tf.Tensor]
"""Height and width, the same for all images."""

Region = tuple[tf.Tensor, Sides]
"""Where a region begins in each image, int32 (N, 2), and its sides."""


@dataclass(frozen=True)
class _Stage:
    """A convolution of stride 1 with as many outputs as inputs, and max pooling by 2 if that follows.

    Attributes:
        layer: the convolution.
        pool: the pooling, with its ReLU; None without.
        reach: pixels that an output sees on each side.
        size: height and width of what it takes.
        channels: of what it takes.
    """

    layer: layouts.Convolution
    pool: layouts.ReLUPooling | None
    reach: int
    size: tuple[int, int]
    channels: int

    @property
    def factor(self) -> int:
        return 1 if self.pool is None else 2

    def outputs(self, x: tf.Tensor, padding: str) -> tf.Tensor:
        """Returns what it gives of (H, W, N, C), images beside each other; `padding` is "SAME" or "VALID"."""
        layer = self.layer
        kernel = tf.cast(tf.convert_to_tensor(layer.kernel), layer.compute_dtype)
        found = tf.nn.conv3d(x[None], tf.expand_dims(kernel, 2), [1, 1, 1, 1, 1], padding)
        if layer.bias is not None:
            found = tf.nn.bias_add(found, tf.cast(tf.convert_to_tensor(layer.bias), layer.compute_dtype))
        found = layer.activation(found)
        return (found if self.pool is None else self.pool.pooled(tf.nn.relu(found)))[0]


class Local:
    """A network as a chain of stages, and the layers after them.

    Example:
        >>> local = local_of(twin, x.shape[1:])
        >>> logits, kept = local.begin(x)
        >>> logits, x, kept = local.step(x, kept, (corners, (5, 5)), patch, lambda logits: margin(logits, y) < before)
    """

    def __init__(self, first: Callable[[tf.Tensor], tf.Tensor], stages: list[_Stage], rest: list[Any]) -> None:
        self.first, self.stages, self.rest = first, stages, rest
        self.dtype = tf.as_dtype(stages[0].layer.compute_dtype)

    def begin(self, x: tf.Tensor) -> tuple[tf.Tensor, Kept]:
        """Returns the logits of images, (N, K), and what is kept of them."""
        count = tf.shape(x)[0]
        kept = tuple(tf.zeros([count, *shape], self._stored) for shape in self._shapes())
        height, width = (tf.constant(side) for side in x.shape[1:3])
        everywhere = tf.zeros([count, 2], tf.int32), (height, width)
        logits, _, kept = self.step(x, kept, everywhere, tf.transpose(x, (1, 2, 0, 3)), _all)
        return logits, kept

    def kept_bytes(self) -> int:
        """Returns how much is kept of each image."""
        return sum(prod(shape) for shape in self._shapes()) * self._stored.size

    def _shapes(self) -> list[tuple[int, ...]]:
        last = self.stages[-1]
        shapes = [(*(side + 2 * stage.reach for side in stage.size), stage.channels) for stage in self.stages[1:]]
        return [*shapes, (*(side // last.factor for side in last.size), last.layer.kernel.shape[-1])]

    def step(
        self,
        x: tf.Tensor,
        kept: Kept,
        window: Region,
        patch: tf.Tensor,
        accept: Callable[[tf.Tensor], tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor, Kept]:
        """Returns the logits of images with a patch, and images and what is kept of them, with it where accepted.

        Args:
            x: float32 (N, H, W, C), the images without it.
            kept: what is kept of these.
            window: what the patch covers.
            patch: float32 (height, width, N, C).
            accept: tells of logits which images get it, bool (N,).
        """
        begin, region = window
        before, places, patches = [x, *kept], [_indices(*window, x)], [patch]
        for number, stage in enumerate(self.stages):
            after, outputs, field = _seeing(stage, begin, region)
            if number == 0:
                seen = self._pixels(stage, x, field, window, patch)
            else:
                seen = tf.gather(_rows(before[number]), _indices(*field, before[number]))
                seen = self._values(_laid_over(seen, field, (begin + stage.reach, region), patch))
            patch = self._as_stored(_computed(stage, seen, outputs))
            begin, region = after, outputs
            border = self.stages[number + 1].reach if number + 1 < len(self.stages) else 0
            places.append(_indices(begin + border, region, before[number + 1]))
            patches.append(patch)
        # All of them need no places.
        whole, laid = lambda: tf.transpose(patch, (2, 0, 1, 3)), lambda: _laid(before[-1], places[-1], patch)
        last = tf.cond(_all_of(self.stages[-1], region), whole, laid)
        logits = one_piece(self._tail)(last)
        accepted = accept(logits)
        chosen = tf.where(accepted)[:, 0]
        image, *settled = [
            _laid(old, tf.gather(place, chosen, axis=2), tf.gather(patch, chosen, axis=2))
            for old, place, patch in zip(before[:-1], places, patches, strict=False)
        ]
        return logits, image, (*settled, balls.choose(accepted, last, before[-1]))

    def _tail(self, x: tf.Tensor) -> tf.Tensor:
        x = self._values(x)
        for layer in self.rest:
            x = layer(x)
        return tf.cast(x, tf.float32)

    def _pixels(self, stage: _Stage, x: tf.Tensor, field: Region, window: Region, patch: tf.Tensor) -> tf.Tensor:
        """Returns what the first stage sees, (height, width, N, C): of images with a patch, and zeros around them."""
        height, width = stage.size
        corners = field[0] - stage.reach
        rows, columns = _lines(corners, field[1])
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
        rows, columns = tf.clip_by_value(rows, 0, height - 1), tf.clip_by_value(columns, 0, width - 1)
        number = tf.range(tf.shape(x)[0]) * (height * width)
        seen = tf.gather(_rows(x), number + rows[:, None] * width + columns[None])
        values = self.first(_laid_over(seen, (corners, field[1]), window, patch))
        return tf.cast(values, self.dtype) * tf.cast(inside, self.dtype)[..., None]

    @property
    def _stored(self) -> tf.DType:
        """Of what is kept: NumPy has no bfloat16 to save."""
        return tf.int16 if self.dtype == tf.bfloat16 else self.dtype

    def _as_stored(self, x: tf.Tensor) -> tf.Tensor:
        return x if self._stored == self.dtype else tf.bitcast(x, self._stored)

    def _values(self, x: tf.Tensor) -> tf.Tensor:
        return x if self._stored == self.dtype else tf.bitcast(x, self.dtype)


def part_of(values: tf.Tensor, window: Region) -> tf.Tensor:
    """Returns what images, (N, H, W, C), have in a window: (height, width, N, C)."""
    return tf.gather(_rows(values), _indices(*window, values))


def _all(logits: tf.Tensor) -> tf.Tensor:
    return tf.fill(tf.shape(logits)[:1], True)


def local_of(classifier: Classifier, shape: tuple[int, ...]) -> Local | None:
    """Returns a twin's network as a chain of which parts are computed, or None where it isn't one that can be.

    Args:
        classifier: the twin.
        shape: height, width and channels of the images.
    """
    model, probed = classifier.model, classifier.probed
    if not is_graph(model) or model.input_shape[1:] != shape or ending(model) != "linear":
        return None
    as_it_is = replace(classifier.adapter, channels=None) == Adapter() and probed.outputs == "logits"
    if not as_it_is or probed.width != classifier.classes or classifier.randomized or not classifier.any_batch:
        return None
    if classifier.labels is not None or (chain := _chain(model)) is None:
        return None
    first: list[Any] = []
    while chain and type(chain[0]) is layouts.Offset:
        first.append(chain.pop(0))
    stages: list[_Stage] = []
    size = model.input_shape[1:3]
    channels = model.input_shape[3]
    while chain and (stage := _stage_of(chain, size, channels)) is not None:
        stages.append(stage)
        size = size[0] // stage.factor, size[1] // stage.factor
        channels = stage.layer.kernel.shape[-1]
        if not isinstance(chain[0], (layouts.Convolution, layouts.Folded)):
            break
    # The layers after the last stage have to be made for images one below the other.
    if not stages or not chain or any(_is_beside(layer) for layer in chain):
        return None

    def begun(x: tf.Tensor) -> tf.Tensor:
        for layer in first:
            x = layer(x)
        return x

    local = Local(begun, stages, chain)
    return local if local.kept_bytes() <= MOST_KEPT else None


def _chain(model: keras.Model) -> list[Any] | None:
    """Returns a model's layers after its input, if each takes what the one before gives and nothing else does."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    pairs = {(id(one), id(other)) for one, other in neighbours(model, shared_layers(model))}
    links = zip(model.layers, model.layers[1:], strict=False)
    return layers if all((id(one), id(other)) in pairs for one, other in links) else None


def _stage_of(chain: list[Any], size: tuple[int, int], channels: int) -> _Stage | None:
    """Takes the next stage off the chain; returns None, with the chain as it was, where it doesn't begin with one."""
    layer = chain[0]
    if type(layer) not in (layouts.Convolution, layouts.ThinConvolution) or getattr(layer, "beside", True) is not True:
        return None
    height, width = layer.kernel.shape[:2]
    if layer.strides != (1, 1) or layer.padding != "SAME" or height != width or height % 2 == 0 or None in size:
        return None
    rest = chain[1:]
    while rest and type(rest[0]) is layouts.Folded:
        rest.pop(0)
    pool = getattr(rest[0], "inner", rest[0]) if rest else None
    if type(pool) is not layouts.ReLUPooling:
        pool = None
    elif (pool.window, pool.strides) != ((2, 2), (2, 2)) or size[0] % 2 or size[1] % 2:
        return None
    else:
        rest.pop(0)
    chain[:] = rest
    return _Stage(layer, pool, height // 2, size, channels)


def _is_beside(layer: Any) -> bool:
    beside = (layouts.Convolution, layouts.Pooling, layouts.Turned, layouts.BesideDropout)
    return isinstance(layer, beside)


def _seeing(stage: _Stage, corners: tf.Tensor, region: Sides) -> tuple[tf.Tensor, Sides, Region]:
    """Returns which outputs of a stage see a region of what it takes, and what these see of it.

    Args:
        stage: it.
        corners: int32 (N, 2), where the region begins.
        region: its height and width.

    Returns:
        Where the outputs begin, int32 (N, 2), their height and width, and their field, with the stage's border.
    """
    reach, factor = stage.reach, stage.factor
    most = [side // factor for side in stage.size]
    # So many see it; by twos they fill one pool more than half of them.
    sides = [tf.minimum((side + 2 * reach) // factor + factor - 1, top) for side, top in zip(region, most, strict=True)]
    begin = tf.clip_by_value((corners - reach) // factor, 0, tf.stack(most) - tf.stack(sides))
    whole = _all_of(stage, (sides[0], sides[1]))
    field = [tf.where(whole, size, side * factor + 2 * reach) for size, side in zip(stage.size, sides, strict=True)]
    return begin, (sides[0], sides[1]), (tf.where(whole, reach, begin * factor), (field[0], field[1]))


def _all_of(stage: _Stage, outputs: Sides) -> tf.Tensor:
    """Returns whether some outputs are all that a stage has."""
    return tf.reduce_all([side == size // stage.factor for side, size in zip(outputs, stage.size, strict=True)])


def _computed(stage: _Stage, seen: tf.Tensor, outputs: Sides) -> tf.Tensor:
    """Returns outputs of a stage, (height, width, N, C), by their field."""

    def padded(padding: str) -> Callable[[], tf.Tensor]:
        return lambda: one_piece(lambda x: stage.outputs(x, padding))(seen)

    # A convolution that pads doesn't multiply by the zeros.
    return tf.cond(_all_of(stage, outputs), padded("SAME"), padded("VALID"))


def _lines(corners: tf.Tensor, region: Sides) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rows of each image's region, int32 (height, N), and its columns, (width, N)."""
    rows, columns = (tf.range(side)[:, None] + corners[None, :, axis] for axis, side in enumerate(region))
    return rows, columns


def _indices(corners: tf.Tensor, region: Sides, values: tf.Tensor) -> tf.Tensor:
    """Returns where the pixels of each image's region stand among all rows of `values`, int32 (height, width, N)."""
    rows, columns = _lines(corners, region)
    height, width = values.shape[1:3]
    return tf.range(tf.shape(values)[0]) * (height * width) + rows[:, None] * width + columns[None]


def _laid_over(seen: tf.Tensor, field: Region, window: Region, patch: tf.Tensor) -> tf.Tensor:
    """Returns a field, (height, width, N, C), with a patch laid over it, (height, width, N, C) of a window inside."""
    (corners, sides), (begin, region) = field, window
    # Images stand beside each other here.
    rows, columns = _lines(begin - corners, region)
    count = tf.shape(corners)[0]
    places = (rows[:, None] * sides[1] + columns[None]) * count + tf.range(count)
    return _laid(seen, places, patch)


def _laid(values: tf.Tensor, places: tf.Tensor, patch: tf.Tensor) -> tf.Tensor:
    """Returns `values` with patches at some places (`_indices`)."""
    return tf.reshape(tf.tensor_scatter_nd_update(_rows(values), places[..., None], patch), tf.shape(values))


def _rows(values: tf.Tensor) -> tf.Tensor:
    """Returns (N, H, W, C) as a row for each pixel."""
    return tf.reshape(values, [-1, values.shape[-1]])
