"""Methods that read DeepWalk encodings next to the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gkdbench.data.nodes import NodeTable
from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks.deepwalk import DeepWalk, deepwalk
from gkdbench.training.blocks.encodings import EncodingTable
from gkdbench.training.method import Method
from gkdbench.training.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class EncodedMethod(Method):
    """A method that reads DeepWalk encodings.

    Fields:
        walk_length, num_walks: nodes of a walk, walks per node. window: of the skip-gram.
        iterations: passes over the walks. dim: length of an encoding.
    """

    walk_length: Annotated[int, Field(ge=2)] = 50
    num_walks: PositiveInt = 5
    window: PositiveInt = 5
    iterations: PositiveInt = 1
    dim: PositiveInt = 64

    def encoder(
        self,
        inputs: Inputs,
        seed: int,
        *,
        softmax: Literal["negative", "hierarchical"] = "negative",
        zeros_included: bool = False,
    ) -> EncodingTable:
        """The Encoder of the observed graph `inputs` (a ``TrainView``'s) for the run's `seed`."""
        settings = DeepWalk(
            walk_length=self.walk_length,
            num_walks=self.num_walks,
            window=self.window,
            iterations=self.iterations,
            dim=self.dim,
            softmax=softmax,
        )
        value = deepwalk(inputs.graph, settings, seed).to(inputs.graph.device)
        return EncodingTable(NodeTable(inputs.space, value), zeros_included=zeros_included)
