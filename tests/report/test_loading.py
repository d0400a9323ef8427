"""Records from a folder, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.records_factory import record

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.records.store import record_bytes, record_paths
from gkdbench.report import load_records
from gkdbench.report.loading import study_folders


def save(made: Record, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{made.method}-{made.key[:12]}.json"
    path.write_bytes(record_bytes(made))
    return path


def test_a_folder_gives_its_records_in_order_and_hidden_ones_are_skipped(tmp_path: Path) -> None:
    second = save(record(dataset="pubmed"), tmp_path / "pubmed")
    save(record(), tmp_path / "cora")
    save(record(label="scratch"), tmp_path / ".scratch")
    assert [r.dataset for r in load_records(tmp_path)] == ["cora", "pubmed"]
    assert load_records(second) == [record(dataset="pubmed")]


def test_a_study_is_a_folder_of_its_own(tmp_path: Path) -> None:
    save(record(), tmp_path / "cora")
    study = tmp_path / "studies" / "widths"
    save(record(dataset="pubmed"), study / "pubmed")
    assert [r.dataset for r in load_records(tmp_path)] == ["cora"]
    assert [r.dataset for r in load_records(study)] == ["pubmed"]
    assert len(record_paths(tmp_path)) == 1 and len(record_paths(tmp_path, studies=True)) == 2
    assert study_folders([tmp_path, tmp_path / "cora"], "widths") == [study]
    assert study_folders([tmp_path], "depths") == []


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = save(record(), tmp_path)
    path.write_text(path.read_text()[:200])
    with pytest.raises(UserError, match=path.name):
        load_records(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_records(tmp_path / "nowhere")
