"""CPF: label propagation with learned weights, combined with an MLP, that imitates a GNN; reads the graph.

Order: take the teacher's probabilities of the unlabelled observed nodes once, then in every epoch K propagation steps
and one optimiser step on the distance to those probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from gkdkernels import CSRGraph, Features, gat_aggregate
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.errors import UserError
from gkdbench.nn.linear import dropout_features, feature_product, uniform
from gkdbench.nn.mlp import MLP, MLPConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.binarised import binarised
from gkdbench.training.blocks.encodings import places
from gkdbench.training.blocks.label_columns import label_columns
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.loop import train
from gkdbench.training.models import nonzeros
from gkdbench.training.steps import adam, descend
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat


@dataclass(frozen=True, kw_only=True)
class CPF(DistilledStudent):
    """``sqrt(sum over v not in V_L of || softmax(h_v) - p_T,v ||^2)`` (Yang et al. 2021), full batch, no label loss.

    h starts one-hot on V_L and uniform elsewhere; K times
    ``h_v <- ReLU(sigmoid(a_v) sum_u att_vu h_u + sigmoid(-a_v) MLP(x_v))``, after which V_L is put back. att is the
    softmax over in-neighbours u of their score, a_v a free number per node. Dropout is drawn again in each of the K.

    With several labels per item each label has two columns of h, for there and not there, which start as its known
    value or even; the softmax and the answer are over the two, and V_L stands for the known entries.

    An unseen node has no a_v of its own and takes the mean of the others; scores "tra" are free numbers too, which
    cannot be replaced: they are refused in inductive settings.

    Args:
        score: "ind": ``<x_u, w>``; "tra": a free number per node.
        steps: K. attention_dropout: on att. transform: with the MLP; without, h is propagated alone.
        model: of the MLP; its dropout acts on the features that the scores read as well.
    """

    name: ClassVar[str] = "cpf"
    paper: ClassVar[str] = "Yang, Liu, Shi, Extract the Knowledge of Graph Neural Networks and Go Beyond it (CPF)"
    year: ClassVar[int | None] = 2021
    arxiv: ClassVar[str] = "2103.02885"
    repository: ClassVar[str] = "BUPT-GAMMA/CPF"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "features are read as they are; the official code binarises them",
        "every key of a configuration is read; the official code's search varies learning rate and decay under other "
        "names "
        "than its optimiser reads",
        "several splits and their spread; the official code has one split",
        "scores that are free per node are refused where nodes are unseen",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    backbone: Literal["mlp"] = "mlp"
    model: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = "gcn"
    lr: PositiveFloat = 0.001
    weight_decay: NonNegativeFloat = 0.01
    score: Literal["ind", "tra"] = "ind"
    steps: PositiveInt = 8
    attention_dropout: UnitFloat = 0.2
    transform: bool = True

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        if self.batch_size is not None:
            raise UserError(
                f"cpf: batch_size: expected None, got {self.batch_size}; it propagates over the whole graph"
            )
        if self.score == "tra" and view.setting != "tran":
            raise UserError(
                f"cpf: score 'tra': expected setting 'tran', got {view.setting!r}: it is a number per node, which "
                f"unseen nodes lack; use score='ind'"
            )
        config = self.backbone_config()
        if not isinstance(config, MLPConfig):
            raise TypeError(f"cpf: expected an MLP next to the propagation, got {type(config).__name__}")
        module = Propagation(self, config, view, Randomness(ctx.seed)).to(view.device)
        student = Propagator(module, view.inputs.space, binary=self.as_released)
        optimiser = adam(module, lr=self.lr, weight_decay=self.weight_decay)
        others = torch.ones(len(view.items), dtype=torch.bool, device=view.device)
        others[view.train.position] = False
        logits = ctx.teachers["teacher"].logits[view.inputs.everything][others]
        target = logits.sigmoid() if view.multi_label else logits.softmax(dim=1)

        distance = partial(imitation, multi_label=view.multi_label)

        def step(epoch: int) -> dict[str, float]:
            loss = descend(module, optimiser, lambda: distance(student(view.inputs)[others], target))
            return {"loss": loss}

        train(ctx, {"model": student}, step, epochs=self.epochs)
        ctx.extra["mean_balance"] = float(module.balance.sigmoid().mean().detach())
        return Fitted({"model": student})

    @property
    def label(self) -> str:
        beside = f" + {self.model_label()}" if self.transform else ""
        return f"CPF-{self.score}, {self.steps} steps{beside}"


def imitation(h: Tensor, target: Tensor, *, multi_label: bool = False) -> Tensor:
    """``|| softmax(h) - target ||``, one norm over all entries; ``h: [M, C]``, ``target: [M, C]`` probabilities.

    With several labels per item the sigmoid of h, and each entry counts as its two columns. 0 without rows.
    """
    gap = (h.sigmoid() if multi_label else h.softmax(dim=1)) - target.detach()
    if not gap.numel():
        return h.sum() * 0.0
    distance: Tensor = torch.linalg.vector_norm(gap)
    return 2**0.5 * distance if multi_label else distance


class Propagation(nn.Module):
    """The module: K steps of one layer.

    Attributes:
        several: each label has two columns of h, all that are there before all that are not.
        balance: [N] a_v of the observed nodes, from 0.
        source: w [D], or the score [N] of every observed node.
    """

    def __init__(self, method: CPF, config: MLPConfig, view: TrainView, randomness: Randomness) -> None:
        super().__init__()
        self.randomness, self.steps = randomness, method.steps
        self.dropout, self.attention_dropout = config.dropout, method.attention_dropout
        self.by_features = method.score == "ind"
        nodes, width = len(view.items), view.num_features
        size = width if self.by_features else nodes
        bound = 2**0.5 * (6 / (size + 1)) ** 0.5  # Xavier's for ReLU, of one output
        self.balance = nn.Parameter(torch.zeros(nodes))
        self.source = nn.Parameter(uniform((size,), bound, randomness, "source"))
        self.several = view.multi_label
        labels, train = view.labels.cpu(), view.train.position.cpu()
        start, known, self.even = label_columns(labels, train, nodes, view.num_classes)
        self.mlp: MLP | None = None
        if method.transform:
            self.mlp = MLP(config, width, start.size(1), Randomness(randomness.seed, randomness.peer))
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("fixed", known, persistent=False)

    start: Tensor
    fixed: Tensor

    def forward(self, x: Features, graph: CSRGraph, at: Tensor) -> Tensor:
        """[N, C] h after K steps; of several labels the difference of each label's two columns.

        Args:
            x: [N, D]. graph: [N x N].
            at: [N] int64, each node's place among the observed nodes, -1 for one that is not among them.
        """
        known, place = at >= 0, at.clamp_min(0)
        balance = torch.where(known, self.balance[place], self.balance.mean())
        start = torch.where(known[:, None], self.start[place], self.even)
        fixed = known[:, None] & self.fixed[place]
        h = start
        for step in range(self.steps):
            spread = self._spread(h, x, graph, place, step)
            if self.mlp is not None:
                share = balance.sigmoid()[:, None]
                spread = share * spread + (1 - share) * self._transformed(x, step)
            h = torch.where(fixed, start, spread.relu())
        if self.several:
            there, absent = h.chunk(2, dim=1)
            return there - absent
        return h

    def _spread(self, h: Tensor, x: Features, graph: CSRGraph, place: Tensor, step: int) -> Tensor:
        """[N, C] ``sum_u att_vu h_u``."""
        if self.by_features:
            score = feature_product(self._dropped(x, f"score {step}"), self.source[:, None])
        else:
            score = self._dropped_scores(step)[place][:, None]
        rate = self.attention_dropout if self.training else 0.0
        key = self.randomness.key(f"attention {step}")
        flat = torch.zeros_like(score)  # the score is the source's alone
        mixed = gat_aggregate(graph, h[:, None, :], score, flat, negative_slope=1.0, dropout=rate, key=key)
        return mixed[:, 0, :]

    def _dropped(self, x: Features, name: str) -> Features:
        return dropout_features(x, self.dropout, self.randomness.key(name)) if self.training else x

    def _dropped_scores(self, step: int) -> Tensor:
        dropped = self._dropped(self.source[:, None], f"score {step}")
        return dropped[:, 0] if isinstance(dropped, Tensor) else self.source

    def _transformed(self, x: Features, step: int) -> Tensor:
        """[N, C] MLP(x), with dropout on its input too, another one in every step."""
        if self.mlp is None:
            raise TypeError("cpf: expected an MLP to transform features, got none")
        self.mlp.randomness.step = self.randomness.step * self.steps + step
        logits: Tensor = self.mlp(self._dropped(x, f"mlp {step}"))
        return logits


class Propagator(Predictor):
    """Gives the module the positions of a graph's nodes among the observed ones, by their ids.

    Args:
        observed: the numbering that it was trained on.
        binary: read ``x != 0`` for x.
    """

    def __init__(self, module: Propagation, observed: Space, *, binary: bool) -> None:
        super().__init__(
            module,
            needs="graph",
            hops=module.steps,
            prepare=binarised if binary else None,
            macs=lambda inputs: _macs(module, inputs),
        )
        self._observed, self._places = observed, dict[str, Tensor]()

    def __call__(self, inputs: Inputs, items: NodeSet | None = None) -> Tensor:
        name = inputs.space.name
        if name not in self._places:
            self._places[name] = places(inputs.space, self._observed)
        ready = self.prepared(inputs)
        h: Tensor = self.module(ready.features, ready.graph, self._places[name])
        return h if items is None else h[items.within(inputs.items).position]


def _macs(module: Propagation, inputs: Inputs) -> int:
    nodes, classes, nnz = len(inputs.space), module.start.size(1), nonzeros(inputs.features)
    spreading = module.steps * inputs.graph.num_edges * classes + (nnz if module.by_features else 0)
    if module.mlp is None:
        return spreading
    first, *rest = (int(p.numel()) for name, p in module.mlp.named_parameters() if name.endswith("weight"))
    mlp = nnz * first // max(int(inputs.features.shape[1]), 1) + nodes * sum(rest)
    return spreading + mlp + 2 * module.steps * nodes * classes
