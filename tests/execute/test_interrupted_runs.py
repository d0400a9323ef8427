"""Runs that are killed, interrupted, starved, or have company: what is finished stays, what is left is found."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.same_records import contents, leftovers
from support.toy_plugin import modes_suite, taught_suite

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.runner import RunSummary
from gkdbench.records.files import process_start
from gkdbench.records.store import KILLED, Store

Run = tuple[Path, RunSummary]
HERE = Path(__file__).parent


def start(out: Path, *words: object, **environment: str) -> subprocess.Popen[str]:
    """A toy run in its own process, with the toy package on its path."""
    path = os.pathsep.join([str(HERE.parent), os.environ["PYTHONPATH"]])
    command = [sys.executable, str(HERE / "run_toys.py"), str(out), *map(str, words)]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path} | environment, stdout=subprocess.PIPE, text=True
    )


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for `condition`; fail after a minute, or when the process ends before."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        assert process is None or process.poll() is None, "the run ended too early"
        time.sleep(0.01)


def workers_of(pid: int) -> list[int]:
    """Living children of a process that serve as workers."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"gkdbench.execute.worker" in command:
            found.append(int(status.parent.name))
    return found


def some_cells(out: Path) -> int:
    """Files of finished cells and groups; a cell that is just being collected counts twice."""
    return len(list(out.glob(".cells/*/*.json"))) + len(list(out.glob("*/*/*/*.json")))


def test_a_killed_parent_takes_its_workers_along_and_the_next_run_goes_on(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, 1, TOY_PAUSE_S="0.1")
    until(lambda: some_cells(out) >= 2 and has_lock(out), process)
    workers = workers_of(process.pid)
    process.kill()
    process.wait()
    assert workers
    until(lambda: all(process_start(pid) is None for pid in workers))
    assert list(out.rglob("*.lock"))
    summary = run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert 0 < summary.cached < 12 and summary.cached + summary.ok == 12
    assert contents(out) == contents(toy_run[0])
    assert leftovers(out) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_an_interrupt_says_what_is_done_and_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    process = start(out, 1, TOY_PAUSE_S="0.1")
    until(lambda: some_cells(out) >= 1, process)
    workers = workers_of(process.pid)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted: ") and said.rstrip().endswith(f"go on with: gkdbench run toys --out {out}")
    assert all(process_start(pid) is None for pid in workers)
    assert leftovers(out) == []
    done = len([row for _, record in Store(out).records() for row in record.rows])
    assert f"interrupted: {done} cells done" in said


def has_lock(out: Path) -> bool:
    """Whether some cell is claimed; folders may go away during the look (`rglob` minds, `walk` does not)."""
    return any(name.endswith(".lock") for _, _, names in os.walk(out) for name in names)


def test_two_runs_share_one_folder(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = start(out, 1)
    until(lambda: has_lock(out), other)
    run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert other.wait(timeout=90) == 0
    assert contents(out) == contents(toy_run[0])
    assert leftovers(out) == []


@pytest.mark.parametrize("limit", [pytest.param(2_000, marks=pytest.mark.full), 20_000])
def test_a_full_disk_is_named_and_loses_nothing(toy_run: Run, tmp_path: Path, limit: int) -> None:
    """2 kB refuse the view, 20 kB the teacher's hidden features or a side-car."""
    out = tmp_path / "out"
    process = start(out, 1, limit)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 2, said
    assert "cannot write" in said and "free some space" in said
    assert not list(out.rglob("*.lock")) and not list(out.rglob(".tmp~*"))


def test_workers_that_die_hang_or_recover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_MARKER", str(tmp_path / "marker"))
    monkeypatch.setattr("gkdbench.execute.runner.ATTEMPTS", 2)
    suite = modes_suite("suicide-once", "suicide", "hang", "good", time_limit_s=0.4)
    out = tmp_path / "out"
    run_suite(suite, out=out, jobs=1, device="cpu", grace_s=0.2)
    rows = {record.config["mode"]: record.rows[0] for _, record in Store(out).records()}
    assert rows["suicide-once"].status == "ok"
    assert rows["suicide-once"].models == rows["good"].models
    dead = rows["suicide"]
    assert (dead.status, dead.phase, dead.flags) == ("error", "fit", [KILLED])
    assert "SIGKILL, 2 times" in (dead.reason or "")
    assert (rows["hang"].status, rows["hang"].phase) == ("timeout", "fit")
    again = plan_suite(suite, out=out, device="cpu").todo
    assert [cell.group.identity.config["mode"] for cell in again] == ["suicide"]
    assert leftovers(out) == []


def test_workers_that_cannot_start_end_the_run_with_their_words(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('this torch is broken')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(plugin)]))
    with pytest.raises(UserError, match=r"(?s)do not start \(exit status 1\):.*this torch is broken"):
        run_suite(modes_suite("good"), out=tmp_path / "out", jobs=1, device="cpu")
    assert leftovers(tmp_path / "out") == []


@pytest.mark.full
def test_thirty_random_kills(toy_run: Run, tmp_path: Path) -> None:
    """Workers and parents killed at random moments, thirty times; the last run goes through."""
    draw = random.Random(7)
    out, kills = tmp_path / "out", 0
    while kills < 30:
        process = start(out, 2, TOY_PAUSE_S="0.05")
        while kills < 30 and process.poll() is None:
            time.sleep(draw.uniform(0.2, 2.0))
            victims = workers_of(process.pid)
            parent = not victims or draw.random() < 0.5
            try:
                os.kill(process.pid if parent else draw.choice(victims), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                continue
            if parent:
                break
        process.kill()
        process.wait()
        if some_cells(out) >= 6:  # nearly done: begin anew, so that there is always something to disturb
            run_suite(taught_suite(), out=out, jobs=1, device="cpu")
            assert contents(out) == contents(toy_run[0])
            assert leftovers(out) == []
            shutil.rmtree(out)
    run_suite(taught_suite(), out=out, jobs=2, device="cpu")
    assert contents(out) == contents(toy_run[0])
    assert leftovers(out) == []
