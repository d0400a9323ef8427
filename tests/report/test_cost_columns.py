"""Cost beside accuracy: which measurement joins which row, what is printed, and the pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from support.records_factory import record

from gkdbench.errors import UserError
from gkdbench.records.measurement import BatchCost, InferenceCost, Measurement, TimedRatio, TrainingCost
from gkdbench.records.schema import Record
from gkdbench.report.board import build
from gkdbench.report.cells import BY_KEY, filled
from gkdbench.report.cost import CostIndex
from gkdbench.report.csvtable import to_csv
from gkdbench.report.html import to_html
from gkdbench.report.model import TableRow
from gkdbench.report.pareto import pareto_plot, pareto_points
from gkdbench.report.text import to_text
from gkdbench.verbs.reporting import write_pareto


def timed(value: float) -> TimedRatio:
    return TimedRatio(value=value, low=0.9 * value, high=1.1 * value, n=20, ours_s=value / 1000, reference_s=1 / 1000)


def answers(value: float) -> InferenceCost:
    everything = BatchCost(items=2000, call=timed(value))
    return InferenceCost(everything=everything, query=BatchCost(items=1, call=timed(2 * value), p50_s=0.001))


def measured(of: Record, value: float, **changes: Any) -> Measurement:
    facts: dict[str, Any] = {
        "key": "a" * 64, "method": of.method, "label": of.label, "config": of.config, "revisions": of.revisions,
        "dataset": of.dataset, "data": of.data, "split": "cpf-lcc-20-30", "setting": "tran", "index": 0, "seed": 0,
        "device": of.device, "threads": 1, "reference": "MLP 2x128", "training_reference": "GCN 2x64", "status": "ok",
        "training": TrainingCost(epoch=timed(3 * value), items=2000, setup_s=1.0), "inference": answers(value),
    }  # fmt: skip
    return Measurement(**(facts | changes))


def rows(records: list[Record], measurements: list[Measurement]) -> dict[str, TableRow]:
    (table,) = build(records, measurements=measurements).tables
    return {entry.name: entry for entry in table.entries}


def texts(entry: TableRow) -> list[str]:
    return [BY_KEY[key].text(entry) for key in ("inference", "latency", "epoch")]


def test_a_measurement_joins_its_row_whatever_its_split() -> None:
    mlp, other = record(), record("glnn", "GLNN, MLP 2x128", mean=0.7)
    found = rows([mlp, other], [measured(mlp, 1.3)])
    assert texts(found["MLP 2x128"]) == ["1.30x [1.17, 1.43]", "2.60x [2.34, 2.86]", "3.90x [3.51, 4.29]"]
    assert texts(found["GLNN, MLP 2x128"]) == ["not measured"] * 3


@pytest.mark.parametrize(
    "changes", [{"config": {"hidden": 9}}, {"dataset": "pubmed"}, {"device": "NVIDIA H200"}, {"method": "glnn"}]
)
def test_what_differs_in_settings_data_or_device_joins_nothing(changes: dict[str, Any]) -> None:
    mlp = record()
    assert rows([mlp], [measured(mlp, 1.0, **changes)])["MLP 2x128"].cost is None


def test_a_measurement_that_failed_joins_nothing() -> None:
    mlp = record()
    failed = measured(mlp, 1.0, status="error", reason="no", inference=None, training=None)
    assert rows([mlp], [failed])["MLP 2x128"].cost is None


def test_another_revision_and_noise_are_marked() -> None:
    mlp = record()
    older = measured(mlp, 1.0, revisions={"mlp": 99}, flags=("noisy: other processes used 1.00 cores",))
    assert rows([mlp], [older])["MLP 2x128"].cost is not None
    assert texts(rows([mlp], [older])["MLP 2x128"])[0].endswith("(other revision, noisy)")


def test_an_ensemble_has_the_cost_of_all_its_models() -> None:
    peers = record("gml", "GML", peers=2, ensemble=True, mean=0.8)
    found = rows([peers], [measured(peers, 1.0, ensemble=answers(2.0))])
    assert texts(found["GML, mean of peers"])[0].startswith("1.00x")
    assert texts(found["GML, ensemble"])[0].startswith("2.00x")
    alone = rows([peers], [measured(peers, 1.0)])
    assert texts(alone["GML, ensemble"])[0] == "–"


def test_columns_show_where_a_row_was_measured() -> None:
    mlp, other = record(), record("glnn", "GLNN, MLP 2x128", mean=0.7)
    board = build([mlp, other], measurements=[measured(mlp, 1.3)])
    assert {"inference", "latency", "epoch"} <= {cell.key for cell in filled(board.tables[0].entries)}
    text = to_text(board, width=300)
    assert "1.30x [1.17, 1.43]" in text and "not measured" in text
    assert "Latency" not in to_text(build([mlp, other]), width=300)


def test_seconds_to_the_selected_epoch_are_setup_and_epochs() -> None:
    mlp = record()
    cost = CostIndex([measured(mlp, 1.0)]).of(mlp, ensemble=False)
    assert cost is not None
    assert cost.seconds_to_selected == pytest.approx(1.0 + 3 * 0.003)  # epoch 3 was selected in every run
    untimed = measured(mlp, 1.0, training=TrainingCost(epoch=None, items=1, setup_s=1.0))
    found = CostIndex([untimed]).of(mlp, ensemble=False)
    assert found is not None and found.seconds_to_selected is None


def test_the_csv_has_ratios_and_absolute_times_under_the_name_of_the_device() -> None:
    mlp, other = record(), record("glnn", "GLNN, MLP 2x128", mean=0.7)
    lines = {
        line["label"]: line
        for line in csv.DictReader(io.StringIO(to_csv(build([mlp, other], measurements=[measured(mlp, 1.3)]))))
    }
    assert lines["MLP 2x128"]["device"] == "cpu"
    assert float(lines["MLP 2x128"]["inference_ratio"]) == 1.3
    assert float(lines["MLP 2x128"]["items_per_s"]) == pytest.approx(2000 / 0.0013)
    assert lines["GLNN, MLP 2x128"]["inference_ratio"] == ""


def test_dominated_points_are_marked_and_the_page_draws_them() -> None:
    cheap, good, bad = record(mean=0.6), record("glnn", "GLNN", mean=0.7), record("kd", "KD", mean=0.65)
    costs = [measured(cheap, 1.0), measured(good, 2.0), measured(bad, 3.0)]
    board = build([cheap, good, bad], measurements=costs)
    points = pareto_points(board.tables[0], "latency")
    assert [(point.label, point.dominated) for point in points] == [("MLP 2x128", False), ("GLNN", False), ("KD", True)]
    assert [point.cost for point in points] == [2.0, 4.0, 6.0]
    assert "polyline" in str(pareto_plot(board.tables[0], "training"))
    assert to_html(board).count("score against latency") >= 1
    assert pareto_plot(build([cheap], measurements=costs).tables[0], "latency") is None
    assert "<svg" not in str(pareto_plot(build([cheap, good]).tables[0], "latency"))


def test_pictures_are_written_to_a_folder(tmp_path: Path) -> None:
    cheap, good = record(mean=0.6), record("glnn", "GLNN", mean=0.7)
    write_pareto(tmp_path / "pictures", build([cheap, good], measurements=[measured(cheap, 1.0), measured(good, 2.0)]))
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"pareto-cora-planetoid-public-tran-{kind}.svg" for kind in ("latency", "training")]
    with pytest.raises(UserError, match="expected tables with two measured rows"):
        write_pareto(tmp_path, build([cheap, good]))


def test_equal_points_do_not_dominate_each_other() -> None:
    one, two = record(mean=0.7), record("glnn", "GLNN", mean=0.7)
    table = build([one, two], measurements=[measured(one, 1.0), measured(two, 1.0)]).tables[0]
    assert [point.dominated for point in pareto_points(table, "inference")] == [False, False]
