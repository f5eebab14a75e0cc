"""What attacks ask of a network: scores, gradients and linearisations, each as a mean over noisy passes (EOT).

What an attack spends is counted here, where it asks, and nowhere declared.

Several passes go through the network at once, one copy of the batch below the other, as far as that fills a batch:
one call for many images takes less time than many calls for few. Each such call is a function of its own
(`ops.tracing.one_piece`), and its number is folded into the noise key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import tensorflow as tf

from kerasrobust.ops import draws, half, losses
from kerasrobust.ops.tracing import on_gpu, one_piece
from kerasrobust.twins import Kept, Local, Region

Forward = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
"""Images (N, H, W, C) and a noise key (2,) or None -> float32 logits (N, K)."""

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Logits (N, K) and labels (N,) -> float32 (N,)."""

_WORST = 1e30

UNROLLED = 16
"""Rivals whose gradients are written out one by one. More are taken in groups of this size, each with a forward pass of
its own. Measured on a CPU with the ConvNet, nine took 0.45 of the time of `batch_jacobian`, or of a loop over the
gradients: in either, oneDNN doesn't see the pooling whose backward pass it computes."""


@dataclass(frozen=True)
class Passes:
    """Over how many noisy passes a mean is taken.

    Attributes:
        count: the number; the Python number 1 costs no loop.
        rows: images that the network gets at once, where that is more than are under attack.
    """

    count: tf.Tensor | int = 1
    rows: tf.Tensor | int = 1

    @property
    def is_one(self) -> bool:
        """Whether there is only one pass."""
        return isinstance(self.count, int) and self.count == 1


@dataclass
class Cost:
    """What one call of a traced function asks of the network for each example, counted while it is traced.

    Attributes:
        gradients: gradient evaluations, each a mean over the passes (a Jacobian counts once per class).
        forwards: forward passes beyond those, likewise.
        single: forward passes that are made once, whatever the number of passes.
    """

    gradients: int = 0
    forwards: int = 0
    single: int = 0

    def clear(self) -> None:
        """Begins anew."""
        self.gradients = self.forwards = self.single = 0

    def of(self, eot: int) -> tuple[int, int]:
        """Returns the gradient evaluations and the forward passes where means are over `eot` passes."""
        return self.gradients * eot, self.forwards * eot + self.single


@dataclass(frozen=True)
class Network:
    """The network as an attack sees it in one step.

    Attributes:
        forward: images and a noise key to logits.
        key: int32 (2,), which the noise of all steps is derived from.
        passes: over how many noisy passes scores and gradients are means.
        classes: the number of logits, where it is known.
        step: number of the step, a scalar tensor.
        noise: int32 (2,), the key of this step's noise; each pass folds its own number in.
        cost: what has been asked so far.
        loss: what gradients are of, unless an attack says otherwise.
        margin: below 0 where an example has fallen.
        local: computes what a changed window reaches; None where all has to be computed.
    """

    forward: Forward
    key: tf.Tensor
    passes: Passes = Passes()
    classes: int | None = None
    step: tf.Tensor | int = 0
    noise: tf.Tensor | None = None
    cost: Cost = field(default_factory=Cost)
    loss: Loss = losses.cross_entropy
    margin: Loss = losses.margin
    local: Local | None = None

    def at(self, step: tf.Tensor) -> Network:
        """Returns the network in a step, with the noise of that step."""
        return replace(self, step=step, noise=draws.fold(self.key, step))

    def drawing(self, number: tf.Tensor) -> Network:
        """Returns the network with other noise, for a second look within one step."""
        return replace(self, noise=draws.fold(self.key, number))

    def _key(self, number: tf.Tensor | int) -> tf.Tensor:
        return draws.fold(self.key if self.noise is None else self.noise, number)

    def score(self, x: tf.Tensor, y: tf.Tensor, targeted: bool = False) -> tf.Tensor:
        """Returns the mean score of images over the passes, float32 (N,): below 0 where the attack succeeds."""
        self.cost.forwards += 1

        def some(number: tf.Tensor | int, copies: tf.Tensor | int) -> tuple[tf.Tensor]:
            logits = self.forward(_copied(x, copies), self._key(number))
            return (_summed(score(logits, _copied(y, copies), targeted, self.margin), copies),)

        return _mean(some, self.passes, x, lambda: (tf.zeros([tf.shape(x)[0]]),))[0]

    def begun(self, x: tf.Tensor, y: tf.Tensor, targeted: bool = False) -> tuple[tf.Tensor, Kept]:
        """Returns the score of images, and what `changed` needs of them; nothing of a network that isn't `local`."""
        if self.local is None:
            return self.score(x, y, targeted), ()
        self.cost.forwards += 1
        logits, kept = self.local.begin(x)
        return score(logits, y, targeted, self.margin), kept

    def changed(
        self,
        best: tuple[tf.Tensor, Kept],
        y: tf.Tensor,
        window: Region,
        patch: tf.Tensor,
        accept: Callable[[tf.Tensor], tf.Tensor],
        targeted: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, Kept]:
        """Returns the score of images with a patch, and images and what is kept of them, with it where accepted.

        Args:
            best: the images without it, (N, H, W, C), and what is kept of these.
            y: integers (N,), labels or targets.
            window: what the patch covers.
            patch: float32 (height, width, N, C).
            accept: tells of scores which images get it, bool (N,).
            targeted: as of `score`.
        """
        assert self.local is not None  # There would be nothing kept.
        self.cost.forwards += 1

        def score_of(logits: tf.Tensor) -> tf.Tensor:
            return score(logits, y, targeted, self.margin)

        logits, images, kept = self.local.step(*best, window, patch, lambda logits: accept(score_of(logits)))
        return score_of(logits), images, kept

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the mean logits (N, K) of images over the passes."""
        self.cost.forwards += 1

        def some(number: tf.Tensor | int, copies: tf.Tensor | int) -> tuple[tf.Tensor]:
            return (_summed(self.forward(_copied(x, copies), self._key(number)), copies),)

        return _mean(some, self.passes, x, lambda: (tf.zeros([tf.shape(x)[0], self.classes]),))[0]

    def gradient(
        self, x: tf.Tensor, y: tf.Tensor, *, targeted: bool = False, loss: Loss | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the direction in which the attack's loss grows, that loss, and the score, as means over the passes.

        Args:
            x: float32 (N, H, W, C).
            y: integers (N,), labels or targets.
            targeted: descend the loss towards `y` instead of ascending it away from there.
            loss: of logits and `y`; of several passes at once, one below the other. The network's without it.

        Returns:
            float32 (N, H, W, C), (N,), (N,). The loss has its sign changed where it is descended.
        """
        self.cost.gradients += 1
        loss = loss or self.loss

        def some(number: tf.Tensor | int, copies: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            images, labels, noise = _copied(x, copies), _copied(y, copies), self._key(number)

            def signed(logits: tf.Tensor) -> tf.Tensor:
                found = loss(logits, labels)
                return -found if targeted else found

            slope, found, logits = half.slope(lambda images: self.forward(images, noise), signed, images)
            parts = finite(slope), found, score(logits, labels, targeted, self.margin)
            return tuple(_summed(part, copies) for part in parts)

        count = tf.shape(x)[:1]
        return _mean(some, self.passes, x, lambda: (tf.zeros_like(x), tf.zeros(count), tf.zeros(count)))

    def linearise(
        self, x: tf.Tensor, y: tf.Tensor, rivals: tf.Tensor | Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the rivals' leads f_k - f_y, (N, K), and their gradients, (N, K, H, W, C), as means over the passes.

        A lead above 0 means that the label has flipped.

        Args:
            x: float32 (N, H, W, C).
            y: integers (N,), labels.
            rivals: integers (N, K), other classes; or a function that chooses them from logits.
        """
        if callable(rivals) and not self.passes.is_one:
            # The classes must not change from pass to pass, or the means would mix them.
            self.cost.single += 1
            rivals = rivals(self.forward(x, self._key(0)))

        def some(number: tf.Tensor | int, copies: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels, noise = _copied(x, copies), _copied(y, copies), self._key(number)

            def chosen_by(logits: tf.Tensor) -> tf.Tensor:
                return rivals(logits) if callable(rivals) else _copied(rivals, copies)

            leads, slopes = _jacobian(lambda images: self.forward(images, noise), images, labels, chosen_by)
            return _summed(leads, copies), _summed(finite(slopes), copies)

        def empty() -> tuple[tf.Tensor, tf.Tensor]:
            count = tf.shape(rivals)
            return tf.zeros(count), tf.zeros(tf.concat([count, tf.shape(x)[1:]], axis=0))

        leads, slopes = _mean(some, self.passes, x, empty)
        self.cost.gradients += leads.shape[1] if callable(rivals) else rivals.shape[1]
        return leads, slopes


def score(logits: tf.Tensor, y: tf.Tensor, targeted: bool, margin: Loss = losses.margin) -> tf.Tensor:
    """Returns how far an attack is from success, float32 (N,): below 0 where it got there.

    Logits that hold NaN are no prediction: untargeted attacks have got there, targeted ones are as far as can be.
    Between two that are infinite nothing is decided.
    """
    gap = margin(logits, y)
    gap = tf.where(tf.math.is_nan(gap), 0.0, -gap if targeted else gap)
    return tf.where(tf.reduce_any(tf.math.is_nan(logits), axis=1), _WORST if targeted else -_WORST, gap)


def nth_rival(logits: tf.Tensor, y: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the wrong class with the highest logit but `number`, (N,); the last one where there are fewer."""
    own = tf.one_hot(y, tf.shape(logits)[1], on_value=True, off_value=False)
    order = tf.argsort(tf.where(own, float("-inf"), logits), axis=1, direction="DESCENDING", stable=True)
    place = tf.minimum(number, tf.shape(logits)[1] - 2)
    return tf.cast(tf.gather(order, place, axis=1), y.dtype)


def finite(slope: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with 0 where it is no number: one such pixel (a root at 0) would spoil the whole image."""

    def mended() -> tf.Tensor:
        return tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope))

    if on_gpu():  # It would wait for the sum, which takes longer.
        return mended()
    # Mostly there is none: the sum shows it at a fraction of the cost.
    return tf.cond(tf.math.is_finite(tf.reduce_sum(slope)), lambda: slope, mended)


def rivals_of(y: tf.Tensor, classes: int) -> tf.Tensor:
    """Returns all classes but the label, (N, classes - 1)."""
    return (y[:, None] + tf.range(1, classes, dtype=y.dtype)) % classes


def _jacobian(
    logits_of: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    labels: tf.Tensor,
    chosen_by: Callable[[tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the leads of the classes that are chosen by logits, (N, K), and their gradients (N, K, H, W, C)."""

    def seen(chosen: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.GradientTape]:
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(images)
            logits = logits_of(images)
            chosen = chosen_by(logits) if chosen is None else chosen
            leads = tf.gather(logits, chosen, batch_dims=1) - tf.gather(logits, labels, batch_dims=1)[:, None]
        return chosen, leads, tape

    def written_out(leads: tf.Tensor, tape: tf.GradientTape) -> tf.Tensor:
        scale = half.TARGET if half.computes(leads) else 1.0
        units = [tf.zeros_like(leads) + scale * unit for unit in tf.unstack(tf.eye(leads.shape[1]))]
        none = tf.UnconnectedGradients.ZERO
        slopes = [half.shaped(tape.gradient(leads, images, unit, unconnected_gradients=none), images) for unit in units]
        return tf.stack(slopes if scale == 1 else [slope / scale for slope in slopes], axis=1)

    def of_group(columns: tf.Tensor) -> tf.Tensor:
        _, leads, tape = seen(columns)
        return written_out(leads, tape)

    chosen, leads, tape = seen(None)
    count = chosen.shape[1]
    if count <= UNROLLED:
        return leads, written_out(leads, tape)
    places = tf.reshape(tf.minimum(tf.range(-(-count // UNROLLED) * UNROLLED), count - 1), [-1, UNROLLED])
    groups = tf.transpose(tf.gather(chosen, places, axis=1), (1, 0, 2))
    found = tf.map_fn(one_piece(of_group), groups, fn_output_signature=tf.float32)
    found = tf.transpose(found, (1, 0, 2, 3, 4, 5))
    shape = tf.concat([tf.shape(found)[:1], [-1], tf.shape(images)[1:]], axis=0)
    return leads, tf.reshape(found, shape)[:, :count]


def _copied(values: tf.Tensor, copies: tf.Tensor | int) -> tf.Tensor:
    """Returns the rows of a tensor so many times, all of them below each other."""
    if isinstance(copies, int) and copies == 1:
        return values
    return tf.tile(values, tf.concat([[copies], tf.ones([values.shape.rank - 1], tf.int32)], axis=0))


def _summed(values: tf.Tensor, copies: tf.Tensor | int) -> tf.Tensor:
    """Returns the sums over the copies that `_copied` made."""
    if isinstance(copies, int) and copies == 1:
        return values
    shape = tf.shape(values)
    return tf.reduce_sum(tf.reshape(values, tf.concat([[copies, shape[0] // copies], shape[1:]], axis=0)), axis=0)


def _mean(
    some: Callable[[tf.Tensor | int, tf.Tensor | int], tuple[tf.Tensor, ...]],
    passes: Passes,
    x: tf.Tensor,
    zeros: Callable[[], tuple[tf.Tensor, ...]],
) -> tuple[tf.Tensor, ...]:
    """Returns the means over noisy passes.

    Args:
        some: gives the sums over passes made at once; takes the number of the first of them, and how many.
        passes: over how many the means are.
        x: the images.
        zeros: gives what the sums begin with.
    """
    some = one_piece(some)
    if passes.is_one:
        return some(0, 1)

    def more(number: tf.Tensor, *totals: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A graph for one size of batch gets that size.
        copies: tf.Tensor | int = 1
        if x.shape[0] is None:
            copies = tf.minimum(tf.maximum(passes.rows // tf.shape(x)[0], 1), passes.count - number)
        sums = some(number, copies)
        return number + copies, *(old + new for old, new in zip(totals, sums, strict=True))

    _, *totals = tf.while_loop(lambda number, *_: number < passes.count, more, (tf.constant(0), *zeros()))
    return tuple(total / tf.cast(passes.count, tf.float32) for total in totals)
