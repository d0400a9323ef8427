"""Edge weights find their edges: the order of a graph, PyG's data, torch's sparse matrices, self-loops."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from gkdkernels import CSRGraph, from_pyg, from_torch_sparse, with_self_loops
from torch import Tensor

NODES = 20


def shuffled(seed: int = 1, edges: int = 70) -> tuple[Tensor, Tensor]:
    """Edges in no order, with loops and parallel ones, and a weight for each."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, NODES, (2, edges), generator=generator)
    edge_index[:, -3:] = edge_index[:, :3]
    edge_index[1, 5:9] = edge_index[0, 5:9]
    edge_index[:, 10] = edge_index[:, 5]  # two loops at one node
    return edge_index, torch.rand(edges, generator=generator, dtype=torch.float64)


def dense(graph: CSRGraph, weight: Tensor) -> Tensor:
    return torch.zeros(graph.num_dst, graph.num_src, dtype=weight.dtype).index_put(
        (graph.row.long(), graph.index.long()), weight, accumulate=True
    )


def test_edge_order_leads_from_the_callers_edges_to_the_stored_ones() -> None:
    edge_index, _ = shuffled()
    graph = CSRGraph.from_edge_index(edge_index, NODES)
    assert torch.equal(edge_index[:, graph.edge_order], torch.stack([graph.index, graph.row]))
    same = [(edge_index[:, e] == edge_index[:, 0]).all() for e in range(70)]
    parallel = torch.tensor(same).nonzero().flatten().tolist()
    assert [e for e in graph.edge_order.tolist() if e in parallel] == parallel and len(parallel) > 1  # in their order
    for other in (graph.to("cpu"), pickle.loads(pickle.dumps(graph)), CSRGraph.from_pyg(pyg(edge_index))):
        assert torch.equal(other.edge_order, graph.edge_order)


def pyg(edge_index: Tensor, **more: Tensor | None) -> SimpleNamespace:
    return SimpleNamespace(edge_index=edge_index, num_nodes=NODES, **more)


def test_edges_that_are_sorted_keep_no_order() -> None:
    graph = CSRGraph.from_edge_index(shuffled()[0], NODES)
    again = CSRGraph.from_edge_index(torch.stack([graph.index, graph.row]), NODES)
    assert again._edge_order is None and again.edge_order.tolist() == list(range(70))
    assert graph.transposed.graph.edge_order.tolist() == list(range(70))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_order_moves_with_the_graph() -> None:
    graph = CSRGraph.from_edge_index(shuffled()[0], NODES)
    assert graph.cuda().edge_order.is_cuda and torch.equal(graph.cuda().edge_order.cpu(), graph.edge_order)


def test_weights_of_pyg() -> None:
    edge_index, weight = shuffled()
    wanted = torch.zeros(NODES, NODES, dtype=weight.dtype)
    wanted.index_put_((edge_index[1], edge_index[0]), weight, accumulate=True)
    for more in ({"edge_weight": weight}, {"edge_attr": weight[:, None]}, {"edge_weight": weight, "edge_attr": None}):
        graph, found = from_pyg(pyg(edge_index, **more))
        assert found is not None
        torch.testing.assert_close(dense(graph, found), wanted)
    assert from_pyg(pyg(edge_index))[1] is None
    for wrong in (weight[:5], weight.long(), weight[:, None].expand(-1, 2)):
        with pytest.raises(ValueError, match="edge_attr: expected one float for each of 70 edges"):
            from_pyg(pyg(edge_index, edge_attr=wrong))
    with pytest.raises(ValueError, match="expected an attribute edge_index"):
        from_pyg(SimpleNamespace(num_nodes=3))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_torchs_sparse_matrices(layout: str) -> None:
    matrix = torch.rand(6, 9, dtype=torch.float64).mul_(torch.rand(6, 9) < 0.4)
    sparse = matrix.to_sparse(layout=getattr(torch, f"sparse_{layout}")).requires_grad_()
    graph, weight = from_torch_sparse(sparse)
    assert (graph.num_dst, graph.num_src) == (6, 9)
    assert torch.equal(dense(graph, weight.detach()), matrix)
    if layout != "csc":  # torch has no gradient of such a matrix
        weight.sum().backward()
        assert sparse.grad is not None


def test_entries_that_are_there_twice_are_summed() -> None:
    matrix = torch.sparse_coo_tensor([[1, 0, 1], [0, 1, 0]], [1.0, 2.0, 4.0], (2, 2), check_invariants=True)
    graph, weight = from_torch_sparse(matrix)
    assert dense(graph, weight).tolist() == [[0.0, 2.0], [5.0, 0.0]]


@pytest.mark.parametrize("matrix", [torch.zeros(2, 2), torch.zeros(2, 2, 2).to_sparse(), "A"], ids=str)
def test_other_matrices_are_refused(matrix: Tensor) -> None:
    with pytest.raises(ValueError, match="matrix: expected two dimensions in layout coo, csr or csc, got"):
        from_torch_sparse(matrix)


@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_self_loops_are_those_of_pyg(integer: torch.dtype) -> None:
    utils = pytest.importorskip("torch_geometric.utils")
    edge_index, weight = shuffled()
    theirs = utils.add_remaining_self_loops(edge_index, weight, 2.5, NODES)
    made = CSRGraph.from_edge_index(edge_index, NODES)
    graph = CSRGraph(made.indptr.to(integer), made.index.to(integer), NODES)
    leaf = weight[made.edge_order].requires_grad_()
    looped, found = with_self_loops(graph, leaf, 2.5)
    assert found is not None and looped.index.dtype == integer
    wanted = torch.zeros(NODES, NODES, dtype=weight.dtype)
    wanted.index_put_((theirs[0][1], theirs[0][0]), theirs[1], accumulate=True)
    torch.testing.assert_close(dense(looped, found.detach()), wanted)
    assert looped.num_edges == theirs[0].size(1)
    found.sum().backward()
    assert leaf.grad is not None
    assert int(leaf.grad.sum()) == int((made.row != made.index).sum()) + len({*graph_loops(made)})
    assert with_self_loops(graph)[0] is looped and with_self_loops(graph)[1] is None  # made once


def graph_loops(graph: CSRGraph) -> list[int]:
    return graph.row[graph.row == graph.index].tolist()


def test_self_loops_of_a_graph_without_edges_and_of_a_rectangle() -> None:
    bare = CSRGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 3)
    looped, weight = with_self_loops(bare, torch.zeros(0), 4.0)
    assert looped.index.tolist() == [0, 1, 2] and weight is not None and weight.tolist() == [4.0] * 3
    with pytest.raises(ValueError, match="graph: expected a square one, got 2 rows and 3 columns"):
        with_self_loops(CSRGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), (2, 3)))
    with pytest.raises(ValueError, match=r"weight: expected shape \[0\], got \(2,\)"):
        with_self_loops(bare, torch.zeros(2))
