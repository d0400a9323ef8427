"""``python suites/studies/cell_startup.py [DATASET ...]``: what a cell costs beside its training, printed.

Runs few and many cells of one view, an MLP of one epoch each, and takes the slope of processor time a cell: in the
cells (fork, confinement, reading the view, one epoch, all predictions) and in the run (folder, scoring, storing). What
the epoch and the predictions take in this process is no start-up, and is taken off. Beside it, what a template that
held a view's prepared tensors would save: reading it, its transposes and its weights.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import torch
from gkdkernels import SparseFeatures, gcn_weight

from gkdbench.data.splits import prepare_named
from gkdbench.execute.api import run_suite
from gkdbench.execute.inline_suite import default_split
from gkdbench.protocol.session import run_session
from gkdbench.protocol.view_io import read_bundle, write_bundle
from gkdbench.training.resolve import resolve

CELLS = (2, 4, 24)
"""The first run pays for imports and the cache of decoded data, and is not counted."""
OF_CELL_S = 2.0
"""A short cell, which start-up and hand-over are compared with."""


def processor_s(who: int = resource.RUSAGE_SELF) -> float:
    """Seconds that this process, or its ended children, have used."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def slopes(dataset: str) -> tuple[float, float]:
    """Processor seconds a cell (in the cells, in the run) on `dataset`."""
    used = []
    for count in CELLS:
        before = processor_s(resource.RUSAGE_CHILDREN), processor_s()
        with tempfile.TemporaryDirectory() as out:
            summary = run_suite(
                methods=[{"method": "mlp", "overrides": {"epochs": 1, "lr": 0.01 + n / 1e4}} for n in range(count)],
                dataset=dataset,
                split=default_split(dataset),
                seeds=[0],
                out=out,
                jobs=1,
                device="cpu",
            )
        assert not summary.failures, summary.failures[0][1].reason
        after = processor_s(resource.RUSAGE_CHILDREN), processor_s()
        used.append((after[0] - before[0], after[1] - before[1]))
    more = CELLS[2] - CELLS[1]
    return (used[2][0] - used[1][0]) / more, (used[2][1] - used[1][1]) / more


def in_this_process(dataset: str) -> tuple[float, float]:
    """Processor seconds of one epoch and all predictions of such a cell, and of what a template of its view would save:
    to read the view, and to prepare what kernels keep of it."""
    with tempfile.TemporaryDirectory() as name:
        view = Path(name) / "view"
        write_bundle(prepare_named(dataset, default_split(dataset), 0), view)
        trained = []
        for attempt in range(2):  # the first pays for what every process computes once
            scratch = Path(name) / f"scratch{attempt}"
            scratch.mkdir()
            before = processor_s()
            outcome = run_session(resolve("mlp", {"epochs": 1}), bundle=view, scratch=scratch, seed=0, teachers={})
            assert outcome.status == "ok", outcome.reason
            trained.append(processor_s() - before)
        before = processor_s()
        inputs = read_bundle(view).view.inputs
        read = processor_s() - before
        inputs.graph.prepare()
        gcn_weight(inputs.graph)
        if isinstance(inputs.features, SparseFeatures):
            _ = inputs.features.transposed
        return trained[1] - read, processor_s() - before


def main() -> None:
    """Print one line a data set."""
    torch.set_num_threads(1)
    for dataset in sys.argv[1:] or ["digits-knn"]:
        cell, run = slopes(dataset)
        trained, template = in_this_process(dataset)
        print(
            f"{dataset}: {1e3 * cell:.0f} ms a cell in its process, {1e3 * run:.0f} ms in the run; less one epoch and "
            f"all predictions ({1e3 * trained:.0f} ms): {max(cell + run - trained, 0) / OF_CELL_S:.1%} of a cell of "
            f"{OF_CELL_S:g} s; a template of the view would save {1e3 * template:.1f} ms: {template / OF_CELL_S:.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
