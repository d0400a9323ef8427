"""``doctor``: each finding with its fix, and an exit code that scripts can use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command import Done

from gkdbench.verbs import doctor as examine

Inside = Callable[..., Done]
STATUSES = {"ok", "warn", "bad"}


def test_it_says_all_in_json(inside: Inside, tmp_path: Path) -> None:
    done = inside("doctor", "--out", str(tmp_path / "out"), "--json")
    found = json.loads(done.out)
    assert {row["status"] for row in found} <= STATUSES
    wanted = {"python", "torch", "triton", "gpu", "cores", "energy", "cells"}
    wanted |= {"allocator", "data", "cache", "out", "extras"}
    assert {row["what"] for row in found} == wanted
    assert done.code == int(any(row["status"] == "bad" for row in found))
    assert all(row["fix"] for row in found if row["status"] == "bad")


def test_a_folder_that_is_not_there_is_bad_and_exits_1(inside: Inside, tmp_path: Path) -> None:
    done = inside("doctor", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path))
    assert done.code == 1
    assert f"bad   data: {tmp_path / 'nowhere'} is not a folder" in done.out


def test_an_output_folder_below_a_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = examine._folder("out", tmp_path / "file" / "out", "choose")
    assert (finding.status, finding.fix) == ("bad", "choose")


@pytest.mark.parametrize(("free", "status"), [(10 * 2**30, "ok"), (2**30, "warn"), (2**20, "bad")])
def test_disk_space(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (finding,) = examine._folder("out", tmp_path / "new" / "out", "choose")
    assert finding.status == status


@pytest.mark.parametrize(
    ("torch", "requirements", "triton", "status", "fix"),
    [
        ("2.13.0+cpu", [], "3.7.1", "ok", ""),
        ("2.13.0+cpu", [], "3.6.0", "bad", "pip install 'triton==3.7.*'"),
        ("2.14.0", ["triton==3.8.0; platform_system == 'Linux'"], "3.8.0", "ok", ""),
        ("2.14.0", ["triton==3.8.0; platform_system == 'Linux'"], "3.7.1", "bad", "pip install 'triton==3.8.0'"),
        ("2.99.0", [], "3.7.1", "ok", ""),
    ],
)
def test_the_pair_of_torch_and_triton(torch: str, requirements: list[str], triton: str, status: str, fix: str) -> None:
    finding = examine.triton_pair(torch, requirements, triton)
    assert (finding.status, finding.fix) == (status, fix)


@pytest.mark.parametrize(
    ("environment", "status", "said"),
    [
        ({}, {"ok", "warn"}, ""),
        ({"MALLOC_MMAP_MAX_": "65536"}, {"warn"}, "unset MALLOC_MMAP_MAX_"),
        ({"LD_PRELOAD": "libjemalloc.so"}, {"warn"}, "unset LD_PRELOAD"),
    ],
)
def test_the_allocator(environment: dict[str, str], status: set[str], said: str) -> None:
    (finding,) = examine._allocator(environment)
    assert finding.status in status
    assert said in finding.fix


def test_a_container_that_grants_fewer_cores(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text("150000 100000\n")
    assert examine._quota(limit) == 1.5
    limit.write_text("max 100000\n")
    assert examine._quota(limit) is None
    assert examine._quota(tmp_path / "absent") is None
