"""``python suites/studies/dear_rows.py [NAME ...]``: processor time of the dearest rows, printed, with their hash.

Each is trained in this process for a few reports, its teachers for three epochs, and extrapolated to the epochs that a
row of it had. The hash is over the selected weights: two versions of the code can be compared in time and to the bit.
Give both versions turns on a machine that does other work, and compare user time.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gkdbench.execute.profiling import planned_cell, short_runs
from gkdbench.measure.profiles.epochs import EndedSoon
from gkdbench.protocol.predictor import state_sha256

CPF = "cpf-lcc-20-30"
PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm")} | {"mkldnn::_linear_pointwise"}
SPARSE = {"aten::_embedding_bag", "aten::_embedding_bag_forward_only"}


@dataclass(frozen=True)
class Dear:
    """A row.

    Args:
        epochs: that its runs take. reports: selectable ones that are measured.
        rest: what the time that is no matrix product is, in a line.
    """

    method: str
    dataset: str
    split: str
    epochs: int
    reports: int
    rest: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_RBM = {"experts": 7, "gate": True, "hidden": 256, "k": 2, "layers": 2}
ROWS = {
    "vqgraph_teacher": Dear("vqgraph_teacher", "cora", CPF, 100, 4, "rows of sampled pairs of nodes"),
    "vqgraph": Dear("vqgraph", "cora", CPF, 100, 4, "softmax over 5,000 codes"),
    "gat": Dear("teacher", "pubmed", "planetoid-public", 587, 5, "attention, head by head, and dropout masks",
                {"recipe": "velickovic2018_gat"}),
    "moe": Dear("moe", "pubmed", CPF, 125, 4, "gradient of the experts' weights in a row, one product an entry",
                {"model": {"experts": 8, "k": 3, "hidden": 256, "layers": 2}}),
    "gml": Dear("gml", "ogbg-molbbbp", "ogb-graph", 100, 4, "small steps: batch norm, autograd, the optimiser",
                {"peers": ["gin", "gcn"]}),
    "rbm": Dear("rbm", "pubmed", CPF, 105, 4, "clustering before routing, rows of mini-batches and their transposes",
                {"model": _RBM}),
    "mlp_params": Dear("mlp_params", "pubmed", CPF, 70, 3, "bias, ReLU and dropout of wide hidden layers",
                       {"match": "rbm", "match_model": _RBM, "batch_size": 4096}),
    "nosmog": Dear("nosmog", "cora", CPF, 122, 6, "DeepWalk once, drawing and clipping perturbations"),
    "krd": Dear("krd", "pubmed", CPF, 128, 3, "ReLU and dropout of hidden layers"),
    "alignahead": Dear("alignahead", "amazon-photo", CPF, 150, 3, "attention and structures, edge by edge"),
}  # fmt: skip


class _Watched:
    """Notes the user time and the epoch of each report."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self.ends: list[tuple[int, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._monitor, name)

    def report(self, epoch: int, *args: Any, **more: Any) -> Any:
        """As the Monitor's."""
        result = self._monitor.report(epoch, *args, **more)
        self.ends.append((epoch, user_s()))
        return result


def user_s() -> float:
    """User time of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measure(name: str, row: Dear) -> str:
    """One line on a row."""
    cell = planned_cell(row.method, row.settings, dataset=row.dataset, split=row.split, device="cpu")
    with short_runs(cell, data=None, device="cpu", threads=1) as runs:
        context = runs.context(cell)
        watch: Any = _Watched(context.monitor)
        began = user_s()
        method = EndedSoon(cell.group.method, row.reports)
        fitted = method.fit(runs.given.view, replace(context, monitor=watch))
        weights = " ".join(state_sha256(context.monitor.selected(one)[1])[:10] for one in fitted.predictors)
    (first, start), (last, stop) = watch.ends[-row.reports], watch.ends[-1]  # of the stage that is deployed
    an_epoch = (stop - start) / max(last - first, 1)
    whole = start - began + an_epoch * (row.epochs - first)
    shares = ""
    if "--shares" in sys.argv[1:]:
        dense, sparse = shares_of(cell, row)
        shares = f"; matrix products {dense:.0%}, sparse ones {sparse:.0%}, the rest: {row.rest}"
    times = f"{whole:7.1f} s a run: {start - began:.2f} s first, {1e3 * an_epoch:.0f} ms an epoch"
    return f"{name:16} {times}; {weights}{shares}"


def shares_of(cell: Any, row: Dear) -> tuple[float, float]:
    """Shares of torch's own time that dense and sparse matrix products take, in another such training."""
    with short_runs(cell, data=None, device="cpu", threads=1) as runs:
        context = runs.context(cell)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            EndedSoon(cell.group.method, row.reports).fit(runs.given.view, context)
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    dense, sparse = (
        sum(event.self_cpu_time_total for event in events if event.key in names) / total for names in (PRODUCTS, SPARSE)
    )
    return dense, sparse


def main() -> None:
    """Print a line for each row that is named, or for all."""
    torch.set_num_threads(1)
    names = [word for word in sys.argv[1:] if not word.startswith("--")] or list(ROWS)
    for name in names:
        print(measure(name, ROWS[name]), flush=True)


if __name__ == "__main__":
    main()
