"""Inputs corrupted after training: which robustness a sweep measures, and how strongly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures
from torch import Tensor

from gkdbench.data.nodes import Space
from gkdbench.protocol.evaluation_graphs import kept_edges
from gkdbench.protocol.inputs import Inputs
from gkdbench.records.schema import InputKind


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind at one level.

    Args:
        kind: ``"feature_noise"``: an entry of the features is replaced, with probability `level`, by one drawn from
            the data's own distribution. Sparse features (bags of words): a non-zero moves to the column of a non-zero
            drawn from all of the graph, and keeps its value, so that a word becomes another as frequent as words are,
            and rows keep their length and sum. Dense features: the entry takes the value that another node, drawn
            for every entry, has in the same column. Level 1 leaves the distribution of the columns and nothing of the
            node. Additive Gaussian noise would need a scale per data set, and would turn bags of words, nine tenths
            zeros and more, into something that no model has seen at any level.
            ``"edge_drop"``: an edge is removed, both directions together, with probability `level`; self-loops stay.
            ``"clean"``: nothing, at level 0.
        level: probability in [0, 1].
    """

    kind: InputKind
    level: float

    def __str__(self) -> str:
        return f"{self.kind}={self.level}"


CLEAN = Corruption("clean", 0.0)


def corruptions(sweeps: Mapping[str, Sequence[float]]) -> list[Corruption]:
    """What `sweeps` (kind -> levels) asks for, the clean inputs first; nothing when it is empty."""
    found = [Corruption(kind, level) for kind in get_args(InputKind) for level in sorted(sweeps.get(kind, ()))]
    return [CLEAN, *found] if sweeps else []


def corrupted(inputs: Inputs, how: Corruption, seed: int) -> Inputs:
    """`inputs` as `how` leaves them, under a numbering of another name: what models keep per space is not reused.

    Draws depend on (seed, kind, element) alone: all models of all methods read the same inputs, and what is corrupted
    at one level is corrupted in the same way at every higher one.
    """
    if how == CLEAN:
        return inputs
    space = Space(f"{inputs.space.name}~{how}", inputs.space.ids)
    items = space if inputs.items is inputs.space else Space(f"{inputs.items.name}~{how}", inputs.items.ids)
    if how.kind == "feature_noise":
        features = _noisy(inputs.features, how.level, seed)
        return replace(inputs, space=space, items=items, features=features)
    keep = _kept(inputs.graph, how.level, seed)
    graph, edges = kept_edges(inputs, keep)
    edge_features = None if inputs.edge_features is None else inputs.edge_features[edges]
    return replace(inputs, space=space, items=items, graph=graph, edge_features=edge_features)


def _noisy(features: Features, level: float, seed: int) -> Features:
    if isinstance(features, MixedFeatures):
        raise TypeError("features: expected dense or sparse ones of a data set, got mixed ones, which methods make")
    if isinstance(features, Tensor):
        hit = _draw(seed, "feature which", features.shape, features.device) < level
        donor = (_draw(seed, "feature donor", features.shape, features.device) * features.size(0)).long()
        return torch.where(hit, features.gather(0, donor), features)
    graph = features.graph
    shape = torch.Size([graph.num_edges])
    hit = _draw(seed, "feature which", shape, graph.device) < level
    donor = (_draw(seed, "feature donor", shape, graph.device) * graph.num_edges).long()
    columns = torch.where(hit, graph.index[donor], graph.index)
    return SparseFeatures(CSRGraph(graph.indptr, columns, graph.num_src), features.value)


def _kept(graph: CSRGraph, level: float, seed: int) -> Tensor:
    """[E] bool; the two directions of an edge share a draw, in a directed graph too."""
    src, dst = graph.index.long(), graph.row.long()
    pairs, pair = torch.unique(torch.minimum(src, dst) * graph.num_src + torch.maximum(src, dst), return_inverse=True)
    return (_draw(seed, "edge", pairs.shape, graph.device)[pair] >= level) | (src == dst)


def _draw(seed: int, what: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform float64 in [0, 1), made on the CPU so that every device reads the same."""
    digest = hashlib.sha256(f"disturbed/{seed}/{what}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(shape, dtype=torch.float64, generator=generator).to(device)
