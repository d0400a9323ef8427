"""`mutual_kl`: the fp64 reference, and what else computes the pairwise KL of K peers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gkdkernels.core.cost import mutual_kl_cost
from gkdkernels.mutual_kl.op import mutual_kl
from torch import Tensor

from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    competitor,
    compiled,
    gradient_of,
    normal,
    ours,
)

_BLOCK_ROWS = 1 << 14
_BROADCAST_ELEMENTS = 1 << 29  # [K, K, N, C] above this is not even tried
_UNROLLED_PEERS = 4  # compiling the loop over pairs takes most of a minute with 8


def problem(case: Case, device: torch.device) -> OperatorProblem:
    """Every peer teaches every other with weight 1 / (K - 1), targets detached: [K]. Sizes: peers, nodes, classes."""
    peers, nodes, classes = (case.sizes[name] for name in ("peers", "nodes", "classes"))
    logits = normal(peers, nodes, classes, seed=3, dtype=case.torch_dtype, device=device, scale=2.0)
    # losses come in fp32 from half-precision logits too
    upstream = normal(peers, seed=4, dtype=torch.promote_types(case.torch_dtype, torch.float32), device=device)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        z = inputs["logits"].requires_grad_()
        value = torch.zeros(peers, dtype=torch.float64, device=device)
        for first in range(0, nodes, _BLOCK_ROWS):
            part = _pairs(z[:, first : first + _BLOCK_ROWS]).sum(1) / nodes
            part.backward(g)  # type: ignore[no-untyped-call]
            value += part.detach()
        return {"value": value, "logits": gradient_of(z)}

    weight = torch.full((peers, peers), 1.0 / max(1, peers - 1), device=device)

    def call(backend: str) -> OperatorCall:
        return lambda t: mutual_kl(t["logits"], pair_weight=weight, backend=backend)[0]

    cost = mutual_kl_cost(peers, nodes, classes, feature_bytes=case.torch_dtype.itemsize)
    candidates = [*ours("mutual_kl", device, call), *_competitors(peers, nodes, classes, device)]
    return OperatorProblem({"logits": logits}, upstream, oracle, candidates, cost, cost)


def _pairs(z: Tensor) -> Tensor:
    """[K, n] ``mean_i KL(p_i || p_j)`` by the definition, targets detached."""
    log_p = z.log_softmax(-1)
    loss = []
    for j in range(z.size(0)):
        others = [log_p[i].detach() for i in range(z.size(0)) if i != j]
        terms = [(t.exp() * (t - log_p[j])).sum(-1) for t in others] or [0.0 * log_p[j].sum(-1)]
        loss.append(torch.stack(terms).mean(0))
    return torch.stack(loss)


def closed_form(t: Tensors) -> Tensor:
    """[K] losses without the K x K x N x C tensor: entropies, and one inner product with the mean of the others."""
    z = t["logits"].float() if t["logits"].dtype in (torch.float16, torch.bfloat16) else t["logits"]
    log_p = z.log_softmax(-1)
    constant = log_p.detach()
    p = constant.exp()
    entropy = (p * constant).sum(-1)  # [K, N], negative
    count = z.size(0)
    others = (p.sum(0) - p) / (count - 1)
    return (((entropy.sum(0) - entropy) / (count - 1)).sum(-1) - (others * log_p).sum((-1, -2))) / z.size(1)


def _competitors(peers: int, nodes: int, classes: int, device: torch.device) -> list[Candidate]:
    def loop(t: Tensors) -> Tensor:
        """Pairs of shared log-probabilities."""
        log_p = t["logits"].log_softmax(-1)
        constant = log_p.detach()
        return torch.stack([_mean_over(constant, log_p[j], j) for j in range(peers)])

    def per_pair(t: Tensors) -> Tensor:
        """The usual code: softmax, log-softmax and KL of every pair."""
        z = t["logits"]
        loss = []
        for j in range(peers):
            terms = [
                F.kl_div(z[j].log_softmax(-1), z[i].detach().softmax(-1), reduction="batchmean")
                for i in range(peers)
                if i != j
            ]
            loss.append(torch.stack(terms).mean())
        return torch.stack(loss)

    def broadcast() -> OperatorCall:
        if peers * peers * nodes * classes > _BROADCAST_ELEMENTS:
            raise CandidateUnavailable(f"[K, K, N, C] would have {peers * peers * nodes * classes:.1e} elements")

        def forward(t: Tensors) -> Tensor:
            log_p = t["logits"].log_softmax(-1)
            teacher = log_p.detach()[:, None]
            kl = (teacher.exp() * (teacher - log_p[None])).sum(-1).mean(-1)  # [K, K]; the diagonal is 0
            return kl.sum(0) / (peers - 1)

        return forward

    unrolled = [compiled("torch.compile(loop over pairs)", loop)] if peers <= _UNROLLED_PEERS else []
    return [
        competitor("torch loop over pairs", lambda: loop),
        competitor("torch softmax + kl_div of each pair", lambda: per_pair),
        competitor("torch broadcast K x K", broadcast),
        competitor("torch closed form", lambda: closed_form),
        compiled("torch.compile(closed form)", closed_form),
        *unrolled,
        competitor("Liger KL of each pair", lambda: _liger(peers, device), "liger_kernel"),
    ]


def _mean_over(constant: Tensor, learner: Tensor, j: int) -> Tensor:
    terms = [
        F.kl_div(learner, teacher, reduction="batchmean", log_target=True)
        for i, teacher in enumerate(constant)
        if i != j
    ]
    return torch.stack(terms).mean()


def _liger(peers: int, device: torch.device) -> OperatorCall:
    if device.type != "cuda":
        raise CandidateUnavailable("Liger's kernels run on a GPU only")
    from liger_kernel.transformers import LigerKLDIVLoss

    loss = LigerKLDIVLoss(reduction="batchmean", log_target=True)

    def forward(t: Tensors) -> Tensor:
        log_p = t["logits"].log_softmax(-1)
        constant = log_p.detach()
        pairs = [[loss(log_p[j], constant[i]) for i in range(peers) if i != j] for j in range(peers)]
        return torch.stack([torch.stack(terms).mean() for terms in pairs])

    return forward
