"""Mutual distillation of K peers: pairwise KL, cross-entropy and entropy, with their gradients, in one pass.

Peer k has logits ``z_k`` and probabilities ``p_k = softmax(z_k)``. Where i teaches j with weight ``w_ij``, on node n:

    KL_ij(n) = sum_c p_i (log p_i - log p_j)                                   i is the target, j learns
    L_j      = mean_n sum_{i != j} w_ij KL_ij(n) + a mean CE_j - b mean H(p_j)

(Zhang et al. 2018, eqs. 3-5, with weights.) No [K, K, N, C] tensor is needed, because the gradient is linear in the
probabilities, and the KL values are differences of inner products:

    d L_j / d z_j  =  (sum_i w_ij) p_j - sum_i w_ij p_i         one K x K matrix times the [K, N C] probabilities
    KL_ij          =  <p_i, log p_i> - <p_i, log p_j>           one K x K Gram matrix
    d L_j / d w_ij =  KL_ij                                     known already

With several labels per item p is a sigmoid, the KL is that of C Bernoulli variables, and each line still holds, the
logarithms taken of ``(p, 1 - p)``. All of it runs in fp32 (in fp64 for fp64 logits) whatever the logits' dtype:
gradients are differences of near-equal probabilities.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gkdkernels.core.derivatives import Link, apply_once, link_to, once
from gkdkernels.core.dispatch import MAX_TILE, choose, declare, padded
from gkdkernels.core.registration import register
from gkdkernels.mutual_kl.arguments import (
    LogitTerms,
    PeerLogits,
    Peers,
    check_mask,
    check_range,
    check_targets,
    pair_weight_of,
)
from gkdkernels.mutual_kl.cpu import peer_pass_cpu, teacher_side_cpu
from gkdkernels.mutual_kl.reference import mutual_kl_reference

BACKENDS = declare("mutual_kl", "reference", "cpu", "triton", "numba")


def mutual_kl(
    logits: PeerLogits,
    *,
    pair_weight: Tensor,
    kl_mask: Tensor | None = None,
    targets: Tensor | None = None,
    ce_logits: PeerLogits | None = None,
    ce_weight: float = 1.0,
    entropy_logits: PeerLogits | None = None,
    entropy_mask: Tensor | None = None,
    entropy_weight: float = 0.0,
    detach_target: bool = True,
    multi_label: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The loss of every peer, and how far each is from each other.

    ``loss[j] = mean over kl_mask of sum_{i != j} w_ij KL(p_i || p_j) + ce_weight CE_j - entropy_weight H_j``, every
    term a mean over its own rows, 0 where it has none. For the mean over teachers divide `pair_weight` by K - 1.
    Temperatures and gates belong to the logits, which the caller scales; gradient flows through them.

    What rows outside a mask, or without a label, hold, NaN and infinity included, reaches neither that term nor its
    gradient. A weight of 0 is a factor, not a mask: 0 times NaN is NaN. A class that a peer rules out (a logit of -inf)
    counts 0 log 0 = 0 where that peer is the teacher, and makes the KL infinite (on a GPU: larger than any other)
    where it is the learner and the teacher does not rule it out.

    Args:
        logits: [K, N, C] float of any strides, or a sequence of K tensors [N, C], of one dtype (under `torch.autocast`
            cast to the widest of theirs); neither is copied.
        pair_weight: float, [K, K] (i teaches j; the diagonal is ignored), [K] (of the teacher), or [N, K] (of the
            teacher, per node). Two axes of N = K mean [K, K]: where N can be that small, give [N, K, 1].
        kl_mask: [N] bool, the nodes on which peers learn from each other; None for all.
        targets: [N] int32 or int64 below C, negative for none; with `multi_label` [N, C] float in [0, 1], NaN for none.
            On a GPU a row with a class of C or more is left out, and the error comes with a later call, or with
            `gkdkernels.check_indices`.
        ce_logits: the logits of the cross-entropy, as `logits`; None for `logits`.
        ce_weight: of the cross-entropy, used if `targets` is given.
        entropy_logits: the logits of the entropy, as `logits`; None for `logits`.
        entropy_mask: [N] bool, the nodes of the entropy; None for all.
        entropy_weight: of the entropy; a positive one keeps distributions wide, 0 leaves the term out.
        detach_target: the teacher's side is a constant; with False, loss[j] moves teacher i too.
        multi_label: Bernoulli KL, cross-entropy and entropy, each a mean over labels too.
        backend: "auto", "reference" (any device), "cpu", "triton" or "numba" (extra; only when named).

    Returns:
        ``loss: [K]``, differentiable once ("reference": any number of times) in all logits and in `pair_weight`; and
        ``kl: [K, K]``, the unweighted mean over `kl_mask` of KL(p_i || p_j), a reading without gradient. Both fp32, or
        fp64 for fp64 logits.

    Raises:
        ValueError: a wrong shape, dtype or device, a class outside [0, C), or an unknown `backend`.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])  # 2 peers, 1 node, 2 classes
        >>> loss, kl = mutual_kl(logits, pair_weight=torch.ones(2, 2), targets=torch.tensor([0]))
        >>> loss  # cross-entropy of each peer, and the divergence from the other
        tensor([1.0210, 0.5607])
        >>> kl[0, 1]  # KL(p_0 || p_1)
        tensor(0.4338)
    """
    peers = Peers(logits)
    check_mask(kl_mask, "kl_mask", peers)
    check_mask(entropy_mask, "entropy_mask", peers)
    check_targets(targets, multi_label, peers)
    fits = padded(peers.count) * padded(peers.classes) <= MAX_TILE
    exist = BACKENDS if fits or backend != "auto" else ("reference", "cpu")
    chosen = choose("mutual_kl", backend, exist, peers.each[0])
    main = LogitTerms(peers, pair_weight_of(pair_weight, peers), kl_mask)
    labelled = main if ce_logits is None or ce_logits is logits else LogitTerms(Peers(ce_logits, "ce_logits", peers))
    if entropy_logits is None or entropy_logits is logits:
        spread = main
    elif entropy_logits is ce_logits:
        spread = labelled
    else:
        spread = LogitTerms(Peers(entropy_logits, "entropy_logits", peers))
    labelled.targets = targets
    spread.entropy, spread.entropy_mask = entropy_weight != 0, entropy_mask
    loss, kl = _peer_terms(main, ce_weight, entropy_weight, detach_target, multi_label, chosen)
    for terms in dict.fromkeys((labelled, spread)):
        if terms is not main and (terms.targets is not None or terms.entropy):
            loss = loss + _peer_terms(terms, ce_weight, entropy_weight, detach_target, multi_label, chosen)[0]
    return loss, kl


def _peer_terms(
    terms: LogitTerms, ce_weight: float, entropy_weight: float, detach_target: bool, multi_label: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """loss [K] and KL [K, K] of one set of logits."""
    scale = terms.scale(ce_weight, entropy_weight, multi_label)
    if backend == "reference":
        return mutual_kl_reference(terms, scale, detach_target, multi_label)
    weight, given = terms.weight, terms.peers.given
    wanted = torch.is_grad_enabled()
    how = _PassOptions(
        backend,
        terms.peers.stacked,
        terms.entropy,
        multi_label,
        detach_target or weight is None,
        learns=wanted and any(z.requires_grad for z in given),
        weighs=wanted and weight is not None and weight.requires_grad,
    )
    link = link_to(weight, *given)
    inputs = (weight, terms.kl_mask, terms.targets, terms.entropy_mask, scale)
    loss, kl = apply_once("mutual_kl", _PeerTerms, how, link, *inputs, *given)
    return loss, kl


class _PassOptions(NamedTuple):
    """What does not depend on the data."""

    backend: str
    stacked: bool
    entropy: bool
    multi_label: bool
    detach_target: bool
    learns: bool  # the gradient in the logits is needed
    weighs: bool  # the gradient in the weight is needed


class _PeerTerms(torch.autograd.Function):
    """All terms of one set of logits: forward forms the learners' gradient, backward scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        how: _PassOptions,
        link: Link | None,
        weight: Tensor | None,
        kl_mask: Tensor | None,
        targets: Tensor | None,
        entropy_mask: Tensor | None,
        scale: Tensor,
        *given: Tensor,
    ) -> tuple[Tensor, Tensor]:
        per_node = how.weighs and weight is not None and weight.dim() == 3
        loss, kl, grad, node_kl = _peer_pass_op(
            given,
            how.stacked,
            weight,
            kl_mask,
            targets,
            entropy_mask,
            scale,
            how.entropy,
            how.multi_label,
            how.learns,
            per_node,
            how.backend,
        )
        ctx.how, ctx.link = how, link
        ctx.save_for_backward(grad, kl, node_kl, weight, kl_mask, scale, *(() if how.detach_target else given))
        ctx.mark_non_differentiable(kl)
        return loss, kl

    @staticmethod
    @once("mutual_kl")
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Any, ...]:
        how: _PassOptions = ctx.how
        grad, kl, node_kl, weight, kl_mask, scale, *given = ctx.saved_tensors
        grad_weight = None
        if how.weighs:
            grad_weight = kl * g if weight.dim() == 2 else (node_kl @ g)[..., None]
        grad_logits: list[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 7)
        if how.learns:
            # what is kept for another backward must not become a `.grad`, which may be changed in place
            whole = grad if _is_one(g) and not _keeps_graph() else (grad * g[:, None, None]).to(grad.dtype)
            if not how.detach_target:
                whole = whole + _teacher_side_op(
                    given, how.stacked, weight, g.contiguous(), kl_mask, scale, how.multi_label, how.backend
                )
            grad_logits = [whole] if how.stacked else list(whole.unbind(0))
        return (None, None, grad_weight, None, None, None, None, *grad_logits)


def _is_one(g: Tensor) -> bool:
    """Whether backward may skip its pass, as under ``loss.sum()``; skipped on CUDA to avoid a synchronisation."""
    return not torch.compiler.is_compiling() and g.device.type == "cpu" and bool((g == 1).all())


def _keeps_graph() -> bool:
    """Whether the backward that runs now may run again; yes where torch does not tell."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return ask is None or bool(ask())


def peer_pass(
    given: list[Tensor],
    stacked: bool,
    weight: Tensor | None,
    kl_mask: Tensor | None,
    targets: Tensor | None,
    entropy_mask: Tensor | None,
    scale: Tensor,
    entropy: bool,
    multi_label: bool,
    learns: bool,
    per_node: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, KL and gradient of one set of logits.

    Args:
        given: K tensors [N, C], or with `stacked` one [K, N, C].
        weight: [K, K], or [N, K, 1]; None leaves the KL out.
        kl_mask, targets, entropy_mask, entropy, multi_label: as `mutual_kl`.
        scale: [3], see `LogitTerms.scale`.
        learns: the gradient is needed; `per_node`: the KL of each node is needed.

    Returns:
        loss [K], kl [K, K], ``d loss_j / d z_j`` [K, N, C], and `scale[0]` times the KL of each node [N, K, K]; the
        last two are empty if not requested.
    """
    check_range(targets, _shape(given, stacked)[2])
    asked = (weight, kl_mask, targets, entropy_mask, scale, entropy, multi_label, learns, per_node)
    if backend == "cpu":
        return peer_pass_cpu(_each(given, stacked), *asked)
    if backend == "numba":
        from gkdkernels.mutual_kl.numba import peer_pass_numba

        return peer_pass_numba(_each(given, stacked), *asked)
    from gkdkernels.mutual_kl.triton import peer_pass_triton

    return peer_pass_triton(_each(given, stacked), *asked)


def teacher_side(
    given: list[Tensor],
    stacked: bool,
    weight: Tensor,
    g: Tensor,
    kl_mask: Tensor | None,
    scale: Tensor,
    multi_label: bool,
    backend: str,
) -> Tensor:
    """[K, N, C] the gradient of ``sum_j g_j loss_j`` in the logits of the peers as teachers; arguments as `peer_pass`.

    ``d KL_ij / d z_i = J_i (log p_i - log p_j)``, with J the Jacobian of the softmax; of the sigmoid, on logits.
    """
    if backend == "cpu":
        return teacher_side_cpu(_each(given, stacked), weight, g, kl_mask, scale, multi_label)
    if backend == "numba":
        from gkdkernels.mutual_kl.numba import teacher_side_numba

        return teacher_side_numba(_each(given, stacked), weight, g, kl_mask, scale, multi_label)
    from gkdkernels.mutual_kl.triton import teacher_side_triton

    return teacher_side_triton(_each(given, stacked), weight, g, kl_mask, scale, multi_label)


def _each(given: list[Tensor], stacked: bool) -> list[Tensor]:
    return list(given[0].unbind(0)) if stacked else given


def _shape(given: list[Tensor], stacked: bool) -> tuple[int, ...]:
    return tuple(given[0].shape) if stacked else (len(given), *given[0].shape)


def _fake_peer_pass(
    given: list[Tensor],
    stacked: bool,
    weight: Tensor | None,
    kl_mask: Tensor | None,
    targets: Tensor | None,
    entropy_mask: Tensor | None,
    scale: Tensor,
    entropy: bool,
    multi_label: bool,
    learns: bool,
    per_node: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    peers, rows, classes = _shape(given, stacked)
    grad = given[0].new_empty((peers, rows, classes) if learns else (0,))
    node_kl = scale.new_empty((rows, peers, peers) if per_node else (0,))
    return scale.new_empty(peers), scale.new_empty(peers, peers), grad, node_kl


def _fake_teacher_side(given: list[Tensor], stacked: bool, *_: Any) -> Tensor:
    return given[0].new_empty(_shape(given, stacked))


_peer_pass_op = register(
    "peer_pass(Tensor[] given, bool stacked, Tensor? weight, Tensor? kl_mask, Tensor? targets, Tensor? entropy_mask, "
    "Tensor scale, bool entropy, bool multi_label, bool learns, bool per_node, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    peer_pass,
    fake=_fake_peer_pass,
)
_teacher_side_op = register(
    "teacher_side(Tensor[] given, bool stacked, Tensor weight, Tensor g, Tensor? kl_mask, Tensor scale, "
    "bool multi_label, str backend) -> Tensor",
    teacher_side,
    fake=_fake_teacher_side,
)
