"""Records that a suite will have, one run each, made from its plan alone: no data are read and nothing is trained."""

from __future__ import annotations

from gkdbench.data.datasets import dataset_info
from gkdbench.execute.cell import Group
from gkdbench.execute.grid import GroupMaker, check_pair
from gkdbench.execute.suite import load_suite
from gkdbench.execute.tuning import tuned
from gkdbench.records.key import TRIAL, TUNING_SEEDS
from gkdbench.records.schema import DataInfo, ModelResult, Record, Row, Score


class _Unseen(GroupMaker):
    """Makes groups as a plan does, for data sets of which only the catalogue is read."""

    def look(self, dataset: str, split: str) -> tuple[DataInfo, str, bool]:
        info = dataset_info(dataset)
        facts = DataInfo(name=info.name, sha256="", preprocessing={}, nodes=1, edges=0, features=1, classes=2)
        return facts, info.kind, info.multi_label


def planned_records(suite: str) -> list[Record]:
    """A record of one run for every group that the entries of `suite` ask for; trials of tuned entries too."""
    asked = load_suite(suite)
    maker = _Unseen(asked, None, "cpu", 1)
    found: dict[str, Record] = {}
    for grid in asked.grids:
        for dataset in grid.datasets:
            for split in grid.splits:
                check_pair(dataset, split)
                for entry in grid.methods:
                    if dataset not in (entry.datasets or [dataset]) or split not in (entry.splits or [split]):
                        continue
                    methods = maker.resolved(entry, dataset, split)
                    how = tuned(entry.search, entry.trials, TUNING_SEEDS) if entry.search else None
                    groups = [maker.group(methods[0], dataset, split, how, grid.sweeps)]
                    groups += [maker.group(method, dataset, split, TRIAL) for method in methods if entry.search]
                    found |= {group.key: group.record(_row(group)) for group in groups}
    return list(found.values())


def _row(group: Group) -> Row:
    scores = {column: Score(value=0.5, n=1) for column in group.columns}
    facts = {"needs": "graph", "selected_epoch": 1, "val": 0.5, "scores": scores, "audit": {}, "parameters": 1}
    models = [ModelResult(name=name, macs=1, weights_sha256="", **facts) for name in _models(group)]  # type: ignore[arg-type]
    return Row(index=0, seed=0, status="ok", command="", split_sha256="", models=models)


def _models(group: Group) -> list[str]:
    """Names of the models of a run: several of peers, and of an ensemble that keeps its members."""
    config, method = group.identity.config, group.method.name
    peers = (
        method in ("dml", "gml") or config.get("students", 1) > 1 or (method == "ensemble" and config["keep"] == "all")
    )
    return ["peer0", "peer1", "ensemble"] if peers else ["model"]
