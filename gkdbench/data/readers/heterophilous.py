"""Heterophilous graphs as one npz of edges, features, labels and ten masks (Platonov et al. 2023)."""

from __future__ import annotations

import torch

from gkdbench.data.build import features_of, graph_of, mask_ids
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import class_labels, in_range, int64, open_npz
from gkdbench.data.families import PARTS
from gkdbench.data.rawfiles import RawFiles, refuse_in_worker
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Edges in both directions unless the set is a directed one; masks as ``official-10/<k>/<part>``."""
    refuse_in_worker(info.name)
    (path,) = raw.at.values()
    stored = open_npz(
        path,
        ["edges", "node_features", "node_labels", *(f"{part}_masks" for part in PARTS)],
    )
    labels = class_labels(path, stored["node_labels"])
    src, dst = in_range(path, int64(path, stored["edges"], 2, "edges"), 0, len(labels), "edges").T
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(src, dst, len(labels), undirected=not info.directed, loops=info.directed),
        features=features_of(stored["node_features"]),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        metric=info.metric,
        official={
            f"official-10/{k}/{part}": mask_ids(mask, len(labels))
            for part in PARTS
            for k, mask in enumerate(stored[f"{part}_masks"])
        },
        note=info.note,
    )
