"""`verify --rerun`: rows that no training gave are found by training them again."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.forgery import forge

from gkdbench.cli import main
from gkdbench.errors import UserError
from gkdbench.execute.rerun import RerunReport, StoredRun, compared, draw, rerun
from gkdbench.execute.runner import RunSummary
from gkdbench.execute.verify import verify
from gkdbench.records.schema import Provenance
from gkdbench.records.store import load_record, record_bytes, record_paths

Run = tuple[Path, RunSummary]
SAME = Provenance(git_commit="a" * 40, git_dirty=False, torch="2", cpu="x")


@pytest.fixture
def copy(toy_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def stored_run(folder: Path, provenance: Provenance) -> StoredRun:
    path = record_paths(folder)[0]
    record = load_record(path).model_copy(update={"provenances": [provenance]})
    return StoredRun(path, record, record.rows[0].model_copy(update={"provenance": 0}))


def test_honest_rows_come_again_to_the_bit_students_with_their_teachers(copy: Path) -> None:
    report = rerun(copy, 4, seed=1, jobs=2)
    assert (report.problems, report.candidates) == ([], 12)
    assert [again.equal_bits for again in report.reruns] == [True] * 4
    assert "0 differ" in report.lines()[-1]


def test_a_consistent_forgery_passes_verify_and_is_found_by_training_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in record_paths(copy):
        forge(path)
    assert verify(copy).problems == []  # predictions are the labels, every number and hash agrees
    assert main(["verify", str(copy), "--rerun", "3", "--seed", "5", "--cheapest"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("wrong: ") == 3
    assert "trained again it is" in printed


def test_bits_are_compared_where_commit_torch_and_processor_are_the_same(toy_run: Run) -> None:
    run = stored_run(toy_run[0], SAME)
    model = run.row.models[0].model_copy(update={"weights_sha256": "0" * 64})
    other = run.row.model_copy(update={"models": [model]})
    assert compared(run, run.row, SAME).line().endswith("equal to the bit")
    assert "got other weights" in (compared(run, other, SAME).problem or "")
    for field in ({"git_commit": "b" * 40}, {"torch": "3"}, {"cpu": "y"}, {"git_dirty": True}):
        again = compared(run, other, SAME.model_copy(update=field))
        assert (again.compared, again.problem) == ("scores", None)


@pytest.mark.parametrize("points", [0.4, 0.6])
def test_elsewhere_scores_may_differ_by_half_a_point(toy_run: Run, points: float) -> None:
    run = stored_run(toy_run[0], SAME)
    model = run.row.models[0]
    column, score = next(iter(model.scores.items()))
    moved = score.model_copy(update={"value": abs(score.value - points / 100)})
    models = [model.model_copy(update={"scores": model.scores | {column: moved}, "weights_sha256": "0" * 64})]
    again = compared(run, run.row.model_copy(update={"models": models}), Provenance())
    assert (again.problem is None) == (points < 0.5)


def test_a_row_that_fails_now_is_named(toy_run: Run) -> None:
    run = stored_run(toy_run[0], SAME)
    failed = run.row.model_copy(update={"status": "nan", "reason": "loss term became nan", "models": []})
    assert "got nan (loss term became nan)" in (compared(run, failed, SAME).problem or "")
    assert "got no row" in (compared(run, None, SAME).problem or "")


def test_rows_of_another_protocol_are_counted_and_not_drawn(copy: Path) -> None:
    first, *others = record_paths(copy)
    for path in others:
        path.unlink()
    first.write_bytes(record_bytes(load_record(first).model_copy(update={"protocol_version": 1})))
    with pytest.raises(UserError, match="made under protocol 1"):
        rerun(copy, 1)


def test_a_draw_is_repeated_by_its_seed_and_can_take_the_cheapest_strata_first(toy_run: Run) -> None:
    base = stored_run(toy_run[0], SAME)
    runs = []
    for number in range(12):
        record = base.record.model_copy(update={"method": f"m{number % 3}"})
        runs.append((StoredRun(base.path, record, base.row.model_copy(update={"train_s": float(number % 3)})), None))
    drawn = draw(runs, 5, 3, cheapest=False)  # type: ignore[arg-type]
    assert drawn == draw(runs, 5, 3, cheapest=False)  # type: ignore[arg-type]
    assert drawn != draw(runs, 5, 4, cheapest=False)  # type: ignore[arg-type]
    first = draw(runs, 4, 3, cheapest=True)  # type: ignore[arg-type]
    assert [run.record.method for run, _ in first] == ["m0", "m1", "m2", "m0"]
    assert len(draw(runs, 99, 3, cheapest=True)) == 12  # type: ignore[arg-type]


def test_the_printed_chance_is_the_share_of_draws_that_find_a_forged_row() -> None:
    report = RerunReport(seed=0, candidates=40, reruns=[None] * 3)  # type: ignore[list-item]
    generator = np.random.default_rng(0)
    found = np.mean([(generator.permutation(40)[:3] < 8).any() for _ in range(4000)])
    assert report.chance(0.2) == pytest.approx(1 - math.comb(32, 3) / math.comb(40, 3))
    assert report.chance(0.2) == pytest.approx(found, abs=0.03)


def test_fewer_than_one_row_is_refused(toy_run: Run) -> None:
    with pytest.raises(UserError, match="--rerun: expected 1 or more rows, got 0"):
        rerun(toy_run[0], 0)
