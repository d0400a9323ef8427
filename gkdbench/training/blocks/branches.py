"""Several last layers on one trunk, and the models that answer by some of them."""

from __future__ import annotations

from dataclasses import replace

from gkdkernels import CSRGraph, Features
from torch import Tensor, nn

from gkdbench.nn.model import Model, Trace


class Branch(Model):
    """The first of the branches of `wide`, C classes."""

    def __init__(self, wide: Model, classes: int) -> None:
        super().__init__(wide.randomness)
        self.wide, self.classes, self.edge_width = wide, classes, wide.edge_width

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        return self.trace(x, graph)

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        whole = self.wide.trace(x, graph, segments, edges)
        return replace(whole, logits=self.answer(whole, segments))

    def answer(self, whole: Trace, segments: Tensor | None) -> Tensor:
        """Logits [N, C] from those of all branches."""
        return whole.logits[:, : self.classes]

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return self.wide.first_layer_parameters()
