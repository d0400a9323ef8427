"""Positional encodings as additional features: of the observed graph; unseen nodes take them from their neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from gkdkernels import Features, MixedFeatures, SparseFeatures, spmm
from torch import Tensor

from gkdbench.data.nodes import NodeTable, Space
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor


class InputEncoder(Protocol):
    """Appends encodings to features; `dim` columns of them."""

    @property
    def dim(self) -> int: ...

    def __call__(self, inputs: Inputs) -> Inputs: ...


class EncodingTable:
    """Turns Inputs into Inputs whose features have an encoding next to them (`Predictor.prepare`).

    A node of the observed graph keeps its encoding in every evaluation graph. Any other gets the mean over its observed
    in-neighbours in that graph, zeros if it has none (NOSMOG, section 3.1).

    Args:
        observed: encodings [N, dim] of the observed nodes.
        zeros_included: unseen in-neighbours and the own loop count in the mean, as zeros (RbM's official code).
    """

    def __init__(self, observed: NodeTable, *, zeros_included: bool = False) -> None:
        self.observed, self.zeros_included = observed, zeros_included

    @property
    def dim(self) -> int:
        """Columns that are added."""
        return int(self.observed.value.size(1))

    def __call__(self, inputs: Inputs) -> Inputs:
        """`inputs` with features [N, D + dim]."""
        return replace(inputs, features=beside(inputs.features, self.encode(inputs)))

    def encode(self, inputs: Inputs) -> Tensor:
        """[N, dim] encodings of the nodes of `inputs`, from its graph and the observed encodings alone."""
        if inputs.space.name == self.observed.space.name:
            return self.observed.value
        at = places(inputs.space, self.observed.space)
        known = at >= 0
        value = self.observed.value[at.clamp_min(0)] * known[:, None]
        weight = known.to(value.dtype)[:, None]
        count = inputs.graph.degree[:, None] if self.zeros_included else spmm(inputs.graph, weight)
        mean = spmm(inputs.graph, value) / count.clamp_min(1)
        return torch.where(known[:, None], value, mean)


def places(of: Space, within: Space) -> Tensor:
    """[N] int64: position of each node of `of` in `within`, -1 if it is not in it."""
    if len(within) == 0:
        return torch.full_like(of.ids, -1)
    ids, order = within.ids.sort()
    at = torch.searchsorted(ids, of.ids).clamp_(max=len(within) - 1)
    return torch.where(ids[at] == of.ids, order[at], -1)


def beside(features: Features, columns: Tensor) -> Features:
    """``[features | columns]`` [N, D + dim]; what is sparse stays sparse."""
    if isinstance(features, Tensor):
        return torch.cat([features, columns], dim=1)
    if isinstance(features, SparseFeatures):
        return MixedFeatures(features, columns)
    return MixedFeatures(features.sparse, torch.cat([features.dense, columns], dim=1))


def encoded(predictor: Predictor, *encoders: InputEncoder) -> Predictor:
    """`predictor`, of a model on features alone, fed with the encodings of all `encoders` too, from left to right."""
    count = predictor.macs

    def prepare(inputs: Inputs) -> Inputs:
        for encoder in encoders:
            inputs = encoder(inputs)
        return inputs

    macs = None if count is None else lambda inputs: count(prepare(inputs))
    return replace(predictor, needs="features+encodings", prepare=prepare, macs=macs)
