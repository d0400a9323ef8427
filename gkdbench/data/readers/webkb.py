"""WebKB and Actor as geom-gcn's two text files (Pei et al. 2020); directed edges as listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of, mask_ids
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import MAX_COLUMNS, in_range, table, text_of
from gkdbench.data.rawfiles import MAX_CLASSES, CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.masks import numbered_mask_files
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """A feature field is a full 0/1 row (WebKB), or the list of non-zero columns (Actor)."""
    refuse_in_worker(info.name)
    path = raw.ending("out1_node_feature_label.txt")
    nodes = dict(_nodes(path, raw.text_bytes))
    if sorted(nodes) != list(range(len(nodes))):
        raise CorruptData(f"{path}: expected each of {len(nodes)} nodes once, got others; fetch it again")
    labels = np.array([nodes[node][1] for node in range(len(nodes))], np.int64)
    fields = [nodes[node][0] for node in range(len(nodes))]
    at = raw.ending("out1_graph_edges.txt")
    edges = table(at, limit=raw.text_bytes, delimiter=None, skip=1)
    in_range(at, edges, 0, len(nodes), "node of an edge", limit=raw.text_bytes)
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(edges[:, 0], edges[:, 1], len(labels), undirected=False, loops=True),
        features=features_of(_columns(fields) if info.name == "actor" else np.stack(fields)),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        official={key: mask_ids(mask, len(labels)) for key, mask in numbered_mask_files(raw).items()},
        note=info.note,
    )


def _nodes(path: Path, limit: int) -> Iterator[tuple[int, tuple[NumpyArray, int]]]:
    """(node, (its feature field, its label)) of every line but the first."""
    with text_of(path, limit, "utf-8", "readable geom-gcn text") as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                continue
            try:
                node, field, label = line.rstrip("\n").split("\t")
                found = np.array(field.split(","), np.int64)
                if found.min() < 0 or found.max() >= MAX_COLUMNS or not 0 <= int(label) < MAX_CLASSES:
                    raise ValueError("a column or a label out of range")
                yield int(node), (found, int(label))
            except (ValueError, OverflowError) as error:
                raise CorruptData(
                    f"{path}, line {number}: expected a node, its features and its class, got: {error}; fetch it again"
                ) from None


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
