"""No process of a cell outlives it: not when it ends, is killed, leaves its session, nor when the run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.same_records import contents, leftovers
from support.toy_plugin import modes_suite

from gkdbench.execute.api import run_suite
from gkdbench.execute.isolation.orphans import kill_marked
from gkdbench.records.files import process_start
from gkdbench.records.store import KILLED, Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")
HERE = Path(__file__).parent
RUN = """
import sys
from support.toy_plugin import modes_suite
from gkdbench.execute.api import run_suite
run_suite(modes_suite(*sys.argv[2:], time_limit_s=60.0), out=sys.argv[1], jobs=2, device="cpu")
"""


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the acts note the processes that they start."""
    folder = tmp_path / "children"
    folder.mkdir()
    monkeypatch.setenv("TOY_CHILDREN", str(folder))
    return folder


def living(children: Path) -> list[int]:
    return [int(child.name) for child in children.iterdir() if process_start(int(child.name)) is not None]


def until_none(children: Path) -> None:
    deadline = time.monotonic() + 30
    while left := living(children):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture
def started(children: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Runs in processes of their own; nothing of them is left whatever a test does."""
    runs: list[subprocess.Popen[bytes]] = []
    yield runs
    for run in runs:
        run.kill()
        run.wait()
    for pid in living(children):
        os.kill(pid, signal.SIGKILL)


def start(out: Path, *modes: str, **environment: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(HERE.parent), os.environ["PYTHONPATH"]])
    command = [sys.executable, "-c", RUN, str(out), *modes]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path} | environment)


def test_children_of_every_kind_end_with_their_cell(
    children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gkdbench.execute.runner.ATTEMPTS", 1)
    acts = ("fork-then-die", "daemon", "program", "fork-then-hang", "daemon-then-hang")
    out = tmp_path / "out"
    run_suite(modes_suite(*acts, time_limit_s=2.0), out=out, jobs=2, device="cpu", grace_s=0.5)
    assert len(list(children.iterdir())) == len(acts)  # each was there
    assert living(children) == []
    rows = {record.config["mode"]: record.rows[0] for _, record in Store(out).records()}
    assert rows["fork-then-die"].flags == [KILLED]  # noticed although a child held every pipe
    assert {mode: row.status for mode, row in rows.items()} == {
        "fork-then-die": "error",
        "daemon": "ok",
        "program": "ok",
        "fork-then-hang": "timeout",
        "daemon-then-hang": "timeout",
    }
    assert leftovers(out) == []


def test_a_daemon_outlives_a_process_that_nobody_cleans_up_after(children: Path) -> None:
    """The control; and the search by environment, for what a dead worker cannot find any more."""
    acts = HERE.parent / "support" / "plugin"
    code = f"import sys; sys.path.insert(0, {str(acts)!r}); import careless_acts; careless_acts.act('daemon')"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TOY_MARK": "of this test"}, check=True)
    assert len(living(children)) == 1
    kill_marked("TOY_MARK=of this test")
    until_none(children)


@pytest.mark.parametrize("victim", ["run", "worker"])
def test_a_kill_takes_everything_along(
    children: Path, started: list[subprocess.Popen[bytes]], tmp_path: Path, victim: str
) -> None:
    out = tmp_path / "out"
    run = start(out, "daemon-then-hang", "fork-then-hang")
    started.append(run)
    while len(living(children)) < 2:
        assert run.poll() is None
        time.sleep(0.02)
    (worker,) = workers_of(run.pid)
    cells = children_of(worker)
    assert len(cells) >= 2
    os.kill(run.pid if victim == "run" else worker, signal.SIGKILL)
    before = set(living(children))
    deadline = time.monotonic() + 30
    while any(process_start(pid) is not None for pid in before | {worker}):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if victim == "run":
        assert all(process_start(pid) is None for pid in cells)
        until_none(children)


def test_a_run_whose_worker_is_killed_goes_on(
    toy_run: tuple[Path, object], started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = os.pathsep.join([str(HERE.parent), os.environ["PYTHONPATH"]])
    command = [sys.executable, str(HERE / "run_toys.py"), str(out), "2"]
    run = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path, "TOY_PAUSE_S": "0.1"})
    started.append(run)
    while not list(out.glob(".cells/*/*.json")):
        assert run.poll() is None
        time.sleep(0.01)
    (worker,) = workers_of(run.pid)
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 0
    assert contents(out) == contents(toy_run[0])
    assert leftovers(out) == []


def children_of(pid: int) -> list[int]:
    """Living children of a process."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if process_start(int(one))]


def workers_of(pid: int) -> list[int]:
    """Living children that serve as the worker of a run."""
    return [one for one in children_of(pid) if b"gkdbench.execute.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]
