"""A cell is told no path out of its folder, and where the kernel hides folders it cannot read others by path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.toy_plugin import DATASET, modes_suite, taught_suite

import gkdbench
from gkdbench.data.splits import prepare_named
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.cell_folder import make_cell_folder, move_teacher
from gkdbench.execute.isolation.confine import confinement, hidden_folders
from gkdbench.execute.runner import banks_of, job_of
from gkdbench.protocol.view_io import read_bundle, write_bundle
from gkdbench.records.store import Store


@pytest.fixture(scope="module")
def can_hide() -> None:
    if confinement() == "none":
        pytest.skip("this kernel or its settings refuse mount namespaces")


def secrets_of(out: Path, places: Path) -> dict[str, str]:
    """Name -> path of what no cell may read, of a run in `out` that has a record and a bank."""
    for folder in ("data", "cache/gkdbench/datasets", "home/.cache/gkdbench/datasets"):
        (places / folder).mkdir(parents=True)
        (places / folder / "labels.npy").write_bytes(b"labels")
    record = next(path for path, _ in Store(out).records())
    return {
        "results": str(out),
        "record": str(record),
        "side-car": str(record.with_suffix(".npz")),
        "bank": str(out / ".bank"),
        "other cells": str(out / ".cells"),
        "scratch of the run": str(out / ".scratch"),
        "views": "../../../views",
        "cell's neighbours": "../..",
        "data": str(places / "data"),
        "cache": str(places / "cache/gkdbench/datasets/labels.npy"),
        "cache at home": str(places / "home/.cache/gkdbench/datasets/labels.npy"),
        "own view": "../view",
    }


def looked(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> list[str]:
    """What a cell of a run in `toys` could read."""
    secrets = secrets_of(toys, tmp_path)
    monkeypatch.setenv("TOY_LOOK", json.dumps(secrets))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run_suite(modes_suite(mode), out=toys, jobs=1, device="cpu", data=tmp_path / "data")
    row = next(record for _, record in Store(toys).records() if record.config["mode"] == mode).rows[0]
    assert row.status == "ok"
    return row.flags


@pytest.fixture(scope="module")
def taught(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with records, side-cars and a bank."""
    out = tmp_path_factory.mktemp("taught") / "out"
    run_suite(taught_suite(), out=out, jobs=1, device="cpu", only="seed=0,split=builtin-random")
    assert list((out / ".bank").iterdir())
    return out


def test_a_cell_reads_its_own_view_and_no_other_file_of_the_run(
    can_hide: None, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours = {"cell's neighbours"}  # the way to its own folder, and nothing beside it
    assert set(looked(taught, tmp_path, monkeypatch, "look")) - neighbours <= {
        "own view",
        "results",
        "scratch of the run",
    }


def test_without_hiding_the_same_cell_reads_all(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr("gkdbench.execute.api.hidden_folders", lambda *_: [])
    found = looked(taught, tmp_path, monkeypatch, "look-again")
    assert {"record", "side-car", "bank", "data", "cache", "cache at home", "views"} <= set(found)


def test_no_path_of_a_job_leads_out_of_its_folder(taught: Path, tmp_path: Path) -> None:
    plan = plan_suite(taught_suite(), out=taught, device="cpu", rerun=True)
    cell = next(cell for cell in plan.todo if cell.requires and has_bank(taught, cell))
    view = tmp_path / "views" / "view"
    view.parent.mkdir()
    write_bundle(prepare_named(DATASET, "builtin-random", 0), view)
    (view / "later").mkdir()
    (view / "later" / "graph.npy").write_bytes(b"later")
    folder = make_cell_folder(tmp_path / "cells" / "cell-1", view, banks_of(cell, Store(taught)))
    job = job_of(cell, number=1, folder=folder, device="cpu")
    paths = [job.bundle, job.scratch, job.later or "", *(teacher.folder for teacher in job.teachers.values())]
    assert len(paths) == 4 and all(Path(path).is_relative_to(folder.path) for path in paths)
    assert str(taught) not in job.line().decode() and str(view) not in job.line().decode()
    assert not (folder.view / "later").exists() and (folder.later / "graph.npy").read_bytes() == b"later"
    assert all(file.stat().st_mode & 0o222 == 0 for file in folder.view.rglob("*") if file.is_file())
    assert read_bundle(folder.view).view.dataset == read_bundle(view).view.dataset
    folder.remove()
    assert (view / "meta.json").exists()


def has_bank(out: Path, cell: object) -> bool:
    return all(folder.is_dir() for folder in banks_of(cell, Store(out)).values())  # type: ignore[arg-type]


def test_only_the_model_of_the_row_reaches_the_bank(tmp_path: Path) -> None:
    folder = make_cell_folder(tmp_path / "cell", _empty(tmp_path / "view"), {})
    bank = tmp_path / "bank" / "key"
    assert not move_teacher(folder, bank, "a")  # the cell left none
    folder.teacher.mkdir()
    (folder.teacher / "meta.json").write_text('{"weights_sha256": "a"}')
    assert not move_teacher(folder, bank, "b")  # another model's
    (folder.teacher / "state.npz").symlink_to("/etc/passwd")
    assert not move_teacher(folder, bank, "a")  # no file
    (folder.teacher / "state.npz").unlink()
    assert move_teacher(folder, bank, "a") and (bank / "meta.json").exists()


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_folder_with_code_or_temporary_files_is_not_hidden_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GKDBENCH_DATA", raising=False)
    checkout = Path(gkdbench.__file__).parents[1]
    for out in (checkout, Path(sys.prefix), Path(tempfile.gettempdir()), Path.home(), Path("/")):
        found = hidden_folders(out, out, {"csbm"})
        assert out.resolve() not in found
        assert {out.resolve() / ".bank", out.resolve() / "csbm"} <= set(found)
    own = tmp_path / "out"
    assert own in hidden_folders(own, None) and tmp_path / "data" in hidden_folders(own, tmp_path / "data")
    monkeypatch.chdir(own if own.exists() else _empty(own))
    assert own not in hidden_folders(Path(), None) and own / ".cells" in hidden_folders(Path(), None)
    assert own / "data" in hidden_folders(tmp_path / "elsewhere", own / "data")


def test_a_run_in_the_results_folder_itself(plugin: Path, tmp_path: Path) -> None:
    """The current folder is where Python looks for code first: what the store made in it is hidden, not the folder."""
    command = [sys.executable, "-m", "gkdbench.cli", "run", "--method", "toy", "--dataset", DATASET, "--seeds", "0:1"]
    done = subprocess.run(
        [*command, "--out", ".", "--jobs", "1", "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [row.status for _, record in Store(tmp_path).records() for row in record.rows] == ["ok"]
    assert "PWD" not in os.environ or os.environ["PWD"] != str(tmp_path)
