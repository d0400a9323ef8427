"""K independently seeded models of another method: the best on validation, and their ensemble.

Controls G3 and G4 of docs/protocol.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from gkdkernels import CSRGraph, Features
from pydantic import Field
from torch import Tensor, nn

from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.selection import best_of
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.method import Method, Requirement
from gkdbench.training.models import as_predictor, backbone_config, load_teacher_model


@dataclass(frozen=True, kw_only=True)
class Ensemble(Method):
    """K trained cells of method `of`, under the run's own teachers: nothing is trained here.

    Tables show their mean, the one with the best validation score (solo best-of-K: K trainings, one inference) and
    the mean of their probabilities (K-model ensemble: K trainings, K inferences).

    Args:
        of: a method that trains one model of a backbone. settings: its hyper-parameters.
        members: K, the number of the compared method's peers (5 for mixtures).
        each: further settings of each member, for peers of several backbones; they then share the run's seed.
        keep: all models, or one as a teacher for others: the best on validation, or their mean, whose logits are the
            logarithm of the mean of their probabilities (the row "ensemble -> KD" of docs/protocol.md, control G4).
    """

    name: ClassVar[str] = "ensemble"
    paper: ClassVar[str] = "controls G3 and G4: best of K and ensemble of K solo models"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"members": 2}
    control: ClassVar[str] = "several_models"

    of: str = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Annotated[int, Field(ge=2)] = 5
    each: tuple[Mapping[str, Any], ...] = field(default=(), metadata=OMIT_FROM_KEY_AT_DEFAULT)
    keep: Literal["all", "best", "mean"] = "all"

    def requires(self) -> Mapping[str, Requirement]:
        if self.each:
            settings = [{**self.settings, **own} for own in self.each]
            return {f"member{m}": Requirement(self.of, own, member=0) for m, own in enumerate(settings)}
        return {f"member{m}": Requirement(self.of, self.settings, member=m) for m in range(self.members)}

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        predictors = {}
        for role in self.requires():
            member = ctx.teachers[role]
            config = backbone_config(member.config["backbone"], member.config["model"])
            predictors[role] = as_predictor(config, load_teacher_model(member, view), view.num_classes)
        if self.keep == "mean":
            predictors = {"mean": mean_predictor(list(predictors.values()), multi_label=view.multi_label)}
        ctx.monitor.declare(*predictors)
        result = ctx.monitor.report(1, predictors, terms={"loss": 0.0})
        if self.keep == "best":
            best = list(predictors)[best_of((result.val[role], result.val_loss[role]) for role in predictors)]
            return Fitted({best: predictors[best]})
        return Fitted(predictors, ensemble=self.keep == "all")

    @property
    def label(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        kept = {"all": "", "best": "best of ", "mean": "mean of "}[self.keep]
        own = [str(one.get("backbone", self.of)).upper() for one in self.each]
        named = " and ".join(own) if own else f"{self.members} x {self.of}"
        return f"{kept}{named}{f' ({settings})' if settings else ''}"


class MeanOfModels(nn.Module):
    """The mean of the probabilities of several models, as logits.

    Args:
        multi_label: probabilities are those of labels, not of classes.
    """

    def __init__(self, models: Sequence[nn.Module], *, multi_label: bool) -> None:
        super().__init__()
        self.models, self.multi_label = nn.ModuleList(models), multi_label

    @property
    def edge_width(self) -> int:
        """Of the members that read edge features."""
        return max(getattr(model, "edge_width", 0) for model in self.models)

    def forward(self, x: Features, graph: CSRGraph | None, segments: Tensor | None, *edges: Tensor) -> Tensor:
        """Logits [N, C] (of graphs [G, C]) of what the members are called with."""
        logits = [m(x, graph, segments, *(edges if getattr(m, "edge_width", 0) else ())) for m in self.models]
        if self.multi_label:
            return torch.stack([z.sigmoid() for z in logits]).mean(0).logit()
        return torch.stack([z.log_softmax(1) for z in logits]).logsumexp(0) - math.log(len(logits))


def mean_predictor(members: Sequence[Predictor], *, multi_label: bool) -> Predictor:
    """One Predictor of `MeanOfModels` that needs what its members need; K inferences, K times the multiply-adds."""

    def macs(inputs: Inputs) -> int:
        return sum(member.macs(inputs) for member in members if member.macs is not None)

    hops = max(member.hops or 0 for member in members)
    module = MeanOfModels([member.module for member in members], multi_label=multi_label)
    return Predictor(module, needs="graph" if hops else "features", hops=hops or None, macs=macs)
