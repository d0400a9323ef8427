"""Training of methods on built-in data: ``pytest suites/bench_training.py``, with the ``bench`` extra.

What is timed is a whole ``fit`` of five epochs, with its evaluations and all its stages but not the training of its
teachers, in turns with a GCN 2x64 that trains for as many (of graphs: a GIN).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gkdbench.testing.runs import small_method
from gkdbench.testing.small_runs import EPOCHS, small_fit
from gkdbench.testing.timed_runs import LatencyReport

pytest.importorskip("pytest_benchmark", reason="the bench wants pytest-benchmark: pip install 'gkdbench[bench]'")

METHODS = ("mlp", "kd", "glnn", "nosmog", "krd", "moe", "rbm", "dml", "gml", "alignahead", "lsp")
GRAPH_METHODS = ("glnn_graph", "mugsi")
GCN = {"backbone": "gcn", "model": {"hidden": 64}}
GIN = {"backbone": "gin"}
Timed = Callable[..., LatencyReport]

pytestmark = [pytest.mark.gkd_rounds(15, budget_s=3.0), pytest.mark.benchmark(group="training, five epochs")]


@pytest.fixture(scope="module")
def gcn() -> Callable[[], object]:
    """Five epochs of the GCN."""
    return small_fit(small_method("teacher", GCN, epochs=EPOCHS))


@pytest.fixture(scope="module")
def gin() -> Callable[[], object]:
    """Five epochs of the GIN."""
    return small_fit(small_method("teacher", GIN, epochs=EPOCHS), "graph")


@pytest.mark.parametrize("method", METHODS)
def test_training(method: str, gcn: Callable[[], object], gkd_latency: Timed, benchmark: Any) -> None:
    gkd_latency(small_fit(method), gcn, words="GCN 2x64", single=False)


@pytest.mark.parametrize("method", GRAPH_METHODS)
def test_training_on_graphs(method: str, gin: Callable[[], object], gkd_latency: Timed, benchmark: Any) -> None:
    gkd_latency(small_fit(method, "graph"), gin, words="GIN 5x64", single=False)
