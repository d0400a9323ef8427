"""The experts of the released RbM layer, its structure written plainly: the peer of the bench, and its race.

Run as a script it prints how long `expert_linear` takes as a share of this, forward and backward, both in turns::

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 python tests/gkdkernels/released_experts.py 2
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from gkdkernels.experts.op import expert_linear
from torch import Tensor


def released_experts(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    index: Tensor,
    alpha: Tensor,
    *,
    gate: Tensor | None = None,
    log_temperature: Tensor | None = None,
) -> Tensor:
    """[N, H]: for each expert its rows are looked up and copied, and its results added to a new copy of the output."""
    out = x.new_zeros(x.size(0), weight.size(2))
    for expert in range(weight.size(0)):
        row, slot = (index == expert).nonzero(as_tuple=True)
        inputs = x[row] if gate is None else x[row] * gate[expert].exp()
        y = torch.addmm(bias[expert], inputs, weight[expert]) * alpha[row, slot, None]
        out = out.index_add(0, row, y)
    return out if log_temperature is None else out * log_temperature.exp()


def race(
    experts: int, k: int, *, rows: int = 20_000, width: int = 256, rounds: int = 7, whole: bool = False
) -> tuple[float, float]:
    """Median milliseconds of `expert_linear` and of `released_experts`, whose results are compared first.

    Args:
        whole: with input gate and temperature, which the released layer always computes, not the products alone.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, g = (
        torch.randn(*shape, generator=generator)
        for shape in ((rows, width), (experts, width, width), (experts, width), (rows, width))
    )
    leaves = [t.requires_grad_() for t in (x, weight / width**0.5, bias)]
    index = torch.randn(rows, experts, generator=generator).topk(k).indices
    alpha = torch.randn(rows, k, generator=generator).softmax(1)
    factors = {}
    if whole:
        factors = {"gate": torch.full((experts, width), 0.1), "log_temperature": torch.tensor(0.7)}
        leaves += [factor.requires_grad_() for factor in factors.values()]
    times: dict[str, list[float]] = {}
    results = []
    for turn in range(rounds + 1):
        for operator in (expert_linear, released_experts):
            start = time.perf_counter()
            y = operator(*leaves[:3], index, alpha, **factors)
            found = (y, *torch.autograd.grad(y, leaves, g))
            if turn:
                times.setdefault(operator.__name__, []).append((time.perf_counter() - start) * 1e3)
            else:
                results.append(found)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    ours, theirs = (statistics.median(found) for found in times.values())
    return ours, theirs


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    for experts, k in ((8, 3), (32, 2)):
        for whole in (False, True):
            ours, theirs = race(experts, k, whole=whole)
            what = "with gate and temperature" if whole else "products alone"
            print(
                f"E={experts} k={k}, {what}: {ours:.0f} ms, released structure {theirs:.0f} ms, "
                f"ratio {ours / theirs:.2f}",
                flush=True,
            )
