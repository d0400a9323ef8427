"""A Task: one dataset as arrays, with everything that a split or a score needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures
from torch import Tensor

TaskKind = Literal["node", "graph"]
StoredFeatures = Tensor | SparseFeatures
HASHED_ROWS = 65_536
"""Feature rows that are hashed at a time."""


@dataclass(frozen=True)
class Task:
    """One dataset in memory (or memory-mapped).

    Args:
        name: canonical id, e.g. ``"cora"`` (``gkdbench list datasets``).
        kind: ``"node"`` or ``"graph"``: what carries a label.
        graph: [N x N] message-passing edges j -> i as rows i. As the file has them: splits decide about loops.
            For graph tasks (and PPI) all graphs in one block-diagonal matrix.
        features: [N, D] float32, dense or SparseFeatures (chosen by density).
        labels: [M] int64 class, -1 unknown; or [M, L] float32 of 0, 1, NaN (unknown) when `multi_label`.
            M is N for node tasks, G for graph tasks.
        num_classes: C, or L when multi-label.
        multi_label: Bernoulli labels, several per row.
        metric: name in ``gkdbench.metrics`` ("accuracy", "micro_f1", "rocauc").
        graph_ptr: [G + 1] int64, nodes of graph g are ``graph_ptr[g]:graph_ptr[g + 1]``; None for one graph.
        edge_features: [E, F] in the order of ``graph.index``, or None.
        official: splits that come with the files: ``"<family>/<index>/<train|val|test>"`` -> int64 item ids,
            e.g. ``"planetoid-public/0/train"``.
        note: what a reader of a results table must know about this set's origin, or "".
    """

    name: str
    kind: TaskKind
    graph: CSRGraph
    features: StoredFeatures
    labels: Tensor
    num_classes: int
    multi_label: bool = False
    metric: str = "accuracy"
    graph_ptr: Tensor | None = None
    edge_features: Tensor | None = None
    official: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ""

    @property
    def num_nodes(self) -> int:
        return self.graph.num_dst

    @property
    def num_items(self) -> int:
        """How many things carry a label: nodes or graphs."""
        return int(self.labels.size(0))

    @property
    def num_features(self) -> int:
        return int(self.features.shape[1])

    @cached_property
    def content_hash(self) -> str:
        """sha256 over (edges, features, labels, graph borders), independent of file format and storage dtype."""
        digest = hashlib.sha256(f"{self.num_features}".encode())
        none = torch.zeros(0)
        borders = none if self.graph_ptr is None else self.graph_ptr
        edge_features = none if self.edge_features is None else self.edge_features
        edges = (self.graph.indptr.long(), self.graph.index.long())
        for part in chain(edges, _nonzeros(self.features), (self.labels, borders, edge_features)):
            digest.update(f"{list(part.shape)}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part.numpy()).data)
        return digest.hexdigest()

    def with_(self, **changes: object) -> Task:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @classmethod
    def from_arrays(
        cls,
        name: str,
        edge_index: Any,
        features: Any,
        labels: Any,
        *,
        kind: TaskKind = "node",
        graph_ptr: Any = None,
        edge_features: Any = None,
        num_classes: int | None = None,
        metric: str | None = None,
        splits: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        note: str = "",
    ) -> Task:
        """Your own graph, from numpy arrays, tensors or lists.

        Args:
            edge_index: [2, E] int, sources and destinations, each edge once; undirected graphs list both directions.
            features: [N, D] numbers, dense or a scipy sparse matrix.
            labels: [M] int classes with -1 unknown, or [M, L] of 0, 1, NaN for several labels an item.
            kind: what carries a label: ``"node"`` (M = N) or ``"graph"`` (M = G, needs `graph_ptr`).
            graph_ptr: [G + 1] int, nodes of graph g are ``graph_ptr[g]:graph_ptr[g + 1]``.
            edge_features: [E, F] in the order of `edge_index`.
            num_classes: when classes exist that no item has.
            metric: "accuracy", "micro_f1" or "rocauc"; by default the first, the second for several labels an item.
            splits: your own split or splits: ``{"train": ids or mask, "val": ..., "test": ...}``; split ids ``own``,
                ``own-ind20`` or ``own-graph``.

        Raises:
            UserError: names the argument, what was expected and what was given.
        """
        from gkdbench.data.user import task_from_arrays

        return task_from_arrays(
            name,
            edge_index,
            features,
            labels,
            kind=kind,
            graph_ptr=graph_ptr,
            edge_features=edge_features,
            num_classes=num_classes,
            metric=metric,
            splits=splits,
            note=note,
        )

    @classmethod
    def from_pyg(cls, data: Any, name: str, *, kind: TaskKind | None = None, **facts: Any) -> Task:
        """Your own graph, from a torch_geometric ``Data`` (nodes carry labels) or a list of them (graphs do).

        Reads ``x``, ``edge_index``, ``y``, ``edge_attr``, and of a single graph ``train_mask``, ``val_mask`` and
        ``test_mask`` ([N] or [N, K]) as split ``own``.

        Args:
            kind: overrides the default: a list of graphs whose nodes carry labels is ``kind="node"``.
            facts: further arguments of `from_arrays`.
        """
        from gkdbench.data.user import task_from_pyg

        return task_from_pyg(data, name, kind=kind, **facts)


def _nonzeros(features: StoredFeatures) -> Iterator[Tensor]:
    """Row lengths, columns and values of the non-zeros of HASHED_ROWS rows after another, the same for both storages.

    A block at a time: the column numbers of a large dense matrix would take more memory than the matrix.
    """
    for start in range(0, features.shape[0], HASHED_ROWS):
        stop = min(start + HASHED_ROWS, features.shape[0])
        if isinstance(features, SparseFeatures):
            first, last = (int(features.graph.indptr[row]) for row in (start, stop))
            yield features.graph.degree[start:stop].long()
            yield features.graph.index[first:last].long()
            yield features.value[first:last].float()
        else:
            rows = features[start:stop]
            yield rows.count_nonzero(dim=1)
            yield rows.nonzero()[:, 1]
            yield rows[rows != 0].float()
