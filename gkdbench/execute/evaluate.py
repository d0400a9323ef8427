"""Scores of a user's own model, under the protocol's splits and metrics, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gkdbench.data.splits import SplitTask, prepare, prepare_named
from gkdbench.errors import UserError
from gkdbench.metrics import METRICS
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.scoring import selected_scores, truth_of

if TYPE_CHECKING:
    from gkdbench.data.task import Task

AnyModel = nn.Module | Predictor | Callable[..., Tensor]


def evaluate(
    model: AnyModel, task: str | Task, split: str, index: int = 0, *, data: str | Path | None = None
) -> dict[str, float]:
    """Score `model` on the validation items and every reported setting of a split.

    For models that were trained outside gkdbench: nothing is selected, nothing is stored, and the labels are in this
    process, so the result is as honest as the caller. Published rows come from `run_suite`.

    Args:
        model: called as ``model(features, graph, segments)``; gives logits [N, C] for node tasks, [G, C] for graph
            tasks (`segments`: [G + 1] borders, else None). Modules are put into evaluation mode for the call.
        task: a data set's name, or a Task.
        split, index: split id and index.

    Returns:
        column (``"val"``, ``"tran"``, ``"ind"``, ``"prod"``, ``"coldstart"``, ``"graph"``) -> score in [0, 1].

    Raises:
        UserError: unknown names; logits of another shape, or not finite.
    """
    split_task = prepare_named(task, split, index, data=data) if isinstance(task, str) else prepare(task, split, index)
    evaluation_graphs = make_evaluation_graphs(split_task)
    wanted = [("val", evaluation_graphs.val_graph, evaluation_graphs.val)] + [
        (w.column, w.graph_name, w.items) for w in evaluation_graphs.scored_sets
    ]
    logits = {
        graph_name: _logits(model, evaluation_graphs.graphs[graph_name], split_task)
        for graph_name in {graph_name for _, graph_name, _ in wanted}
    }
    metric = METRICS.get(split_task.task.metric)
    arrays = {
        f"model/{column}/selected": metric.from_logits(logits[graph_name][items.position].numpy())
        for column, graph_name, items in wanted
    }
    scores = selected_scores(split_task, arrays, "model", truth_of(split_task, evaluation_graphs))
    return {column: score.value for column, score in scores.items()}


@torch.no_grad()
def _logits(model: Any, inputs: Inputs, split_task: SplitTask) -> Tensor:
    if isinstance(model, Predictor):
        logits = model.evaluate(inputs)
    else:
        training = model.training if isinstance(model, nn.Module) else None
        try:
            if training:
                model.eval()
            logits = model(*inputs.arguments(model))
        finally:
            if training:
                model.train()
    shape = (len(inputs.items), split_task.task.num_classes)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != shape:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the model: expected logits {list(shape)}, got {got}")
    if not bool(torch.isfinite(logits).all()):
        raise UserError("the model: expected finite logits, got some that are not finite; there is nothing to score")
    return logits.float().cpu()
