"""A run from any folder: what is printed, written, found again, verified."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import ONLY, Done

Inside = Callable[..., Done]
SmokeRun = tuple[Path, dict[str, Any]]
RAW_DATA = os.environ.get("GKDBENCH_DATA")  # as it is outside the tests, which unset it


def test_it_says_what_it_did(smoke_run: SmokeRun) -> None:
    folder, told = smoke_run
    assert (told["ran"], told["ok"], told["failed"], told["absent"]) == (1, 1, [], [])
    assert Path(told["html"]) == folder / "gkdbench-runs" / "board.html"
    assert "<html" in Path(told["html"]).read_text(encoding="utf-8")
    (record,) = told["records"]
    assert json.loads((folder / record).read_text(encoding="utf-8"))["method"] == "mlp"


def test_a_second_call_prints_the_board_and_runs_nothing(inside: Inside, smoke_run: SmokeRun) -> None:
    folder, _ = smoke_run
    done = inside("run", "smoke", "--only", ONLY, "--jobs", "1", cwd=folder)
    assert done.code == 0
    assert "0 cells run, 1 cached, 0 failed" in done.out
    assert f"board: {folder / 'gkdbench-runs' / 'board.html'}" in done.out
    assert "digits-knn" in done.out


def test_the_plan_knows_what_is_cached(inside: Inside, smoke_run: SmokeRun) -> None:
    plan = inside("plan", "smoke", "--only", ONLY, "--json", cwd=smoke_run[0])
    facts = json.loads(plan.out)
    assert (facts["cells"], facts["cached"], facts["to_run"]) == (1, 1, 0)


def test_collect_and_report_read_the_same_folder(inside: Inside, smoke_run: SmokeRun, tmp_path: Path) -> None:
    folder, _ = smoke_run
    assert json.loads(inside("collect", "--json", cwd=folder).out) == []  # the run has merged all
    page, table = tmp_path / "page.html", tmp_path / "board.csv"
    done = inside("report", "--html", str(page), "--csv", str(table), cwd=folder)
    assert (done.code, done.out.split()) == (0, [str(page), str(table)])
    assert "mlp" in table.read_text(encoding="utf-8")


def test_the_readme_table_is_filled_between_its_marks(inside: Inside, smoke_run: SmokeRun, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    text = "before\n<!-- table a datasets=digits-knn cells=row,score,n -->\nold\n<!-- end a -->\nafter\n"
    readme.write_text(text)
    assert inside("report", "--readme", str(readme), cwd=smoke_run[0]).code == 0
    first, second = text.splitlines()[:2]
    lines = readme.read_text().splitlines()
    assert (lines[:2], lines[-2:]) == ([first, second], ["<!-- end a -->", "after"])
    assert any(line.startswith("| digits-knn | builtin-random | tran |") for line in lines)
    assert "old" not in lines


def test_verify_recomputes(inside: Inside, smoke_run: SmokeRun) -> None:
    done = inside("verify", "gkdbench-runs", "--json", cwd=smoke_run[0])
    assert done.code == 0
    report = json.loads(done.out)
    assert (report["records"], report["problems"], report["exit_code"]) == (1, [], 0)
    assert report["scores"] > 0


def test_verify_names_the_record_of_a_flipped_bit(inside: Inside, smoke_run: SmokeRun, tmp_path: Path) -> None:
    shutil.copytree(smoke_run[0] / "gkdbench-runs", tmp_path / "out")
    (side_car,) = [path for path in (tmp_path / "out").rglob("*.npz") if ".bank" not in path.parts]
    content = bytearray(side_car.read_bytes())
    content[len(content) // 2] ^= 1
    side_car.write_bytes(content)
    done = inside("verify", str(tmp_path / "out"))
    assert done.code == 1
    assert f"wrong: {side_car.with_suffix('.json')}" in done.out


@pytest.mark.data
def test_verify_without_data_is_not_checked(inside: Inside) -> None:
    if not RAW_DATA:
        pytest.skip("GKDBENCH_DATA is not set: no raw files to run on")
    only = "method=mlp,dataset=cora,split=planetoid-public,seed=0"
    run = inside("run", "node-small@1", "--only", only, "--jobs", "1", "--data", RAW_DATA, "--json")
    assert run.code == 0, run.err
    assert inside("verify", "gkdbench-runs", "--data", RAW_DATA).code == 0
    done = inside("verify", "gkdbench-runs")
    assert done.code == 3
    assert "not checked: gkdbench-runs/cora" in done.out
