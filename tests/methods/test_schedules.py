"""Learning rates that change: halved by epochs, lowered where validation stands still; constant changes nothing."""

from typing import Any

import torch

from gkdbench.protocol.monitor import EpochResult
from gkdbench.testing.method_case import identical
from gkdbench.training.resolve import resolve
from gkdbench.training.schedules import schedule


def rates(kind: Any, improved: list[bool]) -> list[float]:
    """The rate after each epoch, starting from 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    after = schedule(kind, optimiser)
    found = []
    for epoch, better in enumerate(improved, start=1):
        if after is not None:
            after(epoch, EpochResult({"model": 0.5}, {"model": 1.0}, {"model": better}, False))
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_halved_every_fifty_epochs() -> None:
    found = rates("halved", [False] * 120)
    assert (found[48], found[49], found[98], found[99], found[119]) == (1.0, 0.5, 0.5, 0.25, 0.25)


def test_plateau_waits_thirty_epochs_after_the_last_improvement() -> None:
    found = rates("plateau", [True] * 5 + [False] * 20 + [True] + [False] * 62)
    last = 5 + 20  # index of the last improvement
    assert found[last + 30] == 1.0 and found[last + 31] == 0.6
    assert found[last + 61] == 0.6 and found[last + 62] == 0.6 * 0.6


def test_constant_has_nothing_to_call() -> None:
    assert schedule("constant", torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)) is None


def test_a_schedule_changes_weights_only_once_it_acts(bench: Any) -> None:
    options = {"backbone": "gin", "epochs": 3, "model": {"hidden": 8, "layers": 2}}
    constant = bench.final("teacher", "graph", **options)
    assert identical(bench.final("teacher", "graph", schedule="halved", **options), constant)
    assert "schedule" not in resolve("teacher", {}).config()  # keys of published rows stay what they were
    assert resolve("teacher", {"schedule": "plateau"}).config()["schedule"] == "plateau"


def test_graph_tasks_have_settings_of_their_own() -> None:
    on_graphs: Any = resolve("teacher", {"backbone": "gcn"}, dataset="mutag", split="tu-10fold")
    assert on_graphs.model["self_loops"] is True and on_graphs.batch_size == 32
    on_nodes: Any = resolve("teacher", {"backbone": "gcn"}, dataset="cora", split="planetoid-public")
    assert "readout" not in on_nodes.model and on_nodes.batch_size is None
