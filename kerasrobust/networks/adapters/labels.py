"""Networks of several labels an image, one output each, as classifiers.

All labels together are a classifier of their 2**L patterns. The logit of a pattern c is the sum of c_j z_j over the
labels, so that softmax gives the product of the labels' own probabilities: the cross-entropy is the sum of the binary
ones, the pattern that wins is that of the thresholded outputs, and its margin is that of the label nearest to its
threshold. One label alone is a classifier of two classes, with the logits (0, z_j).
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from kerasrobust.errors import InputError

MOST = 10
"""Labels that are evaluated together: 1,024 patterns."""


@dataclass(frozen=True)
class Labels:
    """How outputs are read of which each is a label by itself.

    Attributes:
        count: of the labels.
        chosen: the number of the one that alone counts, an int32 scalar that is read anew in each pass; None for all of
            them together.

    Example:
        >>> Labels(2).logits(tf.constant([[1.0, -3.0]])).numpy()  # Of the patterns 00, 10, 01, 11.
        array([[-1.,  0., -4., -3.]], dtype=float32)
    """

    count: int
    chosen: tf.Variable | None = None

    @property
    def classes(self) -> int:
        return 2**self.count if self.chosen is None else 2

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the logits of the classes, float32 (N, classes), for those of the labels, (N, count)."""
        if self.chosen is not None:
            own = tf.gather(outputs, self.chosen, axis=1)[:, None]
            return tf.concat([tf.zeros_like(own), own], axis=1)
        found = tf.zeros_like(outputs[:, :1])
        for number in range(self.count):
            own = outputs[:, number : number + 1]
            # Less the highest of all, which softmax and margins don't see: the pattern that wins has 0 and the next one
            # its margin exactly, where sums of large logits would round it away.
            found = tf.concat([found + tf.minimum(-own, 0.0), found + tf.minimum(own, 0.0)], axis=1)
        return found


def check_count(name: str, count: int) -> None:
    """Raises InputError for more labels than can be evaluated together."""
    if count > MOST:
        raise InputError(
            f"Expected at most {MOST} labels, as each of their patterns is a class. Received: {name!r} with {count}. "
            f"Give some of them, keras.Model(model.inputs, model.outputs[0][:, :{MOST}]) with y[:, :{MOST}], or one, "
            "[:, k : k + 1] with y[:, k]."
        )
