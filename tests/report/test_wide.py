"""Methods by columns: names without widths, n and spread said, nothing averaged that is incomplete."""

from __future__ import annotations

import pytest
from support.records_factory import TEN, record
from support.sample_board import sample_records

from gkdbench.errors import UserError
from gkdbench.report import build
from gkdbench.report.wide import WideSelection, wide_table

CORA = "cora/planetoid-public/tran"
COLUMNS = (CORA, "citeseer/planetoid-public/tran")


def lines(text: str) -> dict[str, list[str]]:
    """First cell -> the others."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_rows_of_data_sets_meet_by_what_stands_before_the_comma() -> None:
    small = record("rbm", "RbM, 2 of 4 experts", mean=0.80)
    large = record("rbm", "RbM, 3 of 8 experts", dataset="citeseer", data_sha256="c" * 64, mean=0.70)
    found = lines(wide_table(build([small, large]), WideSelection(COLUMNS)))
    assert list(found) == ["Row", "---", "RbM"] and found["Row"] == ["cora tran", "citeseer tran"]
    assert [cell.split(" ")[0] for cell in found["RbM"]] == ["80.00", "70.00"]


def test_the_line_below_says_n_once_or_each_cell_does() -> None:
    ten, four = record("mlp", "MLP"), record("glnn", "GLNN", runs=TEN[:4])
    same = wide_table(build([ten]), WideSelection((CORA,)))
    assert "n = 10 runs in every cell; mean ± standard deviation (ddof=1)." in same and "n=" not in same
    mixed = wide_table(build([ten, four]), WideSelection((CORA,)))
    assert "every cell" not in mixed and "(n=10)" in mixed and "(preview) (n=4)" in mixed


def test_a_method_that_did_not_run_is_a_dash_and_an_incomplete_row_has_no_mean() -> None:
    broken = record("rbm", "RbM", failed={(4, 4): "oom"})
    other = record("mlp", "MLP", dataset="citeseer", data_sha256="c" * 64)
    found = lines(wide_table(build([broken, other]), WideSelection(COLUMNS)))
    assert found["RbM"][1] == "–" and "incomplete, 9/10" in found["RbM"][0]


def test_the_row_of_a_method_stands_for_its_controls() -> None:
    rbm, frozen = record("rbm", "RbM, 4 experts", mean=0.8), record(
        "rbm", "RbM, 4 experts, random routing", config={"model": {"routing": "random"}}, mean=0.7
    )  # fmt: skip
    found = lines(wide_table(build([rbm, frozen]), WideSelection((CORA,))))
    assert found["RbM"][0].startswith("80.00")


def test_two_rows_of_one_name_are_refused() -> None:
    twins = [record("glnn", "GLNN, 2x128"), record("glnn", "GLNN, 2x256", config={"hidden": 256})]
    with pytest.raises(UserError, match=r"2 rows are called 'GLNN' .*2x128.*2x256.*keep fewer"):
        wide_table(build(twins), WideSelection((CORA,)))


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"no column 'cora/x/tran': expected dataset/split/setting, one of: .*cora/"):
        wide_table(build(sample_records()), WideSelection(("cora/x/tran",)))
    with pytest.raises(UserError, match="no row of the board fits"):
        wide_table(build([record()]), WideSelection((CORA,), methods=("rbm",)))
