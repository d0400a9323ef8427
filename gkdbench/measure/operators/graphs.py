"""Graphs by name: power laws of the usual sizes, small ones for quick runs, and the available data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gkdkernels import CSRGraph

LoadGraph = Callable[[str], CSRGraph]
"""A data set's name -> its graph; raises `gkdbench.errors.UserError` if its files are missing."""
SKEW = 0.6  # weight of the r-th node is r^-SKEW: at the size of ogbn-arxiv a largest degree of about 7000, a p99 of 90


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Size of a random symmetric graph with skewed degrees."""

    nodes: int
    edges: int


POWER_LAWS = {
    "power-law-tiny": PowerLaw(300, 2_000),
    "power-law-small": PowerLaw(5_000, 60_000),
    "power-law-arxiv": PowerLaw(169_343, 2_423_954),
    "power-law-products": PowerLaw(2_449_029, 123_718_280),
}
DATA_SETS = ("cora", "citeseer", "pubmed", "amazon-photo", "amazon-computers", "coauthor-cs", "coauthor-physics")


def graph_named(name: str, load: LoadGraph, device: torch.device) -> CSRGraph:
    """A graph of `POWER_LAWS`, ``edges=N`` for one of arxiv's mean degree, or the data set of that name.

    int64 indices on the CPU, as data sets have them; int32 on a GPU.
    """
    if name in POWER_LAWS:
        graph = power_law(POWER_LAWS[name])
    elif name.startswith("edges="):
        edges = int(name.removeprefix("edges="))
        arxiv = POWER_LAWS["power-law-arxiv"]
        graph = power_law(PowerLaw(max(8, edges * arxiv.nodes // arxiv.edges), edges))
    else:
        graph = load(name)
    if device.type == "cuda":
        graph = CSRGraph(graph.indptr.int(), graph.index.int(), graph.num_src, graph.symmetric)
    return graph.to(device)


def power_law(size: PowerLaw, seed: int = 0) -> CSRGraph:
    """A symmetric graph without loops or parallel edges; node order is random, the worst case for caches.

    Ends of edges are drawn in proportion to ``rank^-SKEW`` (Chung & Lu 2002).
    """
    random = np.random.default_rng(seed)
    cumulative = np.cumsum(np.arange(1, size.nodes + 1, dtype=np.float64) ** -SKEW)
    names = random.permutation(size.nodes)
    wanted = min(size.edges, size.nodes * (size.nodes - 1) // 2) // 2
    pairs = np.empty(0, dtype=np.int64)
    while pairs.size < wanted:
        ends = random.random((2, wanted - pairs.size + 1000)) * cumulative[-1]
        low, high = np.sort(names[np.searchsorted(cumulative, ends).clip(max=size.nodes - 1)], axis=0)
        drawn = (low * size.nodes + high)[low != high]
        pairs = np.unique(np.concatenate([pairs, drawn]))
    pairs = np.sort(random.choice(pairs, wanted, replace=False))
    low, high = pairs // size.nodes, pairs % size.nodes
    both = torch.from_numpy(np.stack([np.concatenate([low, high]), np.concatenate([high, low])]))
    return CSRGraph.from_edge_index(both, size.nodes, symmetric=True)
