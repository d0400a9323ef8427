"""`structure_kl`: the fp64 reference, and what else computes the KL of local structures."""

from __future__ import annotations

from typing import Any

import torch
from gkdkernels import CSRGraph
from gkdkernels.core.cost import Cost, structure_kl_cost
from gkdkernels.structure_kl.op import structure_kl
from torch import Tensor

from gkdbench.measure.operators.compiled import library
from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    competitor,
    compiled,
    edge_blocks,
    gradient_of,
    normal,
    ours,
    sparse_matrix,
)

SIGMA = 10.0  # of laplace: scores of width 128 then differ by about 1
BLOCK_ELEMENTS = 1 << 25  # [edges of a block, D] of the oracle


def problem(case: Case, graph: CSRGraph) -> OperatorProblem:
    """Student against the features of one teacher: a scalar. Sizes: width; options: cosine, laplace."""
    width, kernel, device, dtype = case.sizes["width"], case.option, graph.device, case.torch_dtype
    student, teacher = (normal(graph.num_dst, width, seed=s, dtype=dtype, device=device) for s in (5, 6))
    upstream = torch.tensor(1.7, dtype=torch.promote_types(dtype, torch.float32), device=device)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        x, y = inputs["student"].requires_grad_(), teacher.double()
        value = torch.zeros((), dtype=torch.float64, device=device)
        for rows, edges in edge_blocks(graph, max(1, BLOCK_ELEMENTS // width)):
            row, col = (graph.row[edges] - rows.start).long(), graph.index[edges].long()
            count = rows.stop - rows.start
            log_s = row_log_softmax(edge_score(x, col, row + rows.start, kernel), row, count)
            log_t = row_log_softmax(edge_score(y, col, row + rows.start, kernel), row, count)
            part = (log_t.exp() * (log_t - log_s)).sum() / graph.num_dst
            if part.requires_grad:
                part.backward(g)  # type: ignore[no-untyped-call]
            value += part.detach()
        return {"value": value, "student": gradient_of(x)}

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: structure_kl(graph, t["student"], teacher, kernel=kernel, sigma=SIGMA, backend=backend)

    candidates = [*ours("structure_kl", device, call), *_peers(graph, teacher, kernel)]
    return OperatorProblem(
        {"student": student},
        upstream,
        oracle,
        candidates,
        _cost(case, graph, reuse=False),
        _cost(case, graph, reuse=True),
    )


def _cost(case: Case, graph: CSRGraph, *, reuse: bool) -> Cost:
    def one(backward: bool) -> Cost:
        width = case.sizes["width"]
        return structure_kl_cost(
            graph.num_dst,
            graph.num_edges,
            width,
            teacher_width=width,
            backward=backward,
            symmetric=bool(graph.symmetric),
            feature_bytes=case.torch_dtype.itemsize,
            index_bytes=graph.index.element_size(),
            reuse=reuse,
        )

    return one(False) + one(True) if case.direction == "fwd+bwd" else one(False)


def edge_score(x: Tensor, source: Tensor, target: Tensor, kernel: str, *, fancy: bool = False) -> Tensor:
    """[e] kernel of the ends of edges."""
    if kernel == "cosine":
        x = torch.nn.functional.normalize(x, dim=1)
    a, b = (x[source], x[target]) if fancy else (x.index_select(0, source), x.index_select(0, target))
    return (a * b).sum(-1) if kernel == "cosine" else (a - b).abs().sum(-1) / -SIGMA


def row_log_softmax(score: Tensor, row: Tensor, count: int) -> Tensor:
    peak = score.new_full((count,), -torch.inf).scatter_reduce(0, row, score.detach(), "amax")
    shifted = score - peak.index_select(0, row)
    total = score.new_zeros(count).index_add(0, row, shifted.exp())
    return shifted - total.index_select(0, row).log()


def _peers(graph: CSRGraph, teacher: Tensor, kernel: str) -> list[Candidate]:
    row, col = graph.row.long(), graph.index.long()

    def plain(x: Tensor, *, fancy: bool) -> Tensor:
        log_s = row_log_softmax(edge_score(x, col, row, kernel, fancy=fancy), row, graph.num_dst)
        log_t = row_log_softmax(edge_score(teacher, col, row, kernel, fancy=fancy), row, graph.num_dst)
        return (log_t.exp() * (log_t - log_s)).sum() / graph.num_dst

    def sampled() -> OperatorCall:
        if kernel != "cosine":
            raise CandidateUnavailable("products of rows give the cosine only")
        zero = sparse_matrix(graph, torch.zeros(graph.num_edges, device=row.device))

        def log_probs(x: Tensor) -> Tensor:
            score = _Sampled.apply(zero, torch.nn.functional.normalize(x, dim=1), graph)  # type: ignore[no-untyped-call]
            found: Tensor = row_log_softmax(score, row, graph.num_dst)
            return found

        def forward(t: Tensors) -> Tensor:
            log_s, log_t = log_probs(t["student"]), log_probs(teacher)
            kl: Tensor = (log_t.exp() * (log_t - log_s)).sum() / graph.num_dst
            return kl

        return forward

    select = "torch index_select + index_add"
    return [
        competitor(select, lambda: lambda t: plain(t["student"], fancy=False)),
        competitor("torch x[index] + index_add", lambda: lambda t: plain(t["student"], fancy=True)),
        competitor("torch sampled_addmm + CSR", sampled),
        compiled("torch.compile(index_select)", lambda t: plain(t["student"], fancy=False)),
        Candidate("C++", lambda: _fused(graph, teacher, kernel), yardstick=True),
    ]


class _Sampled(torch.autograd.Function):
    """[E] ``<x_i, x_j>`` by `sampled_addmm`; the gradient by CSR products with both directions."""

    @staticmethod
    def forward(ctx: Any, zero: Tensor, x: Tensor, graph: CSRGraph) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(x)
        score: Tensor = torch.sparse.sampled_addmm(zero, x, x.t()).values()
        return score

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor, None]:
        (x,), graph = ctx.saved_tensors, ctx.graph
        transposed = graph.transposed
        a, at = sparse_matrix(graph, g), sparse_matrix(transposed.graph, g[transposed.edge])
        return None, a @ x + at @ x, None


def _fused(graph: CSRGraph, teacher: Tensor, kernel: str) -> OperatorCall:
    if graph.device.type != "cpu" or teacher.dtype != torch.float32 or kernel != "cosine" or not graph.symmetric:
        raise CandidateUnavailable("written for fp32 cosines of symmetric graphs on the CPU")
    code, edges = library(), (graph.indptr.int(), graph.index.int())
    return lambda t: _Fused.apply(code, edges, t["student"], teacher)  # type: ignore[no-untyped-call]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, edges: Any, x: Tensor, y: Tensor) -> Tensor:
        nodes, count = x.size(0), edges[1].numel()
        x_inv, y_inv, s_lse, t_lse, kl = (torch.empty(nodes) for _ in range(5))
        s, t = torch.empty(count), torch.empty(count)
        code.inverse_norm(x, x_inv, *x.shape)
        code.inverse_norm(y, y_inv, *y.shape)
        code.cosine_kl(*edges, x, x_inv, y, y_inv, s, t, s_lse, t_lse, kl, nodes, x.size(1), y.size(1))
        ctx.code, ctx.edges = code, edges
        ctx.save_for_backward(x, x_inv, s, t, s_lse, t_lse)
        return kl.sum() / nodes

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor, None]:
        x, x_inv, s, t, s_lse, t_lse = ctx.saved_tensors
        dx, scale = torch.empty_like(x), float(g) / x.size(0)
        ctx.code.cosine_kl_backward(*ctx.edges, x, x_inv, s, t, s_lse, t_lse, scale, dx, *x.shape)
        return None, None, dx, None
