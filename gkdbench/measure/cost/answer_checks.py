"""Checks that an answer was computed from the inputs of the call: each catches one way of looking fast."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.protocol.inputs import Inputs

Answer = Callable[[Inputs], Tensor]
"""All items of the inputs -> logits [M, C]."""
WAIT_S = 0.05


class Cheat(RuntimeError):
    """A model's answers do not come from the inputs of the call."""


def check_answers(answer: Answer, inputs: Inputs, changed: Inputs, *, prepared: bool) -> None:
    """Refuse answers that are kept, late, or bought by changing the inputs.

    Args:
        answer: evaluates the model on inputs; state that it keeps between calls is its own.
        inputs: what it was timed on.
        changed: the same items under the same names with other features, see `with_other_features`.
        prepared: whether the model reads something prepared beforehand, by name of the inputs: then it may keep that,
            and answers on `changed` are not compared.

    Raises:
        Cheat: says which check failed.
    """
    before = _fingerprint(inputs)
    first = answer(inputs)
    at_once = first.clone()
    time.sleep(WAIT_S)
    if not torch.equal(first, at_once):
        raise Cheat("the answer changed after it was returned: expected the work to be done when the call returns")
    constant = torch.equal(at_once, at_once[:1].expand_as(at_once))  # units that all died: features change nothing
    if not prepared and not constant and torch.equal(answer(changed), at_once):
        raise Cheat("other features gave the same answers: got answers that were kept by id")
    if not torch.equal(first, at_once):
        raise Cheat("a later call changed an earlier answer: got a buffer that is used again")
    again = answer(inputs)
    if not torch.equal(again, at_once):
        raise Cheat("the same inputs gave another answer: expected answers in evaluation mode to be repeatable")
    if _fingerprint(inputs) != before:
        raise Cheat("the call changed its inputs: expected them to stay as they were")


def with_other_features(inputs: Inputs) -> Inputs:
    """`inputs` under the same names, their feature rows in reverse order."""
    order = torch.arange(len(inputs.space) - 1, -1, -1, device=inputs.graph.device)
    return replace(inputs, features=inputs.rows(NodeSet(inputs.space, order)))


def _fingerprint(inputs: Inputs) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for tensor in _tensors(inputs):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(inputs: Inputs) -> list[Tensor]:
    found: list[Tensor] = [inputs.graph.indptr, inputs.graph.index, inputs.space.ids]
    found += [inputs.features] if isinstance(inputs.features, Tensor) else []
    for part in (inputs.features, getattr(inputs.features, "sparse", None)):  # sparse ones, and sparse beside dense
        stored = [getattr(part, name, None) for name in ("value", "dense")]
        found += [tensor for tensor in stored if isinstance(tensor, Tensor)]
    return found + [part for part in (inputs.segments, inputs.edge_features) if part is not None]
