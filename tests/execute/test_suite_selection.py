"""A suite may set another rule of selection for a study; published ones may not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gkdbench.errors import UserError
from gkdbench.execute.suite import parse_suite
from gkdbench.records.schema import SELECTION

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.toml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_published_suite_leaves_the_rule_to_the_protocol(path: Path) -> None:
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    assert "selection" not in document["suite"]
    assert parse_suite(document).selection == SELECTION


def test_a_study_names_its_rule_and_an_unknown_one_is_refused() -> None:
    grid = {"datasets": ["cora"], "splits": ["planetoid-public"], "methods": [{"method": "mlp"}]}
    head = {"name": "study", "seeds": "0:1"}
    study = parse_suite({"suite": head | {"selection": "later, start 20"}, "grid": [grid]})
    assert study.selection == "later, start 20"
    with pytest.raises(UserError, match="expected loss, later or first"):
        parse_suite({"suite": head | {"selection": "last"}, "grid": [grid]})
