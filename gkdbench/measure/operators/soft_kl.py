"""`soft_kl`: the truth in fp64, and what else computes the divergence of a student from a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gkdkernels import Logits, soft_kl
from gkdkernels.core.cost import soft_kl_cost
from torch import Tensor

from gkdbench.measure.operators.problem import (
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

_TAU = 2.0
_BLOCK_ROWS = 1 << 14


def problem(case: Case, device: torch.device) -> OperatorProblem:
    """Logits of a student against those of a constant teacher: a scalar. Sizes: nodes, classes."""
    nodes, classes = case.sizes["nodes"], case.sizes["classes"]
    dtype = case.torch_dtype
    student, teacher = (normal(nodes, classes, seed=s, dtype=dtype, device=device, scale=2.0) for s in (15, 16))
    upstream = torch.tensor(1.7, dtype=torch.promote_types(dtype, torch.float32), device=device)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        leaf, value = inputs["student"].requires_grad_(), torch.zeros((), dtype=torch.float64, device=device)
        for first in range(0, nodes, _BLOCK_ROWS):
            rows = slice(first, first + _BLOCK_ROWS)
            part = _divergence(leaf[rows], teacher[rows].double()) * (leaf[rows].size(0) / nodes)
            part.backward(g)  # type: ignore[no-untyped-call]
            value += part.detach()
        return {"value": value, "student": gradient_of(leaf)}

    def call(backend: str) -> OperatorCall:
        return lambda t: soft_kl(t["student"], Logits(teacher), tau=_TAU, backend=backend)

    def plain(t: Tensors) -> Tensor:
        wide = upstream.dtype
        return _divergence(t["student"].to(wide), teacher.to(wide))

    total = soft_kl_cost(nodes, classes, feature_bytes=dtype.itemsize)
    others = [competitor("torch kl_div", lambda: plain), compiled("torch.compile(kl_div)", plain)]
    candidates = [*ours("soft_kl", device, call), *others]
    return OperatorProblem({"student": student}, upstream, oracle, candidates, total, total)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    log_p, log_q = (F.log_softmax(z / _TAU, dim=1) for z in (teacher, student))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
