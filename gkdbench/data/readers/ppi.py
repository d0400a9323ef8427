"""PPI's 24 graphs as ``{train,valid,test}_{graph.json,feats.npy,labels.npy,graph_id.npy}`` (Hamilton et al. 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gkdbench.data.build import MAX_IDS, NumpyArray, features_of, graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import decoding, in_range, int64, open_json, open_npy
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.tables import OFFICIAL_PARTS
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """One block-diagonal graph, training graphs first, then validation, then test; self-loops removed."""
    refuse_in_worker(info.name)
    edges, features, labels, borders = [], [], [], [0]
    official: dict[str, NumpyArray] = {}
    offset = 0
    for part, name in OFFICIAL_PARTS.items():
        listed = _edges(raw.ending(f"{name}_graph.json"), raw.text_bytes)
        at = {what: raw.ending(f"{name}_{what}.npy") for what in ("feats", "labels", "graph_id")}
        rows, targets = open_npy(at["feats"], 2, "fiub"), open_npy(at["labels"], 2, "fiub")
        graph_id = int64(at["graph_id"], open_npy(at["graph_id"], 1, "iu"), 1, "ids of graphs")
        in_range(raw.ending(f"{name}_graph.json"), listed, 0, len(rows), "node of a link")
        in_range(at["graph_id"], graph_id, 0, MAX_IDS, "id of a graph")
        if not len(rows) == len(targets) == len(graph_id) or (np.diff(graph_id) < 0).any():
            raise CorruptData(
                f"ppi: {name}: expected as many rows, labels and graph ids, graph by graph, "
                f"got {len(rows)} rows, {len(targets)} labels and {len(graph_id)} graph ids"
            )
        if (graph_id[listed[:, 0]] != graph_id[listed[:, 1]]).any():
            raise CorruptData(
                f"ppi: {name}_graph.json: expected edges within graphs, got edges between different graphs"
            )
        edges.append(listed + offset)
        features.append(rows)
        labels.append(targets)
        _, sizes = np.unique(graph_id, return_counts=True)
        borders += (offset + np.cumsum(sizes)).tolist()
        official[f"ppi/0/{part}"] = np.arange(offset, offset + len(rows))
        offset += len(rows)
    src, dst = np.concatenate(edges).T
    targets = np.concatenate(labels).astype(np.float32)
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(src, dst, offset, undirected=True),
        features=features_of(np.concatenate(features)),
        labels=torch.from_numpy(targets),
        num_classes=targets.shape[1],
        multi_label=True,
        metric=info.metric,
        graph_ptr=torch.tensor(borders),
        official=official,
        note=info.note,
    )


def _edges(path: Path, limit: int) -> NumpyArray:
    """[E, 2] int64 links of a node-link JSON."""
    with decoding(path, "readable node-link JSON"):
        links = open_json(path, limit)["links"]
        return np.array([[link["source"], link["target"]] for link in links], np.int64).reshape(-1, 2)
