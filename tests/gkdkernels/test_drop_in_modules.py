"""A PyG user's networks with our layers in their place: the same losses; losses that equal torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, edge_log_probs
from gkdkernels import nn as ours
from torch import Tensor, nn

NODES, WIDTH, CLASSES = 40, 6, 3


def edges(directed: bool = True) -> tuple[Tensor, Tensor]:
    """Shuffled edges with loops and parallel ones, or both directions of each; a weight for each."""
    generator = torch.Generator().manual_seed(4)
    pairs = torch.randint(0, NODES - 2, (2, 120), generator=generator)  # two nodes have no edge
    if not directed:
        pairs = torch.unique(torch.cat([pairs, pairs.flip(0)], 1), dim=1)
    weight = torch.rand(pairs.size(1), generator=generator) + 0.1
    return pairs[:, torch.randperm(pairs.size(1), generator=generator)], weight


class Network(nn.Module):
    """Two layers, as in PyG's examples."""

    def __init__(self, layer: Callable[..., nn.Module], heads: int = 1, **more: Any) -> None:
        super().__init__()
        several = {"heads": heads} if heads > 1 else {}
        self.first = layer(WIDTH, 8, **several, **more)
        self.second = layer(8 * heads, CLASSES, **more)

    def forward(self, x: Tensor, *edges: Any) -> Tensor:
        hidden = self.first(x, *edges)
        return self.second(F.elu(hidden), *edges)


def losses(network: nn.Module, steps: int, *edges: Any) -> list[float]:
    """The losses of some steps of Adam."""
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(NODES, WIDTH, generator=generator)
    labels = torch.randint(0, CLASSES, (NODES,), generator=generator)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    out = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = F.cross_entropy(network(x, *edges), labels)
        loss.backward()
        optimiser.step()
        out.append(loss.item())
    return out


CASES = {
    "gcn": ("GCNConv", {}, 1, False),
    "gcn with weights": ("GCNConv", {}, 1, True),
    "gcn with weights, no loops": ("GCNConv", {"add_self_loops": False}, 1, True),
    "gcn as given": ("GCNConv", {"normalize": False}, 1, True),
    "gcn cached": ("GCNConv", {"cached": True}, 1, False),
    "gat": ("GATConv", {}, 1, False),
    "gat heads, no loops": ("GATConv", {"add_self_loops": False, "negative_slope": 0.1}, 4, False),
    "sage": ("SAGEConv", {}, 1, False),
    "sage sum": ("SAGEConv", {"aggr": "sum", "root_weight": False}, 1, False),
    "sage max": ("SAGEConv", {"aggr": "max", "normalize": True, "bias": False}, 1, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pyg_users_losses_are_the_same(case: str) -> None:
    theirs = pytest.importorskip("torch_geometric.nn")
    name, options, heads, weighted = CASES[case]
    torch.manual_seed(0)
    network = Network(getattr(theirs, name), heads, **options)
    mine = Network(getattr(ours, name), heads, **options)
    for graph in ("tensor", "graph"):
        mine.load_state_dict(network.state_dict())
        back = Network(getattr(theirs, name), heads, **options)
        back.load_state_dict(mine.state_dict())  # and the other way
        for module in mine.modules():
            if isinstance(module, ours.GCNConv):
                module._kept = None
        edge_index, weight = edges()
        extra = [weight] if weighted else []
        wanted = losses(back, 5, edge_index, *extra)
        assert wanted[0] > wanted[-1]
        made = CSRGraph.from_edge_index(edge_index, NODES)
        inputs = [edge_index, *extra] if graph == "tensor" else [made, *(one[made.edge_order] for one in extra)]
        torch.testing.assert_close(torch.tensor(losses(mine, 5, *inputs)), torch.tensor(wanted), atol=1e-5, rtol=0)


def test_a_symmetric_graph_takes_the_norm_of_node_vectors() -> None:
    edge_index, _ = edges(directed=False)
    layer, x = ours.GCNConv(WIDTH, 4), torch.randn(NODES, WIDTH)
    graph = CSRGraph.from_edge_index(edge_index, NODES, symmetric=True)
    torch.testing.assert_close(layer(x, graph), layer(x, edge_index))


def test_learned_edge_weights_have_pygs_gradient() -> None:
    theirs = pytest.importorskip("torch_geometric.nn").GCNConv(WIDTH, 4)
    mine, x, (edge_index, weight) = ours.GCNConv(WIDTH, 4), torch.randn(NODES, WIDTH), edges()
    mine.load_state_dict(theirs.state_dict())
    grads = []
    for layer in (mine, theirs):
        leaf = weight.clone().requires_grad_()
        layer(x, edge_index, leaf).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_attention_weights_are_pygs() -> None:
    theirs = pytest.importorskip("torch_geometric.nn").GATConv(WIDTH, 4, heads=2)
    mine, x, (edge_index, _) = ours.GATConv(WIDTH, 4, heads=2), torch.randn(NODES, WIDTH), edges()
    mine.load_state_dict(theirs.state_dict())
    tables = []
    for layer in (mine, theirs):
        _, (ends, share) = layer(x, edge_index, return_attention_weights=True)
        tables.append(torch.zeros(NODES, NODES, 2).index_put((ends[1], ends[0]), share, accumulate=True))
    torch.testing.assert_close(*tables)


def test_heads_are_averaged_and_sources_may_be_apart() -> None:
    theirs = pytest.importorskip("torch_geometric.nn")
    x, (edge_index, _) = torch.randn(NODES, WIDTH), edges()
    pair = theirs.GATConv(WIDTH, 4, heads=3, concat=False), ours.GATConv(WIDTH, 4, heads=3, concat=False)
    pair[1].load_state_dict(pair[0].state_dict())
    torch.testing.assert_close(pair[1](x, edge_index), pair[0](x, edge_index))
    pair = theirs.SAGEConv((WIDTH, 5), 4), ours.SAGEConv((WIDTH, 5), 4)
    pair[1].load_state_dict(pair[0].state_dict())
    block, own = edge_index[:, edge_index[1] < 10], torch.randn(10, 5)
    torch.testing.assert_close(pair[1]((x, own), block), pair[0]((x, own), block))


def test_dropout_draws_from_torchs_generator_while_training() -> None:
    layer, x, (edge_index, _) = ours.GATConv(WIDTH, 4, dropout=0.5), torch.randn(NODES, WIDTH), edges()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return layer(x, edge_index)

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    layer.eval()
    assert torch.equal(drawn(1), drawn(2))


def test_mutual_kl_is_torchs() -> None:
    generator = torch.Generator().manual_seed(2)
    peers = [torch.randn(NODES, CLASSES, generator=generator).requires_grad_() for _ in range(3)]
    labels = torch.randint(0, CLASSES, (NODES,), generator=generator)
    tau, wanted = 2.0, []
    for j, learner in enumerate(peers):
        kl = [
            F.kl_div(
                (learner / tau).log_softmax(1), (peer.detach() / tau).log_softmax(1), log_target=True,
                reduction="batchmean",
            )
            for i, peer in enumerate(peers) if i != j
        ]  # fmt: skip
        wanted.append(F.cross_entropy(learner, labels) + tau**2 * torch.stack(kl).mean())
    found = ours.MutualKL(tau)(peers, labels)
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=0)
    grads = [torch.autograd.grad(sum(side), peers) for side in (found, wanted)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.MutualKL()(torch.stack(peers)), ours.MutualKL()(peers))


def test_structure_kl_is_torchs() -> None:
    edge_index, _ = edges()
    graph = CSRGraph.from_edge_index(edge_index, NODES)
    student, teacher = torch.randn(NODES, 4), torch.randn(NODES, 5)

    def structures(x: Tensor) -> list[Tensor]:
        score = F.cosine_similarity(x[graph.index], x[graph.row])
        return [part.log_softmax(0) for part in score.split(graph.degree.tolist())]

    pairs = zip(structures(student), structures(teacher), strict=True)
    wanted = sum(F.kl_div(s, t, log_target=True, reduction="sum") for s, t in pairs) / NODES
    loss = ours.StructureKL("cosine", 1.0)
    torch.testing.assert_close(loss(student, teacher, edge_index), wanted, atol=1e-5, rtol=0)
    once = edge_log_probs(graph, teacher, "cosine", 1.0)
    torch.testing.assert_close(loss(student, once, graph), wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="expected the CSRGraph of the teacher's log-probabilities"):
        loss(student, once, edge_index)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, e: ours.GCNConv(WIDTH, 2)(x, e, torch.ones(3)), r"edge_weight: expected shape \[120\], got \(3,\)"),
        (lambda x, e: ours.GCNConv(WIDTH, 2)(x, "edges"), r"edge_index: expected a tensor \[2, E\] or a CSRGraph"),
        (lambda x, e: ours.GCNConv(WIDTH, 2)(x[:5], CSRGraph.from_edge_index(e, NODES)), "5 destinations and 5 sou"),
        (lambda x, e: ours.SAGEConv(WIDTH, 2, aggr="lstm"), "aggr: expected one of mean, sum, add, max, got 'lstm'"),
        (lambda x, e: ours.MutualKL(0.0), "tau: expected a positive number, got 0.0"),
        (lambda x, e: ours.MutualKL()([x]), "logits: expected at least 2 peers, got 1"),
        (lambda x, e: ours.StructureKL("sharp"), "kernel: expected one of"),
    ],
)
def test_bad_input(call: Callable[[Tensor, Tensor], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(NODES, WIDTH), edges()[0])
