"""Controls G3 and G4: K independently seeded models of another method, the best on validation and their ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gkdbench.methods._base import Method, Requirement
from gkdbench.methods._models import as_predictor, backbone_config, rebuild
from gkdbench.nn.model import NEUTRAL
from gkdbench.protocol.view import Context, Fitted, TrainView


@dataclass(frozen=True, kw_only=True)
class Ensemble(Method):
    """K trained cells of method `of`, under the run's own teachers: nothing is trained here.

    Tables show their mean, the one with the best validation score (solo best-of-K: K trainings, one inference) and
    the mean of their probabilities (K-model ensemble: K trainings, K inferences).

    Args:
        of: a method that trains one model of a backbone. settings: its hyper-parameters.
        members: K, the number of the compared method's peers (5 for mixtures).
        each: what more each member's settings say, for peers of several backbones; they then share the run's seed.
        keep: all models, or only the best on validation, as a teacher for others.
    """

    name: ClassVar[str] = "ensemble"
    paper: ClassVar[str] = "controls G3 and G4: best of K and ensemble of K solo models"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"members": 2}

    of: str = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Annotated[int, Field(ge=2)] = 5
    each: tuple[Mapping[str, Any], ...] = field(default=(), metadata=NEUTRAL)
    keep: Literal["all", "best"] = "all"

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
            predictors[role] = as_predictor(config, rebuild(member, view), view.num_classes)
        verdict = ctx.monitor.report(1, predictors, terms={"loss": 0.0})
        if self.keep == "best":
            best = max(predictors, key=lambda role: verdict.val[role])
            return Fitted({best: predictors[best]})
        return Fitted(predictors, ensemble=True)

    @property
    def label(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        kept = "best of " if self.keep == "best" else ""
        own = [str(one.get("backbone", self.of)).upper() for one in self.each]
        named = " and ".join(own) if own else f"{self.members} x {self.of}"
        return f"{kept}{named}{f' ({settings})' if settings else ''}"
