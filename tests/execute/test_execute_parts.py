"""The parts around a run: worker environment, plan, progress, provenance, own models, tables of records."""

from __future__ import annotations

import io
import os
import resource
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.toy_plugin import modes_suite, taught_suite

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite
from gkdbench.execute.evaluate import evaluate
from gkdbench.execute.job import Job, TeacherJob
from gkdbench.execute.prefetch import DataPrefetcher, PreparedData, SplitTaskId
from gkdbench.execute.processes.environment import ALLOCATOR, ARITHMETIC, allocator_of, worker_environment
from gkdbench.execute.processes.memory import memory_limit
from gkdbench.execute.progress import Lines, Live, duration
from gkdbench.execute.provenance import impersonal, provenance
from gkdbench.execute.runner import RunSummary
from gkdbench.records.frame import record_lines, records_frame
from gkdbench.records.store import Store, load_record
from gkdbench.training.registry import METHODS

Run = tuple[Path, RunSummary]


def test_a_worker_has_no_way_to_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKDBENCH_DATA", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    found = worker_environment(3)
    assert "GKDBENCH_DATA" not in found and not Path(found["XDG_CACHE_HOME"]).exists()
    assert (found["GKDBENCH_WORKER"], found["OMP_NUM_THREADS"], found["PYTHONHASHSEED"]) == ("1", "3", "0")


def test_the_allocator_is_tuned_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    assert allocator_of(worker_environment(1)) == ALLOCATOR
    assert allocator_of(worker_environment(1, tune_allocator=False)) == {}
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    assert allocator_of(worker_environment(1))["MALLOC_MMAP_MAX_"] == "7"


def test_a_job_survives_the_pipe() -> None:
    teacher = TeacherJob("/bank", "toy", {"epochs": 3}, 1)
    job = Job(1, "toy", {"lr": 0.1}, "/view", "/scratch", 5, "cpu", 1, {"teacher": teacher}, None, 3.0, None)
    assert Job.parse(job.line()) == job
    assert job.line().count(b"\n") == 1


def test_a_memory_limit_is_lifted_after_the_job() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    job = Job(1, "toy", {}, "", "", 0, "cpu", 1, memory_limit_bytes=2**40)
    with memory_limit(job, 2**40):
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == 2**41
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_plan_counts_before_anything_runs(toy_run: Run, tmp_path: Path) -> None:
    fresh = plan_suite(taught_suite(), out=tmp_path / "new", device="cpu", jobs=1)
    assert (len(fresh.todo), len(fresh.cached), fresh.guessed) == (12, 0, 12)
    assert fresh.hours > 0 and fresh.bytes > 0
    assert not (tmp_path / "new").exists()
    keys = [cell.key for cell in fresh.todo]
    for cell in fresh.todo:
        assert all(keys.index(teacher.key) < keys.index(cell.key) for teacher in cell.requires.values())
    known = plan_suite(modes_suite("nan"), out=toy_run[0], device="cpu", jobs=1)
    assert (len(known.todo), known.guessed) == (1, 0)
    assert "1 cells, 0 cached, 1 to run" in known.lines()[0]


def test_lines_tell_of_cells_that_take_long(toy_run: Run) -> None:
    plan = plan_suite(taught_suite(), out=toy_run[0] / "none", device="cpu")
    stream, now = io.StringIO(), [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    lines.planned(plan, 1)
    lines.started(plan.todo[0])
    said = stream.getvalue()
    for now[0] in range(200):  # the runner waits a second at a time
        lines.waiting()
    told = stream.getvalue().removeprefix(said).splitlines()
    assert len(told) == 199 // 30
    assert told[0].startswith("[0/12] running: ") and told[0].endswith("s0 for 30 s")
    lines.finished(plan.todo[0], load_record(toy_run[1].records[0]).rows[0])
    said, now[0] = stream.getvalue(), 1000.0
    lines.waiting()
    assert stream.getvalue() == said  # nothing is under way


def test_lines_tell_of_every_cell(toy_run: Run) -> None:
    plan = plan_suite(taught_suite(), out=toy_run[0] / "none", device="cpu")
    stream = io.StringIO()
    lines = Lines(stream)
    lines.planned(plan, 1)
    row = load_record(toy_run[1].records[0]).rows[0]
    lines.finished(plan.todo[0], row)
    lines.finished(plan.todo[1], row.model_copy(update={"status": "nan", "reason": "became nan\nmore", "models": []}))
    said = stream.getvalue().splitlines()
    assert said[-2].startswith("[1/12, ") and "toy on csbm:n=400, builtin-random #0, seed 0: tran" in said[-2]
    assert said[-1].endswith("nan: became nan")
    lines.planned(plan, 1)  # the cells that waited for tuning
    lines.finished(plan.todo[2], row)
    assert stream.getvalue().splitlines()[-1].startswith("[1/12, ")
    assert [duration(s) for s in (45, 720, 11520)] == ["45 s", "12 min", "3.2 h"]


def test_the_live_view_takes_every_event(toy_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_suite(taught_suite(), out=toy_run[0] / "none", device="cpu")
    row = load_record(toy_run[1].records[0]).rows[0]
    live = Live()
    live.planned(plan, 1)
    live.started(plan.todo[0])
    live.finished(plan.todo[0], row.model_copy(update={"status": "nan", "reason": "became nan", "models": []}))
    live.note("a note")
    live.ended()
    said = capsys.readouterr().err
    assert "nan: became nan" in said.replace("\n", " ") and "a note" in said and "1/12" in said


def test_provenance_names_code_and_machine_and_no_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    argv = ["/home/ada/bin/gkdbench", "run", "/home/ada/my.toml", "--out=/home/ada/runs", f"--data={Path.cwd() / 'd'}"]
    monkeypatch.setattr(sys, "argv", argv)
    found = provenance(METHODS.get("toy"), device="cpu", allocator={"MALLOC_MMAP_MAX_": "0"})
    assert found.argv == ["gkdbench", "run", "my.toml", "--out=runs", "--data=d"]
    assert len(found.method_source_sha256) == 64 and found.torch == torch.__version__
    assert found.gpu is None and found.cpu
    assert impersonal([]) == []
    assert impersonal(["gkdbench", "run", "bad\udcff"]) == ["gkdbench", "run", "bad\\udcff"]  # a name that is not UTF-8


def test_every_record_has_its_provenance(toy_run: Run) -> None:
    for _, record in Store(toy_run[0]).records():
        (facts,) = record.provenances
        assert {row.provenance for row in record.rows} == {0}
        assert facts.gkdbench and facts.allocator.keys() >= ALLOCATOR.keys() - os.environ.keys()


class Right(torch.nn.Module):
    """Knows the class means of csbm's features badly enough to be above chance."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.999)
        self.weight = torch.nn.Parameter(torch.eye(32, 4))

    def forward(self, features: torch.Tensor, graph: object, segments: object) -> torch.Tensor:
        return self.dropout(features) @ self.weight


def test_an_own_model_is_scored_in_every_column_and_left_in_its_mode() -> None:
    model = Right()
    scores = evaluate(model, "csbm", "builtin-random-ind20", 1)
    assert set(scores) == {"val", "tran", "ind", "prod", "coldstart"}
    assert scores["prod"] == pytest.approx(0.2 * scores["ind"] + 0.8 * scores["tran"])
    assert model.training
    assert evaluate(model, "csbm", "builtin-random-ind20", 1) == scores
    constant = evaluate(lambda features, graph, segments: torch.eye(10)[[0] * (len(segments) - 1)], "digits-grid",
                        "random-80-10-10")  # fmt: skip
    assert 0.05 < constant["graph"] < 0.15


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda features, graph, segments: features[:, :3], r"logits \[600, 4\], got \[600, 3\]"),
        (lambda features, graph, segments: features[:, :4] * float("nan"), "not finite"),
        (lambda features, graph, segments: None, "got NoneType"),
    ],
)
def test_an_own_model_that_answers_wrong_is_told(model: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(model, "csbm", "builtin-random")  # type: ignore[arg-type]


def test_records_become_lines_of_a_table(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record = next(r for _, r in Store(toy_run[0]).records() if "prod" in r.columns)
    lines = list(record_lines(record))
    assert [(line["seed"], line["setting"]) for line in lines] == [
        (seed, column) for seed in (0, 1) for column in record.rows[0].models[0].scores
    ]
    failed = record.model_copy(update={"rows": [record.rows[0].model_copy(update={"status": "oom", "models": []})]})
    assert [line["status"] for line in record_lines(failed)] == ["oom"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install 'gkdbench\[report\]'"):
        records_frame(toy_run[0])


def test_a_frame_has_one_line_per_run_and_setting(toy_run: Run) -> None:
    pytest.importorskip("pandas", reason="the table of records wants pandas, an optional dependency")
    frame = records_frame(toy_run[0])
    assert len(frame) == 3 * 2 * 1 + 3 * 2 * 4
    assert frame.groupby("setting").score.mean().between(0, 1).all()


def test_problems_are_prepared_a_little_ahead_and_dropped_with_their_last_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SplitTaskId] = []

    def prepare(self: DataPrefetcher, name: SplitTaskId) -> PreparedData:
        made.append(name)
        view = tmp_path / str(name[2])
        view.mkdir()
        return PreparedData(None, None, view)  # type: ignore[arg-type]  # nobody looks inside

    monkeypatch.setattr(DataPrefetcher, "_prepare", prepare)
    names = [("csbm", "builtin-random", index) for index in range(10)]
    woken = threading.Semaphore(0)
    prefetcher = DataPrefetcher(tmp_path, None, [name for name in names for _ in range(2)], woken.release)
    prefetcher.request(name for name in names for _ in range(2))
    assert all(woken.acquire(timeout=30) for _ in range(DataPrefetcher.AHEAD))
    prefetcher.request(names)
    assert made == names[: DataPrefetcher.AHEAD] and prefetcher.get(names[DataPrefetcher.AHEAD]) is None
    view = tmp_path / "0"
    ready = prefetcher.get(names[0])
    assert ready is not None and ready.view == view
    prefetcher.done(names[0])
    assert view.exists()
    prefetcher.done(names[0])
    assert not view.exists()
    prefetcher.close()


@pytest.mark.parametrize("name", ARITHMETIC)
def test_no_cell_sees_a_variable_that_changes_sums(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "default")
    assert name in os.environ and name not in worker_environment(1)
