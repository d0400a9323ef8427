"""One student that learns from labels and from pairs of nodes: the loop of KRD, FF-G2M and HGMD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.model import Backbone
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.loop import train
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.solo import TrainingSettings, train_solo
from gkdbench.training.steps import adam, descend

PairTermsFunction = Callable[[Tensor], Mapping[str, Tensor]]
"""Student logits [N, C] -> the transfer terms by name."""
BeginEpoch = Callable[[int, Randomness, Callable[[], Tensor]], PairTermsFunction]
"""(epoch, the student's randomness, its logits [N, C] in evaluation mode on demand) -> the epoch's terms."""


def train_on_pairs(
    view: TrainView,
    ctx: Context,
    config: Backbone,
    settings: TrainingSettings,
    *,
    label_weight: float,
    begin: BeginEpoch,
) -> Fitted:
    """Train `config` full batch with ``lambda * CE(V_L) + (1 - lambda) * sum of terms``, one forward a step.

    Args:
        label_weight: lambda; 1 is the solo run, bit for bit. A term of weight 0 is not computed.

    Raises:
        UserError: a batch size: pairs need both their nodes.
    """
    if settings.batch_size is not None:
        raise UserError(f"batch_size: expected None, got {settings.batch_size}; pairs of nodes are learnt full batch")
    if label_weight == 1:
        return train_solo(view, ctx, config, settings, supervised)
    model = build(config, view, seed=ctx.seed)
    optimiser = adam(model, lr=settings.lr, weight_decay=settings.weight_decay)
    student = as_predictor(config, model, view.num_classes)
    answer = partial(student.evaluate, view.inputs)

    def step(epoch: int) -> dict[str, float]:
        terms = begin(epoch, model.randomness, answer)
        parts: dict[str, Tensor] = {}

        def loss() -> Tensor:
            logits = student(view.inputs)
            parts.update({name: (1 - label_weight) * term for name, term in terms(logits).items()})
            if label_weight:
                parts["ce"] = label_weight * supervised(logits[view.train.position], view.labels)
            return torch.stack(list(parts.values())).sum()

        total = descend(model, optimiser, loss)
        return {"loss": total, **{name: float(part.detach()) for name, part in parts.items()}}

    train(ctx, {"model": student}, step, epochs=settings.epochs)
    _follow(view, ctx, answer())
    return Fitted({"model": student})


AGREEMENT = 0.75


def _follow(view: TrainView, ctx: Context, logits: Tensor) -> None:
    """Note how often student and teacher agree at the end, and flag a student that did not follow its teacher."""
    teacher = ctx.teachers["teacher"].logits[view.inputs.everything]
    share = float((logits.argmax(1) == teacher.argmax(1)).double().mean())
    ctx.extra["teacher_agreement"] = share
    if share < AGREEMENT:
        ctx.flags.append("unstable")
