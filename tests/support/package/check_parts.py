"""Tests of another author, who has gkdbench's plugin: a model and a kernel; pytest-benchmark need not be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gkdbench.data.splits import SplitTask
from gkdbench.protocol.predictor import Predictor


class Sums(nn.Module):
    """Logits are sums of features."""

    def forward(self, features: Tensor, graph: object, segments: object) -> Tensor:
        return features[:, :3].cumsum(1)


def scaled(x: Tensor, w: Tensor) -> Tensor:
    """Rows of ``x: [N, D]`` times ``w: [D]``."""
    return torch.einsum("nd,d->nd", x, w)


def test_a_task(gkd_task: SplitTask) -> None:
    assert (gkd_task.task.kind, gkd_task.task.num_nodes) == ("node", 210)


@pytest.mark.gkd_task("graph")
def test_another_task(gkd_task: SplitTask) -> None:
    assert gkd_task.task.kind == "graph"


@pytest.mark.gkd_rounds(8)
def test_a_predictor(gkd_latency: Callable[..., Any]) -> None:
    report = gkd_latency(Predictor(Sums()))
    assert len(report.samples_s) == len(report.reference_s) == report.ratio.n == 8
    assert report.p50 is not None and report.p90 is None
    assert (report.told(0.9), report.reference) == ("–, 36 more", "MLP 2x128")


@pytest.mark.gkd_task("graph")
def test_a_predictor_of_graphs(gkd_latency: Callable[..., Any]) -> None:
    class Readout(nn.Module):
        def forward(self, features: Tensor, graph: object, segments: Tensor) -> Tensor:
            return torch.segment_reduce(features, "sum", offsets=segments)

    report = gkd_latency(Predictor(Readout(), needs="graph", hops=0), rounds=5)
    assert report.reference == "GIN 5x64"


def test_a_function(gkd_latency: Callable[..., Any]) -> None:
    calls: list[str] = []
    report = gkd_latency(lambda: calls.append("a"), lambda: calls.append("b"), words="b", rounds=7)
    assert calls.count("a") >= 7 and calls.count("b") >= 7
    assert str(report).endswith("of b")


def test_a_kernel(gkd_kernel: Callable[..., Any]) -> None:
    inputs = {"x": torch.linspace(-1, 1, 12).reshape(4, 3), "w": torch.tensor([1.0, 2.0, 3.0])}
    report = gkd_kernel(scaled, lambda x, w: x * w, inputs, rounds=5)
    assert set(report.errors) == {"value", "x", "w"}
    assert max(report.errors.values()) < 1e-6 and report.latency.ratio.n == 5


def test_a_wrong_kernel(gkd_kernel: Callable[..., Any]) -> None:
    with pytest.raises(pytest.fail.Exception, match="differs from the reference"):
        gkd_kernel(lambda x: 2 * x, lambda x: 3 * x, {"x": torch.ones(3)})
