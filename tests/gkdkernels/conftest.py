"""The graph zoo: small graphs of every awkward shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from torch import Tensor


def _graph(source: list[int], target: list[int], num_dst: int, num_src: int) -> CSRGraph:
    return CSRGraph.from_edge_index(torch.tensor([source, target], dtype=torch.int64), (num_dst, num_src))


def _random(num_dst: int, num_src: int, edges: int) -> CSRGraph:
    generator = torch.Generator().manual_seed(7)
    source = torch.randint(0, num_src, (edges,), generator=generator)
    target = torch.randint(0, num_dst, (edges,), generator=generator)
    return CSRGraph.from_edge_index(torch.stack([source, target]), (num_dst, num_src))


def _int32() -> CSRGraph:
    graph = _random(21, 21, 80)
    return CSRGraph(graph.indptr.int(), graph.index.int(), 21)


ZOO: dict[str, Callable[[], CSRGraph]] = {
    "nothing": lambda: _graph([], [], 0, 0),
    "no rows": lambda: _graph([], [], 0, 4),
    "no columns": lambda: _graph([], [], 3, 0),
    "no edges": lambda: _graph([], [], 4, 4),
    "one bare node": lambda: _graph([], [], 1, 1),
    "one loop": lambda: _graph([0], [0], 1, 1),
    "first and last isolated": lambda: _graph([1, 2, 2, 3], [2, 1, 3, 2], 5, 5),
    "hub": lambda: _graph([*range(33), *[0] * 33], [*[0] * 33, *range(33)], 33, 33),
    "loops and parallel edges": lambda: _graph([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], 3, 3),
    "wide": lambda: _random(5, 17, 40),
    "tall": lambda: _random(17, 3, 40),
    "odd": lambda: _random(63, 63, 257),
    "int32": _int32,
}


@pytest.fixture(params=list(ZOO))
def graph(request: pytest.FixtureRequest) -> CSRGraph:
    """Each graph of the zoo."""
    return ZOO[request.param]()


@pytest.fixture(params=[name for name in ZOO if name not in ("hub", "odd")])
def small_graph(request: pytest.FixtureRequest) -> CSRGraph:
    """The graphs of the zoo with a few rows: the interpreter takes milliseconds for each."""
    return ZOO[request.param]()


@pytest.fixture
def small_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than 4 edges count as hubs."""
    monkeypatch.setattr("gkdkernels.graph.HUB_EDGES", 4)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `new_empty` is not right by luck: it holds NaN, or the largest integer."""
    clean = Tensor.new_empty

    def poisoned(self: Tensor, *size: Any, **options: Any) -> Tensor:
        out = clean(self, *size, **options)
        return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).max)

    monkeypatch.setattr(Tensor, "new_empty", poisoned)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where triton kernels run: the GPU, or the CPU under the interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def odd() -> CSRGraph:
    """63 nodes, 257 directed edges."""
    return ZOO["odd"]()


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Normal fp64 numbers of a shape, another draw at every call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
