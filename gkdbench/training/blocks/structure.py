"""Local structure as methods use it: the settings of its kernel, and its diagnostics after a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from gkdkernels import CSRGraph, edge_log_probs, gcn_weight, spmm
from gkdkernels.graph import tensor_rows
from torch import Tensor

from gkdbench.nn.model import Model
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import Context
from gkdbench.training.method import Method
from gkdbench.training.types import PositiveFloat

Kernel = Literal["laplace-exp", "laplace", "rbf", "rbf-exp", "l2", "cosine", "poly"]
RELEASED_KERNEL: Kernel = "laplace-exp"
RELEASED_SIGMA = 100.0


@dataclass(frozen=True, kw_only=True)
class StructureMethod(Method):
    """A method that compares local structures (`gkdkernels.structure_kl`).

    Fields:
        kernel: how alike two neighbours are. sigma: its width, or "auto", the mean distance over the edges of the
            current layer, taken as a constant. ``as_released`` has laplace-exp with 100.
    """

    kernel: Kernel = "laplace"
    sigma: PositiveFloat | Literal["auto"] = "auto"

    def structure(self) -> tuple[Kernel, float | Literal["auto"]]:
        """Kernel and sigma in force."""
        if self.as_released:
            return RELEASED_KERNEL, RELEASED_SIGMA
        return self.kernel, self.sigma


def ranking_agreement(graph: CSRGraph, first: Tensor, second: Tensor) -> float:
    """Mean over nodes of Spearman's rho of how two log-probabilities rank the in-neighbours, loops left out.

    Ties share their mean rank. A node with fewer than two neighbours, or to which one side gives equal values
    throughout, does not count; 0 when none does.

    Args:
        graph: N nodes, E edges. first, second: [E], as `gkdkernels.structure_kl.edge_log_probs` gives them.
    """
    return agreement_of_ranks(graph, neighbour_ranks(graph, first), neighbour_ranks(graph, second))


def neighbour_ranks(graph: CSRGraph, value: Tensor) -> Tensor:
    """[E'] float64 per edge that is no loop: the rank of its value [E] among its row's, less the row's mean rank."""
    keep = graph.index != graph.row
    return _centred_ranks(graph.row[keep].long(), value[keep], graph.num_dst)


def agreement_of_ranks(graph: CSRGraph, one: Tensor, two: Tensor) -> float:
    """`ranking_agreement` of two sides whose `neighbour_ranks` are known."""
    row = graph.row[graph.index != graph.row].long()
    nothing = one.new_zeros(graph.num_dst)
    product, *squares = (nothing.index_add(0, row, part) for part in (one * two, one * one, two * two))
    scale = (squares[0] * squares[1]).sqrt()
    counted = scale > 0
    return float((product[counted] / scale[counted]).mean()) if bool(counted.any()) else 0.0


def _centred_ranks(row: Tensor, value: Tensor, nodes: int) -> Tensor:
    """[E] float64 rank of each value among those of its row, less the row's mean rank."""
    order = torch.argsort(value, stable=True)
    order = tensor_rows(order, torch.argsort(tensor_rows(row, order), stable=True))
    of_row, ordered = tensor_rows(row, order), tensor_rows(value, order)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = (of_row[1:] != of_row[:-1]) | (ordered[1:] != ordered[:-1])
    run = new.cumsum(0) - 1
    place = torch.arange(order.numel(), dtype=torch.float64, device=value.device)
    count = torch.bincount(run).double()
    shared = torch.zeros_like(count).index_add(0, run, place) / count
    rank = torch.empty_like(place)
    rank[order] = shared[run]
    size = torch.bincount(row, minlength=nodes).clamp_min(1).double()
    mean = torch.zeros(nodes, dtype=torch.float64, device=value.device).index_add(0, row, rank) / size
    return rank - mean[row]


def dirichlet_energy(graph: CSRGraph, hidden: Tensor) -> float:
    """``<H, (I - A_hat) H> / |H|^2`` with A_hat as in GCN: 0 where a layer is over-smoothed (Cai and Wang 2020).

    Args:
        hidden: [N, H].
    """
    hidden = hidden.detach()
    norm = float(hidden.square().sum())
    smooth = float((hidden * spmm(graph, hidden, gcn_weight(graph, hidden.dtype))).sum())
    return 1 - smooth / norm if norm else 0.0


@torch.no_grad()
def log_layers(
    ctx: Context,
    inputs: Inputs,
    models: Sequence[Model],
    kernel: Kernel,
    sigma: float | Literal["auto"],
    *,
    when: Literal["before", "after"],
) -> None:
    """Into ``ctx.extra``, per hidden layer: ``dirichlet.layer1.after``, the mean Dirichlet energy of `models` in
    evaluation mode; and with several ``agreement.layer1.after``, how alike they rank neighbours, a mean over pairs.

    Args:
        when: in training; the end of the names.
    """
    traces = []
    for model in models:
        training = model.training
        traces.append(model.eval().trace(*inputs.arguments(model)))
        model.train(training)
    for layer, features in enumerate(zip(*(trace.hidden for trace in traces), strict=True), start=1):
        energies = [dirichlet_energy(inputs.graph, h) for h in features]
        ctx.extra[f"dirichlet.layer{layer}.{when}"] = sum(energies) / len(energies)
        maps = [edge_log_probs(inputs.graph, h, kernel, sigma) for h in features] if len(models) > 1 else []
        ranks = [neighbour_ranks(inputs.graph, one) for one in maps]
        pairs = [agreement_of_ranks(inputs.graph, a, b) for a, b in combinations(ranks, 2)]
        if pairs:
            ctx.extra[f"agreement.layer{layer}.{when}"] = sum(pairs) / len(pairs)
