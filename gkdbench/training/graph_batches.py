"""Batches of whole graphs, for node tasks on several graphs such as PPI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.model import Model
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import TrainView
from gkdbench.training.steps import batches


@dataclass(frozen=True, eq=False, slots=True)
class GraphBatch:
    """Some of the graphs that training sees, as one block-diagonal graph.

    Args:
        inputs: their nodes under numbers of their own.
        nodes: [M] int64, the position of each in the view's items.
        rows: [L] int64, which of the M nodes are labelled.
        labels: [L] int64 or [L, C] float32, of these.
    """

    inputs: Inputs
    nodes: Tensor
    rows: Tensor
    labels: Tensor


def graph_batches(view: TrainView, model: Model, size: int) -> Iterator[GraphBatch]:
    """All graphs of `view` in random order, `size` a batch (the last one may be smaller).

    Raises:
        UserError: `view` is no node task on several graphs.
    """
    if view.inputs.parts is None:
        raise UserError(
            f"graphs_per_step: expected None, got {size}: {view.dataset} is not a node task on several graphs; leave "
            "it out, or use batch_size"
        )
    place = torch.full((len(view.items),), -1, dtype=torch.int64, device=view.device)
    place[view.train.position] = torch.arange(len(view.train), device=view.device)
    for graphs in batches(model, view.inputs.num_parts, size):
        inputs, nodes = view.inputs.take_parts(graphs.to(view.device))
        rows = (place[nodes] >= 0).nonzero().flatten()
        if rows.numel():
            yield GraphBatch(inputs, nodes, rows, view.labels[place[nodes[rows]]])
