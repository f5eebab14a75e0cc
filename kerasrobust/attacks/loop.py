"""The loop around an algorithm's steps, as graphs that are traced once; attacks and training run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.network import Cost, Forward, Network, Passes
from kerasrobust.ops import draws
from kerasrobust.ops.tracing import Traced
from kerasrobust.twins import Local


def noise_key(keys: tf.Tensor) -> tf.Tensor:
    """Returns the key of the network's noise, (2,), given keys (2,) or (N, 2): it is drawn per batch and step."""
    return draws.fold(keys if keys.shape.rank == 1 else keys[0], 7)


def advance(
    algorithm: Algorithm[Any],
    network: Network,
    images: Images,
    state: Any,
    steps: tuple[tf.Tensor, tf.Tensor],
    leave: tf.Tensor,
    numbers: Numbers,
) -> tuple[Any, tf.Tensor]:
    """Takes several steps in one graph.

    Args:
        algorithm: whose steps.
        network: what it asks.
        images: the examples.
        state: theirs.
        steps: the number of the first step and how many to take, integer scalars.
        leave: an integer scalar: ends earlier once so many examples are done.
        numbers: the algorithm's.

    Returns:
        The state, and the number of the step that would come next.
    """
    first, count = steps
    numbers = numbers | algorithm.constants(images, numbers)

    def unfinished(step: tf.Tensor, state: Any) -> tf.Tensor:
        done = tf.reduce_sum(tf.cast(algorithm.done(state, numbers), tf.int32))
        return (step < first + count) & (done < leave)

    def once(step: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        network.cost.clear()  # However often the loop's body is traced.
        return step + 1, algorithm.step(network.at(step), images, state, numbers)

    step, state = tf.while_loop(unfinished, once, (first, state))
    return state, step


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The graphs of an algorithm on a network, for one shape of images, and what a call of each costs an example.

    Attributes:
        begin: (images, numbers) -> state and noise key.
        advance: (images, state, key, step, count, leave, numbers) -> state and next step.
        look: (images, state, key, step, numbers) -> state.
        complete: (images, state, key, numbers) -> state, of what was saved of it.
    """

    begin: Traced
    advance: Traced
    look: Traced
    complete: Traced
    begin_cost: Cost
    step_cost: Cost
    look_cost: Cost


def make_graphs(
    algorithm: Algorithm[Any], forward: Forward, classes: int, any_size: bool, local: Local | None = None
) -> Graphs:
    """Returns the graphs, to be traced at their first calls.

    Args:
        algorithm: what runs.
        forward: the network's logits.
        classes: how many.
        any_size: whether one graph takes batches of any size.
        local: the network in parts, where it can be computed so.
    """
    begin_cost, step_cost, look_cost = Cost(), Cost(), Cost()

    def network(key: tf.Tensor, cost: Cost, numbers: Numbers) -> Network:
        passes = Passes() if algorithm.eot == 1 else Passes(numbers["eot"], numbers["rows"])
        return Network(forward, key, passes, classes, cost=cost, local=local if passes.is_one else None)

    def begin(images: Images, numbers: Numbers) -> tuple[Any, tf.Tensor]:
        begin_cost.clear()
        key = noise_key(images.keys)
        return algorithm.begin(network(key, begin_cost, numbers), images, numbers), key

    def steps(
        images: Images, state: Any, key: tf.Tensor, step: tf.Tensor, count: tf.Tensor, leave: tf.Tensor,
        numbers: Numbers,
    ) -> tuple[Any, tf.Tensor]:  # fmt: skip
        return advance(algorithm, network(key, step_cost, numbers), images, state, (step, count), leave, numbers)

    def look(images: Images, state: Any, key: tf.Tensor, step: tf.Tensor, numbers: Numbers) -> Any:
        look_cost.clear()
        return algorithm.look(network(key, look_cost, numbers).at(step), images, state, numbers)

    def complete(images: Images, state: Any, key: tf.Tensor, numbers: Numbers) -> Any:
        return algorithm.complete(network(key, Cost(), numbers), images, state)

    signature: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = open_rows if any_size else None
    return Graphs(
        begin=Traced(begin, signature),
        advance=Traced(steps, signature),
        look=Traced(look, signature),
        complete=Traced(complete, signature),
        begin_cost=begin_cost,
        step_cost=step_cost,
        look_cost=look_cost,
    )


def open_rows(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the signature of a graph for batches of any size, given arguments for one.

    Images and states, which are tuples, have a row for each example; keys, counts and numbers haven't.
    """

    def opened(value: tf.Tensor) -> tf.TensorSpec:
        return tf.TensorSpec([None, *value.shape[1:]], value.dtype)

    def closed(value: tf.Tensor) -> tf.TensorSpec:
        return tf.TensorSpec(value.shape, value.dtype)

    return tuple(
        tf.nest.map_structure(opened if isinstance(item, tuple) else closed, item) for item in arguments
    )  # fmt: skip
