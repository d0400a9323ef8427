"""What a method's author meets: a failure with its line and log, a run again, a changed source, kept models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.same_records import contents, leftovers
from support.toy_plugin import DATASET, modes_suite, taught_suite

import gkdbench
from gkdbench.errors import UserError
from gkdbench.execute import changed
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.cell import Cell
from gkdbench.execute.failures import LOG_BYTES, Frame, failures_of, keep_log, log_path, own_frame, tail_of
from gkdbench.execute.kept_models import KeptModel
from gkdbench.execute.runner import RunSummary
from gkdbench.execute.verify import verify
from gkdbench.nn.random import Randomness
from gkdbench.records.schema import Row
from gkdbench.records.store import Store
from gkdbench.training.models import backbone_config, build_module

Run = tuple[Path, RunSummary]


@pytest.fixture(scope="module")
def failed_run(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two cells that raise in the same line, and one that prints and then fails in the monitor's check."""
    out = tmp_path_factory.mktemp("failed") / "out"
    return out, run_suite(modes_suite("raise", "shape", seeds="0:2"), out=out, jobs=1, device="cpu")


def cell_of(mode: str, out: Path) -> Cell:
    return plan_suite(modes_suite(mode), out=out, device="cpu", retry=True).todo[0]


def line_of(plugin: Path, text: str) -> int:
    lines = (plugin / "toy_methods.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_cells_that_fail_in_one_line_are_one_failure(failed_run: Run, plugin: Path) -> None:
    out, summary = failed_run
    assert len(summary.failures) == 4
    raised, misshaped = failures_of(summary.failures, Store(out))
    assert (raised.count, misshaped.count) == (2, 2)
    assert raised.where == Frame(plugin / "toy_methods.py", line_of(plugin, "told to raise"), "misbehave")
    text = "\n".join(raised.lines(" --out here"))
    assert "seed 0 (and 1 more in the same way): error: RuntimeError: the toy was told to raise" in text
    assert f"toy_methods.py:{line_of(plugin, 'told to raise')} in misbehave" in text
    assert str(log_path(Store(out), raised.cell)) in text
    assert text.endswith(f"again: {raised.row.command} --out here")


def test_an_error_of_gkdbench_itself_names_the_line_that_called_it(failed_run: Run, plugin: Path) -> None:
    out, summary = failed_run
    misshaped = failures_of(summary.failures, Store(out))[1]
    assert misshaped.where is not None
    assert (misshaped.where.line, misshaped.where.function) == (line_of(plugin, "ctx.monitor.report("), "fit")


def test_a_built_in_method_owns_the_files_of_the_methods_and_chained_errors_count_from_the_last() -> None:
    suite = gkdbench.plan(methods="mlp", dataset=DATASET, seeds=0, device="cpu", out="nowhere").suite
    cell = plan_suite(suite, out="nowhere", device="cpu").todo[0]
    folder = Path(gkdbench.__file__).parent
    traceback = f'''Traceback (most recent call last):
  File "{folder}/methods/glnn.py", line 3, in first
KeyError: 'caught'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "{folder}/protocol/session.py", line 1, in run_session
  File "{folder}/methods/mlp.py", line 41, in fit
    return torch.nope()
  File "/lib/torch/nope.py", line 7, in nope
KeyError: 'oops'
'''
    assert own_frame(cell, traceback) == Frame(folder / "methods/mlp.py", 41, "fit")
    elsewhere = traceback.replace("/methods/mlp.py", "/protocol/other.py")
    assert own_frame(cell, elsewhere) == Frame(Path("/lib/torch/nope.py"), 7, "nope")
    assert own_frame(cell, None) is None


def test_a_log_holds_what_was_printed_and_goes_when_the_cell_succeeds(plugin: Path, tmp_path: Path) -> None:
    source = plugin / "toy_methods.py"
    before = source.read_text()
    broken = before.replace("        misbehave(self.mode)", '        print("width", view.num_features)\n        oops()')
    out = tmp_path / "out"
    try:
        source.write_text(broken)
        first = run_suite(modes_suite("good"), out=out, jobs=1, device="cpu")
    finally:
        source.write_text(before)
    (cell, row), *_ = first.failures
    log = log_path(Store(out), cell)
    text = log.read_text()
    assert "\nwidth " in text and "NameError: name 'oops' is not defined" in text
    assert row.command in text
    assert leftovers(out) == []
    assert verify(out).problems == []
    again = run_suite(modes_suite("good"), out=out, jobs=1, device="cpu", retry=True)
    assert again.ok == 1
    assert not log.parent.exists()


def test_a_long_log_keeps_its_end(failed_run: Run, tmp_path: Path) -> None:
    cell, row = failed_run[1].failures[0]
    printed = tmp_path / "printed.log"
    printed.write_bytes(b"first" + b"a" * LOG_BYTES + b"\nthe end\n")
    store = Store(tmp_path / "out")
    keep_log(store, cell, row, printed)
    kept = log_path(store, cell).read_bytes()
    assert b"first" not in kept and b"a\nthe end\n--- error" in kept
    assert len(kept) < LOG_BYTES + 10_000
    assert tail_of(printed).endswith("a\nthe end") and len(tail_of(printed)) < 20_000
    assert tail_of(tmp_path / "none") == ""


def test_rerun_replaces_the_rows_of_what_the_suite_lists(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(toy_run[0], out)
    suite = taught_suite()
    only = "split=builtin-random,seed=0"
    plan = plan_suite(suite, out=out, device="cpu", rerun=True, only=only)
    listed = [cell.group.identity.config for cell in plan.todo]
    assert [(config["taught"], config["epochs"]) for config in listed] == [(False, 4), (True, 4)]
    assert len(plan.cached) == 1  # the teacher, which only the student requires
    teacher = plan.cached[0]
    named = plan_suite(suite, out=out, device="cpu", rerun=True, only=teacher.selector())
    assert [cell.key for cell in named.todo] == [teacher.key]
    before = {cell.key: Store(out).row(cell.address) for cell in plan.todo}
    summary = run_suite(suite, out=out, jobs=1, device="cpu", rerun=True, only=only)
    assert (summary.ok, summary.cached) == (2, 1)
    assert contents(out) == contents(toy_run[0])
    for cell in plan.todo:
        row, old = Store(out).row(cell.address), before[cell.key]
        assert row is not None and old is not None and row.finished != old.finished
    assert leftovers(out) == []


def test_a_changed_source_is_told_of_ones_own_rows_alone(
    toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "checkout" / "out"
    shutil.copytree(toy_run[0], out, ignore=shutil.ignore_patterns(".*"))
    assert plan_suite(taught_suite(), out=out, device="cpu").changed == []
    monkeypatch.setattr(changed, "source_sha256", lambda method: "another")
    plan = plan_suite(taught_suite(), out=out, device="cpu")
    assert plan.changed == ["toy"]
    assert "the source of toy changed since these rows: raise `revision`, or --rerun" in plan.lines()
    git(tmp_path / "checkout", "init", "-q")
    assert plan_suite(taught_suite(), out=out, device="cpu").changed == ["toy"]  # not tracked yet
    git(tmp_path / "checkout", "add", "out")
    assert plan_suite(taught_suite(), out=out, device="cpu").changed == []
    monkeypatch.setenv("PATH", str(tmp_path))  # a checkout, and no git to ask
    assert plan_suite(taught_suite(), out=out, device="cpu").changed == []


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def test_kept_models_are_those_of_the_records(tmp_path: Path) -> None:
    methods = [{"method": "mlp", "model": {"hidden": 8}}, "toy"]
    out = tmp_path / "out"

    def run(**more: Any) -> RunSummary:
        few = {"epochs": 2}
        return gkdbench.run(
            methods=methods, dataset=DATASET, seeds=[0], overrides=few, out=out, jobs=1, device="cpu", **more
        )

    first = run()
    assert (first.ok, first.without_model) == (2, 0)
    assert run(keep_models=True).without_model == 2  # rows that are stored are not trained for it
    assert run(keep_models=True, rerun=True).ok == 2
    for path in first.records:
        record = next(record for at, record in Store(out).records() if at == path)
        kept = gkdbench.load_model(out / "models" / path.stem / "0-0")
        stored = record.rows[0].models[0]
        assert (kept.method, kept.config, kept.facts["weights_sha256"]) == (
            record.method,
            record.config,
            stored.weights_sha256,
        )
        if record.method == "mlp":
            assert kept.backbone == "mlp" and kept.settings["hidden"] == 8
            logits = kept.module(torch.zeros(3, record.data.features), None)
            assert tuple(logits.shape) == (3, record.data.classes)
        else:
            with pytest.raises(UserError, match="own class; build that module"):
                _ = kept.module
    assert {path.name for path, _ in Store(out).records()} == {path.name for path in first.records}
    weights = out / "models" / first.records[0].stem / "0-0" / "model.npz"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"expected a kept model|expected weights of the hash"):
        gkdbench.load_model(weights)


def test_a_kept_model_of_several_labels_mixes_label_by_label() -> None:
    settings, sizes = {"members": 2, "hidden": 4}, {"inputs": 3, "classes": 2, "edge_width": 0}
    one = KeptModel({}, "adagmlp", {}, "mlps", settings, sizes)
    state = build_module(backbone_config("mlps", settings), 3, 2, 0, Randomness(0)).state_dict()
    one, several = replace(one, state=state), replace(one, state=state, facts=sizes | {"several_labels": True})
    rows = torch.randn(4, 3)
    assert torch.allclose(one.module(rows).exp().sum(dim=1), torch.ones(4))
    members = several.module.members
    assert torch.allclose(several.module(rows).sigmoid(), torch.stack([m(rows).sigmoid() for m in members]).mean(0))


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--keep-models` keeps them"):
        gkdbench.load_model(tmp_path / "model.npz")
    with pytest.raises(UserError, match="expected a folder of one model"):
        gkdbench.load_model(tmp_path)


def test_reading_input_in_a_worker_reads_no_jobs(plugin: Path, tmp_path: Path) -> None:
    source = plugin / "toy_methods.py"
    before = source.read_text()
    asks = before.replace("        misbehave(self.mode)", "        input() if self.mode == 'good' else breakpoint()")
    try:
        source.write_text(asks)
        summary = run_suite(modes_suite("good", "other"), out=tmp_path / "out", jobs=1, device="cpu")
    finally:
        source.write_text(before)
    reasons: list[Row] = [row for _, row in summary.failures]
    assert [row.reason.partition(":")[0] for row in reasons if row.reason] == ["EOFError", "RuntimeError"]
    assert "--debug CELL" in (reasons[1].reason or "")


def debugged(plugin: Path, out: Path, cell: str, typed: str) -> subprocess.CompletedProcess[str]:
    """``gkdbench run --debug`` of the toy and its student with `typed` as its input; the path to the toy is set."""
    words = ["--method", "toy", "--dataset", DATASET, "--seeds", "0:2", "taught=true", "--debug", cell]
    return subprocess.run(
        [sys.executable, "-m", "gkdbench.cli", "run", *words, "--out", str(out), "--jobs", "1", "--device", "cpu"],
        input=typed,
        capture_output=True,
        text=True,
    )


def test_debug_stops_at_a_breakpoint_without_labels_and_stores_nothing(plugin: Path, tmp_path: Path) -> None:
    source = plugin / "toy_methods.py"
    before = source.read_text()
    stops = before.replace(
        "        misbehave(self.mode)",
        '        if self.taught:\n            print("here", os.environ["GKDBENCH_WORKER"])\n            breakpoint()\n'
        '            misbehave("peek")',
    )
    out = tmp_path / "out"
    try:
        source.write_text(stops)
        done = debugged(plugin, out, "seed=1", "p self.epochs\nc\n")
    finally:
        source.write_text(before)
    assert "first the teachers of toy" in done.stderr
    assert "here 1\n" in done.stdout and "(Pdb) 4\n" in done.stdout
    assert "debugging toy" in done.stderr and "nothing of it is stored" in done.stderr
    assert "Traceback" in done.stderr and "inside a worker" in done.stderr  # raw data are out of reach
    assert done.returncode == 1
    rows = [(record.config["epochs"], row.seed) for _, record in Store(out).records() for row in record.rows]
    assert rows == [(3, 1)]  # the teacher alone
    assert leftovers(out) == []


def test_debug_wants_one_cell(plugin: Path, tmp_path: Path) -> None:
    done = debugged(plugin, tmp_path / "out", "method=toy", "")
    assert done.returncode == 2
    assert "'method=toy' matches 2 cells; add a field:\n  method=toy" in done.stderr
