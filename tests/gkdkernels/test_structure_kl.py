"""Divergence of local structures: values, gradients, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from gkdkernels.structure_kl.edge_log_probs import edge_log_probs
from gkdkernels.structure_kl.kernel_functions import KERNELS
from gkdkernels.structure_kl.op import structure_kl
from support import structure_formulas as structures
from support.structure_formulas import ON_CPU, SQUARE, both_ways, divergence, mean_distance, oracle
from test_memory import largest
from torch import Tensor

Draw = Callable[..., Tensor]


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SQUARE)
def test_values(name: str, kernel: str, backend: str, draw: Draw) -> None:
    graph = SQUARE[name]()
    student, teacher = draw(graph.num_src, 5), draw(graph.num_src, 3) * 2
    widths = [mean_distance(graph, x, kernel) for x in (student, teacher)]
    log_s, log_t = (oracle(graph, x, kernel, w) for x, w in zip((student, teacher), widths, strict=True))
    wanted = divergence(graph, log_t, log_s)
    for told in (teacher, log_t):
        got = structure_kl(graph, student, told, kernel=kernel, sigma="auto", backend=backend)
        assert got.shape == ()
        assert got.item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        single = structure_kl(graph, student.float(), told.float(), kernel=kernel, sigma="auto", backend=backend)
        assert single.item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["loops and parallel edges", "directed", "symmetric", "unsorted"])
def test_gradient_by_differences(name: str, kernel: str, backend: str, draw: Draw) -> None:
    graph = SQUARE[name]()
    x, teacher = draw(graph.num_src, 2), draw(graph.num_src, 3).requires_grad_()
    log_t = oracle(graph, teacher.detach(), kernel, 1.3)
    leaf = x.clone().requires_grad_()
    loss = structure_kl(graph, leaf, teacher, kernel=kernel, sigma=1.3, backend=backend)
    got, none = torch.autograd.grad(2.5 * loss, (leaf, teacher), allow_unused=True)
    wanted = structures.slopes(lambda moved: 2.5 * divergence(graph, log_t, oracle(graph, moved, kernel, 1.3)), x)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)
    assert none is None


@pytest.mark.parametrize("backend", ON_CPU)
def test_several_teachers_share_the_students_map(backend: str, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = both_ways(21, 50), draw(21, 4).requires_grad_()
    told = [draw(21, 3), edge_log_probs(graph, draw(21, 6), "laplace", 2.0), draw(21, 4)]
    alone = [structure_kl(graph, x, one, kernel="laplace", sigma=2.0, backend=backend) for one in told]
    together = structure_kl(graph, x, told, kernel="laplace", sigma=2.0, backend=backend)
    torch.testing.assert_close(together, torch.stack(alone))
    g = draw(3)
    a, b = (torch.autograd.grad(loss, x, g)[0] for loss in (together, torch.stack(alone)))
    torch.testing.assert_close(a, b)

    maps: list[Tensor] = []

    def counted(graph: CSRGraph, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        maps.append(x)
        return edge_log_probs(graph, x, *rest, **options)

    monkeypatch.setattr(import_module("gkdkernels.structure_kl.op"), "edge_log_probs", counted)
    structure_kl(graph, x, told, kernel="laplace", sigma=2.0, backend=backend)
    assert len(maps) == 3  # the student, and the two teachers that are features


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nodes_with_one_edge_or_none_contribute_nothing(kernel: str, backend: str, draw: Draw) -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[1, 2, 3, 3], [2, 1, 3, 4]]), 6)  # two pairs, a loop, two bare nodes
    x = draw(6, 4).float().requires_grad_()
    loss = structure_kl(graph, x, draw(6, 3).float(), kernel=kernel, sigma="auto", backend=backend)
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, x)[0].any()


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_structures_have_no_divergence(kernel: str, backend: str, draw: Draw) -> None:
    graph, x = both_ways(63, 200), draw(63, 5).float().requires_grad_()
    loss = structure_kl(graph, x, x.detach(), kernel=kernel, sigma=1.5, backend=backend)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-6
    assert structure_kl(graph, x, draw(63, 5).float(), kernel=kernel, sigma=1.5, backend=backend).item() > 0


@pytest.mark.parametrize("backend", ON_CPU)
def test_zero_probability_of_the_teacher_counts_as_zero(backend: str, draw: Draw) -> None:
    graph, x = SQUARE["directed"](), draw(5, 3).requires_grad_()
    sure = torch.full((6,), -torch.inf, dtype=torch.float64)
    first = graph.indptr[:-1][graph.degree > 0]
    sure[first] = 0.0
    loss = structure_kl(graph, x, sure, kernel="laplace", sigma=1.0, backend=backend)
    wanted = -oracle(graph, x.detach(), "laplace", 1.0)[first].sum() / 5
    torch.testing.assert_close(loss.detach(), wanted)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


def released_bound() -> float:
    """Largest KL of two distributions that are softmaxes of scores in [0, 1]: all ratios within e.

    Both put e or 1 on each neighbour, up to a factor. With a share u of the neighbours high for the teacher and the
    opposite share for the student (the extreme points of the box), KL is convex in each side, so that the maximum is
    at such corners; the share is found on a grid.
    """
    best = 0.0
    for step in range(1, 1000):
        u = step / 1000
        z_t, z_s = u * math.e + 1 - u, u + (1 - u) * math.e
        best = max(best, (u * math.e - (1 - u)) / z_t - math.log(z_t) + math.log(z_s))
    return best


@pytest.mark.parametrize("backend", ON_CPU)
def test_the_released_kernel_is_nearly_vacuous(backend: str) -> None:
    """laplace-exp: scores in (0, 1] bound the divergence by 0.474, and sigma = 100 makes it far smaller."""
    assert released_bound() == pytest.approx(0.474, abs=5e-4)
    leaves = 200
    star = CSRGraph.from_edge_index(
        torch.stack([torch.arange(1, leaves + 1), torch.zeros(leaves, dtype=torch.long)]), leaves + 1
    )
    highest = 0.0
    for near in range(0, leaves + 1, 10):
        far = torch.full((leaves + 1, 1), 1e9, dtype=torch.float64)
        student, teacher = far.clone(), far.clone()
        student[0] = teacher[0] = 0.0
        teacher[1 : near + 1] = 0.0
        student[near + 1 :] = 0.0
        loss = structure_kl(star, student, teacher, kernel="laplace-exp", sigma=100.0, backend=backend)
        highest = max(highest, loss.item() * (leaves + 1))  # the mean runs over the leaves, which contribute 0
    assert 0.46 < highest <= released_bound() + 1e-9


@pytest.mark.parametrize("kernel", ["laplace", "rbf", "cosine"])
def test_memory_stays_below_edges_times_features(kernel: str, draw: Draw) -> None:
    nodes, edges, width = 100, 100_000, 64
    for graph in (
        both_ways(nodes, edges // 2),
        CSRGraph(torch.arange(0, edges + 1, edges // nodes), torch.arange(edges) * 7 % nodes, nodes, symmetric=False),
    ):
        x, teacher = draw(nodes, width).float().requires_grad_(), draw(nodes, width).float()

        def run(backend: str, graph: CSRGraph = graph, x: Tensor = x, teacher: Tensor = teacher) -> Tensor:
            return structure_kl(graph, x, [teacher, teacher], kernel=kernel, sigma="auto", backend=backend)

        assert largest(lambda: run("cpu"), [x]) < edges * width / 4
        assert largest(lambda: run("reference"), [x]) >= edges * width


@pytest.mark.parametrize("symmetric", [True, False])
def test_fullgraph(symmetric: bool, draw: Draw) -> None:
    graph = (both_ways(21, 50) if symmetric else SQUARE["directed"]()).prepare()
    x, teacher = draw(graph.num_src, 4), draw(graph.num_src, 3)

    def step(x: Tensor) -> Tensor:
        return structure_kl(graph, x, [teacher, x * 2], kernel="laplace", sigma="auto", backend="cpu").square()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaf = x.clone().requires_grad_()
        loss = run(leaf)
        results.append((loss, *torch.autograd.grad(loss.sum(), leaf)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": []}, "teacher: expected at least one tensor, got an empty sequence"),
        (
            {"teacher": torch.zeros(59)},
            r"teacher: expected features \[17, F\] or log-probabilities \[60\], got shape \(59,\)",
        ),
        ({"teacher": torch.zeros(16, 2)}, r"teacher: expected shape \[17, F\], got \(16, 2\)"),
        (
            {"teacher": torch.zeros(60, dtype=torch.int64)},
            "teacher: expected a float dtype on cpu like student, got torch.int64",
        ),
        ({"student": torch.zeros(60)}, r"student: expected shape \[17, F\], got \(60,\)"),
        ({"sigma": -1.0}, "sigma: expected a positive number or 'auto', got -1.0"),
        ({"backend": "gpu"}, "backend of structure_kl: expected one of auto, .*, got 'gpu'"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    good = {"student": torch.zeros(17, 2), "teacher": torch.zeros(17, 2), "kernel": "laplace", "sigma": 1.0}
    with pytest.raises(ValueError, match=words):
        structure_kl(SQUARE["symmetric"](), **{**good, **change})  # type: ignore[arg-type]
