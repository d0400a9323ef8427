"""Graphs with edge weights from other libraries' types, and self-loops with weights.

Every function returns ``(graph, weight)``, the weights [E] in the order of ``graph.index`` as operators take them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.graph import CSRGraph, check_graph, tensor_rows
from gkdkernels.kept import to_keep

_WEIGHTS = ("edge_weight", "edge_attr")


def from_pyg(data: Any) -> tuple[CSRGraph, Tensor | None]:
    """The graph of a `torch_geometric.data.Data` and its edge weights.

    The weights are ``data.edge_weight``, or ``data.edge_attr`` where it holds one number per edge; None without either.

    Args:
        data: has `edge_index` [2, E] and `num_nodes`.

    Raises:
        ValueError: without an `edge_index`, or weights that are not one float per edge.

    Example:
        >>> from types import SimpleNamespace
        >>> edges, weight = torch.tensor([[2, 0, 1], [0, 1, 0]]), torch.tensor([0.2, 0.0, 0.1])
        >>> graph, weight = from_pyg(SimpleNamespace(edge_index=edges, num_nodes=3, edge_weight=weight))
        >>> graph.index, weight
        (tensor([1, 2, 0]), tensor([0.1000, 0.2000, 0.0000]))
    """
    graph = CSRGraph.from_pyg(data)
    found = ((name, getattr(data, name, None)) for name in _WEIGHTS)
    name, value = next(((name, value) for name, value in found if value is not None), ("", None))
    if value is None:
        return graph, None
    one = tuple(value.shape) in ((graph.num_edges,), (graph.num_edges, 1))
    if not one or not value.is_floating_point():
        raise ValueError(
            f"{name}: expected one float for each of {graph.num_edges} edges, got {value.dtype} of shape "
            f"{tuple(value.shape)}; try CSRGraph.from_pyg(data), whose edge_order puts any values into its order"
        )
    return graph, tensor_rows(value.reshape(-1), graph.edge_order)


def from_torch_sparse(matrix: Tensor) -> tuple[CSRGraph, Tensor]:
    """The graph of a sparse matrix [num_dst, num_src], entry (i, j) being an edge j -> i, and its values.

    Args:
        matrix: of layout `torch.sparse_coo` (duplicates are summed), `torch.sparse_csr`, or
            `torch.sparse_csc`, of which torch has no gradient.

    Raises:
        ValueError: a dense matrix, another layout, or another number of dimensions.

    Example:
        >>> graph, weight = from_torch_sparse(torch.tensor([[0.0, 0.5], [2.0, 0.0]]).to_sparse())
        >>> graph.index, weight
        (tensor([1, 0]), tensor([0.5000, 2.0000]))
    """
    layouts = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
    if not isinstance(matrix, Tensor) or matrix.layout not in layouts or matrix.dim() != 2 or matrix.dense_dim():
        got = f"{matrix.layout} of shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ValueError(f"matrix: expected two dimensions in layout coo, csr or csc, got {got}; try x.to_sparse()")
    num_dst, num_src = matrix.shape
    if matrix.layout == torch.sparse_coo:
        entries = matrix.coalesce()
        graph = CSRGraph.from_edge_index(entries.indices().flip(0), (num_dst, num_src))
        return graph, tensor_rows(entries.values(), graph.edge_order)
    value: Tensor = matrix.values()
    if matrix.layout == torch.sparse_csr:
        return CSRGraph(matrix.crow_indices(), matrix.col_indices(), num_src), value
    turned = CSRGraph(matrix.ccol_indices(), matrix.row_indices(), num_dst)  # rows are its columns
    graph = CSRGraph.from_edge_index(torch.stack([turned.row, turned.index]), (num_dst, num_src))
    return graph, tensor_rows(value, graph.edge_order)


def with_self_loops(graph: CSRGraph, weight: Tensor | None = None, fill: float = 1.0) -> tuple[CSRGraph, Tensor | None]:
    """The graph with exactly one self-loop at every node, and its weights, as PyG's transform has it.

    A loop that is there keeps its weight (the last of several does); a new one weighs `fill`. The graph is made once
    and kept on `graph`.

    Args:
        graph: square, N nodes.
        weight: [E] float, differentiable; None for none, and None comes back.

    Raises:
        ValueError: a rectangular graph, or a wrong shape.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[0, 1], [1, 1]]), 2)  # 0 -> 1, and a loop at 1
        >>> looped, weight = with_self_loops(graph, torch.tensor([0.5, 3.0]))
        >>> looped.index, weight
        (tensor([0, 0, 1]), tensor([1.0000, 0.5000, 3.0000]))
    """
    check_graph(graph)
    if graph.num_dst != graph.num_src:
        raise ValueError(f"graph: expected a square one, got {graph.num_dst} rows and {graph.num_src} columns")
    if weight is not None and weight.shape != (graph.num_edges,):
        raise ValueError(f"weight: expected shape [{graph.num_edges}], got {tuple(weight.shape)}")
    kept: tuple[CSRGraph, Tensor, Tensor] | None = graph.__dict__.get("_with_self_loops")
    if kept is None:
        kept = graph.__dict__["_with_self_loops"] = _looped(graph)
    looped, edge, order = kept
    if weight is None:
        return looped, None
    spare = torch.cat([weight, weight.new_full((1,), fill)])  # new loops read the last entry
    return looped, tensor_rows(tensor_rows(spare, edge), order)


@to_keep
def _looped(graph: CSRGraph) -> tuple[CSRGraph, Tensor, Tensor]:
    """The graph; the edges that stay and the loops, E for a new one; the order in which it stores them."""
    loops = graph.row == graph.index
    stay, old = (~loops).nonzero().squeeze(1), loops.nonzero().squeeze(1)
    own = torch.full((graph.num_dst,), -1, device=graph.device)
    own = own.scatter_reduce(0, graph.index[old].long(), old, "amax")
    node = torch.arange(graph.num_dst, dtype=graph.index.dtype, device=graph.device)
    ends = torch.stack([torch.cat([part[stay], node]) for part in (graph.index, graph.row)])
    made = CSRGraph.from_edge_index(ends, graph.num_dst, graph.symmetric)
    indptr, index = made.indptr.to(graph.indptr.dtype), made.index.to(graph.index.dtype)
    edge = torch.cat([stay, torch.where(own < 0, graph.num_edges, own)])
    return CSRGraph.trusted(indptr, index, graph.num_src, graph.symmetric), edge, made.edge_order
