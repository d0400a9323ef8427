"""OGB node sets as their raw csv.gz tables (Hu et al. 2020): ogbn-arxiv and ogbn-products."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import features_of, graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.tables import official_split, table
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """arxiv keeps its citation directions (its split family makes it symmetric); products lists each edge once."""
    refuse_in_worker(info.name)
    edges = table(raw.ending("/edge.csv.gz"))
    features = table(raw.ending("node-feat.csv.gz"), np.float32)
    labels = table(raw.ending("node-label.csv.gz")).ravel()
    counts = [int(table(raw.ending(f"num-{what}-list.csv.gz")).sum()) for what in ("node", "edge")]
    if counts != [len(labels), len(edges)] or len(features) != len(labels):
        raise CorruptData(
            f"{info.name}: expected {counts[0]} nodes and {counts[1]} edges, got "
            f"{len(features)} feature rows, {len(labels)} labels and {len(edges)} edges"
        )
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(edges[:, 0], edges[:, 1], len(labels), undirected=not info.directed, loops=info.directed),
        features=features_of(features),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        official=official_split(raw, "ogb"),
        note=info.note,
    )
