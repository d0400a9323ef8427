"""KL from a target distribution to a student's logits: offline distillation, ensembles and mixtures as targets.

For each row, with ``q = softmax(z / tau)`` and the target p (Hinton et al. 2015),

    KL = sum_c p (log p - log q)
    d KL / d z = (q - p) / tau
    d KL / d t = p (log p - log q - KL) / tau        where p = softmax(t / tau)

and with several labels per item the mean over labels of the Bernoulli KL, q and p sigmoids. The type of the target,
`Logits`, `Probs` or `LogProbs`, must be given: probabilities taken for log-probabilities train another objective
without a word, and log-probabilities divided by a temperature are no distribution. Runs in fp32 (fp64 for fp64 logits)
whatever the dtype.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gkdkernels.core.derivatives import Link, apply_once, link_to, once
from gkdkernels.core.dispatch import MAX_TILE, accumulation_dtype, choose, declare, padded
from gkdkernels.core.impossible import settled
from gkdkernels.core.registration import register
from gkdkernels.soft_kl.reference import log_probabilities, soft_kl_reference
from gkdkernels.soft_kl.targets import Logits, LogProbs, Probs, Target

BACKENDS = declare("soft_kl", "reference", "cpu", "triton")
REDUCTIONS = ("mean", "none")
_BLOCK_ELEMENTS = 1 << 17  # of [n, C]: the student's and the target's block stay in the cache
_SAMPLE = 8  # rows of a target that are looked at


def soft_kl(
    student: Tensor,
    target: Target,
    *,
    tau: float = 1.0,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    detach_target: bool = True,
    multi_label: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """``KL(target || softmax(student / tau))``, the mean over rows. No factor tau^2: multiply by it where it is needed.

    Args:
        student: [N, C] float logits.
        target: [N, C] of any float dtype: `Logits` (softened by `tau` too), `Probs` or `LogProbs` (taken as they are).
        tau: temperature, positive.
        mask: [N] bool, the rows that count; None for all. What other rows hold, NaN and infinity included, reaches
            neither loss nor gradient.
        weight: [N] float factor of each row; the mean still divides by the number of rows. A factor of 0 is no mask:
            0 times NaN is NaN.
        detach_target: the target is a constant; with False gradient flows into it, as learned mixtures need.
        multi_label: each class is a label of its own, present or not; `LogProbs` are not enough then.
        reduction: "mean" over the rows of `mask`, 0 where there is none; "none" for [N], 0 outside `mask`.
        backend: "auto", "reference" (any device), "cpu" or "triton".

    Returns:
        A scalar or [N] in fp32 (fp64 for fp64 logits), differentiable once ("reference": any number of times). A class
        that the target rules out (a logit or logarithm of -inf, a probability of 0) counts 0 log 0 = 0; one that the
        student rules out and the target does not makes the row's KL infinite. `Probs` and `LogProbs` count as they are,
        without normalisation, on every backend.

    Raises:
        ValueError: a target that is no distribution (a sample of its rows is looked at, on the CPU) or has no type, a
            wrong shape, dtype or device.

    Example:
        >>> from gkdkernels import Logits, Probs
        >>> student = torch.tensor([[0.0, 0.0]])
        >>> soft_kl(student, Probs(torch.tensor([[0.9, 0.1]])))
        tensor(0.3681)
        >>> soft_kl(student, Logits(torch.tensor([[4.0, 4.0]])), tau=2.0)
        tensor(0.)
    """
    _check(student, target, mask, weight, multi_label)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not tau > 0:
        raise ValueError(f"tau: expected a positive number, got {tau}")
    fits = padded(student.size(1)) <= MAX_TILE
    exist = BACKENDS if fits or backend != "auto" else ("reference", "cpu")
    chosen = choose("soft_kl", backend, exist, student)
    value = target.value.detach() if detach_target else target.value
    kind = type(target).__name__
    if chosen == "reference":
        rows = soft_kl_reference(student, value, mask, kind, tau, multi_label)
    else:
        wanted = torch.is_grad_enabled()
        how = _PassOptions(
            chosen, kind, tau, multi_label, wanted and student.requires_grad, wanted and value.requires_grad
        )
        rows = apply_once("soft_kl", _RowKL, how, student, value, mask, link_to(student, value))
    if weight is not None:
        rows = rows * (weight if mask is None else weight.where(mask, 0))
    if reduction == "none":
        return rows
    return rows.sum() / (max(1, student.size(0)) if mask is None else mask.sum().clamp(min=1))


class _PassOptions(NamedTuple):
    backend: str
    kind: str
    tau: float
    multi_label: bool
    learns: bool  # the gradient in the student is needed
    teaches: bool  # the gradient in the target is needed


class _RowKL(torch.autograd.Function):
    """KL of each row: forward forms both gradients, backward scales their rows."""

    @staticmethod
    def forward(
        ctx: Any, how: _PassOptions, student: Tensor, value: Tensor, mask: Tensor | None, link: Link | None
    ) -> Tensor:
        rows, to_student, to_target = _row_kl_op(
            student, value, mask, how.kind, how.tau, how.multi_label, how.learns, how.teaches, how.backend
        )
        ctx.how, ctx.link = how, link
        ctx.save_for_backward(to_student, to_target)
        out: Tensor = rows
        return out

    @staticmethod
    @once("soft_kl")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        wanted = (ctx.how.learns, ctx.how.teaches)
        scaled = (
            (grad * g[:, None]).to(grad.dtype) if needed else None
            for grad, needed in zip(ctx.saved_tensors, wanted, strict=True)
        )
        return (None, *scaled, None, None)


def row_kl(
    student: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kind: str,
    tau: float,
    multi_label: bool,
    learns: bool,
    teaches: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """KL of each row [N] and its gradients in `student` and `value` [N, C], empty if not requested.

    All are 0 outside `mask`.
    """
    asked = (student, value, mask, kind, tau, multi_label, learns, teaches)
    if backend == "cpu":
        return _row_kl_cpu(*asked)
    from gkdkernels.soft_kl.triton import row_kl_triton

    return row_kl_triton(*asked)


def _row_kl_cpu(
    student: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kind: str,
    tau: float,
    multi_label: bool,
    learns: bool,
    teaches: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`row_kl` over blocks of rows that stay in the cache."""
    wide = accumulation_dtype(student.dtype)
    rows, classes = student.shape
    kl = student.new_zeros(rows, dtype=wide)
    to_student = torch.empty_like(student if learns else student[:0], memory_format=torch.contiguous_format)
    to_target = torch.empty_like(value if teaches else value[:0], memory_format=torch.contiguous_format)
    step = max(1, _BLOCK_ELEMENTS // max(1, classes))
    labels = classes if multi_label else 1
    for start in range(0, rows if classes else 0, step):
        block = slice(start, start + step)
        log_q, q = log_probabilities(student[block].detach().to(wide), "Logits", tau, multi_label)
        log_p, p = log_probabilities(value[block].detach().to(wide), kind, tau, multi_label)
        gap = log_p - log_q  # [S, n, C]
        kl[block] = (p * gap).sum((0, -1)).div_(labels)
        if not bool(kl[block].isfinite().all()):  # a class that is impossible, or NaN, in this block
            gap = settled(gap, p)
            kl[block] = (p * gap).sum((0, -1)).div_(labels)
        if learns:
            whole = 1.0 if multi_label or kind == "Logits" else p[0].sum(-1, keepdim=True)
            to_student[block] = (q[0] * whole - p[0]).div_(tau * labels)
        if teaches:
            to_target[block] = _target_slope(p, gap, kl[block], kind, tau).div_(labels)
        if mask is not None:
            left_out = (~mask[block]).nonzero()[:, 0]  # by their places: a mask over rows takes four times as long
            kl[block].index_fill_(0, left_out, 0.0)
            for grad, wanted in ((to_student, learns), (to_target, teaches)):
                if wanted:
                    grad[block].index_fill_(0, left_out, 0.0)
    return kl, to_student, to_target


def _target_slope(p: Tensor, gap: Tensor, kl: Tensor, kind: str, tau: float) -> Tensor:
    """[n, C] the gradient of the (sum over labels of the) KL in what the target was given by."""
    if kind == "LogProbs":
        return p[0] * (gap[0] + 1)
    if kind == "Probs":
        slope = gap + (p >= torch.finfo(p.dtype).tiny)
        return slope[0] - slope[1] if p.size(0) == 2 else slope[0]
    if p.size(0) == 2:
        return p[0] * p[1] * (gap[0] - gap[1]) / tau
    return p[0] * (gap[0] - kl[:, None]) / tau


def _fake_row_kl(
    student: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kind: str,
    tau: float,
    multi_label: bool,
    learns: bool,
    teaches: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, classes = student.shape
    return (
        student.new_empty(rows, dtype=accumulation_dtype(student.dtype)),
        student.new_empty(rows if learns else 0, classes),
        value.new_empty(rows if teaches else 0, classes),
    )


_row_kl_op = register(
    "row_kl(Tensor student, Tensor value, Tensor? mask, str kind, float tau, bool multi_label, bool learns, "
    "bool teaches, str backend) -> (Tensor, Tensor, Tensor)",
    row_kl,
    fake=_fake_row_kl,
)


def _check(student: Tensor, target: Target, mask: Tensor | None, weight: Tensor | None, multi_label: bool) -> None:
    if not isinstance(target, Logits | Probs | LogProbs):
        raise ValueError(f"target: expected Logits(...), Probs(...) or LogProbs(...), got {type(target).__name__}")
    if multi_label and isinstance(target, LogProbs):
        raise ValueError("target: expected Logits or Probs with multi_label=True, got LogProbs")
    if student.dim() != 2 or not student.is_floating_point():
        raise ValueError(f"student: expected float of shape [N, C], got {student.dtype} of {tuple(student.shape)}")
    value = target.value
    if value.shape != student.shape or not value.is_floating_point() or value.device != student.device:
        raise ValueError(
            f"target: expected float of shape {list(student.shape)} on {student.device} like student, got "
            f"{value.dtype} of {tuple(value.shape)} on {value.device}"
        )
    for name, each, is_mask in (("mask", mask, True), ("weight", weight, False)):
        if each is None:
            continue
        fits = each.dtype == torch.bool if is_mask else each.is_floating_point()
        if each.shape != student.shape[:1] or not fits or each.device != student.device:
            raise ValueError(
                f"{name}: expected {'bool' if is_mask else 'float'} of shape [{student.size(0)}] on {student.device}, "
                f"got {each.dtype} of {tuple(each.shape)} on {each.device}"
            )
    if not torch.compiler.is_compiling() and value.device.type == "cpu":  # a GPU would have to be waited for
        _check_distribution(target, mask, multi_label)


def _check_distribution(target: Target, mask: Tensor | None, multi_label: bool) -> None:
    """Refuse what cannot be the type it claims, on a sample of the rows of `mask`."""
    if isinstance(target, Logits) or target.value.numel() == 0:
        return
    rows = slice(_SAMPLE) if mask is None else mask.nonzero()[:_SAMPLE, 0]
    sample = target.value.detach()[rows].double()
    if sample.numel() == 0:
        return
    p = sample.exp() if isinstance(target, LogProbs) else sample
    total = p.sum(-1)
    if bool((p < 0).any() | (p > 1.01).any()) or (not multi_label and bool(((total - 1).abs() > 0.02).any())):
        raise ValueError(
            f"target: expected {type(target).__name__}, rows of a distribution, got values from "
            f"{float(sample.min()):.3g} to {float(sample.max()):.3g}, row sums of probabilities from "
            f"{float(total.min()):.3g} to {float(total.max()):.3g}"
        )
