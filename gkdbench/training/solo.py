"""One backbone trained on labels alone: teachers, plain MLP, SGC and regularised controls differ in the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gkdkernels import feature_rows
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.nn.model import Backbone, BlockModel, Model
from gkdbench.nn.sampling import NeighbourSampler
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.encodings import InputEncoder, encoded
from gkdbench.training.graph_batches import GraphBatch, graph_batches
from gkdbench.training.loop import train
from gkdbench.training.models import as_predictor, build
from gkdbench.training.schedules import LRSchedule, schedule
from gkdbench.training.steps import adam, batches, descend, mean_loss

LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits [M, C], labels [M] or [M, L]) -> scalar."""
ItemForward = Callable[[Tensor], Tensor]
"""Item positions [B] int64 -> logits [B, C]."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a single model is trained.

    Args:
        epochs: at most; the Monitor may stop earlier.
        decay: ``"first_layer"`` decays only the first layer's weights.
        batch_size: labelled items a step; None: all.
        graphs_per_step: of node tasks on several graphs: how many graphs a step reads; None: all.
        fanouts: neighbours sampled per layer (node tasks, message-passing backbones); empty: full graph.
        drop_last: leave out a batch's remainder.
        schedule: of the learning rate.
    """

    lr: float
    weight_decay: float
    epochs: int
    decay: str = "all"
    batch_size: int | None = None
    graphs_per_step: int | None = None
    fanouts: tuple[int, ...] = ()
    drop_last: bool = False
    schedule: LRSchedule = "constant"


def train_solo(
    view: TrainView,
    ctx: Context,
    config: Backbone,
    settings: TrainingSettings,
    loss: LabelLoss,
    encoder: InputEncoder | None = None,
) -> Fitted:
    """Train `config` on the labelled items of `view` with `loss`; the model is called "model".

    Args:
        encoder: puts encodings next to the features, for backbones that read features alone.

    Example:
        >>> from gkdbench.testing import small_run
        >>> from gkdbench.training import backbone_config, supervised
        >>> view, ctx = small_run()
        >>> settings = TrainingSettings(lr=0.01, weight_decay=5e-4, epochs=3)
        >>> fitted = train_solo(view, ctx, backbone_config("mlp", {"hidden": 8}), settings, supervised)
        >>> fitted.predictors["model"](view.inputs).shape  # 210 nodes, 3 classes
        torch.Size([210, 3])
    """
    model = build(config, view, seed=ctx.seed, extra=encoder.dim if encoder else 0)
    decayed = model.first_layer_parameters() if settings.decay == "first_layer" else None
    optimiser = adam(model, lr=settings.lr, weight_decay=settings.weight_decay, decayed=decayed)
    predictor = as_predictor(config, model, view.num_classes)
    if encoder:
        predictor = encoded(predictor, encoder)
    forward = item_forward(view, model, predictor, settings.fanouts)

    def step(epoch: int) -> dict[str, float]:
        losses = []
        if settings.graphs_per_step is not None:
            for part in graph_batches(view, model, settings.graphs_per_step):
                losses.append(descend(model, optimiser, partial(_on_graphs, loss, predictor, part)))
            return {"loss": mean_loss(losses)}
        for batch in batches(model, len(view.train), settings.batch_size, drop_last=settings.drop_last):
            items, labels = view.train.position[batch], view.labels[batch]
            losses.append(descend(model, optimiser, partial(_on, loss, forward, items, labels)))
        return {"loss": mean_loss(losses)}

    train(ctx, {"model": predictor}, step, epochs=settings.epochs, after=schedule(settings.schedule, optimiser))
    return Fitted({"model": predictor})


def _on(loss: LabelLoss, forward: ItemForward, items: Tensor, labels: Tensor) -> Tensor:
    return loss(forward(items), labels)


def _on_graphs(loss: LabelLoss, predictor: Predictor, part: GraphBatch) -> Tensor:
    return loss(predictor(part.inputs, part.inputs.everything)[part.rows], part.labels)


def item_forward(view: TrainView, model: Model, predictor: Predictor, fanouts: tuple[int, ...] = ()) -> ItemForward:
    """A function from item positions ([B] int64) to their logits [B, C], in the cheapest way for training.

    Graph tasks build the batch's block-diagonal graph; sampled training draws neighbours; models that read features
    alone read the batch's rows; all others run on the whole observed graph.
    """
    inputs = view.inputs

    def of_graphs(items: Tensor) -> Tensor:
        batch = predictor.prepared(inputs).take(items)
        logits: Tensor = model(*batch.arguments(model))
        return logits

    def of_nodes(items: Tensor) -> Tensor:
        return predictor(inputs, NodeSet(view.items, items))

    if view.kind == "graph":
        return of_graphs
    if not fanouts:
        return of_nodes
    if not isinstance(model, BlockModel):
        raise UserError(
            f"fanouts: expected a backbone that runs on sampled blocks, got {type(model).__name__}; use fanouts=()"
        )
    sampler, blocks_of = NeighbourSampler(inputs.graph, fanouts), model.forward_blocks

    def sampled(items: Tensor) -> Tensor:
        sample = sampler.sample(items, model.randomness.key("neighbours"))
        return blocks_of(feature_rows(inputs.features, sample.rows), sample.blocks)

    return sampled
