"""`spmm`: the fp64 reference, and what else computes neighbour sums, means and maxima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gkdkernels import CSRGraph, gcn_weight, spmm
from gkdkernels.core.cost import Cost, spmm_cost
from torch import Tensor

from gkdbench.measure.operators.compiled import library
from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    by_blocks,
    competitor,
    compiled,
    edge_blocks,
    normal,
    ours,
    sparse_matrix,
)

_BLOCK_ELEMENTS = 1 << 25  # [edges of a block, D] of the oracle


def problem(case: Case, graph: CSRGraph) -> OperatorProblem:
    """``y_i = reduce_e w_e x_j``: GCN's weights for the sum, none for mean and max. Sizes: width."""
    width, reduce, device, dtype = case.sizes["width"], case.option, graph.device, case.torch_dtype
    x = normal(graph.num_src, width, seed=1, dtype=dtype, device=device)
    weight = gcn_weight(graph, torch.float64).to(dtype) if reduce == "sum" else None
    upstream = normal(graph.num_dst, width, seed=2, dtype=dtype, device=device)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        wide = None if weight is None else weight.double()
        blocks = edge_blocks(graph, max(1, _BLOCK_ELEMENTS // width))
        return by_blocks(inputs, g, blocks, lambda t, rows, edges: _rows(graph, t["x"], wide, reduce, rows, edges))

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: spmm(graph, t["x"], weight, reduce, backend=backend)

    candidates = [*ours("spmm max" if reduce == "max" else "spmm", device, call), *_peers(graph, weight, reduce)]
    return OperatorProblem(
        {"x": x}, upstream, oracle, candidates, _cost(case, graph, reuse=False), _cost(case, graph, reuse=True)
    )


def _cost(case: Case, graph: CSRGraph, *, reuse: bool) -> Cost:
    def one(backward: bool) -> Cost:
        return spmm_cost(
            graph.num_dst,
            graph.num_src,
            graph.num_edges,
            case.sizes["width"],
            weighted=case.option == "sum",
            reduce=case.option,
            backward=backward,
            feature_bytes=case.torch_dtype.itemsize,
            index_bytes=graph.index.element_size(),
            reuse=reuse,
        )

    return one(False) + one(True) if case.direction == "fwd+bwd" else one(False)


def _rows(graph: CSRGraph, x: Tensor, weight: Tensor | None, reduce: str, rows: slice, edges: slice) -> Tensor:
    """The formula on some rows; `edges` are theirs."""
    count = rows.stop - rows.start
    row = (graph.row[edges] - rows.start).long()
    messages = x.index_select(0, graph.index[edges])  # [e, D]
    if weight is not None:
        messages = messages * weight[edges, None]
    if reduce == "max":
        where = row[:, None].expand(messages.shape)
        with torch.no_grad():
            top = messages.new_full((count, x.size(1)), -torch.inf).scatter_reduce(0, where, messages, "amax")
            edge = torch.arange(messages.size(0), device=x.device)[:, None].expand(messages.shape)
            wins = edge.where(messages == top[row], messages.size(0))
            winner = torch.full_like(top, messages.size(0), dtype=torch.int64).scatter_reduce(0, where, wins, "amin")
        padded = torch.cat([messages, messages.new_zeros(1, x.size(1))])
        return padded.gather(0, winner)  # a tie goes to the lowest edge, an empty row to the zeros
    y = messages.new_zeros(count, x.size(1)).index_add(0, row, messages)
    return y / graph.degree[rows].clamp(min=1)[:, None] if reduce == "mean" else y


def _peers(graph: CSRGraph, weight: Tensor | None, reduce: str) -> list[Candidate]:
    row, col = graph.row.long(), graph.index.long()
    degree = graph.degree.clamp(min=1)[:, None]
    scatter = {"sum": "sum", "mean": "mean", "max": "amax"}[reduce]

    def divided(y: Tensor) -> Tensor:
        return y / degree if reduce == "mean" else y

    def weighted(messages: Tensor) -> Tensor:
        return messages if weight is None else messages * weight[:, None]

    def index_select(t: Tensors) -> Tensor:
        messages = weighted(t["x"].index_select(0, col))
        return divided(messages.new_zeros(graph.num_dst, messages.size(1)).index_add(0, row, messages))

    def fancy_index(t: Tensors) -> Tensor:
        messages = weighted(t["x"][col])
        return divided(messages.new_zeros(graph.num_dst, messages.size(1)).index_add(0, row, messages))

    def scatter_reduce(t: Tensors) -> Tensor:
        messages = t["x"].index_select(0, col)
        zero = messages.new_zeros(graph.num_dst, messages.size(1))
        return zero.scatter_reduce(0, row[:, None].expand(messages.shape), messages, "amax", include_self=False)

    def matrix_product() -> OperatorCall:
        a = _csr(graph, weight)
        return lambda t: divided(a @ t["x"])

    def kept_transpose() -> OperatorCall:
        a, transposed = _csr(graph, weight), graph.transposed
        at = _csr(transposed.graph, None if weight is None else weight[transposed.edge])
        return lambda t: divided(_Product.apply(a, at, t["x"]))  # type: ignore[no-untyped-call]

    def sparse_mm() -> OperatorCall:
        if graph.device.type != "cpu":
            raise CandidateUnavailable("torch.sparse.mm(reduce=) exists on the CPU only")
        a = _csr(graph, weight)
        return lambda t: torch.sparse.mm(a, t["x"], reduce=scatter)

    def segment_reduce(t: Tensors) -> Tensor:
        messages = weighted(t["x"].index_select(0, col))
        return torch.segment_reduce(
            messages, reduce, offsets=graph.indptr.long(), initial=0 if reduce != "max" else None
        )

    def bag(t: Tensors) -> Tensor:
        return divided(
            torch.nn.functional.embedding_bag(
                col, t["x"], graph.indptr.long(), mode="sum", per_sample_weights=weight, include_last_offset=True
            )
        )

    sums = [
        competitor("torch CSR @ X", matrix_product),
        competitor("torch CSR @ X, transpose kept", kept_transpose),
        competitor("torch embedding_bag", lambda: bag),
        competitor("torch index_select + index_add", lambda: index_select),
        competitor("torch x[index] + index_add", lambda: fancy_index),
        compiled("torch.compile(index_select + index_add)", index_select),
    ]
    maxima = [
        competitor("torch scatter_reduce", lambda: scatter_reduce),
        compiled("torch.compile(scatter)", scatter_reduce),
    ]
    both = [
        competitor("torch.sparse.mm(reduce)", sparse_mm),
        competitor("torch.segment_reduce", lambda: segment_reduce, slow=True),
        competitor("torch_geometric EdgeIndex", lambda: _edge_index(graph, weight, reduce), "torch_geometric"),
        competitor("torch_scatter segment_csr", lambda: _segment_csr(graph, weighted, reduce), "torch_scatter"),
        competitor("torch_sparse", lambda: _torch_sparse(graph, weight, reduce), "torch_sparse"),
        Candidate("C++", lambda: _fused(graph, weight, reduce), yardstick=True),
    ]
    return [*(maxima if reduce == "max" else sums), *both]


def _csr(graph: CSRGraph, weight: Tensor | None) -> Tensor:
    value = torch.ones(graph.num_edges, device=graph.device) if weight is None else weight
    return sparse_matrix(graph, value)


class _Product(torch.autograd.Function):
    """``A x``, with the transpose of A prepared for its gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, at: Tensor, x: Tensor) -> Tensor:
        ctx.at = at
        return a @ x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.at @ g


def _edge_index(graph: CSRGraph, weight: Tensor | None, reduce: str) -> OperatorCall:
    from torch_geometric import EdgeIndex

    pairs = torch.stack([graph.row.long(), graph.index.long()])
    edges = EdgeIndex(pairs, sparse_size=(graph.num_dst, graph.num_src), sort_order="row").fill_cache_()
    return lambda t: edges.matmul(t["x"], input_value=weight, reduce=reduce)


def _segment_csr(graph: CSRGraph, weighted: Callable[[Tensor], Tensor], reduce: str) -> OperatorCall:
    from torch_scatter import segment_csr

    col, indptr = graph.index.long(), graph.indptr.long()
    return lambda t: segment_csr(weighted(t["x"].index_select(0, col)), indptr, reduce=reduce)


def _torch_sparse(graph: CSRGraph, weight: Tensor | None, reduce: str) -> OperatorCall:
    from torch_sparse import SparseTensor, matmul

    size = (graph.num_dst, graph.num_src)
    a = SparseTensor(rowptr=graph.indptr.long(), col=graph.index.long(), value=weight, sparse_sizes=size)
    a.fill_cache_()
    return lambda t: matmul(a, t["x"], reduce=reduce)


def _fused(graph: CSRGraph, weight: Tensor | None, reduce: str) -> OperatorCall:
    if graph.device.type != "cpu" or (weight is not None and weight.dtype != torch.float32) or reduce == "mean":
        raise CandidateUnavailable("written for fp32 sums and maxima on the CPU")
    code, transposed = library(), graph.transposed
    forth = (graph.indptr.int(), graph.index.int(), weight)
    back = (
        transposed.graph.indptr.int(),
        transposed.graph.index.int(),
        None if weight is None else weight[transposed.edge],
    )
    function = _FusedSum if reduce == "sum" else _FusedMax
    return lambda t: function.apply(code, forth, back, t["x"])  # type: ignore[no-untyped-call]


class _FusedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, forth: Any, back: Any, x: Tensor) -> Tensor:
        ctx.code, ctx.back, ctx.rows = code, back, x.size(0)
        y = torch.empty(forth[0].numel() - 1, x.size(1))
        code.row_sum(*forth, x, y, *y.shape)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, None, Tensor]:
        dx = torch.empty(ctx.rows, g.size(1))
        ctx.code.row_sum(*ctx.back, g.contiguous(), dx, *dx.shape)
        return None, None, None, dx


class _FusedMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, forth: Any, back: Any, x: Tensor) -> Tensor:
        y = torch.empty(forth[0].numel() - 1, x.size(1))
        source = torch.empty(y.shape, dtype=torch.int32)
        code.row_max(*forth[:2], x, y, source, *y.shape)
        ctx.code, ctx.rows = code, x.size(0)
        ctx.save_for_backward(source)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, None, Tensor]:
        dx = torch.zeros(ctx.rows, g.size(1))
        ctx.code.row_max_backward(ctx.saved_tensors[0], g.contiguous(), dx, *g.shape)
        return None, None, None, dx
