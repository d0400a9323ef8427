"""The graph type: its checks, its transpose, and the feature matrices made of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph, MixedFeatures, SparseFeatures, feature_rows, gat_aggregate, spmm
from gkdkernels.graph import DegreeStats
from scipy.sparse import coo_array
from torch import Tensor


def dense(graph: CSRGraph) -> Tensor:
    ones = torch.ones(graph.num_edges)
    return SparseFeatures(graph, ones).dense()


def test_transpose_and_its_edge_ids(graph: CSRGraph) -> None:
    transposed = graph.transposed
    assert torch.equal(dense(transposed.graph), dense(graph).t())
    assert torch.equal(transposed.graph.index, graph.row[transposed.edge])
    assert torch.equal(transposed.graph.row, graph.index[transposed.edge])
    assert transposed.graph.index.dtype == graph.index.dtype
    assert graph.transposed is transposed


def test_transpose_orders_edges_alike_below_and_above_16_bit(odd: CSRGraph) -> None:
    for bits in (16, 17):  # values spread over the whole range
        spread = CSRGraph(odd.indptr, odd.index * (2**bits // 63), 1 << bits)
        assert torch.equal(spread.transposed.edge, odd.transposed.edge)


def test_edge_index_is_source_then_target() -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[3, 1, 1], [0, 2, 0]]), 4)
    assert graph.indptr.tolist() == [0, 2, 2, 3, 3]
    assert graph.index.tolist() == [1, 3, 1]
    assert graph.degree.tolist() == [2, 0, 1, 0]


def test_symmetric_graphs_share_one_structure() -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 1, 2, 2, 2], [1, 0, 2, 1, 2, 2]]), 3, symmetric=True)
    transposed = graph.transposed
    assert transposed.graph.index.data_ptr() == graph.index.data_ptr()
    assert torch.equal(transposed.graph.index, graph.row[transposed.edge])
    assert transposed.edge.tolist() == [1, 0, 3, 2, 4, 5]


def test_unsorted_or_falsely_symmetric_rows_share_nothing() -> None:
    for index in ([2, 1, 0, 0], [1, 2, 0, 1]):
        graph = CSRGraph(torch.tensor([0, 2, 3, 4]), torch.tensor(index), 3, symmetric=True)
        transposed = graph.transposed
        assert transposed.graph.index.data_ptr() != graph.index.data_ptr()
        assert torch.equal(dense(transposed.graph), dense(graph).t())


def test_hubs_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkdkernels.graph.HUB_EDGES", 2)
    graph = CSRGraph(torch.tensor([0, 2, 7, 7, 10]), torch.zeros(10, dtype=torch.int64), 1)
    assert graph.hubs.row.tolist() == [1, 3]
    assert graph.hubs.first.tolist() == [0, 3, 5]
    assert graph.hubs.chunk.tolist() == [0, 0, 0, 1, 1]


def test_parts_and_back(graph: CSRGraph) -> None:
    again = CSRGraph.from_parts(graph.parts(transposed=True), graph.num_src)
    assert torch.equal(dense(again), dense(graph))
    assert again.row is graph.row
    assert torch.equal(again.transposed.edge, graph.transposed.edge)
    assert (again.transposed.graph.num_dst, again.transposed.graph.num_src) == (graph.num_src, graph.num_dst)


def test_degree_stats() -> None:
    graph = CSRGraph(torch.tensor([0, 0, 1, 3, 9]), torch.zeros(9, dtype=torch.int64), 1)
    assert graph.degree_stats() == DegreeStats(min=0, mean=2.25, median=1, p99=2, max=6, isolated=1)
    assert CSRGraph(torch.tensor([0]), torch.tensor([], dtype=torch.int64), 1).degree_stats().max == 0


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_from_scipy(form: str) -> None:
    entries = coo_array(([5.0, 1.0, 2.0, 0.0], ([0, 2, 2, 1], [3, 1, 1, 0])), shape=(3, 4))
    graph = CSRGraph.from_scipy(entries.asformat(form))
    assert (graph.num_dst, graph.num_src) == (3, 4)
    assert (graph.indptr.tolist(), graph.index.tolist()) == ([0, 1, 2, 3], [3, 0, 1])


def test_from_pyg_reads_the_edge_index() -> None:
    data = SimpleNamespace(edge_index=torch.tensor([[3, 1, 1], [0, 2, 0]]), num_nodes=4)
    graph = CSRGraph.from_pyg(data)
    assert (graph.indptr.tolist(), graph.index.tolist()) == ([0, 2, 2, 3, 3], [1, 3, 1])
    with pytest.raises(ValueError, match="data: expected an attribute edge_index, got SimpleNamespace without one"):
        CSRGraph.from_pyg(SimpleNamespace(edge_index=None))


LONG = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LONG[None], LONG, 3), r"indptr: expected one dimension, got shape \(1, 2\)"),
        ((LONG.float(), LONG, 3), "indptr: expected int32 or int64, got torch.float32"),
        ((LONG.int(), LONG, 3), "indptr and index: expected one dtype and device"),
        ((LONG[:0], LONG, 3), "indptr: expected num_dst [+] 1 entries, got none"),
        ((torch.tensor([0, 1]), LONG, 3), "indptr: expected values from 0 to E=2, got 0 to 1"),
        ((torch.tensor([0, 3, 2]), LONG, 3), "indptr: expected non-decreasing values"),
        ((LONG, LONG, 2), r"index: expected values in \[0, 2\), got 0..2"),
        ((LONG, LONG - 1, 2), r"index: expected values in \[0, 2\), got -1..1"),
        ((LONG, LONG, 3, True), "symmetric=True: expected a square graph"),
    ],
)
def test_bad_graph(arguments: tuple[Tensor, Tensor, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CSRGraph(*arguments)


def test_bad_edge_index() -> None:
    with pytest.raises(ValueError, match=r"edge_index: expected shape \[2, E\]"):
        CSRGraph.from_edge_index(torch.zeros(3, 2, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match=r"destinations in \[0, 3\), got 0..3"):
        CSRGraph.from_edge_index(torch.tensor([[0, 1], [0, 3]]), 3)


def test_features_keep_their_matrix(draw: Callable[..., Tensor]) -> None:
    matrix = torch.where(draw(9, 6) > 0.5, draw(9, 6), 0)
    sparse, extra = SparseFeatures.from_dense(matrix), draw(9, 2)
    mixed = MixedFeatures(sparse, extra)
    rows = torch.tensor([8, 0, 0, 3])
    assert sparse.shape == (9, 6)
    assert mixed.shape == (9, 8)
    assert torch.equal(sparse.dense(), matrix)
    for features in (matrix, sparse, mixed):
        picked = feature_rows(features, rows)
        assert picked.shape == (4, features.shape[1])
        assert feature_rows(features, rows[:0]).shape == (0, features.shape[1])
        if isinstance(picked, SparseFeatures):
            assert torch.equal(picked.dense(), matrix[rows])
        elif isinstance(picked, MixedFeatures):
            assert torch.equal(picked.sparse.dense(), matrix[rows])
            assert torch.equal(picked.dense, extra[rows])
    assert mixed.to("cpu").device == torch.device("cpu")


def test_bad_features(odd: CSRGraph) -> None:
    with pytest.raises(ValueError, match=r"value: expected shape \[257\], got \(256,\)"):
        SparseFeatures(odd, torch.zeros(256))
    with pytest.raises(ValueError, match=r"dense: expected shape \[63, D\], got \(62, 2\)"):
        MixedFeatures(SparseFeatures(odd, torch.zeros(257)), torch.zeros(62, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_an_edge_index_of_no_integers_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"edge_index: expected integers, got .*; try edge_index.long\(\)"):
        CSRGraph.from_edge_index(torch.tensor([[0, 1], [1, 0]]).to(dtype), 3)


@pytest.mark.parametrize("size", [-3, True, 3.0])
def test_a_number_of_nodes_is_a_number(size: Any) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="num_src: expected a number of nodes, at least 0, got"):
        CSRGraph(torch.tensor([0, 0]), none, size)
    with pytest.raises(ValueError, match="num_nodes: expected a number of nodes, at least 0, got"):
        CSRGraph.from_edge_index(none.view(2, 0), size)


def test_strided_tensors_are_copied_once() -> None:
    pairs = torch.tensor([[0, 1], [0, 2], [1, 0], [2, 1]])
    graph = CSRGraph(torch.tensor([0, 9, 2, 9, 3, 9, 4])[::2], pairs[:, 1], 3)
    assert graph.index.tolist() == [1, 2, 0, 1] and graph.indptr.tolist() == [0, 2, 3, 4]
    assert graph.index.is_contiguous() and graph.indptr.is_contiguous()
    kept = torch.tensor([0, 1, 1])
    assert CSRGraph(kept, torch.tensor([0]), 1).indptr is kept


def test_a_graph_moves_as_the_types_of_torch_do() -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 3)
    assert graph.to(device="cpu", non_blocking=True) is graph and graph.to() is graph and graph.cpu() is graph
    moved = graph.to("meta")
    assert moved.device.type == "meta" and (moved.num_dst, moved.num_edges, moved.symmetric) == (3, 2, None)
    sparse = SparseFeatures(graph, torch.ones(2))
    mixed = MixedFeatures(sparse, torch.ones(3, 1))
    assert sparse.to(device="meta", non_blocking=True).device.type == "meta" and sparse.to() is sparse
    assert mixed.to(device="meta", non_blocking=True).sparse.graph.device.type == "meta" and mixed.to() is mixed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_graph_moves_to_the_gpu_and_back() -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 3)
    there = graph.pin_memory().cuda(non_blocking=True)
    assert there.device.type == "cuda" and there.to("cuda") is there
    assert torch.equal(there.cpu().index, graph.index)


@pytest.mark.parametrize("operator", [spmm, lambda g, x: gat_aggregate(g, x[:, None], x, x)])
def test_another_type_of_graph_is_named(operator: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"graph: expected a CSRGraph, got Tensor; try CSRGraph.from_edge_index"):
        operator(torch.eye(3), torch.ones(3, 1))
