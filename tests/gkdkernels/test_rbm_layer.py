"""Folded inference equals the layer as it is trained: routing, gate, experts, temperature, BatchNorm, ReLU."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from gkdkernels import MixedFeatures, SparseFeatures
from gkdkernels.experts.folded import fold_experts, rbm_layer
from gkdkernels.experts.folded_types import BatchNormStatistics
from gkdkernels.experts.op import expert_linear
from gkdkernels.experts.routing import route_by_memory
from torch import Tensor

Draw = Callable[..., Tensor]
NUMBA = ["numba"] * (find_spec("numba") is not None)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("gate", [False, True], ids=["open", "gate"])
@pytest.mark.parametrize("temperature", [None, math.log(2.0), 9.0])
@pytest.mark.parametrize("backend", ["reference", "cpu", "triton", *NUMBA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_folded_equals_the_layer(
    draw: Draw,
    device: torch.device,
    batch_norm: bool,
    gate: bool,
    temperature: float | None,
    backend: str,
    dtype: torch.dtype,
) -> None:
    x, weight, bias, memory = draw(37, 6), draw(5, 6, 4) / 3, draw(5, 4), draw(5, 6)
    x, weight = (t.to(dtype).double() for t in (x, weight))
    c = draw(5, 6) / 2 if gate else None
    t = None if temperature is None else torch.tensor(temperature, dtype=torch.float64)
    norm = BatchNormStatistics(draw(4), draw(4).square(), draw(4), draw(4)) if batch_norm else None
    index, alpha, _ = route_by_memory(x, memory, 3, backend="reference")
    y = expert_linear(x, weight, bias, index, alpha, gate=c, log_temperature=t, backend="reference")
    if norm is not None:
        y = F.batch_norm(y, norm.mean, norm.variance, norm.scale, norm.shift, eps=norm.eps)
    on = device if backend == "triton" else torch.device("cpu")
    folded = fold_experts(weight.to(dtype), bias.to(dtype), memory.float(), gate=c, log_temperature=t, batch_norm=norm)
    moved = type(folded)(folded.weight.to(on), folded.bias.to(on), folded.direction.to(on))
    for relu in (True, False):
        got = rbm_layer(x.to(dtype).to(on), moved, 3, relu=relu, backend=backend)
        assert got.dtype == dtype
        wanted = y.relu() if relu else y
        error = (got.cpu().double() - wanted).norm() / wanted.norm()
        assert error <= (1e-5 if dtype == torch.float32 else 2e-2), float(error)


@pytest.mark.parametrize("backend", ["cpu", *NUMBA])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("experts", "k"), [(5, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("zeros", [0.0, 0.9], ids=["full", "mostly zeros"])
def test_a_single_row_is_as_among_others(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, backend: str, dtype: torch.dtype, experts: int, k: int, zeros: float
) -> None:
    monkeypatch.setattr(sys.modules["gkdkernels.experts.folded"], "LOOK_FROM", 0)  # the package's name is the function
    x, weight, bias, memory = draw(20, 30), draw(experts, 30, 4) / 3, draw(experts, 4), draw(experts, 30)
    x[draw(20, 30).sigmoid() < 1.2 * zeros] = 0.0
    x[5] = 0.0
    folded = fold_experts(weight.to(dtype), bias.to(dtype), memory)
    together = rbm_layer(x.to(dtype), folded, k, backend="reference")
    alone = torch.cat([rbm_layer(row[None].to(dtype), folded, k, backend=backend) for row in x])
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(alone, together, rtol=tolerance, atol=tolerance)
    missing = x[:1].to(dtype)
    missing[0, 7] = torch.nan
    assert rbm_layer(missing, folded, k, backend=backend).isnan().all()
    assert rbm_layer(x[:0].to(dtype), folded, k, backend=backend).shape == (0, 4)


@pytest.mark.parametrize("backend", ["auto", *NUMBA])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_single_sparse_row_is_the_dense_one(draw: Draw, dtype: torch.dtype, backend: str) -> None:
    x, weight, bias, memory = draw(9, 6) * (draw(9, 6) > 0), draw(5, 6, 4) / 3, draw(5, 4), draw(5, 6)
    x[5] = 0.0
    folded = fold_experts(weight.to(dtype), bias.to(dtype), memory)
    dense = rbm_layer(x.to(dtype), folded, 3)
    sparse = SparseFeatures.from_dense(x.to(dtype))
    rows = [rbm_layer(sparse.rows(torch.tensor([i])), folded, 3, backend=backend) for i in range(9)]
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(torch.cat(rows), dense, rtol=tolerance, atol=tolerance)
    one = sparse.rows(torch.tensor([0]))
    torch.testing.assert_close(
        rbm_layer(one, folded, 3, backend="reference"), dense[:1], rtol=tolerance, atol=tolerance
    )
    with pytest.raises(ValueError, match="k: expected a number of experts"):
        rbm_layer(one, folded, 6, backend=backend)


@pytest.mark.parametrize("backend", ["auto", *NUMBA])
@pytest.mark.parametrize("rows", [1, 20])
def test_mixed_features_are_the_dense_ones(draw: Draw, backend: str, rows: int) -> None:
    sparse, dense = draw(rows, 4) * (draw(rows, 4) > 0), draw(rows, 2)
    folded = fold_experts(draw(5, 6, 4), draw(5, 4), draw(5, 6))
    mixed = MixedFeatures(SparseFeatures.from_dense(sparse), dense)
    wanted = rbm_layer(torch.cat([sparse, dense], 1), folded, 3, backend="reference")
    torch.testing.assert_close(rbm_layer(mixed, folded, 3, backend=backend), wanted)


@pytest.mark.parametrize("backend", ["auto", *NUMBA])
def test_a_single_row_gives_ties_to_the_lowest_experts(draw: Draw, backend: str) -> None:
    weight, bias, x = draw(4, 4, 3), draw(4, 3), torch.ones(1, 4, dtype=torch.float64)
    folded = fold_experts(weight, bias, torch.eye(4, dtype=torch.float64))
    wanted = (weight.sum(1) + bias)[:2].mean(0, keepdim=True)
    torch.testing.assert_close(rbm_layer(x, folded, 2, relu=False, backend=backend), wanted)


def test_layers_without_bias_and_with_sparse_features(draw: Draw) -> None:
    x, weight, memory = draw(20, 6) * (draw(20, 6) > 0), draw(4, 6, 3), draw(4, 6)
    index, alpha, _ = route_by_memory(x, memory, 2)
    y = expert_linear(x, weight, None, index, alpha)
    folded = fold_experts(weight, None, memory)
    torch.testing.assert_close(rbm_layer(SparseFeatures.from_dense(x), folded, 2, relu=False), y)


def test_features_of_another_precision_are_refused(draw: Draw, device: torch.device) -> None:
    folded = fold_experts(draw(4, 6, 3).to(device), None, draw(4, 6).to(device))
    with pytest.raises(ValueError, match=r"x: expected the folded weights' torch.float64, got torch.float32"):
        rbm_layer(draw(5, 6).float().to(device), folded, 2, backend="triton")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": torch.zeros(2, 3)}, r"weight: expected shape \[E, D, H\], got \(2, 3\)"),
        ({"memory": torch.zeros(2, 4)}, r"memory: expected shape \[2, 3\], got \(2, 4\)"),
        (
            {"batch_norm": BatchNormStatistics(*[torch.zeros(4)] * 3, torch.zeros(5))},
            r"batch_norm.shift: expected shape \[4\]",
        ),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    good = {"weight": torch.zeros(2, 3, 4), "bias": torch.zeros(2, 4), "memory": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match=words):
        fold_experts(**{**good, **change})  # type: ignore[arg-type]
