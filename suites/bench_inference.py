"""Inference of every backbone on built-in data: ``pytest suites/bench_inference.py``, with the ``bench`` extra.

Models are untrained. Each is timed in turns with an MLP 2x128 (of graphs: with a GIN) that answers the same queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gkdbench.data.splits import SplitTask
from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.testing.timed_runs import LatencyReport

pytest.importorskip("pytest_benchmark", reason="the bench wants pytest-benchmark: pip install 'gkdbench[bench]'")

NODES = ("appnp", "gat", "gcn", "mlp", "moe", "rbm", "sage", "sgc", "sign")
GRAPHS = ("gin", "graph_mlp")
SLEEP_S = 0.001
Timed = Callable[..., LatencyReport]

pytestmark = pytest.mark.gkd_rounds(100, budget_s=3.0)


def predictor(backbone: str, task: SplitTask) -> Predictor:
    """An untrained model of the backbone's default settings; it gets the graph if it reads neighbours or a readout."""
    config = BACKBONES.get(backbone)()
    module = config.build(int(task.task.features.shape[1]), task.task.num_classes, Randomness(seed=0))
    reads = "graph" if config.hops or task.task.kind == "graph" else "features"
    return Predictor(module, needs=reads, hops=config.hops or None)


@pytest.mark.benchmark(group="one query, nodes")
@pytest.mark.parametrize("backbone", NODES)
def test_one_query(backbone: str, gkd_task: SplitTask, gkd_latency: Timed, benchmark: Any) -> None:
    gkd_latency(predictor(backbone, gkd_task))


@pytest.mark.benchmark(group="all items, nodes")
@pytest.mark.parametrize("backbone", NODES)
def test_all_items(backbone: str, gkd_task: SplitTask, gkd_latency: Timed, benchmark: Any) -> None:
    gkd_latency(predictor(backbone, gkd_task), query_size=None)


@pytest.mark.gkd_task("graph")
@pytest.mark.benchmark(group="one query, graphs")
@pytest.mark.parametrize("backbone", GRAPHS)
def test_one_graph(backbone: str, gkd_task: SplitTask, gkd_latency: Timed, benchmark: Any) -> None:
    gkd_latency(predictor(backbone, gkd_task))


class Slow(nn.Module):
    """A module that works for a millisecond more."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: object) -> Tensor:
        end = time.perf_counter() + SLEEP_S
        while time.perf_counter() < end:
            pass
        logits: Tensor = self.inner(*inputs)
        return logits


def test_an_added_millisecond_shows(gkd_task: SplitTask, gkd_latency: Timed, benchmark: Any) -> None:
    plain = predictor("mlp", gkd_task)
    report = gkd_latency(Predictor(Slow(plain.module)), plain, words="the same model")
    fastest = min(report.samples_s) - min(report.reference_s)
    assert 0.95 * SLEEP_S <= fastest <= 1.5 * SLEEP_S


def test_the_bare_module_is_not_much_faster(gkd_task: SplitTask, gkd_latency: Timed, benchmark: Any) -> None:
    """What a feature student's Predictor adds to one call of its module on one row."""
    model = predictor("mlp", gkd_task)
    row = gkd_task.task.features[:1]
    model.module.eval()
    bare = partial(torch.no_grad()(model.module), row, None, None)
    gkd_latency(model, bare, words="the bare module call", single=False)
