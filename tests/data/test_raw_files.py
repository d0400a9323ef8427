"""Missing, truncated, tampered files; the private cache; and the refusal inside workers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gkdbench.data import cache, catalogue, rawfiles
from gkdbench.data.datasets import available, load_task
from gkdbench.data.rawfiles import CorruptData, MissingData
from gkdbench.data.readers import npz_graph, planetoid
from gkdbench.data.splits import prepare, prepare_named
from gkdbench.errors import UnknownName, UserError

Register = Callable[..., Path]


@pytest.fixture
def tiny(register: Register, tiny_npz: bytes) -> Path:
    return register("six-nodes", {"T/raw/tiny.npz": tiny_npz}, reader="npz_graph", splits=["node-80-10-10"])


def test_reads_once_and_maps_afterwards(tiny: Path, own_cache: Path) -> None:
    first = load_task("six-nodes", data=tiny)
    assert sorted(zip(first.graph.index.tolist(), first.graph.row.tolist(), strict=True)) == [
        (0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4)
    ]  # fmt: skip
    assert first.labels.tolist() == [0, 1, 0, 1, 0, 1] and first.num_classes == 2
    (entry,) = (own_cache / "gkdbench" / "datasets").glob("six-nodes-*")
    written = {path: path.stat().st_mtime_ns for path in entry.iterdir()}
    assert load_task("six-nodes", data=tiny).content_hash == first.content_hash
    assert {path: path.stat().st_mtime_ns for path in entry.iterdir()} == written


def test_writing_to_a_loaded_task_changes_no_file(tiny: Path) -> None:
    task = load_task("six-nodes", data=tiny)
    before = task.content_hash
    task.labels[0] = 1
    assert load_task("six-nodes", data=tiny).content_hash == before
    assert load_task("six-nodes", data=tiny).labels[0] == 0


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData) as raised:
        load_task("amazon-photo", data=tmp_path)
    text = str(raised.value)
    assert "Amazon/Photo/raw/amazon_electronics_photo.npz" in text and str(tmp_path) in text
    assert "gkdbench data fetch amazon-photo" in text
    assert all(digest in text for digest in catalogue.info("amazon-photo").files[0].sha256)
    assert isinstance(raised.value, UserError)
    monkeypatch.delenv("GKDBENCH_DATA", raising=False)
    with pytest.raises(MissingData, match="set GKDBENCH_DATA"):
        load_task("amazon-photo")
    assert not available("amazon-photo")


def test_the_cache_does_not_stand_in_for_missing_files(tiny: Path) -> None:
    load_task("six-nodes", data=tiny)
    (tiny / "T/raw/tiny.npz").unlink()
    with pytest.raises(MissingData):
        load_task("six-nodes", data=tiny)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_named_with_both_digests(tiny: Path, damage: str, cached: bool) -> None:
    path = tiny / "T/raw/tiny.npz"
    if cached:
        load_task("six-nodes", data=tiny)
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes({"flip": bytes(payload), "truncate": payload[:-20], "empty": b""}[damage])
    with pytest.raises(CorruptData, match=r"tiny\.npz") as raised:
        load_task("six-nodes", data=tiny)
    assert catalogue.info("six-nodes").files[0].sha256[0] in str(raised.value)
    assert rawfiles.sha256_of(path) in str(raised.value)


def test_other_content_than_the_registered_one_is_refused_and_not_kept(
    register: Register, tiny_npz: bytes, own_cache: Path
) -> None:
    folder = register("other", {"o.npz": tiny_npz}, reader="npz_graph", content_hash="0" * 64)
    with pytest.raises(CorruptData, match="registered is 0000"):
        load_task("other", data=folder)
    assert not list((own_cache / "gkdbench" / "datasets").glob("other-*"))


def test_another_container_is_judged_by_its_content(
    register: Register, tiny_npz: bytes, npz_bytes: Callable[..., bytes], tmp_path: Path
) -> None:
    folder = register("recoded", {"r.npz": tiny_npz}, reader="npz_graph")
    wanted = load_task("recoded", data=folder).content_hash
    listed = [{"path": "r.npz", "sha256": "f" * 64, "recoded": True}]
    folder = register("recoded", {"r.npz": tiny_npz}, reader="npz_graph", files=listed, content_hash=wanted)
    assert load_task("recoded", data=folder).content_hash == wanted
    with np.load(folder / "r.npz") as stored:
        arrays = {key: stored[key] for key in stored.files if key != "idx_to_class"}
    arrays["labels"] = arrays["labels"][::-1]
    (folder / "r.npz").write_bytes(npz_bytes(**arrays))
    with pytest.raises(CorruptData, match=r"registered is .*unregistered sha256: r\.npz"):
        load_task("recoded", data=folder)
    arrays["adj_indices"] = arrays["adj_indices"] + 5
    (folder / "r.npz").write_bytes(npz_bytes(**arrays))
    with pytest.raises(CorruptData, match=r"r\.npz, entry 0: adj: indices: .*unregistered sha256: r\.npz"):
        load_task("recoded", data=folder)


def test_an_npz_without_the_wanted_arrays_is_named(register: Register, npz_bytes: Callable[..., bytes]) -> None:
    folder = register("half", {"h.npz": npz_bytes(adj_data=np.ones(1))}, reader="npz_graph")
    with pytest.raises(CorruptData, match="lacks the arrays"):
        load_task("half", data=folder)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_cache_is_named(tiny: Path, own_cache: Path, damage: str) -> None:
    load_task("six-nodes", data=tiny)
    (entry,) = (own_cache / "gkdbench" / "datasets").glob("six-nodes-*")
    labels = entry / "labels.npy"
    kept = labels.read_bytes()
    payload = bytearray(kept)
    payload[-8] ^= 1
    if damage == "remove":
        labels.unlink()
    else:
        labels.write_bytes(payload if damage == "flip" else payload[:-4])
    try:
        with pytest.raises(CorruptData, match="delete that folder") as raised:
            load_task("six-nodes", data=tiny)
        assert str(entry) in str(raised.value)
    finally:
        labels.write_bytes(kept)


def test_a_cache_that_cannot_be_written_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        load_task("six-nodes", data=tiny)


def test_two_writers_leave_one_entry(tiny: Path, tmp_path: Path) -> None:
    task = load_task("six-nodes", data=tiny)
    for _ in range(2):
        cache.store(task, tmp_path / "entry")
    assert cache.load(tmp_path / "entry").content_hash == task.content_hash
    assert [path.name for path in tmp_path.glob("*entry*")] == ["entry"]


def test_nothing_is_read_inside_a_worker(tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("six-nodes", data=tiny)
    (entry,) = (own_cache / "gkdbench" / "datasets").glob("six-nodes-*")
    raw = rawfiles.RawFiles({"tiny.npz": tiny / "T/raw/tiny.npz"}, {})
    monkeypatch.setenv("GKDBENCH_WORKER", "1")
    attempts: list[Callable[[], object]] = [
        lambda: load_task("six-nodes", data=tiny),
        lambda: load_task("csbm"),
        lambda: load_task("digits-knn"),
        lambda: cache.load(entry),
        lambda: cache.store(task, tiny / "copy"),
        lambda: npz_graph.read(catalogue.info("six-nodes"), raw),
        lambda: planetoid.restricted_load(tiny / "T/raw/tiny.npz"),
        lambda: prepare(task, "node-80-10-10"),
        lambda: prepare_named("six-nodes", "node-80-10-10", data=tiny),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match="labels live in the scoring process"):
            attempt()


def test_unknown_names_point_to_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"did you mean .*'cora'"):
        load_task("corra", data=tmp_path)


def test_dense_features_survive_the_cache(tmp_path: Path) -> None:
    task = load_task("csbm-multilabel")
    cache.store(task, tmp_path / "dense")
    again = cache.load(tmp_path / "dense")
    assert isinstance(again.features, torch.Tensor) and again.content_hash == task.content_hash
    assert (again.metric, again.multi_label, again.kind) == ("micro_f1", True, "node")
