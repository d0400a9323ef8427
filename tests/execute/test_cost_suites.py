"""Suites that measure cost: planned, stored, resumed and refused like others, with the device to themselves."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from gkdbench.cli import main
from gkdbench.data.datasets import dataset_info
from gkdbench.errors import UserError
from gkdbench.execute.api import run_suite
from gkdbench.execute.cost.cells import measured_cells
from gkdbench.execute.cost.compare import combined
from gkdbench.execute.cost.run import CostSummary, run_cost_suite, set_aside
from gkdbench.execute.device_lock import FOLDER, device_use
from gkdbench.execute.progress import Silent
from gkdbench.execute.suite import Suite, load_suite, parse_suite
from gkdbench.measure.cost.inference import InferenceBudget
from gkdbench.measure.cost.session import MeasureSettings
from gkdbench.nn.backbones import BACKBONES
from gkdbench.records.measurement import load_measurement, measurement_paths
from gkdbench.records.store import Store, record_paths
from gkdbench.training.registry import METHODS
from gkdbench.verbs.reporting import measurements_in

QUICK = MeasureSettings(training_s=0.01, inference=InferenceBudget(rounds=5, seconds=0.05, queries=5))
METHODS_HERE: tuple[dict[str, Any], ...] = ({"method": "mlp"}, {"method": "glnn"}, {"method": "toy", "mode": "raise"})


@pytest.fixture(autouse=True, scope="module")
def locks(warm_workers: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Locks of these tests alone: tests of other files train meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path_factory.mktemp("locks")))
        yield


def suite(*methods: dict[str, Any]) -> Suite:
    grid = {"datasets": ["csbm:n=400"], "splits": ["builtin-random"], "methods": list(methods)}
    return parse_suite({"suite": {"name": "costs", "seeds": [0], "measures": "cost"}, "grid": [grid]})


def run(out: Path, wanted: Suite, **more: Any) -> CostSummary:
    options: dict[str, Any] = {
        "data": None, "device": "cpu", "threads": 1, "jobs": 1, "only": None, "retry": False, "retry_noisy": False,
        "rerun": False, "max_cells": None, "progress": Silent(), "settings": QUICK,
    }  # fmt: skip
    return run_cost_suite(wanted, out=out, **(options | more))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, toys: None, locks: None) -> tuple[Path, CostSummary]:
    folder = tmp_path_factory.mktemp("cost") / "out"
    return folder, run(folder, suite(*METHODS_HERE))


def test_every_configuration_has_a_record_of_what_it_costs(out: tuple[Path, CostSummary]) -> None:
    folder, summary = out
    assert (summary.ok, summary.cached, len(summary.failures)) == (2, 0, 1)
    found = {one.method: one for one in map(load_measurement, measurement_paths(folder))}
    assert sorted(found) == ["glnn", "mlp", "toy"]
    student = found["glnn"]
    assert student.status == "ok" and student.inference is not None and student.training is not None
    assert student.config["epochs"] == 500  # the settings of accuracy's rows, although 12 epochs were timed
    assert student.inference.everything.items == 400 == student.training.items
    assert student.inference.query is not None and student.inference.query.by == "features"
    assert student.inference.query.p90_s is None and student.inference.query.p90_missing == 39
    assert student.training.epoch is not None and student.training.epoch.value > 0
    assert (student.reference, student.training_reference) == ("MLP 2x128", "GCN 2x64")
    assert student.parameters and student.macs
    assert found["toy"].status == "error" and found["toy"].reason


def test_readers_of_accuracy_do_not_meet_measurements(out: tuple[Path, CostSummary]) -> None:
    folder, _ = out
    assert record_paths(folder) == []


def test_what_is_there_is_not_taken_again(out: tuple[Path, CostSummary]) -> None:
    folder, _ = out
    before = {path: path.read_bytes() for path in measurement_paths(folder)}
    again = run(folder, suite(*METHODS_HERE))
    assert (again.ok, again.cached, again.failures) == (0, 3, [])
    assert {path: path.read_bytes() for path in measurement_paths(folder)} == before


def test_one_that_failed_is_taken_again_on_request_alone(out: tuple[Path, CostSummary]) -> None:
    folder, _ = out
    again = run(folder, suite(*METHODS_HERE), retry=True)
    assert (again.ok, again.cached, len(again.failures)) == (0, 2, 1)


def test_noisy_ones_are_taken_again_on_request(out: tuple[Path, CostSummary], tmp_path: Path) -> None:
    folder, _ = out
    wanted = suite({"method": "mlp"})
    (path,) = [path for path in measurement_paths(folder) if path.name.startswith("mlp")]
    place = tmp_path / path.relative_to(folder)
    place.parent.mkdir(parents=True)
    noisy = json.loads(path.read_text()) | {"flags": ["noisy: other processes used 1.00 cores"], "finished": "before"}
    place.write_text(json.dumps(noisy))
    assert run(tmp_path, wanted).cached == 1
    assert run(tmp_path, wanted, retry_noisy=True).ok == 1
    assert load_measurement(place).finished != "before"


def test_the_key_depends_on_settings_and_threads_and_not_on_epochs_timed() -> None:
    def key(method: dict[str, Any], threads: int = 1) -> str:
        (cell,), _ = measured_cells(suite(method), Store("nowhere"), data=None, device="cpu", threads=threads)
        return cell.identity.key

    plain = key({"method": "mlp"})
    assert plain == key({"method": "mlp"})
    assert len({plain, key({"method": "mlp", "epochs": 9}), key({"method": "mlp"}, threads=2)}) == 3


def test_one_configuration_in_two_splits_is_measured_once() -> None:
    grid = {"datasets": ["csbm:n=400"], "methods": [{"method": "mlp"}]}
    grids = [grid | {"splits": [split]} for split in ("builtin-random", "builtin-random-ind20")]
    both = parse_suite({"suite": {"name": "c", "measures": "cost"}, "grid": grids})
    cells, _ = measured_cells(both, Store("nowhere"), data=None, device="cpu", threads=1)
    assert [cell.identity.split for cell in cells] == ["builtin-random"]


def test_the_published_suite_has_every_method_and_every_backbone() -> None:
    published = load_suite("cost@1")
    assert published.measures == "cost"
    for kind, datasets in (("node", {"cora", "pubmed", "amazon-photo"}), ("graph", {"mutag", "ogbg-molbace"})):
        for dataset in datasets:
            (grid,) = [grid for grid in published.grids if dataset in grid.datasets]
            own = [entry.method for entry in grid.methods if not entry.overrides]
            ours = [name for name, entry in METHODS.entries().items() if entry.target.startswith("gkdbench.")]
            several = dataset_info(dataset).multi_label
            fitting = [name for name in ours if kind in METHODS.get(name).kinds]
            assert own == [name for name in fitting if METHODS.get(name).multi_label or not several]
            teachers = [entry.overrides["backbone"] for entry in grid.methods if entry.overrides]
            assert len(set(teachers)) == len(BACKBONES.names()) - 1  # the default teacher's is among the methods


def test_a_damaged_measurement_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlp-000000000000.cost.json"
    path.write_text("{")
    with pytest.raises(UserError, match="not a valid measurement"):
        load_measurement(path)
    path.write_text('{"method": "mlp", "surplus": 1}')
    with pytest.raises(UserError, match="not a valid measurement"):
        load_measurement(path)


# The device -----------------------------------------------------------------------------------------------------------


def test_a_damaged_measurement_costs_its_own_row_alone(
    out: tuple[Path, CostSummary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The board leaves it out with a word, a run sets it aside and counts it as missing."""
    copy = Path(shutil.copytree(out[0], tmp_path / "copy"))
    path, *others = measurement_paths(copy)
    path.write_text("{")
    assert len(measurements_in([copy])) == len(others) > 0
    assert str(path) in capsys.readouterr().err

    class Stored:
        def __init__(self, at: Path) -> None:
            self.path = at.relative_to(copy)

        def stored(self, folder: Path) -> object:
            return load_measurement(folder / self.path)

    (line,) = set_aside([Stored(path), *map(Stored, others)], copy)  # type: ignore[list-item]
    assert line.startswith("set aside: ") and path.name in line
    assert measurement_paths(copy) == others and list((copy / ".damaged").iterdir())


def test_a_measurement_waits_for_runs_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    told: list[str] = []
    alone = threading.Event()

    def measure() -> None:
        with device_use("cpu", alone=True, tell=told.append):
            alone.set()

    with device_use("cpu", alone=False, tell=told.append), device_use("cpu", alone=False, tell=told.append):
        waiting = threading.Thread(target=measure)
        waiting.start()
        while not told:
            waiting.join(0.01)
        assert not alone.is_set()
    waiting.join()
    assert alone.is_set()
    assert told == ["other runs use cpu on this machine; waiting for the end of that (Ctrl-C gives up)"]


def test_devices_are_locked_apart_and_a_folder_that_cannot_be_written_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    told: list[str] = []
    with device_use("cpu", alone=True, tell=told.append), device_use("cuda:0", alone=True, tell=told.append):
        pass
    monkeypatch.setenv(FOLDER, str(tmp_path / "absent"))
    with device_use("cpu", alone=True, tell=told.append), device_use("cpu", alone=True, tell=told.append):
        assert told == []


# The commands ---------------------------------------------------------------------------------------------------------

TOML = """
[suite]
name = "costs"
measures = "cost"
seeds = "0:1"

[[grid]]
datasets = ["csbm:n=400"]
splits = ["builtin-random"]

[[grid.methods]]
method = "mlp"
"""


def test_plan_lists_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(TOML)
    assert main(["plan", str(file), "--out", str(tmp_path / "out"), "--cells"]) == 0
    shown = capsys.readouterr().out
    assert "1 measurements, 0 cached, 1 to take" in shown and "cost of MLP 2x128 on csbm" in shown
    assert main(["plan", str(file), "--out", str(tmp_path / "out"), "--json", "--cells"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["measurements"], facts["to_run"], facts["cell_list"][0]["method"]) == (1, 1, "mlp")
    assert not (tmp_path / "out").exists()


def test_training_a_cost_suite_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one that measures accuracy, got one that measures cost"):
        run_suite(suite({"method": "mlp"}), out=tmp_path, device="cpu")


def test_other_words_than_accuracy_and_cost_are_refused() -> None:
    with pytest.raises(UserError, match="measures"):
        parse_suite({"suite": {"name": "c", "measures": "speed"}, "grid": []})


# Two configurations ---------------------------------------------------------------------------------------------------


def side(out: tuple[Path, CostSummary], method: str, value: float, **changes: Any) -> Any:
    """A measurement of `method` whose ratio for all items is `value`."""
    folder, _ = out
    (path,) = [path for path in measurement_paths(folder) if path.name.startswith(method)]
    found = load_measurement(path)
    assert found.inference is not None
    call = found.inference.everything.call.model_copy(update={"value": value, "low": 0.9 * value, "high": value / 0.9})
    everything = found.inference.everything.model_copy(update={"call": call})
    return found.model_copy(
        update={"inference": found.inference.model_copy(update={"everything": everything}), "flags": (), **changes}
    )


def test_the_ratio_of_two_is_that_of_their_ratios_to_the_reference(out: tuple[Path, CostSummary]) -> None:
    a = [side(out, "glnn", value) for value in (2.0, 2.2, 1.8)]
    b = [side(out, "mlp", value) for value in (1.0, 1.0, 1.0)]
    found = combined("inference", a, b)
    assert found.value == pytest.approx((2.0 * 2.2 * 1.8) ** (1 / 3))
    assert found.low < found.value < found.high
    assert "inference: GLNN, MLP 2x128 takes 1.99x [" in found.to_text()
    assert combined("inference", b, a).value == pytest.approx(1 / found.value)


def test_a_side_without_the_number_is_named(out: tuple[Path, CostSummary]) -> None:
    a, b = [side(out, "glnn", 2.0, training=None)], [side(out, "mlp", 1.0)]
    with pytest.raises(UserError, match="GLNN, MLP 2x128 has no training to compare"):
        combined("training", a, b)
