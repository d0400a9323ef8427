"""Names, aliases, facts; list, check and fetch; and that none of it imports torch."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gkdbench.data import catalogue
from gkdbench.data.check import check_dataset, fetch, fetch_instructions, list_datasets
from gkdbench.data.datasets import DATASETS, available, dataset_info, load_task
from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.splits import prepare_named, supported_splits
from gkdbench.data.task import Task
from gkdbench.errors import UnknownName, UserError
from gkdbench.registry import Entry


def test_aliases_lead_to_canonical_names_and_collide_with_none() -> None:
    assert set(catalogue.aliases().values()) <= set(catalogue.names())
    assert not set(catalogue.aliases()) & set(catalogue.names())
    for alias, name in catalogue.aliases().items():
        assert dataset_info(alias).name == name
        assert catalogue.canonical(alias) == alias or catalogue.canonical(alias) == name


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Cora", "cora"), ("A-Computer", "amazon-computers"), ("Amazon_Photo", "amazon-photo"), ("IMDB-B", "imdb-binary"),
     ("CS", "coauthor-cs"), ("ogbn_arxiv", "ogbn-arxiv"), ("PROTEINS", "proteins")],
)  # fmt: skip
def test_names_as_papers_write_them(written: str, meant: str) -> None:
    assert dataset_info(written).name == meant


@pytest.mark.parametrize("name", catalogue.names())
def test_entries_are_whole(name: str) -> None:
    info = catalogue.info(name)
    assert info.splits and set(info.splits) <= set(SPLIT_FAMILIES)
    assert all(info.kind in SPLIT_FAMILIES[split].kinds for split in info.splits)
    assert set(info.views) <= set(info.splits) and set(info.views.values()) <= set(catalogue.names())
    assert info.source and info.licence and info.files
    assert all(file.url or info.archive for file in info.files)
    assert all(len(digest) == 64 for file in info.files for digest in file.sha256)
    assert info.content_hash or info.status == "unregistered" or info.reader == "smiles"


def test_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'pubmed'"):
        dataset_info("pubmd")


def test_listing_needs_no_torch_and_no_scipy() -> None:
    program = (
        "import sys; from gkdbench.data.check import list_datasets, check_dataset, fetch_instructions\n"
        "from gkdbench.data.splits import SPLIT_FAMILIES, supported_splits\n"
        "assert len(list_datasets()) > 50 and supported_splits('cora') and fetch_instructions('cora')\n"
        "check_dataset('cora'); sys.exit(any(name in sys.modules for name in ('torch', 'scipy', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_list_tells_what_is_present(tmp_path: Path) -> None:
    rows = {row.info.name: row for row in list_datasets(tmp_path)}
    assert rows["digits-knn"].available and rows["digits-knn"].needed == 0
    assert not rows["cora"].available and (rows["cora"].found, rows["cora"].needed) == (0, 8)


def test_check_tells_ok_corrupt_and_missing(register: Callable[..., Path], tiny_npz: bytes) -> None:
    folder = register("tiny", {"a.npz": tiny_npz}, reader="npz_graph")
    assert [(file.path, file.status) for file in check_dataset("tiny", data=folder, decode=True)] == [
        ("a.npz", "ok"),
        ("content", "unregistered"),
    ]
    (folder / "a.npz").write_bytes(tiny_npz[:-1])
    assert [file.status for file in check_dataset("tiny", data=folder, decode=True)] == ["corrupt"]
    (folder / "a.npz").unlink()
    assert [file.status for file in check_dataset("tiny", data=folder)] == ["missing"]
    assert check_dataset("csbm") == []


def test_instructions_name_source_files_digests_and_commands() -> None:
    text = fetch_instructions("arxiv")
    for file in catalogue.info("ogbn-arxiv").files:
        assert file.path in text and all(digest in text for digest in file.sha256)
    assert "arxiv.zip" in text and "gkdbench data fetch ogbn-arxiv" in text and "curl" in text


def fetchable(register: Callable[..., Path], tmp_path: Path, payload: bytes, served: bytes, *, zipped: bool) -> Path:
    """A catalogue whose one file is served from a local address; the data folder starts empty."""
    folder = register("far", {"F/far.npz": payload}, reader="npz_graph")
    digest = catalogue.info("far").files[0].sha256[0]
    (tmp_path / "far.npz").write_bytes(served)
    with zipfile.ZipFile(tmp_path / "far.zip", "w") as archive:
        archive.writestr("inside/far.npz", served)
    address = f"{(tmp_path / 'far.zip').as_uri()}!far.npz" if zipped else (tmp_path / "far.npz").as_uri()
    listed = [{"path": "F/far.npz", "sha256": digest, "url": address}]
    register("far", {}, reader="npz_graph", files=listed)
    (folder / "F/far.npz").unlink()
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_fetch_downloads_checks_and_is_done_once(
    register: Callable[..., Path], tmp_path: Path, tiny_npz: bytes, zipped: bool
) -> None:
    folder = fetchable(register, tmp_path, tiny_npz, tiny_npz, zipped=zipped)
    assert not available("far", data=folder)
    assert fetch("far", data=folder) == [folder / "F/far.npz"]
    assert load_task("far", data=folder).num_nodes == 6
    assert fetch("far", data=folder) == []


def test_fetch_keeps_no_wrong_file(register: Callable[..., Path], tmp_path: Path, tiny_npz: bytes) -> None:
    folder = fetchable(register, tmp_path, tiny_npz, tiny_npz + b"x", zipped=False)
    with pytest.raises(CorruptData, match="nothing was kept"):
        fetch("far", data=folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_fetch_without_network_or_folder_gives_the_instructions(
    register: Callable[..., Path], tmp_path: Path, tiny_npz: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetchable(register, tmp_path, tiny_npz, tiny_npz, zipped=False)
    (tmp_path / "far.npz").unlink()
    with pytest.raises(UserError, match="could not be downloaded") as raised:
        fetch("far", data=folder)
    assert "F/far.npz" in str(raised.value)
    monkeypatch.delenv("GKDBENCH_DATA", raising=False)
    with pytest.raises(UserError, match="expected a folder to fetch"):
        fetch("far")


def third_party() -> Task:
    return Task.from_arrays("their-own", [[0, 1], [1, 0]], [[1.0]] * 60, [0, 1] * 30)


def not_a_task() -> int:
    return 3


def test_a_third_party_set_is_listed_loaded_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(DATASETS.entries())
    table["their-own"] = Entry("their-own", f"{__name__}:third_party", "some-package")
    table["no-task"] = Entry("no-task", f"{__name__}:not_a_task", "some-package")
    monkeypatch.setattr(DATASETS, "_entries", table)
    monkeypatch.setattr(DATASETS, "_loaded", {})
    assert dataset_info("their-own").source == "some-package"
    assert "their-own" in [row.info.name for row in list_datasets()]
    assert "node-80-10-10" in supported_splits("their-own")
    assert len(prepare_named("their-own", "node-80-10-10").split.test) == 6
    with pytest.raises(UserError, match=r"expected a Task .*, got a int"):
        load_task("no-task")
