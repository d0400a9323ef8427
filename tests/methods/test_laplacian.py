"""Laplacian encodings: eigenvectors of each graph alone, with a fixed sign, beside the features."""

from typing import Any

import numpy as np
import torch
from gkdkernels import CSRGraph

from gkdbench.data.nodes import Space
from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks.laplacian import LaplacianEncoder, laplacian_encodings


def laplacian(inputs: Any, graph: int) -> np.ndarray:
    first, last = inputs.segments[graph : graph + 2].tolist()
    adjacency = np.zeros((last - first, last - first))
    for source, target in zip(inputs.graph.index.tolist(), inputs.graph.row.tolist(), strict=True):
        if first <= target < last:
            adjacency[target - first, source - first] = 1.0
    root = adjacency.sum(1) ** -0.5
    return np.eye(last - first) - root[:, None] * adjacency * root


def test_columns_are_eigenvectors_in_ascending_order(bench: Any) -> None:
    inputs = bench.given("graph").view.inputs
    found = laplacian_encodings(inputs, 5).double().numpy()
    for graph in range(12):
        first, last = inputs.segments[graph : graph + 2].tolist()
        size, matrix = last - first, laplacian(inputs, graph)
        values = np.linalg.eigvalsh(matrix)
        vectors = found[first:last, : min(5, size - 1)]
        for column, value in enumerate(values[1:6]):
            np.testing.assert_allclose(matrix @ vectors[:, column], value * vectors[:, column], atol=1e-6)
            size_of = np.abs(vectors[:, column])
            assert vectors[(size_of > size_of.max() * 0.9999).argmax(), column] > 0
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(vectors.shape[1]), atol=1e-6)
        assert not found[first:last, size - 1 :].any()


def test_a_graph_is_encoded_the_same_in_every_company(bench: Any) -> None:
    inputs = bench.given("graph").view.inputs
    chosen = torch.tensor([8, 1, 30])
    batch = inputs.take(chosen)
    alone = laplacian_encodings(batch, 4)
    together = LaplacianEncoder(4)(inputs).take(chosen).features
    torch.testing.assert_close(together[:, -4:], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(together[:, :-4], batch.features)


def test_graphs_without_edges_and_of_one_node_have_encodings(bench: Any) -> None:
    graph = CSRGraph(torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 4)
    nodes, items = Space("n", torch.arange(4)), Space("g", torch.arange(2))
    inputs = Inputs(nodes, items, graph, torch.zeros(4, 1), torch.tensor([0, 1, 4]))
    found = laplacian_encodings(inputs, 3)
    assert found.isfinite().all() and not found[0].any() and not found[:, 2].any()
