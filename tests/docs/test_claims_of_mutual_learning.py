"""The page of GML's claims against the suite that makes its rows: none is missing, none is ambiguous."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from gkdbench.execute.cell import plain
from gkdbench.execute.suite import load_suite
from gkdbench.records.schema import DataInfo, ModelResult, Record, Row, Score
from gkdbench.report.claimfile import ClaimPage
from gkdbench.report.tomlpage import read_page
from gkdbench.training.resolve import resolve

PAGE = Path(__file__).parents[2] / "docs" / "claims" / "gml.toml"
PEERED = ("dml", "gml")


def planned() -> Iterator[Record]:
    """A record of one run for every row that ``mutual@1`` plans."""
    for grid in load_suite("mutual@1").grids:
        for entry, dataset, split in product(grid.methods, grid.datasets, grid.splits):
            method = resolve(entry.method, entry.overrides, dataset=dataset, split=split)
            column = "tran" if split == "planetoid-public" else "graph"
            names = ["peer0", "peer1", "ensemble"] if entry.method in PEERED else ["model"]
            yield Record(
                key="",
                method=entry.method,
                label=method.label,
                variant="as_released" if method.as_released else "corrected",
                tier="tuned" if entry.search else "published",
                trials=entry.trials if entry.search else 0,
                revision=1,
                config=plain(method.config()),
                dataset=dataset,
                split=split,
                setting=column,  # type: ignore[arg-type]
                columns=[column],
                data=DataInfo(name=dataset, sha256="", preprocessing={}, nodes=1, edges=0, features=1, classes=2),
                device="cpu",
                threads=1,
                rows=[Row(index=0, seed=0, status="ok", command="", split_sha256="", models=models(names, column))],
            )


def models(names: list[str], column: str) -> list[ModelResult]:
    score = {column: Score(value=0.5, n=1)}
    facts = {"needs": "graph", "selected_epoch": 1, "val": 0.5, "scores": score, "audit": {}, "parameters": 1}
    return [ModelResult(name=name, macs=1, weights_sha256="", **facts) for name in names]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page() -> ClaimPage:
    return read_page(PAGE, ClaimPage)


def test_every_row_of_a_claim_is_exactly_one_row_of_the_suite(page: ClaimPage) -> None:
    records = list(planned())
    for claim in page.claim:
        for name, (dataset, split) in product((claim.candidate, *claim.against), claim.where):
            found = [page.row[name].find(records, dataset, split, setting) for setting in claim.settings]
            assert sum(entry is not None for entry in found) == 1, f"{claim.says}: {name} on {dataset}, {split}"
