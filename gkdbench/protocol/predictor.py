"""Predictor: a module and what it needs at inference. One object for the Monitor, for Fitted and for the clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.protocol.inputs import Inputs
from gkdbench.records.schema import Needs


@dataclass(eq=False)
class Predictor:
    """Maps node ids to logits.

    Args:
        module: called as ``module(features, graph, segments)``, gives logits [N, C] (graph tasks: [G, C]). `graph` is
            None unless `needs` is ``"graph"``. One with an ``edge_width`` above 0 is also called with the edge
            features.
        needs: what must be available at inference: the node's own features, features and an encoding computed
            beforehand, or the features of its L-hop neighbourhood.
        hops: L, when ``needs == "graph"``.
        prepare: turns raw inputs into what the module reads (propagation, encodings), from the graph it is
            given alone; where `needs` is ``"features"`` that graph has no edges. Run once per Inputs, and part of the
            latency.
        macs: multiply-adds of one prediction of all items of the given inputs, or None when not counted.
    """

    module: nn.Module
    needs: Needs = "features"
    hops: int | None = None
    prepare: Callable[[Inputs], Inputs] | None = None
    macs: Callable[[Inputs], int] | None = None
    _prepared: dict[str, Inputs] = field(default_factory=dict, init=False, repr=False)

    def prepared(self, inputs: Inputs) -> Inputs:
        """`inputs` as the module reads them; computed once per space."""
        if self.prepare is None:
            return inputs
        if inputs.space.name not in self._prepared:
            self._prepared[inputs.space.name] = self.prepare(
                inputs.without_edges() if self.needs == "features" else inputs
            )
        return self._prepared[inputs.space.name]

    def forget(self, inputs: Inputs) -> None:
        """Drop what was prepared for `inputs`, so that it is computed again when it is asked for."""
        self._prepared.pop(inputs.space.name, None)

    def arguments(self, ready: Inputs) -> tuple[Any, ...]:
        """What the module is called with on `ready`, its prepared inputs: no graph unless it declares to need one."""
        return ready.arguments(self.module) if self.needs == "graph" else (ready.features, None, ready.segments)

    def __call__(self, inputs: Inputs, items: NodeSet | None = None) -> Tensor:
        """Logits [M, C] of `items` (default: all), in the module's current mode."""
        ready = self.prepared(inputs)
        if items is not None and items.space.name != inputs.items.name:
            items = items.within(inputs.items)
        if items is not None and self.needs != "graph" and ready.segments is None:
            logits: Tensor = self.module(ready.rows(items), None, None)
            return logits
        logits = self.module(*self.arguments(ready))
        return logits if items is None else logits[items.position]

    @torch.no_grad()
    def evaluate(self, inputs: Inputs, items: NodeSet | None = None) -> Tensor:
        """Logits in evaluation mode, without gradient; the module's mode is put back."""
        training = self.module.training
        switched = _any_in_training(self.module)  # setting the mode costs more than looking
        if switched:
            self.module.eval()
        try:
            return self(inputs, items)
        finally:
            if switched:
                self.module.train(training)

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.module.parameters())


def _any_in_training(module: nn.Module) -> bool:
    """Whether a part is in training mode. A plain loop: ``modules()`` takes a tenth of a small model's answer."""
    parts: list[nn.Module | None] = [module]
    while parts:
        part = parts.pop()
        if part is not None:
            if part.training:
                return True
            if part._modules:
                parts.extend(part._modules.values())
    return False


def mean_logits(probability: Tensor, *, multi_label: bool) -> Tensor:
    """[N, C] logits of a mean probability; saturated models have exact zeros and ones, whose logits are infinite."""
    return probability.logit(1e-7) if multi_label else probability.clamp_min(1e-37).log()


State = dict[str, Tensor]


def state_of(module: nn.Module) -> State:
    """A copy of parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def state_bytes(state: State) -> bytes:
    """The state as raw bytes, in the order of its names (layout: see state_from_bytes)."""
    return b"".join(state[name].cpu().contiguous().numpy().tobytes() for name in sorted(state))


def state_from_bytes(data: bytes, like: State) -> State:
    """The inverse of state_bytes for a state of the same shapes."""
    found: State = {}
    at = 0
    for name in sorted(like):
        size = like[name].numel() * like[name].element_size()
        flat = torch.frombuffer(bytearray(data[at : at + size]), dtype=like[name].dtype) if size else like[name].cpu()
        found[name] = flat.reshape(like[name].shape)
        at += size
    return found


def state_sha256(state: State) -> str:
    """sha256 over names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
