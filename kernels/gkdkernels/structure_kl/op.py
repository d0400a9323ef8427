"""KL divergence between local structures (Yang et al. 2020, eq. 5; Guo et al. 2022): of a student from a teacher.

    KL = (1/N) sum_i sum_{j in N_in(i)} LS^t_i(j) (log LS^t_i(j) - log LS^s_i(j))

with LS of `edge_log_probs`. A node with no in-edge, or with one, contributes 0. The sum is taken edge by edge: the
difference of an entropy and a cross-entropy would lose most of a small divergence's digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.registration import register
from gkdkernels.graph import CSRGraph
from gkdkernels.structure_kl.edge_log_probs import check_features, edge_log_probs
from gkdkernels.structure_kl.edge_rows import EdgeRows, forward_edges, reverse_edges, unpack_reverse_edges
from gkdkernels.structure_kl.kernel_functions import MEASURE, Sigma, check_kernel, width_of

_SLACK, _HALF_SLACK = 0.02, 0.1  # of a distribution's sum; logarithms that were rounded to bf16 are up to 0.06 off
_BACKENDS = declare("structure_kl", "reference", "cpu", "triton", "numba")


def structure_kl(
    graph: CSRGraph,
    student: Tensor,
    teacher: Tensor | Sequence[Tensor],
    *,
    kernel: str,
    sigma: Sigma,
    backend: str = "auto",
) -> Tensor:
    """Divergence of the student's local structure from a teacher's, or from several.

    Args:
        graph: square, N nodes, E edges, directed or not.
        student: [N, F] float features.
        teacher: features [N, F'], whose structure is computed with the same kernel; or log-probabilities [E], as
            `edge_log_probs` gives them (-inf for 0; each row sums to 1, which is checked on the CPU), so that a frozen
            teacher is computed once; or a sequence of T such. A teacher gets no gradient.
        kernel: as `edge_log_probs`.
        sigma: as `edge_log_probs`; "auto" is each side's own mean distance. For a teacher with another number, pass its
            log-probabilities.
        backend: "auto", "reference" (any device), "cpu", "triton" or "numba" (extra; only when named).

    Returns:
        A scalar; for a sequence [T], one divergence for each teacher, the student's structure being computed once. fp64
        if the student is, else fp32. Differentiable in `student`, once ("reference": any number of times).

    Raises:
        ValueError: an unknown kernel or backend, a bad sigma, no teacher, one that is no distribution, or a wrong
            shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 2], [1, 0, 0, 1]]), 3)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
        >>> structure_kl(graph, x, 2 * x, kernel="cosine", sigma=1.0).abs() < 1e-6  # equal directions
        tensor(True)
        >>> structure_kl(graph, x, x.flip(0), kernel="cosine", sigma=1.0)
        tensor(0.1004)
    """
    check_kernel(kernel, sigma)
    check_features(graph, student, "student")
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if not teachers:
        raise ValueError("teacher: expected at least one tensor, got an empty sequence")
    for one in teachers:
        _check_teacher(graph, one, student)
    chosen = choose("structure_kl", backend, _BACKENDS, student)
    if chosen == "triton" and isinstance(teacher, Tensor):
        return _fused(graph, student, teacher, kernel, sigma)
    log_student = edge_log_probs(graph, student, kernel, sigma, backend=chosen)
    losses = []
    for one in teachers:
        log_teacher = one.detach()
        if one.dim() == 2:
            log_teacher = edge_log_probs(graph, log_teacher, kernel, sigma, backend=chosen)
        losses.append(divergence(log_teacher.to(log_student.dtype), log_student, graph.num_dst))
    return losses[0] if isinstance(teacher, Tensor) else torch.stack(losses)


def divergence(log_teacher: Tensor, log_student: Tensor, nodes: int) -> Tensor:
    """`structure_kl` of structures that are there already: both [E] of `edge_log_probs`, of a graph of N `nodes`.

    For students that teach each other, whose structures are each computed once. The caller detaches the teacher.
    """
    p = log_teacher.exp()
    finite = log_teacher.clamp(min=torch.finfo(log_teacher.dtype).min)  # 0 log 0 = 0
    return (p * (finite - log_student)).sum() / max(nodes, 1)


def _fused(graph: CSRGraph, student: Tensor, teacher: Tensor, kernel: str, sigma: Sigma) -> Tensor:
    """One teacher on a GPU: both softmaxes in one pass, no log-probabilities stored."""
    transposed = reverse_edges(graph) if student.requires_grad and torch.is_grad_enabled() else []
    loss: Tensor = _structure_kl(
        student, teacher.detach(), [*forward_edges(graph)], transposed, kernel, check_kernel(kernel, sigma)
    )[0]
    return loss


def _run(
    x: Tensor, teacher: Tensor, edges: list[Tensor], transposed: list[Tensor], kernel: str, sigma: float | None
) -> tuple[Tensor, ...]:
    """(loss [], measure [E], width [], lse [N]) and the teacher's (measure [E], width [], lse [N]) or three empty."""
    from gkdkernels.structure_kl import triton

    rows = EdgeRows(*edges)
    measure = triton.measure(MEASURE[kernel], x, rows)
    width = width_of(kernel, measure, sigma)
    told, told_width = teacher, None
    if teacher.dim() == 2:
        told = triton.measure(MEASURE[kernel], teacher, rows).to(measure.dtype)
        told_width = width_of(kernel, told, sigma)
    each, lse, told_lse = triton.divergence(kernel, measure, width, told.contiguous(), told_width, rows)
    loss = each.sum() / max(each.numel(), 1)
    if told_width is None or told_lse is None:
        return loss, measure, width, lse, *(measure.new_empty(0) for _ in range(3))
    return loss, measure, width, lse, told, told_width, told_lse


def _run_backward(
    g: Tensor,
    x: Tensor,
    teacher: Tensor,
    teacher_width: Tensor | None,
    teacher_lse: Tensor | None,
    measure: Tensor,
    width: Tensor,
    lse: Tensor,
    edges: list[Tensor],
    transposed: list[Tensor],
    kernel: str,
) -> Tensor:
    from gkdkernels.structure_kl import triton

    constant = g.to(measure.dtype) / max(x.size(0), 1)
    told = (teacher.contiguous(), teacher_width, teacher_lse)
    return triton.gradient(
        kernel, x, measure, width, lse, constant, None, told, EdgeRows(*edges), unpack_reverse_edges(transposed)
    )


def _fake(x: Tensor, teacher: Tensor, edges: list[Tensor], *_: Any) -> tuple[Tensor, ...]:
    wide = accumulation_dtype(x.dtype)
    rows = EdgeRows(*edges)
    size, nodes = rows.other.size(0), rows.indptr.size(0) - 1
    told = ((size,), (), (nodes,)) if teacher.dim() == 2 else ((0,),) * 3
    return tuple(x.new_empty(shape, dtype=wide) for shape in ((), (size,), (), (nodes,), *told))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, teacher, edges, transposed, ctx.kernel, _ = inputs
    _, measure, width, lse, *told = output
    kept = told if teacher.dim() == 2 else [teacher, None, None]
    ctx.save_for_backward(x, *kept, measure, width, lse, *edges, *transposed)


def _backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
    x, told, told_width, told_lse, measure, width, lse, *rest = ctx.saved_tensors
    edges, transposed = rest[: len(EdgeRows._fields)], rest[len(EdgeRows._fields) :]
    grad = _structure_kl_backward(g, x, told, told_width, told_lse, measure, width, lse, edges, transposed, ctx.kernel)
    return grad, None, [None] * len(edges), [None] * len(transposed), None, None


_structure_kl_backward = register(
    "structure_kl_backward(Tensor g, Tensor x, Tensor teacher, Tensor? teacher_width, Tensor? teacher_lse, "
    "Tensor measure, Tensor width, Tensor lse, Tensor[] edges, Tensor[] transposed, str kernel) -> Tensor",
    _run_backward,
    fake=lambda g, x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
)
_structure_kl = register(
    "structure_kl(Tensor x, Tensor teacher, Tensor[] edges, Tensor[] transposed, str kernel, float? sigma)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
)


def _check_teacher(graph: CSRGraph, teacher: Tensor, student: Tensor) -> None:
    if teacher.dim() == 2:
        check_features(graph, teacher, "teacher")
    elif teacher.shape != (graph.num_edges,):
        raise ValueError(
            f"teacher: expected features [{graph.num_dst}, F] or log-probabilities [{graph.num_edges}], "
            f"got shape {tuple(teacher.shape)}"
        )
    if not teacher.is_floating_point() or teacher.device != student.device:
        raise ValueError(
            f"teacher: expected a float dtype on {student.device} like student, got {teacher.dtype} on {teacher.device}"
        )
    if teacher.dim() == 1 and teacher.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_distribution(graph, teacher.detach())


def _check_distribution(graph: CSRGraph, log_teacher: Tensor) -> None:
    """Refuse log-probabilities [E] that do not sum to 1 over the in-edges of a node; what is NaN shows in the loss."""
    p = log_teacher.to(accumulation_dtype(log_teacher.dtype)).exp()
    total = p.new_zeros(graph.num_dst).scatter_add_(0, graph.row.long(), p)  # a third of `segment_reduce`'s time
    slack = _SLACK if log_teacher.dtype == p.dtype else _HALF_SLACK
    wrong = ((total - 1).abs() > slack) & (graph.degree > 0)
    if bool(wrong.any()):
        raise ValueError(
            "teacher: expected log-probabilities whose exponentials sum to 1 over the in-edges of each node, got a sum "
            f"of {float(total[wrong][0]):.3g}; try edge_log_probs, or pass the teacher's features"
        )
