"""Positions know their numbering; using them on another raises (docs/protocol.md, trap 15)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gkdbench.data.nodes import ForeignPositions, NodeSet, NodeTable, Space
from gkdbench.errors import UserError

FULL = Space("full", torch.tensor([10, 11, 12, 13, 14]))
PART = Space("part", torch.tensor([14, 10, 12]))


def test_a_table_refuses_positions_of_another_numbering() -> None:
    table = NodeTable(FULL, torch.arange(5.0))
    with pytest.raises(ForeignPositions, match="expected positions of 'full', got positions of 'part'"):
        table[NodeSet(PART, torch.tensor([0]))]


def test_a_table_refuses_bare_positions_and_a_wrong_length() -> None:
    with pytest.raises(UserError, match="indexed by a NodeSet, got Tensor"):
        NodeTable(FULL, torch.arange(5.0))[torch.tensor([0])]
    with pytest.raises(UserError, match="expected 5 rows, got 3"):
        NodeTable(FULL, torch.zeros(3))


def test_translated_positions_read_the_same_nodes() -> None:
    table = NodeTable(FULL, FULL.ids.float())
    part = NodeSet(PART, torch.tensor([0, 2, 1]))
    inside = part.within(FULL)
    assert inside.position.tolist() == [4, 2, 0]
    assert table[inside].tolist() == part.ids.tolist() == [14, 12, 10]
    assert inside.within(PART).position.tolist() == part.position.tolist()


@pytest.mark.parametrize("target", [PART, Space("none", torch.empty(0, dtype=torch.int64))])
def test_nodes_that_are_not_there_are_named(target: Space) -> None:
    with pytest.raises(UserError, match=rf"nodes of '{target.name}', got 1 nodes \(first: 11\) that are not in it"):
        NodeSet(FULL, torch.tensor([1])).within(target)


def test_inputs_refuse_rows_of_nodes_that_they_do_not_hold(ready: Callable[[str], Any]) -> None:
    evaluation_graphs = ready("ind").evaluation_graphs
    observed, full = evaluation_graphs.graphs["observed"], evaluation_graphs.graphs["full"]
    unseen = next(scored_set.items for scored_set in evaluation_graphs.scored_sets if scored_set.column == "ind")
    with pytest.raises(UserError, match="that are not in it"):
        observed.rows(unseen)
    with pytest.raises(ForeignPositions):
        NodeTable(observed.items, torch.zeros(len(observed.items)))[NodeSet(full.items, torch.tensor([0]))]
