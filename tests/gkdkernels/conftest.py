"""The graph zoo: small graphs of every awkward shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


GUARD = 64  # elements before and after a buffer: a multiple of the widest load


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory from `new_empty` and `empty_like` is not right by luck: it holds NaN, or the largest integer.

    On both sides of it lie guard regions, which nothing may have touched in the end.
    """
    clean = Tensor.new_empty
    buffers: list[tuple[Tensor, Tensor]] = []

    def guarded(self: Tensor, *size: Any, **options: Any) -> Tensor:
        plain = clean(self, *size, **options)
        if type(plain) is not Tensor:  # a shape without memory, while something is traced
            return plain
        count = plain.numel()
        whole = clean(plain, count + 2 * GUARD)
        integer = not whole.is_floating_point()
        whole.fill_(-7)
        inside = whole[GUARD : GUARD + count].fill_(torch.iinfo(whole.dtype).max if integer else torch.nan)
        buffers.append((whole[:GUARD], whole[GUARD + count :]))
        return inside.view(plain.shape)

    def guarded_like(x: Tensor, **options: Any) -> Tensor:
        return guarded(x, x.shape, dtype=options.get("dtype", x.dtype))

    monkeypatch.setattr(Tensor, "new_empty", guarded)
    monkeypatch.setattr(torch, "empty_like", guarded_like)
    yield
    monkeypatch.undo()
    touched = [number for number, guards in enumerate(buffers) if any(bool((g != -7).any()) for g in guards)]
    assert touched == [], f"written beyond the ends of buffers {touched} of {len(buffers)}"


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
