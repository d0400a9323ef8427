"""Published formats on tiny files written in them: the sets that are too large to be at hand, and text formats."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gkdkernels import SparseFeatures

from gkdbench.data.datasets import load_task
from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.splits import prepare
from gkdbench.data.task import Task
from gkdbench.errors import UserError

Register = Callable[..., Path]


def csv_gz(rows: object) -> bytes:
    lines = [",".join("" if value is None else str(value) for value in np.atleast_1d(row)) for row in rows]  # type: ignore[attr-defined]
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def edges_of(task: Task) -> list[tuple[int, int]]:
    return sorted(zip(task.graph.index.tolist(), task.graph.row.tolist(), strict=True))


def ogb_node_files(folder: str = "OGB/ogbn_tiny") -> dict[str, bytes]:
    return {
        f"{folder}/raw/edge.csv.gz": csv_gz([(0, 1), (1, 2), (3, 0)]),
        f"{folder}/raw/node-feat.csv.gz": csv_gz([(0.5, -1), (1, 2), (3, 4), (5, 6.25)]),
        f"{folder}/raw/node-label.csv.gz": csv_gz([0, 2, 1, 0]),
        f"{folder}/raw/num-node-list.csv.gz": csv_gz([4]),
        f"{folder}/raw/num-edge-list.csv.gz": csv_gz([3]),
        f"{folder}/split/time/train.csv.gz": csv_gz([0, 1]),
        f"{folder}/split/time/valid.csv.gz": csv_gz([3]),
        f"{folder}/split/time/test.csv.gz": csv_gz([2]),
    }


def test_ogbn_keeps_directions_until_its_family_makes_it_symmetric(register: Register) -> None:
    folder = register("ogbn-tiny", ogb_node_files(), reader="ogb_nodes", directed=True)
    task = load_task("ogbn-tiny", data=folder)
    assert edges_of(task) == [(0, 1), (1, 2), (3, 0)]
    assert task.features.tolist() == [[0.5, -1], [1, 2], [3, 4], [5, 6.25]]  # type: ignore[union-attr]
    assert task.labels.tolist() == [0, 2, 1, 0] and task.num_classes == 3
    problem = prepare(task, "ogb")
    assert [part.tolist() for part in (problem.split.train, problem.split.val, problem.split.test)] == [
        [0, 1],
        [3],
        [2],
    ]
    assert problem.task.graph.num_edges == 2 * 3 + 4
    for index in (0, 5):  # the parts are official, only the unseen fifth depends on the index
        assert prepare(task, "ogb-ind20", index).split.train.tolist() == [0, 1]


def test_ogbn_undirected_sets_gain_the_reverse_edges(register: Register) -> None:
    task = load_task("ogbn-tiny", data=register("ogbn-tiny", ogb_node_files(), reader="ogb_nodes"))
    assert task.graph.num_edges == 6 and task.graph.symmetric is True


@pytest.mark.parametrize(
    ("path", "payload", "message"),
    [
        ("raw/node-feat.csv.gz", csv_gz([(1, 2)]), "1 feature rows"),
        ("raw/edge.csv.gz", csv_gz([(0, 1), (2,)]), "edge.csv.gz"),
        ("raw/edge.csv.gz", csv_gz([(0, 1)] * 3)[:-9], "edge.csv.gz"),
        ("raw/node-label.csv.gz", b"no gzip", "node-label.csv.gz"),
        ("raw/node-label.csv.gz", csv_gz(["a", 1, 2, 3]), "node-label.csv.gz"),
    ],
    ids=["too few rows", "ragged", "truncated", "no gzip", "no number"],
)
def test_ogbn_broken_tables_are_named(register: Register, path: str, payload: bytes, message: str) -> None:
    files = ogb_node_files() | {f"OGB/ogbn_tiny/{path}": payload}
    with pytest.raises(CorruptData, match=message):
        load_task("ogbn-tiny", data=register("ogbn-tiny", files, reader="ogb_nodes"))


def ogb_graph_files() -> dict[str, bytes]:
    folder = "OGB/ogbg_tiny"
    return {
        f"{folder}/raw/edge.csv.gz": csv_gz([(1, 0), (1, 2), (0, 1)]),
        f"{folder}/raw/edge-feat.csv.gz": csv_gz([(0, 1), (2, 0), (1, 1)]),
        f"{folder}/raw/node-feat.csv.gz": csv_gz([(5, 0), (6, 1), (5, 1), (0, 0), (6, 0), (5, 1)]),
        f"{folder}/raw/graph-label.csv.gz": csv_gz([(0, None), (1, 0.0), (1, 1)]),
        f"{folder}/raw/num-node-list.csv.gz": csv_gz([3, 2, 1]),
        f"{folder}/raw/num-edge-list.csv.gz": csv_gz([2, 1, 0]),
        f"{folder}/split/scaffold/train.csv.gz": csv_gz([1]),
        f"{folder}/split/scaffold/valid.csv.gz": csv_gz([0]),
        f"{folder}/split/scaffold/test.csv.gz": csv_gz([2]),
    }


def test_ogbg_codes_below_zero_are_refused(register: Register) -> None:
    files = ogb_graph_files() | {
        "OGB/ogbg_tiny/raw/node-feat.csv.gz": csv_gz([(5, 0), (6, 1), (5, -1), (0, 0), (6, 0), (5, 1)])
    }
    with pytest.raises(CorruptData, match="line 3: atom code: expected a value"):
        load_task("ogbg-tiny", data=register("ogbg-tiny", files, reader="ogb_graphs", kind="graph"))


def test_ogbg_bonds_carry_their_codes_in_both_directions(register: Register) -> None:
    facts = {"reader": "ogb_graphs", "kind": "graph", "multi_label": True, "metric": "rocauc"}
    task = load_task("ogbg-tiny", data=register("ogbg-tiny", ogb_graph_files(), **facts))
    assert task.graph_ptr is not None and task.graph_ptr.tolist() == [0, 3, 5, 6]
    assert task.edge_features is not None
    codes = {  # one-hot, side by side: three kinds of bond, then a flag
        (source, target): row
        for source, target, row in zip(
            task.graph.index.tolist(), task.graph.row.tolist(), task.edge_features.int().tolist(), strict=True
        )
    }
    first, second, third = [1, 0, 0, 0, 1], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1]
    assert codes == {
        (1, 0): first, (0, 1): first, (1, 2): second, (2, 1): second, (3, 4): third, (4, 3): third
    }  # fmt: skip
    assert isinstance(task.features, SparseFeatures) and task.features.shape == (6, 7 + 2)
    assert task.features.graph.index.tolist() == [5, 7, 6, 8, 5, 8, 0, 7, 6, 7, 5, 8]
    assert task.features.graph.degree.tolist() == [2] * 6 and bool((task.features.value == 1).all())
    assert torch.isnan(task.labels[0, 1]) and task.labels[1].tolist() == [1, 0]
    assert prepare(task, "ogb-graph").split.train.tolist() == [1]
    assert prepare(task, "ogb-graph").task.graph.num_edges == 6  # molecules gain no loops


def ppi_files(graph_id: list[int] | None = None) -> dict[str, bytes]:
    """Train: two graphs of 2 and 3 nodes; validation and test: one of 2 nodes each; one loop that is dropped."""
    parts = {
        "train": (graph_id or [1, 1, 2, 2, 2], [(0, 1), (2, 3), (3, 4), (4, 4)]),
        "valid": ([21, 21], [(1, 0)]),
        "test": ([23, 23], []),
    }
    files: dict[str, bytes] = {}
    for name, (ids, links) in parts.items():
        graph = {
            "directed": False,
            "nodes": [{"id": i} for i in range(len(ids))],
            "links": [{"source": a, "target": b} for a, b in links],
        }
        files[f"PPI/raw/{name}_graph.json"] = json.dumps(graph).encode()
        files[f"PPI/raw/{name}_feats.npy"] = npy(np.arange(len(ids) * 2.0).reshape(-1, 2) + 1)
        files[f"PPI/raw/{name}_labels.npy"] = npy(np.arange(len(ids) * 3).reshape(-1, 3) % 2)
        files[f"PPI/raw/{name}_graph_id.npy"] = npy(ids)
    return files


def test_ppi_is_one_block_diagonal_graph_with_unseen_test_graphs(register: Register) -> None:
    facts = {"reader": "ppi", "multi_label": True, "metric": "micro_f1"}
    task = load_task("ppi", data=register("ppi", ppi_files(), **facts))
    assert task.graph_ptr is not None and task.graph_ptr.tolist() == [0, 2, 5, 7, 9]
    assert edges_of(task) == [(0, 1), (1, 0), (2, 3), (3, 2), (3, 4), (4, 3), (5, 6), (6, 5)]
    assert task.labels.shape == (9, 3) and task.labels.dtype == torch.float32 and task.multi_label
    split = prepare(task, "ppi").split
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[0, 1, 2, 3, 4], [5, 6], [7, 8]]
    assert split.unseen.tolist() == [7, 8]


def test_ppi_refuses_edges_between_graphs_and_broken_json(register: Register) -> None:
    with pytest.raises(CorruptData, match="different graphs"):
        load_task("ppi", data=register("ppi", ppi_files([1, 1, 1, 2, 2]), reader="ppi"))
    with pytest.raises(CorruptData, match=r"test_graph\.json"):
        load_task("ppi", data=register("ppi", ppi_files() | {"PPI/raw/test_graph.json": b"{"}, reader="ppi"))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptData, match=r"train_feats\.npy"):
        files = ppi_files() | {"PPI/raw/train_feats.npy": pickled.getvalue()}
        load_task("ppi", data=register("ppi", files, reader="ppi"))


def test_wikics_has_twenty_training_masks_and_one_test_mask(register: Register) -> None:
    masks = np.eye(4, dtype=bool)
    content = {
        "features": [[1.0, 2.0]] * 4,
        "labels": [0, 1, 2, 0],
        "links": [[1], [], [0, 3], []],
        "train_masks": masks[[0, 1]].tolist(),
        "val_masks": masks[[1, 0]].tolist(),
        "stopping_masks": masks[[2, 2]].tolist(),
        "test_mask": [False, False, True, True],
    }
    folder = register("wikics", {"WikiCS/raw/data.json": json.dumps(content).encode()}, reader="wikics")
    task = load_task("wikics", data=folder)
    assert edges_of(task) == [(0, 1), (0, 2), (1, 0), (2, 0), (2, 3), (3, 2)]
    split = prepare(task, "wikics-20", 1).split
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[1], [0], [2, 3]]


def test_heterophilous_masks_are_ten_official_splits(register: Register, npz_bytes: Callable[..., bytes]) -> None:
    masks = np.stack([np.roll([True, False, False], k) for k in range(10)])
    payload = npz_bytes(
        node_features=np.ones((3, 2), np.float32),
        node_labels=np.array([0, 1, 1]),
        edges=np.array([[0, 1], [2, 1]]),
        train_masks=masks,
        val_masks=np.roll(masks, 1, axis=1),
        test_masks=np.roll(masks, 2, axis=1),
    )
    task = load_task("rough", data=register("rough", {"rough.npz": payload}, reader="heterophilous"))
    assert edges_of(task) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    split = prepare(task, "official-10", 4).split
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[1], [2], [0]]


def tu_files() -> dict[str, bytes]:
    """Two graphs, of 3 and 2 nodes; labels -1 and 1; the A file lists both directions and one loop."""
    return {
        "TINY_A.txt": b"1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n3, 3\n",
        "TINY_graph_indicator.txt": b"1\n1\n1\n2\n2\n",
        "TINY_graph_labels.txt": b"1\n-1\n",
    }


def test_tu_without_node_labels_gets_degrees(register: Register) -> None:
    task = load_task("tiny-tu", data=register("tiny-tu", tu_files(), reader="tu", kind="graph"))
    assert edges_of(task) == [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)]
    assert task.graph_ptr is not None and task.graph_ptr.tolist() == [0, 3, 5]
    assert task.labels.tolist() == [1, 0]
    assert isinstance(task.features, torch.Tensor)
    assert task.features.argmax(1).tolist() == [1, 2, 1, 1, 1]


def test_tu_labels_become_one_hot_columns_in_edge_order(register: Register) -> None:
    files = tu_files() | {"TINY_node_labels.txt": b"3\n4\n3\n5\n3\n", "TINY_edge_labels.txt": b"0\n0\n1\n1\n0\n0\n1\n"}
    task = load_task("tiny-tu", data=register("tiny-tu", files, reader="tu", kind="graph"))
    assert isinstance(task.features, torch.Tensor) and task.edge_features is not None
    assert task.features.argmax(1).tolist() == [0, 1, 0, 2, 0]
    kinds = task.edge_features.argmax(1).tolist()
    listed = zip(task.graph.index.tolist(), task.graph.row.tolist(), strict=True)
    assert dict(zip(listed, kinds, strict=True)) == {(0, 1): 0, (1, 0): 0, (1, 2): 1, (2, 1): 1, (3, 4): 0, (4, 3): 0}


def test_tu_broken_text_is_named(register: Register) -> None:
    files = tu_files() | {"TINY_A.txt": b"1, two\n"}
    with pytest.raises(CorruptData, match=r"TINY_A\.txt"):
        load_task("tiny-tu", data=register("tiny-tu", files, reader="tu", kind="graph"))
    files = tu_files() | {"TINY_graph_indicator.txt": b"2\n1\n1\n2\n2\n"}
    with pytest.raises(CorruptData, match="does not number 2 graphs"):
        load_task("tiny-tu", data=register("tiny-tu", files, reader="tu", kind="graph"))


def test_webkb_rows_may_come_in_any_order_and_edges_stay_directed(register: Register) -> None:
    files = {
        "out1_node_feature_label.txt": b"node_id\tfeature\tlabel\n1\t0,1\t2\n0\t1,1\t0\n2\t1,0\t1\n",
        "out1_graph_edges.txt": b"node_id\tnode_id\n0\t1\n2\t2\n2\t0\n0\t1\n",
    }
    task = load_task("tiny-web", data=register("tiny-web", files, reader="webkb", directed=True))
    assert edges_of(task) == [(0, 1), (2, 0), (2, 2)]
    assert task.labels.tolist() == [0, 2, 1]
    assert task.features.tolist() == [[1, 1], [0, 1], [1, 0]]  # type: ignore[union-attr]


def test_smiles_without_rdkit_names_the_extra(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    folder = register("tiny-smiles", {"s.csv": b"smiles,a\nCO,1\n"}, reader="smiles", kind="graph")
    with pytest.raises(UserError, match=r"gkdbench\[chem\]"):
        load_task("tiny-smiles", data=folder)
