"""What CoHOp reads of the graph: histograms of known labels around a node, and how far neighbours agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, spmm
from torch import Tensor

from gkdbench.data.nodes import NodeTable
from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks.encodings import beside, places
from gkdbench.training.blocks.pairs import without_loops
from gkdbench.training.losses import log_probabilities

Reach = Literal["hops", "walks"]
EPSILON = 1e-6
"""Added to a row's sum: a node with far labels only has a histogram near zero (CoHOp's official code)."""
SOURCES_AT_ONCE, FOLDS = 512, 10


class LabelHistogram:
    """Turns Inputs into Inputs whose features have a label histogram next to them (`Predictor.prepare`).

    Args:
        known: classes ([M] int64) on a space of the M labelled nodes alone, or several labels ([M, C], NaN where
            unknown), each of which counts where it is known to be there.
        num_classes: C, the number of columns that are added.
        reach: "hops": labels at distance d count ``decay^d`` (Winter et al. 2024, section 3.2); "walks": as many as
            walks lead to them, ``(I + decay P)^(depth - 2) decay P Y`` with P the mean over in-neighbours, over loops
            too where the graph has them (RbM's official code).
        depth: largest distance.
        own_label: a labelled node's own label counts in its histogram, as in the official code (docs/protocol.md, trap
            17). Otherwise no node's histogram depends on its own label: at distance 0 nothing counts, and walks, which
            come back, start without the labels of the node's fold (one of 10).
        key: draws the folds.
    """

    def __init__(
        self, known: NodeTable, num_classes: int, *, reach: Reach, decay: float, depth: int, own_label: bool, key: int
    ) -> None:
        self.known, self.num_classes = known, num_classes
        self._reach, self._decay, self._depth, self._own_label = reach, decay, depth, own_label
        order = torch.randperm(len(known.space), generator=torch.Generator().manual_seed(key))
        self._fold = (order % FOLDS).to(known.value.device)

    @property
    def dim(self) -> int:
        """Columns that are added."""
        return self.num_classes

    def __call__(self, inputs: Inputs) -> Inputs:
        """`inputs` with features [N, D + C]."""
        return replace(inputs, features=beside(inputs.features, self.of(inputs)))

    @torch.no_grad()
    def of(self, inputs: Inputs) -> Tensor:
        """[N, C] histograms of the nodes of `inputs`, from its graph and the known labels alone; rows sum to at
        most 1. Labelled nodes that are not among them count for nothing."""
        at = places(self.known.space, inputs.space)
        here = at >= 0
        at, value = at[here], self.known.value[here]
        label = value.nan_to_num(0.0) if value.dim() == 2 else F.one_hot(value, self.num_classes).float()
        if self._reach == "hops":
            return _normalised(self._hops(without_loops(inputs.graph), at, label))
        return _normalised(self._walks(inputs.graph, at, label, self._fold[here]))

    def _hops(self, graph: CSRGraph, at: Tensor, label: Tensor) -> Tensor:
        count = label.new_zeros(graph.num_dst, self.num_classes)
        for part in torch.split(torch.arange(at.numel(), device=at.device), SOURCES_AT_ONCE):
            front = label.new_zeros(graph.num_dst, part.numel())
            front[at[part], torch.arange(part.numel(), device=at.device)] = 1
            unseen = 1 - front
            if self._own_label:
                count += front @ label[part]
            for distance in range(1, self._depth + 1):
                front = (spmm(graph, front) > 0) * unseen
                unseen -= front
                count += self._decay**distance * (front @ label[part])
        return count

    def _walks(self, graph: CSRGraph, at: Tensor, label: Tensor, folds: Tensor) -> Tensor:
        def from_labels(kept: Tensor) -> Tensor:
            start = label.new_zeros(graph.num_dst, self.num_classes)
            start[at] = label * kept[:, None]
            total = self._decay * neighbour_mean(graph, start)
            for _ in range(self._depth - 2):
                total = total + self._decay * neighbour_mean(graph, total)
            return total

        count = from_labels(torch.ones_like(folds))
        if not self._own_label:
            for fold in range(FOLDS):
                members = folds == fold
                if members.any():
                    count[at[members]] = from_labels(~members)[at[members]]
        return count


def _normalised(count: Tensor) -> Tensor:
    return count / (count.sum(dim=1, keepdim=True) + EPSILON)


def neighbour_mean(graph: CSRGraph, x: Tensor) -> Tensor:
    """[num_dst, D] mean of ``x: [num_src, D]`` over the in-neighbours of each node; zeros for a node without any."""
    return spmm(graph, x) / graph.degree.clamp_min(1)[:, None]


def disagreement(logits: Tensor, graph: CSRGraph, *, multi_label: bool = False) -> Tensor:
    """``mean_i mean_{j -> i} -sum_c p_ic log p_jc`` with gradients into both ends; a node without in-edges adds 0.

    With several labels per item, the mean over labels of the Bernoulli cross-entropy.

    Args:
        logits: [num_src, C]; destinations are the first rows of the sources.
        graph: num_dst x num_src.
    """
    log_p = log_probabilities(logits, multi_label=multi_label)
    p = log_p[: graph.num_dst].exp()
    term = -(p * neighbour_mean(graph, log_p)).sum(dim=1).mean()
    return term / logits.size(1) if multi_label else term
