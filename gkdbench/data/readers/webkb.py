"""WebKB and Actor as geom-gcn's two text files (Pei et al. 2020); directed edges as listed."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from gkdbench.data.build import features_of, graph_of, mask_ids
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.masks import numbered_mask_files
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """A feature field is a full 0/1 row (WebKB), or the list of non-zero columns (Actor)."""
    refuse_in_worker(info.name)
    path = raw.ending("out1_node_feature_label.txt")
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        node = np.array([int(line[0]) for line in lines])
        order = np.argsort(node)
        labels = np.array([int(line[2]) for line in lines], np.int64)[order]
        fields = [np.array(lines[i][1].split(","), np.int64) for i in order]
        edges = np.loadtxt(raw.ending("out1_graph_edges.txt"), dtype=np.int64, skiprows=1)
    except (ValueError, IndexError) as error:
        raise CorruptData(f"{path.parent}: expected readable geom-gcn text, got: {error}; fetch it again") from error
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(edges[:, 0], edges[:, 1], len(labels), undirected=False, loops=True),
        features=features_of(_columns(fields) if info.name == "actor" else np.stack(fields)),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        official={key: mask_ids(mask) for key, mask in numbered_mask_files(raw).items()},
        note=info.note,
    )


def _columns(fields: list[np.ndarray]) -> sp.csr_array:
    """[N, D] float32 with ones at the listed columns."""
    indptr = np.cumsum([0, *(len(field) for field in fields)])
    index = np.concatenate(fields)
    matrix = sp.csr_array(
        (np.ones(len(index), np.float32), index, indptr),
        shape=(len(fields), int(index.max()) + 1),
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
