"""The joint step of two peers that teach each other, on nodes and on batches of graphs, compared with PyG's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from gkdkernels import mutual_kl
from torch import Tensor, nn

from gkdbench.measure.timers import TimedCall
from gkdbench.measure.training_steps import pyg_baselines as pyg_peers
from gkdbench.measure.training_steps.gnn_steps import StepData, dense_features, tenth
from gkdbench.measure.training_steps.pairwise import PairwiseTiming, largest_error
from gkdbench.nn.gcn import GCNConfig
from gkdbench.nn.gin import GINConfig
from gkdbench.nn.model import Model
from gkdbench.nn.parts import KeyedDropout
from gkdbench.nn.random import Randomness
from gkdbench.nn.sage import SAGEConfig
from gkdbench.protocol.inputs import Inputs

HIDDEN, GRAPH_LAYERS, GRAPHS = 64, 3, 256
PYG = "PyG's layers, torch softmax + kl_div of each pair"
_LR = 0.01
_BATCHES = 4  # different ones, in turn: a step may keep nothing of the batch before


@dataclass(frozen=True, slots=True)
class GraphData:
    """Graphs of a graph task and their classes.

    Args:
        inputs: all graphs as one block-diagonal `Inputs`; their edge features are left out, since PyG's layers of these
            names read none.
        labels: [G] int64.
        classes: C.
    """

    name: str
    inputs: Inputs
    labels: Tensor
    classes: int


def joint_on_nodes(data: StepData) -> Iterator[PairwiseTiming]:
    """GCN and GraphSAGE of two layers on the whole graph: cross-entropy on a tenth, mutual KL on all nodes."""
    graph, dense = data.graph.prepare(), dense_features(data.features)
    train = tenth(data.labels)
    targets = torch.full_like(data.labels, -1)
    targets[train] = data.labels[train]
    edge_index = torch.stack([graph.index.long(), graph.row.long()])
    for way, inputs, p in (("as the house runs it", data.features, 0.5), ("dense inputs, no dropout", dense, 0.0)):
        configs = (GCNConfig(hidden=HIDDEN, dropout=p), SAGEConfig(hidden=HIDDEN, aggregator="mean", dropout=p))
        ours = [c.build(dense.size(1), data.classes, Randomness(seed=0, peer=k)) for k, c in enumerate(configs)]
        theirs = pyg_peers.on_nodes(dense.size(1), HIDDEN, data.classes, p)
        _copy_weights(ours, theirs)
        sides = (
            _Side(ours, _fused_losses, partial(_same, (inputs, graph), targets)),
            _Side(theirs, _pair_losses, partial(_same, (dense, edge_index), targets)),
        )
        yield _duel(f"joint step of GCN and GraphSAGE, {way}", data.name, sides)


def joint_on_graphs(data: GraphData) -> PairwiseTiming:
    """GIN and GCN of three layers on batches of 256 graphs, from the ids of the graphs to the updated weights."""
    width = data.inputs.features.shape[1]
    configs = (
        GINConfig(hidden=HIDDEN, layers=GRAPH_LAYERS, dropout=0.5),
        GCNConfig(hidden=HIDDEN, layers=GRAPH_LAYERS, dropout=0.5, input_dropout=False, norm="batch", readout="mean",
            self_loops=True),
    )  # fmt: skip
    ours = [c.build(width, data.classes, Randomness(seed=0, peer=k)) for k, c in enumerate(configs)]
    theirs = pyg_peers.on_graphs(width, HIDDEN, GRAPH_LAYERS, data.classes)
    _copy_weights(ours, theirs)
    drawn = torch.randperm(data.labels.numel(), generator=torch.Generator().manual_seed(0))
    batches = [drawn.roll(-GRAPHS * i)[:GRAPHS] for i in range(_BATCHES)]
    ours_batches, pyg_batches = cycle(batches), cycle(batches)
    graphs = pyg_peers.graphs(data.inputs, data.labels)

    def block() -> tuple[tuple[Any, ...], Tensor]:
        ids = next(ours_batches)
        batch = data.inputs.take(ids)
        return (batch.features, batch.graph, batch.segments), data.labels[ids]

    def collated() -> tuple[tuple[Any, ...], Tensor]:
        return pyg_peers.batch([graphs[i] for i in next(pyg_batches).tolist()])

    sides = (_Side(ours, _fused_losses, block), _Side(theirs, _pair_losses, collated))
    return _duel(f"joint step of GIN and GCN, batches of {min(GRAPHS, drawn.numel())} graphs", data.name, sides)


def _same(inputs: tuple[Any, ...], targets: Tensor) -> tuple[tuple[Any, ...], Tensor]:
    return inputs, targets


JointLosses = Callable[[Sequence[Tensor], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Side:
    """Peers, their losses [K] from logits and targets (-1: none), and where a step's inputs come from."""

    peers: Sequence[nn.Module]
    losses: JointLosses
    batch: Callable[[], tuple[tuple[Any, ...], Tensor]]

    def value(self) -> Tensor:
        """The sum of all losses on the next batch."""
        inputs, targets = self.batch()
        for peer in self.peers:
            if isinstance(peer, Model):
                peer.randomness.step += 1
        return self.losses([peer(*inputs) for peer in self.peers], targets).sum()

    def step(self) -> TimedCall:
        """One joint forward, one backward, a step of every peer's optimiser."""
        optimisers = [torch.optim.Adam(peer.parameters(), lr=_LR, fused=True) for peer in self.peers]

        def run() -> None:
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            self.value().backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()

        return run


def _duel(what: str, data: str, sides: tuple[_Side, _Side]) -> PairwiseTiming:
    """Both steps, and by how much the loss and each peer's gradient differ without dropout.

    A gradient is compared as one vector: a bias before a BatchNorm has none but rounding.
    """
    ours, theirs = sides
    values = []
    for side in sides:
        with _no_dropout(side.peers):
            values.append(side.value())
            values[-1].backward()  # type: ignore[no-untyped-call]
    pairs = [(values[0], values[1])]
    for one, other in zip(ours.peers, theirs.peers, strict=True):
        twins = [(a.grad, b.grad) for a, b in _twins(one, other) if a.grad is not None and b.grad is not None]
        pairs.append(
            (torch.cat([a.flatten() for a, _ in twins]), torch.cat([_transposed_values(b).flatten() for _, b in twins]))
        )
    return PairwiseTiming(what, data, PYG, 1.0, largest_error(pairs), ours.step(), theirs.step())


@contextmanager
def _no_dropout(peers: Sequence[nn.Module]) -> Iterator[None]:
    kept = [(m, m.p) for peer in peers for m in peer.modules() if isinstance(m, (KeyedDropout, nn.Dropout))]
    for module, _ in kept:
        module.p = 0.0
    yield
    for module, p in kept:
        module.p = p


def _fused_losses(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    weight = logits[0].new_ones(len(logits), len(logits))
    return mutual_kl(logits, pair_weight=weight, targets=targets)[0]


def _pair_losses(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The usual loop: each peer's cross-entropy, and its KL to every other one's probabilities."""
    losses = []
    for j, own in enumerate(logits):
        loss, log_own = F.cross_entropy(own, targets, ignore_index=-1), own.log_softmax(1)
        for i, other in enumerate(logits):
            if i != j:
                loss = loss + F.kl_div(log_own, other.detach().softmax(1), reduction="batchmean")
        losses.append(loss)
    return torch.stack(losses)


@torch.no_grad()
def _copy_weights(ours: Sequence[nn.Module], theirs: Sequence[nn.Module]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for a, b in _twins(one, other):
            b.copy_(_transposed_values(a).reshape(b.shape))


def _transposed_values(parameter: Tensor) -> Tensor:
    """A matrix transposed, anything else as it is."""
    return parameter.t() if parameter.dim() == 2 else parameter


def _twins(ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Our parameters with PyG's: matrices are transposed there."""
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        names = [re.sub(own, twin, name) for own, twin in _NAMES if re.fullmatch(own, name)]
        yield parameter, others.pop(next(twin for twin in names if twin in others))
    if others:
        raise RuntimeError(
            f"PyG's layers: expected the parameters of ours, got parameters that ours lack: {', '.join(others)}"
        )


_NAMES = (
    (r"convs\.(\d)\.linear\.weight", r"convs.\1.lin.weight"),  # GCN
    (r"convs\.(\d)\.bias", r"convs.\1.bias"),
    (r"convs\.(\d)\.bias", r"convs.\1.lin_l.bias"),  # GraphSAGE
    (r"convs\.(\d)\.neighbours\.weight", r"convs.\1.lin_l.weight"),
    (r"convs\.(\d)\.self_loop\.weight", r"convs.\1.lin_r.weight"),
    (r"convs\.(\d)\.eps", r"convs.\1.eps"),  # GIN
    (r"convs\.(\d)\.first\.weight", r"convs.\1.nn.0.weight"),
    (r"convs\.(\d)\.norm\.(weight|bias)", r"convs.\1.nn.1.\2"),
    (r"convs\.(\d)\.second\.(weight|bias)", r"convs.\1.nn.3.\2"),
    (r"norms\.(\d)\.(weight|bias)", r"norms.\1.\2"),
    (r"head\.(weight|bias)", r"head.\1"),
)
"""Names of our parameters -> names of PyG's."""
