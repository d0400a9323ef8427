"""A small directed graph and its pairs in plain loops: what sums over pairs are tested against."""

from typing import Any

import torch
from gkdkernels import CSRGraph

NODES, CLASSES = 20, 4
Pair = tuple[int, int, float]
"""(i, j, weight)."""


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Standard normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def graph(edges: int = 60) -> CSRGraph:
    """Directed, with self-loops, an isolated node (the last) and a repeated edge."""
    index = torch.randint(NODES - 1, (2, edges), generator=torch.Generator().manual_seed(3))
    loops = torch.arange(5).repeat(2, 1)
    return CSRGraph.from_edge_index(torch.cat([index, index[:, :1], loops], dim=1), NODES)


def pairs(edges: CSRGraph, weight: torch.Tensor | None = None) -> list[Pair]:
    """Every pair: edges j -> i, and all (i, i) with weight 1."""
    found = [(int(i), int(j)) for i, j in zip(edges.row, edges.index, strict=True)]
    weights = [1.0] * len(found) if weight is None else weight.tolist()
    return [(*pair, w) for pair, w in zip(found, weights, strict=True)] + [(i, i, 1.0) for i in range(NODES)]


def kl(p: torch.Tensor, q: torch.Tensor) -> Any:
    """KL of two distributions [C]."""
    return (p * (p.log() - q.log())).sum()


def loop_kl(student: torch.Tensor, teacher: torch.Tensor, found: list[Pair], tau: float) -> Any:
    """Weighted mean over pairs of KL(softmax(z_T,j / tau) || softmax(z_S,i / tau))."""
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for i, j, weight in found:
        total = total + weight * kl((teacher[j] / tau).softmax(0), (student[i] / tau).softmax(0))
        count += weight
    return total / count
