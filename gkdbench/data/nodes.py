"""Positions that know which graph they belong to.

The observed graph of an inductive run and the full graph number their nodes differently. A bare integer array
of one used on the other reads wrong rows without a sound (docs/protocol.md, trap 15). Here every set of positions and
every table of per-node values names its numbering (its *space*), and mixing two raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from gkdkernels.graph import tensor_rows
from torch import Tensor

from gkdbench.errors import UserError


class ForeignPositions(UserError):
    """Positions of one numbering were used on an array of another."""

    def __init__(self, got: str, wanted: str) -> None:
        super().__init__(
            f"expected positions of {wanted!r}, got positions of {got!r}; use NodeSet.within(space) to translate them"
        )


@dataclass(frozen=True, eq=False)
class Space:
    """One numbering of nodes (or graphs): position p is the node with global id ``ids[p]``.

    Args:
        name: unique name of the numbering, e.g. ``"cora/cpf-lcc-20-30-ind20/3/observed"``.
        ids: [N] int64, strictly increasing or not, no repeats.
    """

    name: str
    ids: Tensor

    def __len__(self) -> int:
        return int(self.ids.numel())

    @cached_property
    def order(self) -> tuple[Tensor, Tensor]:
        """(positions by ascending id [N], the ids in that order [N]); sorted once."""
        order = torch.argsort(self.ids)
        return order, self.ids[order]


@dataclass(frozen=True, eq=False)
class NodeSet:
    """Some nodes of one space: ``position: [M]`` int64 into it."""

    space: Space
    position: Tensor

    def __len__(self) -> int:
        return int(self.position.numel())

    @property
    def ids(self) -> Tensor:
        """[M] int64 global ids."""
        return tensor_rows(self.space.ids, self.position)

    def take(self, which: Tensor) -> NodeSet:
        """The members at places `which` ([B] int64) of this set."""
        return NodeSet(self.space, self.position[which])

    def within(self, space: Space) -> NodeSet:
        """The same nodes, numbered by `space`; a node that is not in it raises UserError."""
        if space.name == self.space.name:
            return self
        order, sorted_ids = space.order
        at = torch.searchsorted(sorted_ids, self.ids).clamp_(max=max(len(space) - 1, 0))
        if len(self) and (len(space) == 0 or bool((sorted_ids[at] != self.ids).any())):
            missing = self.ids if len(space) == 0 else self.ids[sorted_ids[at] != self.ids]
            raise UserError(
                f"expected nodes of {space.name!r}, got {missing.numel()} nodes (first: {int(missing[0])}) that are "
                "not in it"
            )
        return NodeSet(space, order[at])


@dataclass(frozen=True, eq=False)
class NodeTable:
    """Values per node of one space: ``value: [N, ...]``, row p belongs to position p of `space`."""

    space: Space
    value: Tensor

    def __post_init__(self) -> None:
        if self.value.size(0) != len(self.space):
            raise UserError(
                f"a table on {self.space.name!r}: expected {len(self.space)} rows, got {self.value.size(0)}"
            )

    def __getitem__(self, nodes: NodeSet) -> Tensor:
        """[M, ...] rows of `nodes`; positions of another space raise ForeignPositions."""
        if not isinstance(nodes, NodeSet):
            raise UserError(
                f"a NodeTable: expected to be indexed by a NodeSet, got {type(nodes).__name__}; wrap the positions"
            )
        if nodes.space.name != self.space.name:
            raise ForeignPositions(nodes.space.name, self.space.name)
        return tensor_rows(self.value, nodes.position)
