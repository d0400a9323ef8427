"""Data sets as the benches of operators and training steps take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError

if TYPE_CHECKING:
    from gkdkernels import CSRGraph

    from gkdbench.measure.training_steps.gnn_steps import StepData
    from gkdbench.measure.training_steps.mutual_step import GraphData


def data_sets(folder: str | None) -> tuple[str, ...]:
    """Those whose files are available."""
    from gkdbench.data.datasets import available
    from gkdbench.measure.operators.graphs import DATA_SETS

    return tuple(name for name in DATA_SETS if available(name, data=folder))


def loader(folder: str | None) -> Any:
    def load(name: str) -> CSRGraph:
        from gkdbench.data.datasets import load_task

        return load_task(name, data=folder).graph

    return load


def step_data(name: str, folder: str | None) -> StepData:
    from gkdbench.data.datasets import load_task
    from gkdbench.data.preprocess import with_self_loops
    from gkdbench.measure.training_steps.gnn_steps import StepData

    task = load_task(name, data=folder)
    return StepData(name, with_self_loops(task.graph), task.features, task.labels, task.num_classes)


def graph_data(name: str, folder: str | None) -> GraphData:
    import torch

    from gkdbench.data.datasets import load_task
    from gkdbench.data.nodes import Space
    from gkdbench.measure.training_steps.mutual_step import GraphData
    from gkdbench.protocol.inputs import Inputs

    task = load_task(name, data=folder)
    if task.graph_ptr is None:
        raise UserError(f"--data: expected a set of graphs, got {name}, which is one graph")
    segments, labels = task.graph_ptr.long(), task.labels.long().flatten()
    nodes, graphs = (Space(name, torch.arange(n)) for n in (task.num_nodes, labels.numel()))
    inputs = Inputs(nodes, graphs, task.graph, task.features, segments)
    return GraphData(name, inputs, labels, int(labels.max()) + 1)
