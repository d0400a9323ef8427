"""Randomness keyed by (seed, peer, layer, step): draws depend on nothing else, and touch no global generator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Randomness:
    """The source of every draw of one model.

    Args:
        seed: of the cell.
        peer: which of the models trained together, from 0.
        step: the optimiser step; the training loop sets it before each forward pass.
    """

    seed: int
    peer: int = 0
    step: int = 0

    def key(self, layer: str | int) -> int:
        """A 63-bit key of (seed, peer, layer, step), for `gkdkernels.keyed_dropout` and its like."""
        return _hash(self.seed, self.peer, "step", layer, self.step)

    def initial(self, parameter: str) -> torch.Generator:
        """A CPU generator for the initial values of `parameter`; the same at every step."""
        return torch.Generator().manual_seed(_hash(self.seed, self.peer, "init", parameter))


def _hash(*parts: int | str) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
