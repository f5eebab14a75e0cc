"""What attacks ask of a network: scores, gradients and linearisations, each as a mean over noisy passes (EOT).

Each pass is a piece of its own (`tracing.one_piece`) and folds its number into the noise key. Where `eot` is the Python
number 1 there is no loop.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from kerasrobust import losses, threat
from kerasrobust.tracing import one_piece

Network = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
"""Images (N, H, W, C) and a noise key (2,) or None -> float32 logits (N, K)."""

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Logits (N, K) and labels (N,) -> float32 (N,)."""


UNROLLED = 16
"""Rivals up to which their gradients are written out one by one. Measured on a CPU with the ConvNet, nine took 0.45 of
the time of `batch_jacobian`, or of a loop: in either, pooling is looked for anew on the way back."""


def score(logits: tf.Tensor, y: tf.Tensor, targeted: bool) -> tf.Tensor:
    """Returns how far an attack is from success, float32 (N,): below 0 where it got there."""
    gap = losses.margin(logits, y)
    return -gap if targeted else gap


def mean_score(
    network: Network, x: tf.Tensor, y: tf.Tensor, key: tf.Tensor, eot: tf.Tensor | int, targeted: bool
) -> tf.Tensor:
    """Returns the score (N,) of images as the mean over `eot` noisy passes."""

    def once(number: tf.Tensor | int) -> tuple[tf.Tensor]:
        return (score(network(x, threat.fold(key, number)), y, targeted),)

    return _mean(once, eot, lambda: (tf.zeros([tf.shape(x)[0]]),))[0]


def mean_logits(network: Network, x: tf.Tensor, key: tf.Tensor, eot: tf.Tensor | int) -> tf.Tensor:
    """Returns the mean logits (N, K) of images over `eot` noisy passes."""
    first = network(x, threat.fold(key, 0))
    if isinstance(eot, int) and eot == 1:
        return first
    rest = _mean(lambda number: (network(x, threat.fold(key, number)),), eot, lambda: (tf.zeros_like(first),))
    return rest[0]


def nth_rival(logits: tf.Tensor, y: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the wrong class with the highest logit but `number`, (N,); the last one where there are fewer."""
    own = tf.one_hot(y, tf.shape(logits)[1], on_value=True, off_value=False)
    order = tf.argsort(tf.where(own, float("-inf"), logits), axis=1, direction="DESCENDING", stable=True)
    place = tf.minimum(number, tf.shape(logits)[1] - 2)
    return tf.cast(tf.gather(order, place, axis=1), y.dtype)


def finite(slope: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with 0 where it is no number: one such pixel (a root at 0) would spoil the whole image."""
    # The sum tells at a fraction of the cost that there is none, as mostly.
    return tf.cond(
        tf.math.is_finite(tf.reduce_sum(slope)),
        lambda: slope,
        lambda: tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope)),
    )


def gradient(
    network: Network,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    key: tf.Tensor,
    eot: tf.Tensor | int,
    targeted: bool,
    loss: Loss = losses.cross_entropy,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the direction in which the attack's loss grows, that loss and the score, as means over `eot` passes.

    Args:
        network: logits of images.
        x: float32 (N, H, W, C).
        y: integers (N,), labels or targets.
        key: (2,), of the noise; each pass folds its own number in.
        eot: the number of passes; the Python number 1 costs no loop.
        targeted: descend the loss towards `y` instead of ascending it away from there.
        loss: of logits and `y`.

    Returns:
        float32 (N, H, W, C), (N,), (N,). The loss has its sign changed where it is descended.
    """

    def once(number: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Not watching the weights: their gradients would be computed with the images' otherwise.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = network(x, threat.fold(key, number))
            found = loss(logits, y)
            found = -found if targeted else found
            total = tf.reduce_sum(found)
        slope = tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return finite(slope), found, score(logits, y, targeted)

    count = tf.shape(x)[:1]
    return _mean(once, eot, lambda: (tf.zeros_like(x), tf.zeros(count), tf.zeros(count)))


def linearise(
    network: Network,
    x: tf.Tensor,
    y: tf.Tensor,
    rivals: tf.Tensor | Callable[[tf.Tensor], tf.Tensor],
    *,
    key: tf.Tensor,
    eot: tf.Tensor | int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rivals' leads f_k - f_y, (N, K), and their gradients, (N, K, H, W, C), as means over `eot` passes.

    A lead above 0 means that the label has flipped.

    Args:
        network: logits of images.
        x: float32 (N, H, W, C).
        y: integers (N,), labels.
        rivals: integers (N, K), other classes; or a function that chooses them from logits.
        key: (2,), of the noise.
        eot: the number of passes.
    """
    if callable(rivals) and not (isinstance(eot, int) and eot == 1):
        # Which classes are looked at must not change from pass to pass, or the means would mix classes.
        rivals = rivals(network(x, threat.fold(key, 0)))

    def once(number: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(x)
            logits = network(x, threat.fold(key, number))
            chosen = rivals(logits) if callable(rivals) else rivals
            leads = tf.gather(logits, chosen, batch_dims=1) - tf.gather(logits, y, batch_dims=1)[:, None]

        def slope(weights: tf.Tensor) -> tf.Tensor:
            return tape.gradient(leads, x, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        count = leads.shape[1]
        if count is not None and count <= UNROLLED:
            units = tf.unstack(tf.eye(count))
            return leads, finite(tf.stack([slope(tf.zeros_like(leads) + unit) for unit in units], axis=1))
        units = tf.eye(tf.shape(leads)[1])
        slopes = tf.map_fn(lambda unit: slope(tf.zeros_like(leads) + unit), units)
        return leads, finite(tf.transpose(slopes, (1, 0, 2, 3, 4)))

    def empty() -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(rivals)
        return tf.zeros(count), tf.zeros(tf.concat([count, tf.shape(x)[1:]], axis=0))

    return _mean(once, eot, empty)


def rivals_of(y: tf.Tensor, classes: int) -> tf.Tensor:
    """Returns all classes but the label, (N, classes - 1)."""
    return (y[:, None] + tf.range(1, classes, dtype=y.dtype)) % classes


def _mean(
    once: Callable[[tf.Tensor | int], tuple[tf.Tensor, ...]],
    eot: tf.Tensor | int,
    zeros: Callable[[], tuple[tf.Tensor, ...]],
) -> tuple[tf.Tensor, ...]:
    """Returns the means over `eot` calls; `zeros` gives what the sums begin with."""
    once = one_piece(once)
    if isinstance(eot, int) and eot == 1:
        return once(0)
    _, *totals = tf.while_loop(
        lambda number, *_: number < eot,
        lambda number, *totals: (number + 1, *(old + new for old, new in zip(totals, once(number), strict=True))),
        (tf.constant(0), *zeros()),
    )
    return tuple(total / tf.cast(eot, tf.float32) for total in totals)
