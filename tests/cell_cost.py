"""``python -m cell_cost [CELLS]`` in this folder: what a process of its own costs a cell, printed in milliseconds.

The same trivial cell (a linear toy, four epochs) many times: in one process, one after the other; in a forked process
each, without hidden folders and with them; and, a few times, in an interpreter each. Nothing is asserted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from support.toy_plugin import DATASET, install, modes_suite, on_path

from gkdbench.data.splits import prepare_named
from gkdbench.execute.api import plan_suite
from gkdbench.execute.cell_folder import make_cell_folder
from gkdbench.execute.cell_process import serve, warm_up
from gkdbench.execute.debug import as_worker
from gkdbench.execute.environment import worker_environment
from gkdbench.execute.isolation.starters import Starter
from gkdbench.execute.job import Job
from gkdbench.execute.pool import Pool
from gkdbench.execute.runner import job_of
from gkdbench.protocol.view_io import write_bundle


def jobs(folder: Path, count: int) -> list[Job]:
    """`count` jobs of one cell, each with a folder of its own."""
    cell = plan_suite(modes_suite("good"), out=folder / "out", device="cpu").todo[0]
    view = folder / "views" / "view"
    if not view.exists():
        view.parent.mkdir()
        write_bundle(prepare_named(DATASET, "builtin-random", 0), view)
    made = []
    for number in range(count):
        own = make_cell_folder(Path(tempfile.mkdtemp(dir=folder)) / "cell", view, {})
        made.append(job_of(cell, number=number, folder=own, device="cpu"))
    return made


def in_one_process(made: Sequence[Job]) -> float:
    """Seconds for all, in this process."""
    warm_up()
    with as_worker(worker_environment(1)):
        serve(made[0], 0)
        start = time.perf_counter()
        for job in made[1:]:
            serve(job, 0)
    return time.perf_counter() - start


def in_processes(folder: Path, made: Sequence[Job], starter: Starter, hidden: Sequence[Path]) -> float:
    """Seconds for all but the first, each in a process of its own, one at a time."""
    pool = Pool(1, folder, worker_environment(1), starter=starter, hidden=hidden)
    try:
        start = 0.0
        for job in made:
            pool.submit(job, Path(job.scratch).parent / "printed.log")
            while not (answers := pool.wait(10.0)):
                pass
            assert isinstance(answers[0][1], dict), answers
            start = start or time.perf_counter()
        return time.perf_counter() - start
    finally:
        pool.close()


def main(count: int = 200) -> None:
    """Print one line per way."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        install(folder)
        (folder / "secret").mkdir()
        with on_path(folder):
            start = time.perf_counter()
            few = max(2, count // 40)
            made = jobs(folder, 3 * (count + 1) + few + 1)
            print(f"folder of links       {(time.perf_counter() - start) / len(made) * 1e3:8.1f} ms a cell")
            ways: list[tuple[str, Starter, list[Path], int]] = [
                ("fork", "fork", [], count),
                ("fork, folders hidden", "fork", [folder / "secret"], count),
                ("spawn", "spawn", [], few),
            ]
            base = in_one_process([made.pop() for _ in range(count + 1)]) / count
            print(f"one process for all   {base * 1e3:8.1f} ms a cell")
            for name, starter, hidden, number in ways:
                mine = [replace(made.pop(), id=i) for i in range(number + 1)]
                each = in_processes(folder, mine, starter, hidden) / number
                print(f"{name:20}  {each * 1e3:8.1f} ms a cell, {(each - base) * 1e3:+.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
