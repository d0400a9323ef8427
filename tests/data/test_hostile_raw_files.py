"""Raw files that nobody registered, and downloads: refused with file and line, before a number of theirs indexes
anything."""

from __future__ import annotations

import gzip
import io
import os
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from gkdbench.data import rawfiles
from gkdbench.data.build import dense, graph_of, multi_hot, one_hot
from gkdbench.data.check import fetch, fetch_instructions, unverified
from gkdbench.data.datasets import load_task
from gkdbench.data.decode import MAX_CODES, integers, sparse_matrix, table
from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.task import Task
from gkdbench.errors import UserError

Register = Callable[..., Path]
TOP, BOTTOM = 2**63 - 1, -(2**63)

TU = {
    "_A.txt": "1, 2\n2, 1\n3, 4\n4, 3\n",
    "_graph_indicator.txt": "1\n1\n2\n2\n",
    "_graph_labels.txt": "1\n-1\n",
    "_node_labels.txt": "0\n1\n0\n2\n",
    "_edge_labels.txt": "0\n0\n1\n1\n",
}
TU_CASES = {
    "node 10^12": ("_A.txt", "1, 2\n2, 1\n3, 1000000000000\n4, 3\n", "_A.txt, line 3: node of an edge"),
    "node 0": ("_A.txt", "0, 1\n2, 1\n3, 4\n4, 3\n", "_A.txt, line 1: node of an edge"),
    "node -7": ("_A.txt", "1, 2\n2, -7\n3, 4\n4, 3\n", "_A.txt, line 2: node of an edge"),
    "graph 10^11": ("_graph_indicator.txt", "1\n1\n2\n99999999999\n", "_graph_indicator.txt, line 4: number"),
    "label 10^12": ("_node_labels.txt", "0\n1\n0\n1000000000000\n", "_node_labels.txt, line 4: node label"),
    "labels that wrap": ("_node_labels.txt", f"{TOP}\n{BOTTOM}\n0\n0\n", "_node_labels.txt, line [12]: node label"),
    "edge labels that wrap": ("_edge_labels.txt", f"0\n0\n{TOP}\n{BOTTOM}\n", "_edge_labels.txt, line [34]: edge"),
    "edge label 10^9": ("_edge_labels.txt", f"0\n0\n0\n{10**9}\n", "_edge_labels.txt, line 4: edge label"),
    "over 64 bits": ("_node_labels.txt", f"0\n{2**64}\n0\n2\n", "_node_labels.txt, line 2: expected an integer of 64"),
    "no number": ("_graph_labels.txt", "1\nnan\n", "_graph_labels.txt, line 2: expected an integer"),
    "binary": ("_A.txt", "\u00ff\u00fe\0" * 9, "_A.txt: expected integers"),
    "two labels of three": ("_node_labels.txt", "0\n1\n0\n", "cannot be decoded"),
}  # fmt: skip


def tu(register: Register, **changed: str) -> Path:
    files = {f"TU/T/raw/T{end}": changed.get(end, text).encode() for end, text in TU.items()}
    return register("tu-tiny", files, reader="tu", kind="graph")


def test_the_unchanged_set_is_read(register: Register) -> None:
    task = load_task("tu-tiny", data=tu(register))
    assert (task.num_nodes, task.num_items, task.num_features) == (4, 2, 3)
    assert task.edge_features is not None and task.edge_features.shape == (4, 2)


@pytest.mark.parametrize("case", TU_CASES)
def test_hostile_numbers_of_tu_files_are_refused(register: Register, case: str) -> None:
    end, text, message = TU_CASES[case]
    with pytest.raises(CorruptData, match=message):
        load_task("tu-tiny", data=tu(register, **{end: text}))


def csv(rows: object) -> bytes:
    lines = (",".join(map(str, np.atleast_1d(np.asarray(row, dtype=object)))) for row in rows)  # type: ignore[attr-defined]
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


OGB = {
    "raw/edge": [(0, 1), (1, 0), (0, 1)],
    "raw/edge-feat": [(0, 1), (0, 1), (2, 0)],
    "raw/node-feat": [(5, 0), (6, 1), (0, 0), (1, 1), (2, 2), (5, 0)],
    "raw/graph-label": [[0], [1], [1]],
    "raw/num-node-list": [[3], [2], [1]],
    "raw/num-edge-list": [[2], [1], [0]],
    "split/s/train": [[0]],
    "split/s/valid": [[1]],
    "split/s/test": [[2]],
}
OGB_CASES = {
    "atom code 10^8": (
        "raw/node-feat",
        [(5, 0), (6, 10**8), (0, 0), (1, 1), (2, 2), (5, 0)],
        "feat.csv.gz, line 2: atom",
    ),
    "atom code 2^63-1": ("raw/node-feat", [(5, 0), (6, 1), (0, 0), (TOP, 1), (2, 2), (5, 0)], "line 4: atom code"),
    "bond code -2^63": ("raw/edge-feat", [(0, BOTTOM), (0, 1), (2, 0)], "edge-feat.csv.gz, line 1: bond code"),
    "over 64 bits": ("raw/edge-feat", [(0, 1), (0, 2**70), (2, 0)], "edge-feat.csv.gz: .*line 2, column 2"),
    "negative count": ("raw/num-node-list", [[-5], [10], [1]], "num-node-list.csv.gz, line 1: number of nodes"),
    "counts that wrap": ("raw/num-node-list", [[2**62], [2**62], [6]], "num-node-list.csv.gz, line 1: number of nodes"),
    "edge into another graph": ("raw/edge", [(0, 1), (1, 3), (0, 1)], "edge.csv.gz, line 2: node of an edge in its"),
    "split of 10^12": ("split/s/test", [[10**12]], "test.csv.gz, line 1: id of an item"),
}


def ogb(register: Register, **changed: object) -> Path:
    files = {f"OGB/o/{name}.csv.gz": csv(changed.get(name, rows)) for name, rows in OGB.items()}
    return register("ogb-tiny", files, reader="ogb_graphs", kind="graph", multi_label=True, metric="rocauc")


@pytest.mark.parametrize("case", OGB_CASES)
def test_hostile_numbers_of_ogb_tables_are_refused(register: Register, case: str) -> None:
    name, rows, message = OGB_CASES[case]
    assert load_task("ogb-tiny", data=ogb(register)).num_items == 3
    with pytest.raises(CorruptData, match=message):
        load_task("ogb-tiny", data=ogb(register, **{name: rows}))


def test_without_the_check_of_ranges_an_edge_leads_into_another_graph(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control."""
    name, rows, _ = OGB_CASES["edge into another graph"]
    monkeypatch.setattr("gkdbench.data.readers.ogb_graphs.in_range", lambda path, values, *bounds, **more: values)
    assert load_task("ogb-tiny", data=ogb(register, **{name: rows})).num_items == 3


def test_without_the_bound_of_texts_a_bomb_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control, with a small bound."""
    path = tmp_path / "edge.csv.gz"
    path.write_bytes(gzip.compress(b"1,2\n" * 1000))
    with pytest.raises(CorruptData, match="at most 100 bytes"):
        table(path, limit=100)
    monkeypatch.setattr("gkdbench.data.decode._Bounded", lambda stream, path, limit: stream)
    assert table(path, limit=100).shape == (1000, 2)


def first(value: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.concatenate([[value], array[1:].astype(np.int64)])


NPZ_CASES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "index 10^9": ("adj_indices", first(10**9), "entry 0: adj: indices"),
    "index -1": ("attr_indices", first(-1), "entry 0: attr: indices"),
    "borders reversed": ("adj_indptr", lambda array: array[::-1].copy(), "whose parts agree"),
    "borders of 10^12": ("adj_indptr", lambda array: np.append(array[:-1], 10**12), "whose parts agree"),
    "shape 10^12": ("adj_shape", lambda array: np.array([10**12, 10**12]), "whose parts agree"),
    "width 10^12": ("attr_shape", lambda array: np.array([6, 10**12]), "whose parts agree"),
    "class 10^9": ("labels", first(10**9), "entry 0: labels"),
    "class -1": ("labels", first(-1), "entry 0: labels"),
    "unsigned class that wraps": ("labels", lambda array: np.full(6, 2**64 - 1, np.uint64), "which has no 64 bits"),
    "NaN": ("attr_data", lambda array: np.full(len(array), np.nan, np.float32), "finite numbers"),
    "fewer labels": ("labels", lambda array: array[:-1], "one feature row and label per node"),
    "objects": ("labels", lambda array: np.array(["a", None] * 3, dtype=object), "not unpickled"),
}  # fmt: skip


@pytest.mark.parametrize("case", NPZ_CASES)
def test_hostile_arrays_are_refused(register: Register, tiny_npz: bytes, case: str) -> None:
    key, change, message = NPZ_CASES[case]
    with np.load(io.BytesIO(tiny_npz)) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "idx_to_class"}
    arrays[key] = change(arrays[key])
    made = io.BytesIO()
    np.savez(made, allow_pickle=True, **arrays)
    with pytest.raises(CorruptData, match=message):
        load_task("six-nodes", data=register("six-nodes", {"T/raw/t.npz": made.getvalue()}, reader="npz_graph"))


def test_what_indexes_memory_refuses_numbers_that_would_leave_it() -> None:
    """The last line behind the readers: the codes that two labels 2^64 apart wrapped to, ids beyond the nodes."""
    labels = np.array([TOP, BOTTOM, 0])
    with np.errstate(over="ignore"):
        wrapped = labels - labels.min()
    assert wrapped.min() < 0  # what scipy was given
    for call in (
        lambda: one_hot(wrapped),
        lambda: one_hot(np.array([0, 5]), 3),
        lambda: multi_hot(wrapped[:, None]),
        lambda: graph_of(np.array([0, 9]), np.array([1, 1]), 2, undirected=True),
        lambda: graph_of(np.array([0]), np.array([-1]), 2, undirected=False),
        lambda: dense(one_hot(np.array([0, 2**28])), "codes"),
        lambda: sparse_matrix(Path("x"), np.ones(1), np.array([7]), np.array([0, 1]), (1, 3), "features"),
    ):
        with pytest.raises(CorruptData):
            call()
    assert dense(one_hot(np.array([0, MAX_CODES - 1])), "codes").shape == (2, MAX_CODES)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "edge.csv.gz"
    with gzip.open(path, "wb", 1) as stream:
        for _ in range(20):
            stream.write(b"1,2\n" * 2**18)
    with pytest.raises(CorruptData, match="expected at most 1,000,000 bytes of text"):
        table(path, limit=10**6)
    assert table(path, limit=2**25).shape == (20 * 2**18, 2)  # it is a table, but for its size
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptData, match="readable table"):
        table(path, limit=2**25)


def test_memory_that_runs_out_is_a_sentence(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    folder = tu(register, **{"_A.txt": TU["_A.txt"] + "\n"})
    monkeypatch.setattr("gkdbench.data.readers.tu.one_hot", full)
    with pytest.raises(CorruptData, match="fits into memory"):
        load_task("tu-tiny", data=folder)


def test_a_pipe_in_the_place_of_a_raw_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "edge.csv.gz")
    with pytest.raises(CorruptData, match="got a pipe"):
        rawfiles.sha256_of(tmp_path / "edge.csv.gz")
    with pytest.raises(CorruptData, match="got a pipe"):
        table(tmp_path / "edge.csv.gz")


def test_numbers_of_ones_own_arrays_do_not_wrap_either() -> None:
    edges, features = [[0, 1], [1, 0]], np.eye(2)
    matrix = sp.csr_array(np.eye(2))
    matrix.indices[0] = 7
    for arguments in (
        (edges, features, np.array([0, 2**64 - 1], np.uint64)),
        (edges, features, [0, 10**12]),
        (np.array([[0, 2**64 - 1], [1, 0]], np.uint64), features, [0, 1]),
        (edges, matrix, [0, 1]),
    ):
        with pytest.raises(UserError, match="expected"):
            Task.from_arrays("own", *arguments)


# ---- downloads ------------------------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


EDGES = csv([(0, 1)] * 50)
BODIES = {
    "/whole": EDGES,
    "/wrong": b"evil",
    "/empty": b"",
    "/cut": EDGES[:-8],
    "/short": EDGES,  # announced as longer
    "/few": csv([(0, 1)]),
    "/words": gzip.compress(b"a,b\n" * 50),
    "/zip": zipped(("../../ESCAPED", EDGES), ("raw/edge.csv.gz", EDGES)),
    "/bomb": zipped(("edge.csv.gz", b"\0" * 80_000_000)),
}


@pytest.fixture(scope="module")
def mirror() -> Iterator[str]:
    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = BODIES[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) * (2 if self.path == "/short" else 1)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def unregistered(register: Register, url: str) -> Path:
    listed = [{"path": "OGB/o/raw/edge.csv.gz", "url": url}]
    return register("far", {}, reader="ogb_nodes", files=listed, stats={"nodes": 9, "edges": 100})


@pytest.mark.parametrize("path", ["/whole", "/zip!edge.csv.gz"])
def test_a_download_without_a_sha256_is_kept_when_it_can_be_right_and_is_marked(
    register: Register, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    unregistered(register, mirror + path)
    assert fetch("far", data=tmp_path / "data") == [tmp_path / "data/OGB/o/raw/edge.csv.gz"]
    assert unverified("far") == ["OGB/o/raw/edge.csv.gz"]
    assert not list(tmp_path.rglob("ESCAPED"))


@pytest.mark.parametrize(
    "path", ["/wrong", "/empty", "/cut", "/short", "/few", "/words", "/bomb!edge.csv.gz", "/cut!edge.csv.gz"]
)
def test_a_download_that_cannot_be_the_file_is_not_kept(
    register: Register, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    unregistered(register, mirror + path)
    with pytest.raises(UserError, match=r"nothing was kept|could not be downloaded"):
        fetch("far", data=tmp_path / "data")
    assert [found for found in (tmp_path / "data").rglob("*") if found.is_file()] == []


@pytest.mark.parametrize("path", ["/wrong", "/empty", "/few"])
def test_without_the_check_of_what_arrived_it_is_kept(
    register: Register, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Positive control."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("gkdbench.data.fetch.check_arrived", lambda *given: None)
    unregistered(register, mirror + path)
    assert len(fetch("far", data=tmp_path / "data")) == 1


def test_a_download_is_bounded_by_the_registered_size(
    register: Register, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listed = [{"path": "OGB/o/raw/edge.csv.gz", "url": f"{mirror}/whole", "sha256": "f" * 64, "bytes": 10}]
    register("far", {}, reader="ogb_nodes", files=listed)
    with pytest.raises(UserError, match="expected at most 10 bytes"):
        fetch("far", data=tmp_path / "data")


def test_a_built_in_set_is_not_called_unknown() -> None:
    for call in (lambda: fetch("csbm"), lambda: fetch_instructions("csbm:n=300")):
        with pytest.raises(UserError, match="built in: there is nothing to fetch"):
            call()


@pytest.mark.parametrize("line", [b"1,2\n", b"12 34\n", b"-1,9\n"])
@pytest.mark.parametrize("read", [integers, table], ids=lambda read: read.__name__)
def test_a_gzip_bomb_takes_less_than_a_gib(read: Callable[..., np.ndarray], line: bytes, tmp_path: Path) -> None:
    """Scaled by 256: a file above the bound of a text, and one just below it, whose every number is read."""
    scale = 256
    limit = rawfiles.MIN_TEXT_BYTES // scale
    options = {} if read is integers or b"," in line else {"delimiter": None}
    for lines, refused in ((40 * limit // len(line), True), (limit // len(line), False)):
        path = tmp_path / "edge.csv.gz"
        path.write_bytes(gzip.compress(line * lines, 1))
        tracemalloc.start()
        try:
            if refused:
                with pytest.raises(CorruptData, match="expected at most"):
                    read(path, limit=limit, **options)
            else:
                assert read(path, limit=limit, **options).size == 2 * lines
            assert tracemalloc.get_traced_memory()[1] < 2**30 // scale
        finally:
            tracemalloc.stop()
