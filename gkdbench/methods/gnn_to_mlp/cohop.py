"""CoHOp: label histograms, agreement between neighbours and pseudo-labels, without a teacher and without a GNN.

Order: for each round train on the current labels, then (except in the last) predict all observed nodes, mix the
predictions with the neighbours' and relabel; weights carry over, optimiser moments do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from gkdkernels import CSRGraph, feature_rows
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeTable, Space
from gkdbench.nn.sampling import NeighbourSampler
from gkdbench.protocol.predictor import Predictor, state_of
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.label_histogram import LabelHistogram, Reach, disagreement, neighbour_mean
from gkdbench.training.blocks.pairs import without_loops
from gkdbench.training.blocks.pseudo_labels import GuessMixture, hits, label_probabilities, pseudo_labels
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.steps import adam, batches, descend, endless_batches, mean_loss
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat

GRID = [step / 100 for step in range(101)]
"""Mixing weights that are tried, where one is chosen."""


@dataclass(frozen=True, kw_only=True)
class CoHOp(SingleModelMethod):
    """``CE + gamma * mean_i mean_{j -> i} H(p_i, p_j)`` on features with a label histogram (Winter et al. 2024).

    Five rounds: train on the current labels, predict, put the true labels on the training rows, mix with the mean of
    the neighbours, ``w p + (1 - w) P p``, and label the nodes that are sure (largest entry above a threshold) for the
    next round. Weights carry over from round to round, the optimiser's moments do not.

    With several labels per item each entry is a two-class problem of its own: CE and H are the mean Bernoulli ones, the
    histogram counts labels that are there, and an entry is sure where the larger of p and 1 - p is above the threshold.

    ``as_released`` counts a training node's own label in its histogram, stops each round on validation and searches
    w on validation labels, so that these shape the pseudo-labels of the next. ``corrected`` leaves the own label out,
    trains each round for all its epochs (the last stops early), and takes a fixed w or searches it on labels that it
    held out from the training set in that round.

    Args:
        reach, decay, depth: of the histogram (`LabelHistogram`); alpha is the decay.
        smoothness: gamma.
        rounds: of pseudo-labels; `epochs` and `patience` are a round's.
        threshold: of the largest entry, above which a node gets a pseudo-label.
        mixing: where w comes from: `mix`, or the share `held_out` of the training nodes.
    """

    name: ClassVar[str] = "cohop"
    paper: ClassVar[str] = "Winter, Cohen, Hoshen, Classifying Nodes in Graphs without GNNs"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2402.05934"
    repository: ClassVar[str] = "dani3lwinter/CoHOp"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "a node's own label is left out of its histogram; the official code counts it, and test nodes have none",
        "the mixing weight is fixed or chosen on held-out training labels; in the official code on validation labels",
        "a round is trained for all its epochs; the official code goes on from the round's best validation epoch",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
        "the MLP of the OGB sets has its norm before the activation and none on the input",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10, "rounds": 2}

    backbone: Literal["mlp"] = "mlp"
    model: Mapping[str, Any] = field(default_factory=lambda: {"layers": 1})
    lr: PositiveFloat = 0.1
    epochs: PositiveInt = 200
    reach: Reach = "hops"
    decay: UnitFloat = 0.4
    depth: Annotated[int, Field(ge=2)] = 10
    smoothness: NonNegativeFloat = 0.025
    rounds: PositiveInt = 5
    threshold: UnitFloat = 0.5
    mixing: Literal["fixed", "held_out"] = "fixed"
    mix: UnitFloat = 0.5
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        rounds = _Rounds(self, view, ctx)
        for number in range(1, self.rounds + 1):
            rounds.train(last=number == self.rounds)
            if number < self.rounds:
                rounds.relabel()
        return Fitted({"model": rounds.predictor})

    @property
    def label(self) -> str:
        return f"CoHOp, {'linear' if self.model['layers'] == 1 else self.model_label()}"


class _Rounds:
    """The model, and the labels that it is trained on now."""

    def __init__(self, method: CoHOp, view: TrainView, ctx: Context) -> None:
        self._method, self._view, self._ctx = method, view, ctx
        self._released = method.as_released
        config = method.backbone_config()
        self._model = build(config, view, seed=ctx.seed, extra=view.num_classes)
        histogram = LabelHistogram(
            NodeTable(Space("labelled", view.train.ids), view.labels),
            view.num_classes,
            reach=method.reach,
            decay=method.decay,
            depth=method.depth,
            own_label=self._released,
            key=self._model.randomness.key("folds"),
        )
        plain = as_predictor(config, self._model, view.num_classes)
        count = plain.macs
        macs = None if count is None else lambda inputs: count(self.predictor.prepared(inputs))
        self.predictor: Predictor = replace(plain, needs="graph", hops=method.depth, prepare=histogram, macs=macs)
        self._features = self.predictor.prepared(view.inputs).features
        self._graph = without_loops(view.inputs.graph)
        self._epoch, self._round, self._loss = 0, 0, 0.0
        self._several = view.multi_label
        self._label = view.labels.new_zeros((len(view.items), *view.labels.shape[1:]))  # [N], or [N, L]
        self._label[view.train.position] = view.labels
        self._known = view.train.position  # nodes that have a label now, true or guessed
        self._hidden = self._hide()
        if self._released:
            ctx.monitor.declare(*(f"w={w:.2f}" for w in GRID))

    def _hide(self) -> Tensor:
        """[n_train] bool: training nodes whose label this round does not see."""
        method, train = self._method, self._view.train.position
        hidden = torch.zeros(train.numel(), dtype=torch.bool, device=train.device)
        if method.mixing == "held_out" and not self._released:
            key = self._model.randomness.key(f"hidden {self._round}")
            order = torch.randperm(train.numel(), generator=torch.Generator().manual_seed(key)).to(train.device)
            hidden[order[: max(1, int(method.held_out * train.numel()))]] = True
        return hidden

    def train(self, *, last: bool) -> None:
        """One round of training; the official code goes on from its best epoch, ``corrected`` from its last."""
        method = self._method
        optimiser = adam(self._model, lr=method.lr, weight_decay=method.weight_decay)
        out_of_sight = self._view.train.position[self._hidden]
        labelled = self._known[~torch.isin(self._known, out_of_sight)]
        self._round += 1
        best, state, waited = -1.0, state_of(self._model), 0
        for epoch in range(1, method.epochs + 1):
            self._model.train()
            terms = self._step(optimiser, labelled)
            self._epoch, self._loss = self._epoch + 1, terms["loss"]
            result = self._ctx.monitor.report(self._epoch, {"model": self.predictor}, terms=terms)
            if self._released:
                waited = 0 if result.val["model"] >= best else waited + 1
                if not waited:
                    best, state = result.val["model"], state_of(self._model)
                if waited == method.patience:
                    break
            elif last and result.stop and epoch >= (method.patience or 0):
                break
        if self._released and not last:
            self._model.load_state_dict(state)

    def _step(self, optimiser: torch.optim.Optimizer, labelled: Tensor) -> dict[str, float]:
        """One pass over all observed nodes, labelled ones next to them; the means of the terms."""
        reported: dict[str, list[float]] = {"loss": [], "ce": [], "smoothness": []}
        size = self._method.batch_size
        again = endless_batches(self._model, labelled.numel(), size)
        for batch in batches(self._model, len(self._view.items), size):
            graph, rows = self._around(batch)
            chosen = labelled[next(again)]

            def loss(graph: CSRGraph = graph, rows: Tensor | None = rows, chosen: Tensor = chosen) -> Tensor:
                if rows is None:
                    logits = self._model(self._features)
                    answers = logits[chosen]
                else:
                    both = self._model(feature_rows(self._features, torch.cat([rows, chosen])))
                    logits, answers = both[: rows.numel()], both[rows.numel() :]
                ce = supervised(answers, self._label[chosen], multi_label=self._several)
                reported["ce"].append(float(ce.detach()))
                if not self._method.smoothness:
                    return ce
                term = self._method.smoothness * disagreement(logits, graph, multi_label=self._several)
                reported["smoothness"].append(float(term.detach()))
                return ce + term

            reported["loss"].append(descend(self._model, optimiser, loss))
        return {name: mean_loss(values) for name, values in reported.items() if values}

    def _around(self, batch: Tensor) -> tuple[CSRGraph, Tensor | None]:
        """The batch's in-edges, and the nodes [R] that they connect (None: all, in order)."""
        if self._method.batch_size is None:
            return self._graph, None
        everyone = max(int(self._graph.degree.max()), 1)
        sample = NeighbourSampler(self._graph, (everyone,)).sample(batch.to(self._view.device), 0)
        return sample.blocks[0], sample.rows

    @torch.no_grad()
    def relabel(self) -> None:
        """Label the nodes that are sure, for the next round."""
        view, train = self._view, self._view.train
        logits = self.predictor.evaluate(view.inputs)
        guess = logits.sigmoid() if self._several else logits.softmax(dim=1)
        truth = label_probabilities(view.labels, guess[train.position])
        seen = ~self._hidden
        guess[train.position[seen]] = truth[seen]
        weight = self._mixing_weight(guess, neighbour_mean(self._graph, guess))
        guess[train.position] = truth
        mixed = weight * guess + (1 - weight) * neighbour_mean(self._graph, guess)
        self._label, chosen = pseudo_labels(mixed, threshold=self._method.threshold, several=self._several)
        self._label[train.position] = view.labels
        chosen[train.position] = True
        self._known = chosen.nonzero().flatten()
        self._hidden = self._hide()
        self._ctx.extra |= {"mixing_weight": weight, "labelled_share": float(chosen.float().mean())}

    def _mixing_weight(self, guess: Tensor, smooth: Tensor) -> float:
        """w of ``w guess + (1 - w) smooth``, both [N, C]."""
        if self._released:
            return self._searched_on_validation(guess, smooth)
        if self._method.mixing == "fixed":
            return self._method.mix
        hidden, labels = self._view.train.position[self._hidden], self._view.labels[self._hidden]
        right = [hits(w * guess[hidden] + (1 - w) * smooth[hidden], labels) for w in GRID]
        return GRID[right.index(max(right))]

    def _searched_on_validation(self, guess: Tensor, smooth: Tensor) -> float:
        """The official code's w: best on validation, in an epoch that nothing can be selected from."""
        mixtures = {
            f"w={w:.2f}": Predictor(GuessMixture(guess, smooth, w, several=self._several), needs="graph") for w in GRID
        }
        self._epoch += 1
        terms = {"loss": self._loss}
        val = self._ctx.monitor.report(self._epoch, mixtures, terms=terms, selectable=False).val
        scores = [val[name] for name in mixtures]
        return GRID[scores.index(max(scores))]
