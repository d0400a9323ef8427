"""ROD: attention over depths, the mean of the heads in training and evaluation, pairs (protocol.md: H1, H2, H3)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, SparseFeatures, gcn_weight
from support.peer_formulas import ITEMS, assert_equal_with_gradients, bernoulli_divergence, divergence, joint_of
from torch import Tensor

from gkdbench.methods.mutual.rod import Averaged, Extremes, Receptions, averaged, pair_loss
from gkdbench.nn.model import Trace
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

HEADS, CLASSES, WIDTH = 4, 3, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()


def view(*, several: bool = False) -> Any:
    return type("View", (), {"num_classes": CLASSES, "multi_label": several})


def situation(*, several: bool = False) -> tuple[Tensor, Tensor, JointForward]:
    z, hidden = drawn(ITEMS, HEADS * CLASSES), drawn(ITEMS, WIDTH, seed=1)
    joint = joint_of([drawn(ITEMS, CLASSES)], several=several)
    return z, hidden, JointForward(1, joint.inputs, (Trace(z, (hidden,)),), joint.rows, joint.labels)


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_the_formula_in_value_and_gradient(several: bool) -> None:
    z, hidden, joint = situation(several=several)
    extremes = Extremes(drawn(ITEMS, 6, seed=2).detach(), 10, whole=False)
    method = resolve("rod", {"heads": HEADS, "kd_weight": 0.3, "pair_weight": 0.2})
    got, _ = method.losses(joint, view=view(several=several), extremes=extremes, randomness=Randomness(0))
    heads = [z[joint.rows, b * CLASSES : (b + 1) * CLASSES] for b in range(HEADS)]
    p = [h.sigmoid() if several else h.softmax(1) for h in heads]
    mean = torch.stack(p).mean(0)
    kl = sum((bernoulli_divergence if several else divergence)(mean, q).mean() for q in p)
    if several:
        known = ~joint.labels.isnan()
        y = joint.labels[known]
        ce = sum(-(y * q[known].log() + (1 - y) * (1 - q[known]).log()).mean() for q in p)
    else:
        ce = sum(-q.log()[torch.arange(len(joint.rows)), joint.labels].mean() for q in p)
    alike, unlike = extremes.draw(Randomness(0))
    near = [F.logsigmoid(hidden[i] @ hidden[j]) for i, j in alike.T.tolist()]
    far = [F.logsigmoid(-(hidden[i] @ hidden[j])) for i, j in unlike.T.tolist()]
    wanted = ce + 0.3 * kl - 0.2 * torch.stack(near + far).mean()  # type: ignore[operator]
    assert_equal_with_gradients(got, wanted[None], [z, hidden], 1e-9)


def test_heads_are_not_moved_by_what_they_teach() -> None:
    """The mean is constant in every head's divergence: with one head there is none."""
    z, _, joint = situation()
    one = JointForward(1, joint.inputs, (Trace(z[:, :CLASSES], ()),), joint.rows, joint.labels)
    method = resolve("rod", {"heads": 1, "kd_weight": 1.0, "pair_weight": 0.0})
    _, terms = method.losses(one, view=view(), extremes=None, randomness=Randomness(0))
    assert terms["kl"].item() == pytest.approx(0.0, abs=1e-12) and set(terms) == {"ce", "kl"}


def ring(nodes: int = 12) -> CSRGraph:
    node = torch.arange(nodes)
    pairs = torch.cat([torch.stack([node, (node + s) % nodes]) for s in (0, 1, nodes - 1)], dim=1)
    return CSRGraph.from_edge_index(pairs, nodes, True)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_attention_weighs_propagated_features(sparse: bool) -> None:
    graph, x = ring(), (torch.randn(12, 7, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    model = Receptions(7, WIDTH, 6, 3, 0.5, Randomness(0)).eval()
    with torch.no_grad():
        model.score.bias.fill_(0.3)
        model.map.bias.fill_(-0.1)
        trace = model.trace(SparseFeatures.from_dense(x) if sparse else x, graph)
        matrix = torch.zeros(12, 12)
        matrix[graph.row.long(), graph.index.long()] = gcn_weight(graph, torch.float32)
        depths = [torch.linalg.matrix_power(matrix, k) @ x for k in range(4)]
        scores = torch.cat([torch.sigmoid(d @ model.score.weight + 0.3) for d in depths], dim=1)
        share = scores.softmax(1)
        mixed = sum(share[:, [k]] * depths[k] for k in range(4))
        hidden = mixed @ model.map.weight - 0.1
        torch.testing.assert_close(trace.hidden[0], hidden, rtol=1e-5, atol=1e-6)
        logits = hidden.relu() @ model.heads.weight + model.heads.bias
        torch.testing.assert_close(trace.logits, logits, rtol=1e-5, atol=1e-6)


def test_only_the_release_answers_by_the_mean_of_logits() -> None:
    """A head that is very sure counts more among logits than among probabilities."""

    class Fixed(Receptions):
        def node_trace(self, x: Any, graph: Any) -> Trace:
            return Trace(torch.tensor([[9.0, 0, 0, 1, 0, 0, 1, 0, 0], [9.0, 0, 0, 0, 3, 0, 0, 3, 0]]), ())

    fixed = Fixed(1, 1, 9, 0, 0.0, Randomness(0))
    x = torch.zeros(2, 1)
    ours = Averaged(fixed, 3, logits=False, multi_label=False).eval()(x)
    released = Averaged(fixed, 3, logits=True, multi_label=False).eval()(x)
    assert (ours.argmax(1).tolist(), released.argmax(1).tolist()) == ([0, 1], [0, 0])
    z = fixed.node_trace(None, None).logits.view(2, 3, 3)
    torch.testing.assert_close(ours.softmax(1), z.softmax(2).mean(1))
    several = averaged(z, multi_label=True)
    torch.testing.assert_close(several.sigmoid(), z.sigmoid().mean(1))


def test_the_release_keeps_the_last_epoch_of_a_score_and_ranks_all_pairs(bench: Any) -> None:
    assert (
        resolve("rod", {"variant": "as_released"}).selection_rule() == "later"
        and resolve("rod").selection_rule() == "loss"
    )
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    cosine = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    alike, unlike = Extremes(x, 3, whole=True).draw(Randomness(0))
    every = cosine[torch.ones(40, 40).triu(1).bool()].sort().values
    torch.testing.assert_close(cosine[alike[0], alike[1]].sort().values, every[-3:])
    torch.testing.assert_close(cosine[unlike[0], unlike[1]].sort().values, every[:3])


def test_corrected_pairs_are_drawn_anew_for_every_step() -> None:
    x = SparseFeatures.from_dense((torch.randn(40, 9, generator=torch.Generator().manual_seed(0)) > 0).float())
    extremes, randomness = Extremes(x, 3, whole=False), Randomness(4)
    first = extremes.draw(randomness)
    assert all(torch.equal(a, b) for a, b in zip(first, extremes.draw(randomness), strict=True))
    assert first[0].shape == first[1].shape == (2, 3)
    among = {int(node) for pairs in first for node in pairs.flatten()}
    assert len(among) <= 9  # whose 36 pairs are the 30 that three want
    randomness.step = 1
    assert not torch.equal(first[0], extremes.draw(randomness)[0])


def test_pairs_are_told_apart_by_inner_products() -> None:
    hidden = torch.tensor([[2.0, 0], [2.0, 0], [-2.0, 0]])
    good = pair_loss(hidden, torch.tensor([[0], [1]]), torch.tensor([[0], [2]]))
    assert good.item() == pytest.approx(F.softplus(torch.tensor(-4.0)).item(), rel=1e-5)
    assert pair_loss(hidden, torch.tensor([[0], [2]]), torch.tensor([[0], [1]])) > good


def test_without_transfer_heads_learn_from_labels_alone(bench: Any) -> None:
    small: dict[str, Any] = {"hidden": 8, "hops": 2, "heads": 3, "pairs": 50}
    off: dict[str, Any] = {**small, "kd_weight": 0.0, "pair_weight": 0.0}
    run = bench.run("rod", **off)
    assert {"terms/kl", "terms/pairs"} & set(run.scored.arrays) == set()
    assert identical(run.final["model"], bench.final("rod", **off | {"pairs": 7}))
    for weight in ("kd_weight", "pair_weight"):
        assert not identical(run.final["model"], bench.final("rod", **off | {weight: 1.0}))
    assert [m["name"] for m in run.outcome.models] == ["model"]
