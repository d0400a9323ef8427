"""The operators under `torch.compile` with its own backend, code generation included (a C++ compiler on the CPU)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate, segment_softmax, segment_sum, spmm, structure_kl
from gkdkernels.experts.op import expert_linear
from gkdkernels.experts.routing import route_by_memory
from gkdkernels.mutual_kl.op import mutual_kl
from gkdkernels.soft_kl.op import Logits, soft_kl
from torch import Tensor

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available() and shutil.which("g++") is None, reason="inductor wants g++"),
]
Draw = Callable[..., Tensor]
Step = Callable[..., Tensor]

NODES, EDGES = 9, 30


def graph() -> CSRGraph:
    ends = torch.randint(0, NODES, (2, EDGES), generator=torch.Generator().manual_seed(3))
    return CSRGraph.from_edge_index(ends, NODES).prepare()


def reduced(reduce: str) -> tuple[Step, list[tuple[int, ...]]]:
    edges = graph()
    return lambda x, w: spmm(edges, x.sin(), w, reduce).square(), [(NODES, 5), (EDGES,)]


def attention() -> tuple[Step, list[tuple[int, ...]]]:
    edges = graph()
    return lambda h, a, b: gat_aggregate(edges, h.sin(), a, b, dropout=0.3, key=7), [
        (NODES, 2, 3),
        (NODES, 2),
        (NODES, 2),
    ]


def peers() -> tuple[Step, list[tuple[int, ...]]]:
    weight = torch.full((3, 3), 0.5)
    return lambda z: mutual_kl(z * 2.0, pair_weight=weight)[0], [(3, 20, 4)]


def mixture() -> tuple[Step, list[tuple[int, ...]]]:
    def step(x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        index, alpha, _ = route_by_memory(x, memory, 2)
        return expert_linear(x, weight, bias, index, alpha).relu()

    return step, [(20, 6), (4, 6), (4, 6, 3), (4, 3)]


def local_structure() -> tuple[Step, list[tuple[int, ...]]]:
    edges = graph()
    return lambda x, y: structure_kl(edges, x.tanh(), y, kernel="cosine", sigma=1.0), [(NODES, 5), (NODES, 5)]


def readouts() -> tuple[Step, list[tuple[int, ...]]]:
    ptr = torch.tensor([0, 2, 2, 9])
    return lambda x: segment_sum(segment_softmax(x.sin(), ptr) * x, ptr), [(NODES, 5)]


STEPS: dict[str, Callable[[], tuple[Step, list[tuple[int, ...]]]]] = {
    "spmm sum": lambda: reduced("sum"),
    "spmm mean": lambda: reduced("mean"),
    "spmm max": lambda: reduced("max"),
    "gat": attention,
    "mutual_kl": peers,
    "soft_kl": lambda: (lambda z, t: soft_kl(z * 2.0, Logits(t), tau=2.0), [(20, 4), (20, 4)]),
    "experts": mixture,
    "structure_kl": local_structure,
    "readouts": readouts,
}


@pytest.fixture
def fresh_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code is generated here and now."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("name", STEPS)
def test_values_and_gradients(name: str, draw: Draw) -> None:
    step, shapes = STEPS[name]()
    inputs = [draw(*shape).float() for shape in shapes]
    compiled = torch.compile(step, backend="inductor", fullgraph=True)
    upstream = torch.randn_like(step(*inputs))
    results = []
    for run in (step, compiled):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = run(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, upstream, allow_unused=True)])
    for one, other in zip(*results, strict=True):
        if one is None or other is None:
            assert one is other
        else:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
