"""Graphs and an oracle for the tests of local structure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise

import torch
from gkdkernels import CSRGraph
from torch import Tensor

PLAIN = ["reference", "cpu"]
ON_CPU = PLAIN + ["numba"] * (find_spec("numba") is not None)


def _edges(source: Sequence[int], target: Sequence[int], nodes: int, symmetric: bool | None = None) -> CSRGraph:
    return CSRGraph.from_edge_index(torch.tensor([[*source], [*target]], dtype=torch.int64), nodes, symmetric)


def both_ways(nodes: int, pairs: int, seed: int = 3) -> CSRGraph:
    """Random pairs of nodes, an edge in each direction, parallel edges among them."""
    ends = torch.randint(0, nodes, (2, pairs), generator=torch.Generator().manual_seed(seed))
    return CSRGraph.from_edge_index(torch.cat((ends, ends.flip(0)), 1), nodes)


def _unsorted() -> CSRGraph:
    """Symmetric, with a row whose edges are out of order: edge e of the transpose is not the reverse of e."""
    return CSRGraph(torch.tensor([0, 2, 3, 4]), torch.tensor([2, 1, 0, 0]), 3, symmetric=True)


def _int32() -> CSRGraph:
    graph = both_ways(21, 40)
    return CSRGraph(graph.indptr.int(), graph.index.int(), 21)


SQUARE: dict[str, Callable[[], CSRGraph]] = {
    "nothing": lambda: _edges([], [], 0),
    "no edges": lambda: _edges([], [], 4),
    "one loop": lambda: _edges([0], [0], 1),
    "first and last isolated": lambda: _edges([1, 2, 2, 3], [2, 1, 3, 2], 5, True),
    "loops and parallel edges": lambda: _edges([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], 3),
    "directed": lambda: _edges([0, 1, 2, 0, 3, 3], [1, 2, 0, 2, 0, 1], 5, False),
    "symmetric": lambda: both_ways(17, 30),
    "unsorted": _unsorted,
    "int32": _int32,
}


def similarity(kernel: str, a: Sequence[float], b: Sequence[float], sigma: float) -> float:
    """The score of one edge, from its definition."""
    absolute = math.fsum(abs(p - q) for p, q in zip(a, b, strict=True))
    square = math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    norms = math.hypot(*a) * math.hypot(*b)
    cosine = math.fsum(p * q for p, q in zip(a, b, strict=True)) / norms if norms else 0.0
    return {
        "laplace-exp": math.exp(-absolute / sigma),
        "laplace": -absolute / sigma,
        "rbf": -square / (2 * sigma**2),
        "rbf-exp": math.exp(-0.5 * square),
        "l2": math.sqrt(square),
        "cosine": cosine,
        "poly": cosine**2,
    }[kernel]


def mean_distance(graph: CSRGraph, x: Tensor, kernel: str) -> float:
    """What "auto" stands for."""
    order = 2 if kernel == "rbf" else 1
    apart = x.double()[graph.index.long()] - x.double()[graph.row.long()]
    mean = apart.norm(order, dim=-1).mean().item() if graph.num_edges else 0.0
    return mean or 1.0


def oracle(graph: CSRGraph, x: Tensor, kernel: str, sigma: float) -> Tensor:
    """[E] log-probabilities in fp64, node by node."""
    values, out = x.tolist(), torch.zeros(graph.num_edges, dtype=torch.float64)
    for i, (start, stop) in enumerate(pairwise(graph.indptr.tolist())):
        s = [similarity(kernel, values[j], values[i], sigma) for j in graph.index[start:stop].tolist()]
        for e, score in zip(range(start, stop), s, strict=True):
            out[e] = (score - max(s)) - math.log(math.fsum(math.exp(other - max(s)) for other in s))
    return out


def divergence(graph: CSRGraph, log_teacher: Tensor, log_student: Tensor) -> float:
    """The mean over nodes of the sum over each node's edges."""
    terms = (math.exp(t) * (t - s) for t, s in zip(log_teacher.tolist(), log_student.tolist(), strict=True))
    return math.fsum(terms) / max(graph.num_dst, 1)


def slopes(run: Callable[[Tensor], float], x: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of `run` by central differences, fp64."""
    out = torch.zeros_like(x)
    for at in range(x.numel()):
        ends = []
        for sign in (1.0, -1.0):
            moved = x.clone()
            moved.view(-1)[at] += sign * step
            ends.append(run(moved))
        out.view(-1)[at] = (ends[0] - ends[1]) / (2 * step)
    return out
