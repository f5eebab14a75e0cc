"""How the layers of a model are wired: which follows which alone, who is called how often, and on what."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import keras

from kerasrobust.networks.architectures import graph_of, is_graph


def neighbours(model: keras.Model, shared: set[int]) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of layers of which the second is called once, and nothing else sees the first one's outputs."""
    outputs = {id(tensor) for tensor in model.outputs}
    calls, uses = calls_of(model)
    for layer in model.layers:
        if is_graph(layer):
            yield from neighbours(layer, shared)
        node = calls[id(layer)][0]
        if len(calls[id(layer)]) != 1 or len(node.input_tensors) != 1 or id(node.input_tensors[0]) in outputs:
            continue
        before, _, _ = node.input_tensors[0]._keras_history
        # Arguments such as training=True change what a layer does.
        plain = all(value is None for value in node.arguments.kwargs.values())
        alone = len(calls[id(before)]) == len(uses[id(before)]) == 1 and not {id(before), id(layer)} & shared
        if plain and alone:
            yield before, layer


def calls_of(model: Any) -> tuple[dict[int, list[Any]], dict[int, list[Any]]]:
    """Returns the calls of each layer in a model's own graph, and the calls that take its outputs, by the layer's id.

    A layer also lists its calls in other models, and those of a Sequential before its next layer was added.
    """
    graph = graph_of(model)
    calls: dict[int, list[Any]] = {id(operation): [] for operation in graph._operations}
    uses: dict[int, list[Any]] = {id(operation): [] for operation in graph._operations}
    for node in itertools.chain.from_iterable(graph._nodes_by_depth.values()):
        calls[id(node.operation)].append(node)
        for source in {id(tensor._keras_history.operation) for tensor in node.input_tensors}:
            uses[source].append(node)
    return calls, uses


def shared_layers(model: keras.Model) -> set[int]:
    """Returns the ids of the layers that stand in several of a model's graphs: its own and those of nested models."""
    graphs = [part for part in model._flatten_layers() if is_graph(part)]
    count = collections.Counter(id(layer) for graph in graphs for layer in graph.layers)
    return {key for key, number in count.items() if number > 1}


def input_shapes(model: keras.Model, shared: set[int]) -> Iterator[tuple[int, tuple[int | None, ...]]]:
    """Yields the ids of the layers that are called once, on one tensor, and its shape."""
    calls, _ = calls_of(model)
    for layer in model.layers:
        if is_graph(layer):
            yield from input_shapes(layer, shared)
        elif id(layer) not in shared and len(calls[id(layer)]) == 1 and len(calls[id(layer)][0].input_tensors) == 1:
            yield id(layer), calls[id(layer)][0].input_tensors[0].shape
