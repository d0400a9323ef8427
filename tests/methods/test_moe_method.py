"""MoE: its load losses, both routers, and what its release does otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.methods.mixture import moe
from gkdbench.nn.mixture import Routing
from gkdbench.testing.method_case import relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method

SMALL = {"hidden": 16, "layers": 2, "experts": 4, "k": 2}
SHORT = {"epochs": 3, "pretrain": 2}


def routing(scores: torch.Tensor, k: int = 2) -> Routing:
    top = scores.topk(k)
    return Routing(torch.zeros(len(scores), 3), top.indices, top.values.softmax(1), top.values, scores.softmax(1))


def test_load_losses_and_their_gradients() -> None:
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: moe.switch_balance(routing(s)), (scores,))
    assert torch.autograd.gradcheck(lambda s: moe.released_balance(routing(s)), (scores,))
    even = torch.eye(4, dtype=torch.float64).repeat(5, 1) * 30
    assert float(moe.switch_balance(routing(even, k=1))) == pytest.approx(1.0)
    assert float(moe.released_balance(routing(even, k=1))) == pytest.approx(0.0, abs=1e-9)
    one_sided = torch.zeros(20, 4, dtype=torch.float64)
    one_sided[:, 2] = 30
    assert float(moe.switch_balance(routing(one_sided, k=1))) == pytest.approx(4.0)
    assert float(moe.released_balance(routing(one_sided, k=1))) == pytest.approx(8.0)


@pytest.mark.parametrize("router", ["linear", "cosine"])
def test_both_routers_train_with_exactly_k_experts(bench: Any, router: str) -> None:
    run = bench.run("moe", model={**SMALL, "router": router}, **SHORT)
    extra = run.outcome.extra
    assert extra["switch_jump"] <= 1e-5
    per_expert = (16 + 1) * 16 + (16 + 1) * 3
    assert extra["parameters_total"] - extra["parameters_active"] == 2 * per_expert
    assert run.outcome.models[0]["selected_epoch"] > 2


def test_the_release_has_one_expert_more(bench: Any) -> None:
    extra = bench.run("moe", model=SMALL, variant="as_released", **SHORT).outcome.extra
    assert extra["parameters_total"] - extra["parameters_active"] == (16 + 1) * 16 + (16 + 1) * 3


def test_the_order_of_nodes_reaches_the_weights_in_the_release_only(bench: Any) -> None:
    """Pre-training by slices of positions (docs/protocol.md, trap 27)."""
    problem = bench.problem("tran")
    moved = renumbered(problem, np.random.default_rng(2).permutation(problem.task.num_nodes))
    gaps = {}
    for variant in ("corrected", "as_released"):
        method = small_method("moe", {"model": SMALL, "variant": variant, "pretrain": 2}, epochs=3, quiet=True)
        first, second = (
            bench.workshop.run(method, p, stop_early=False, quiet=True).final["model"] for p in (problem, moved)
        )
        gaps[variant] = relative_gap(first, second)
    assert gaps["corrected"] < 1e-3 < gaps["as_released"]
