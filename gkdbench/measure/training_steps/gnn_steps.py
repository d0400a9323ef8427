"""Whole training steps compared with PyG's: the kernels alone on equal dense inputs, and gkdbench's training path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features, SparseFeatures
from torch import Tensor, nn

from gkdbench.measure.operators.gate import relative_error
from gkdbench.measure.ratios import Ratio, ratio
from gkdbench.measure.timers import Clock, TimedCall, measure
from gkdbench.nn.gat import GATConfig
from gkdbench.nn.gcn import GCNConfig
from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness

Way = Literal["kernels alone", "as the house runs it"]
BARS: dict[Way, float] = {"kernels alone": 1.5, "as the house runs it": 3.0}
"""Geometric mean over sets and models: how many times faster than PyG."""
LOGITS_TOLERANCE = 1e-4
_HIDDEN = {"gcn": (64,), "gat": (8, 8)}  # width; heads and width of one
_DROPOUT = {"gcn": 0.5, "gat": 0.6}
_LR = 0.01


@dataclass(frozen=True, slots=True)
class StepData:
    """What a step reads. The graph has its self-loops already; PyG is configured not to add them again."""

    name: str
    graph: CSRGraph
    features: Features
    labels: Tensor
    classes: int


@dataclass(frozen=True, slots=True)
class StepComparison:
    """One comparison.

    Attributes:
        error: relative error of our logits to PyG's under the same weights, without dropout.
        ratio: our time over PyG's; None when the logits differ.
    """

    data: str
    model: str
    way: Way
    error: float
    ratio: Ratio | None


def compare_steps(
    data: StepData, clock: Clock, device: torch.device, *, rounds: int, budget_s: float
) -> Iterator[StepComparison]:
    """GCN and GAT of two layers: forward, cross-entropy on a tenth of the nodes, backward, Adam.

    Raises:
        ImportError: without torch_geometric.
    """
    if find_spec("torch_geometric") is None:
        raise ImportError(
            "training steps: expected torch_geometric to compare with, got none installed; try pip install "
            "'gkdbench[pyg]'"
        )
    graph = data.graph.to(device)
    stored = data.features.to(device)
    dense = dense_features(stored)
    labels = data.labels.to(device)
    train = tenth(labels)
    edge_index = torch.stack([graph.index.long(), graph.row.long()])
    for name in ("gcn", "gat"):
        for way in BARS:
            alone = way == "kernels alone"
            p = 0.0 if alone else _DROPOUT[name]
            ours = _ours(name, dense.size(1), data.classes, p).to(device)
            theirs = _theirs(name, dense.size(1), data.classes, p).to(device)
            _same_weights(ours, theirs)
            inputs: Features = dense if alone else stored
            with torch.no_grad():
                wanted = theirs.eval()(dense, edge_index)
                error = relative_error(ours.eval()(inputs, graph), wanted.double())
            if error > LOGITS_TOLERANCE:
                yield StepComparison(data.name, name, way, error, None)
                continue
            graph.prepare()
            runs = {
                "ours": _step(ours.train(), _call(ours, inputs, graph), labels, train),
                "theirs": _step(theirs.train(), _call(theirs, dense, edge_index), labels, train),
            }
            found = measure(runs, clock, rounds=rounds, budget_s=budget_s)
            a, b = ([sample.wall_s for sample in found[side]] for side in ("ours", "theirs"))
            yield StepComparison(data.name, name, way, error, ratio(a, b))


def faster(steps: list[StepComparison], way: Way) -> float | None:
    """How many times faster than PyG, the geometric mean; None unless every comparison of that way has its ratio."""
    ratios = [step.ratio for step in steps if step.way == way]
    known = [found.value for found in ratios if found is not None]
    if not known or len(known) < len(ratios):
        return None
    return math.exp(-sum(map(math.log, known)) / len(known))


def dense_features(features: Features) -> Tensor:
    """[N, D] with every zero written out."""
    if isinstance(features, SparseFeatures):
        return features.dense()
    return features if isinstance(features, Tensor) else torch.cat([features.sparse.dense(), features.dense], 1)


def tenth(labels: Tensor) -> Tensor:
    """Positions of every tenth labelled item of ``labels: [N]``, -1 where there is none: what a step trains on."""
    return (labels >= 0).nonzero().squeeze(1)[::10]


def _call(model: nn.Module, *inputs: object) -> Callable[[], Tensor]:
    def call() -> Tensor:
        if isinstance(model, Model):
            model.randomness.step += 1
        logits: Tensor = model(*inputs)
        return logits

    return call


def _step(model: nn.Module, call: Callable[[], Tensor], labels: Tensor, train: Tensor) -> TimedCall:
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(call()[train], labels[train]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _ours(name: str, width: int, classes: int, p: float) -> Model:
    randomness = Randomness(seed=0)
    if name == "gcn":
        return GCNConfig(hidden=_HIDDEN["gcn"][0], dropout=p).build(width, classes, randomness)
    heads, features = _HIDDEN["gat"]
    config = GATConfig(heads=heads, head_width=features, dropout=p, attention_dropout=p)
    return config.build(width, classes, randomness)


def _theirs(name: str, width: int, classes: int, p: float) -> nn.Module:
    """Two of PyG's layers as its examples stack them: the normalisation is kept, loops are in the graph."""
    from torch_geometric.nn import GATConv, GCNConv

    if name == "gcn":
        hidden = _HIDDEN["gcn"][0]
        kept = {"cached": True, "add_self_loops": False}
        return _Pair(GCNConv(width, hidden, **kept), GCNConv(hidden, classes, **kept), F.relu, p)
    heads, features = _HIDDEN["gat"]
    first = GATConv(width, features, heads=heads, dropout=p, add_self_loops=False)
    second = GATConv(heads * features, classes, concat=False, dropout=p, add_self_loops=False)
    return _Pair(first, second, F.elu, p)


class _Pair(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module, activation: Callable[[Tensor], Tensor], p: float) -> None:
        super().__init__()
        self.convs, self.activation, self.p = nn.ModuleList([first, second]), activation, p

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.dropout(x, self.p, self.training)
        x = self.activation(self.convs[0](x, edge_index))
        out: Tensor = self.convs[1](F.dropout(x, self.p, self.training), edge_index)
        return out


@torch.no_grad()
def _same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy ours into PyG's layers."""
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        _, layer, *rest = name.split(".")
        inner = f"convs.{layer}"
        source: Tensor
        match ".".join(rest):
            case "lin.weight":
                source = mine[f"{inner}.linear.weight"].t()
            case "bias":
                own = f"{inner}.bias"
                source = mine[own if own in mine else f"biases.{layer}"]
            case "att_src":
                source = mine[f"{inner}.source"][None]
            case "att_dst":
                source = mine[f"{inner}.target"][None]
            case other:
                raise RuntimeError(f"PyG's layers: expected the parameters of ours, got another, {other!r}")
        parameter.copy_(source)
