"""What one cell does to its process stays its own matter; each attack works where cells share a process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cell_cost import jobs
from support.same_records import contents, leftovers
from support.toy_plugin import modes_suite

from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.failures import log_path
from gkdbench.execute.processes.environment import worker_environment
from gkdbench.execute.runner import RunSummary
from gkdbench.records.schema import Row
from gkdbench.records.store import KILLED, Store

SETTINGS = (
    "precision",
    "dtype",
    "no-grad",
    "patch",
    "few-files",
    "environment",
    "cwd-and-mask",
    "signals",
)
ENDS = {
    "exit0": "SystemExit: 0",
    "os-exit0": r"ended without an outcome \(exit status 0\)",
    "base": "BaseException: odd",
    "keyboard": "KeyboardInterrupt",
    "generator-exit": "GeneratorExit",
    "segv": "SIGSEGV, 1 times",
    "abort": "SIGABRT, 1 times",
    "close-files": "",
    "forged-outcome": r"ended without an outcome \(exit status 0\)",
    "no-folder": "",
    "long-words": "RuntimeError: begin",
}
HARMLESS = ("close-output", "garbage", "forged", "many-threads")

Run = tuple[Path, RunSummary]


def rows_of(out: Path) -> dict[str, Row]:
    return {record.config["mode"]: record.rows[0] for _, record in Store(out).records()}


def of_modes(out: Path, *modes: str) -> dict[str, object]:
    """Stable content of the records and side-cars of `modes`."""
    stems = {record.key[:12] for _, record in Store(out).records() if record.config["mode"] in modes}
    return {name: found for name, found in contents(out).items() if any(stem in name for stem in stems)}


@pytest.fixture(scope="module")
def alone(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells that behave, alone."""
    out = tmp_path_factory.mktemp("alone") / "out"
    run_suite(modes_suite("good", "settings"), out=out, jobs=1, device="cpu")
    return out


@pytest.fixture(scope="module")
def disturbed(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two after every act."""
    out = tmp_path_factory.mktemp("disturbed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkdbench.execute.runner.ATTEMPTS", 1)
        suite = modes_suite(*SETTINGS, *ENDS, *HARMLESS, "good", "settings")
        run_suite(suite, out=out, jobs=1, device="cpu")
    return out


def test_neighbours_of_any_act_have_equal_records(alone: Path, disturbed: Path) -> None:
    assert len(of_modes(alone, "good", "settings")) == 4
    assert of_modes(disturbed, "good", "settings") == contents(alone)
    assert leftovers(disturbed) == []


def test_the_settings_are_those_of_a_fresh_process(alone: Path) -> None:
    found = rows_of(alone)["settings"].extra
    assert found["precision"] == found["blocked"] == 0
    assert found["grad"] == found["device"] == found["worker"] == found["modules"] == 1
    assert found["dtype_bits"] == 32 and found["recursion"] == 1000 and found["loss"] == pytest.approx(0.6931472)


@pytest.mark.parametrize("mode", ENDS)
def test_an_end_of_any_kind_is_a_row_of_its_cell(disturbed: Path, mode: str) -> None:
    row = rows_of(disturbed)[mode]
    assert (row.status, row.models) == ("error", [])
    assert (row.flags == [KILLED]) == (mode in ("segv", "abort"))
    assert re.search(ENDS[mode], row.reason or "")


@pytest.mark.parametrize("mode", HARMLESS)
def test_noise_on_every_open_file_changes_nothing(disturbed: Path, mode: str) -> None:
    rows = rows_of(disturbed)
    assert rows[mode].status == "ok"
    assert rows[mode].models == rows["good"].models


def test_long_words_are_cut(disturbed: Path) -> None:
    row = rows_of(disturbed)["long-words"]
    assert row.reason is not None and row.traceback is not None
    assert len(row.reason) + len(row.traceback) < 2**17
    assert row.reason.endswith("zend") and "characters left out" in row.reason
    (log,) = disturbed.glob(f".logs/*-{_key(disturbed, 'long-words')[:12]}-0-0.log")
    assert log.stat().st_size < 2 * 2**20


def _key(out: Path, mode: str) -> str:
    return next(record.key for _, record in Store(out).records() if record.config["mode"] == mode)


PAIRS_SHARE_A_PROCESS = """
import os, sys
from gkdbench.execute.processes.cell_process import serve, warm_up
from gkdbench.execute.job import Job
warm_up()
for pair in sys.argv[1:]:
    if os.fork() == 0:
        for line in open(pair):
            job = Job.parse(line)
            os.chdir(job.scratch)
            serve(job, 0)
        os._exit(0)
    os.wait()
"""


def test_the_same_acts_reach_the_next_cell_in_a_shared_process(alone: Path, tmp_path: Path) -> None:
    """The control: two jobs, one after the other, in one process."""
    acts = ("precision", "dtype", "patch")
    made = jobs(tmp_path, 2 * len(acts))
    pairs = [(first, second, act) for first, second, act in zip(made[::2], made[1::2], acts, strict=True)]
    for first, second, act in pairs:
        both = [replace(job, config=job.config | {"mode": m}) for job, m in ((first, act), (second, "settings"))]
        (tmp_path / act).write_bytes(b"".join(job.line() for job in both))
    command = [sys.executable, "-c", PAIRS_SHARE_A_PROCESS, *(str(tmp_path / act) for act in acts)]
    subprocess.run(command, env=worker_environment(1), check=True, capture_output=True)
    precision, dtype, patch = (json.loads((Path(job.scratch) / "outcome.json").read_text()) for _, job, _ in pairs)
    clean = rows_of(alone)["settings"]
    assert precision["extra"]["precision"] == 2 != clean.extra["precision"]
    assert dtype["extra"].get("dtype_bits") != clean.extra["dtype_bits"]
    assert patch["models"][0]["weights_sha256"] != clean.models[0].weights_sha256


def test_a_cell_that_ends_itself_is_not_tried_again(disturbed: Path) -> None:
    again = plan_suite(modes_suite("exit0", "os-exit0", "segv"), out=disturbed, device="cpu").todo
    assert [cell.group.identity.config["mode"] for cell in again] == ["segv"]
    assert log_path(Store(disturbed), again[0]).exists()


def test_a_new_interpreter_for_each_cell_gives_the_record_of_a_fork(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GKDBENCH_STARTER", "spawn")
    run_suite(modes_suite("good", "settings"), out=tmp_path / "out", jobs=2, device="cpu")
    assert contents(tmp_path / "out") == contents(alone)


def test_two_threads_a_cell_end_and_give_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for starter in ("fork", "spawn"):
        monkeypatch.setenv("GKDBENCH_STARTER", starter)
        out = tmp_path / starter
        run_suite(modes_suite("heavy", seeds="0:2" if starter == "fork" else "0:1"), out=out, threads=2, device="cpu")
        rows = next(record for _, record in Store(out).records()).rows
        assert [row.status for row in rows] == ["ok"] * len(rows)
        found += [row.extra["sum"] for row in rows]
    assert len(set(found)) == 1
