"""GNN-SD-R: differences between neighbours, where they shrink, who is held to whom (docs/protocol.md: H1, H3, H6)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.methods.structure.gnnsd import discrepancies, kept_discrepancy, matched
from gkdbench.nn.model import Trace
from gkdbench.testing.method_case import identical
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

NODES = 20


def ring(nodes: int = NODES) -> CSRGraph:
    """A directed ring with chords; the last node has no edge at all."""
    node = torch.arange(nodes - 1)
    pairs = torch.cat([torch.stack([node, (node + step) % (nodes - 1)]) for step in (1, 4)], dim=1)
    return CSRGraph.from_edge_index(pairs, nodes, False)


def by_hand(graph: CSRGraph, layers: list[Tensor]) -> list[list[Tensor]]:
    found = []
    for h in layers:
        rows = []
        for v in range(graph.num_dst):
            near = h[graph.index[graph.indptr[v] : graph.indptr[v + 1]].long()].sum(0)
            norms = h[v].norm() * near.norm()
            rows.append(1 - (h[v] @ near) / norms if norms > 0 else 1 + 0 * h[v].sum())
        found.append(rows)
    return found


def joint_of(layers: list[Tensor], segments: Tensor | None = None) -> JointForward:
    *hidden, logits = layers
    inputs: Any = type("Inputs", (), {"items": range(NODES), "segments": segments, "graph": ring()})
    rows = torch.tensor([0, 3, 5])
    return JointForward(1, inputs, (Trace(logits, tuple(hidden)),), rows, torch.tensor([0, 2, 1]))


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_the_formula_in_value_and_gradient(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(NODES, 3, generator=generator).double().requires_grad_() for _ in range(4)]
    method = resolve("gnnsd", {"alpha": 0.7, "beta": 0.3})
    got = method.losses(joint_of(layers), multi_label=False)[0][0]
    s = by_hand(ring(), [*(h.relu() for h in layers[:-1]), layers[-1]])
    size = [torch.stack(rows).detach().norm() for rows in s]
    first = max(range(3), key=lambda level: float(size[level]))
    wanted = -(layers[-1][[0, 3, 5]].softmax(1).log()[torch.arange(3), torch.tensor([0, 2, 1])]).mean()
    for level in range(first, 3):
        if size[level] > size[level + 1]:
            pairs = zip(s[level + 1], s[level], strict=True)
            wanted = wanted + 0.7 * torch.stack([(b - a.detach()) ** 2 for b, a in pairs]).mean()
    assert got.item() == pytest.approx(wanted.item(), rel=1e-12)
    slopes = (torch.autograd.grad(v, layers, allow_unused=True, materialize_grads=True) for v in (got, wanted))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert torch.count_nonzero(a[-1]) == 0, "an isolated node, without a label"


def levels(*values: float) -> Tensor:
    return torch.tensor(values)[:, None].repeat(1, 5).requires_grad_()


def test_only_what_shrinks_from_the_largest_on_is_kept() -> None:
    """1 to 3 grows, 3 to 2 shrinks, 2 to 2.5 grows, 2.5 to 1 shrinks: what comes before the largest never counts."""
    assert kept_discrepancy(levels(2.0, 1.0, 3.0, 2.0, 2.5, 1.0)).item() == pytest.approx(1.0 + 1.5**2)
    assert kept_discrepancy(levels(1.0, 2.0, 3.0)).item() == 0.0


def test_the_deeper_layer_is_held_and_the_shallower_one_is_not_moved() -> None:
    apart = levels(3.0, 1.0)
    (slope,) = torch.autograd.grad(kept_discrepancy(apart), apart)
    assert torch.count_nonzero(slope[0]) == 0 and (slope[1] < 0).all()


def test_equal_neighbours_have_no_difference_and_opposite_ones_two() -> None:
    pair = CSRGraph.from_edge_index(torch.tensor([[1, 0], [0, 1]]), 3, True)
    same, opposite = torch.tensor([[1.0], [4.0], [1.0]]), torch.tensor([[1.0], [-2.0], [1.0]])
    torch.testing.assert_close(discrepancies(pair, [same, opposite]), torch.tensor([[0.0, 0, 1], [2.0, 2, 1]]))


def test_readouts_are_held_to_the_shallower_layer() -> None:
    readouts = [torch.full((2, 3), value, requires_grad=True) for value in (1.0, 3.0, 2.0)]
    loss = matched(readouts)
    assert loss.item() == pytest.approx(4.0 + 1.0)
    slopes = torch.autograd.grad(loss, readouts, allow_unused=True)
    assert slopes[0] is None and (slopes[1] > 0).all() and (slopes[2] < 0).all()


def test_of_graphs_the_hidden_layers_and_their_readouts_count() -> None:
    layers = [torch.randn(NODES, 4, generator=torch.Generator().manual_seed(k)).double() for k in range(2)]
    joint = joint_of([*layers, torch.zeros(2, 3).double()], torch.tensor([0, 10, 20]))
    joint = JointForward(1, joint.inputs, joint.traces, torch.tensor([0, 1]), torch.tensor([0, 1]))
    _, terms = resolve("gnnsd", {}).losses(joint, multi_label=False)
    wanted = (layers[1].relu().view(2, 10, 4).mean(1) - layers[0].relu().view(2, 10, 4).mean(1)).square().mean()
    assert terms["readouts"].item() == pytest.approx(wanted.item())
    assert [name for name in terms if name.startswith("discrepancy")] == ["discrepancy.layer1", "discrepancy.layer2"]


@pytest.mark.parametrize("setting", ["tran", "graph"])
def test_without_weights_it_is_the_solo_run(bench: Any, setting: str) -> None:
    same: dict[str, Any] = {"lr": 0.01, "weight_decay": 5e-4, "batch_size": None}
    model = {"hidden": 8, "layers": 3, "dropout": 0.5}
    alone = bench.run("teacher", setting, backbone="gcn", model=model | {"input_dropout": True}, **same).final["model"]
    own: dict[str, Any] = {"model": model | {"input_dropout": True}, **same}
    off = bench.run("gnnsd", setting, alpha=0.0, beta=0.0, **own).final["model"]
    assert identical(alone, off)
    assert not identical(alone, bench.run("gnnsd", setting, alpha=1.0, beta=0.0, **own).final["model"])
    only_graphs = bench.run("gnnsd", setting, alpha=0.0, beta=1.0, **own).final["model"]
    assert identical(alone, only_graphs) == (setting == "tran")


def test_one_layer_has_nothing_to_pass_on(bench: Any) -> None:
    method = resolve("gnnsd", {"model": {"layers": 1}})
    with pytest.raises(UserError, match="expected two or more"):
        method.losses(joint_of([torch.zeros(NODES, 3)]), multi_label=False)
