"""OGB node sets as their raw csv.gz tables (Hu et al. 2020): ogbn-arxiv and ogbn-products."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import MAX_IDS, features_of, graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import class_labels, in_range, table
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.tables import official_split
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """arxiv keeps its citation directions (its split family makes it symmetric); products lists each edge once."""
    refuse_in_worker(info.name)
    at, limit = {what: raw.ending(f"{what}.csv.gz") for what in ("/edge", "node-feat", "node-label")}, raw.text_bytes
    edges = table(at["/edge"], limit=limit)
    features = table(at["node-feat"], np.float32, limit=limit)
    labels = class_labels(at["node-label"], table(at["node-label"], limit=limit).ravel(), limit=limit)
    in_range(at["/edge"], edges, 0, len(labels), "node of an edge", limit=limit)
    sizes = [raw.ending(f"num-{what}-list.csv.gz") for what in ("node", "edge")]
    counts = [int(in_range(path, table(path, limit=limit), 0, MAX_IDS, "number").sum()) for path in sizes]
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
        official=official_split(raw, "ogb", len(labels)),
        note=info.note,
    )
