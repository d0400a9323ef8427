"""What a third-party package holds: a method that behaves, or fails in the way it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import careless_acts
import faults
import torch
from pydantic import Field

from gkdbench.methods import Method, Requirement
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView


class Linear(torch.nn.Module):
    def __init__(self, d: int, c: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(d, c, generator=draw) * 0.1)

    def forward(self, features, graph, segments):
        return features @ self.weight


@dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Logistic regression, which may be told to fail."""

    name: ClassVar[str] = "toy"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 2}

    epochs: Annotated[int, Field(ge=1)] = 4
    lr: Annotated[float, Field(gt=0)] = 0.5
    mode: str = "good"
    taught: bool = False

    def requires(self) -> Mapping[str, Requirement]:
        return {"teacher": Requirement("toy", {"epochs": 3})} if self.taught else {}

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        module = Linear(view.num_features, view.num_classes, ctx.seed)
        predictor = Predictor(module)
        rows, labels = view.inputs.rows(view.train), view.labels
        misbehave(self.mode)
        if self.mode in faults.NAMES:
            return faults.commit(self.mode, view, ctx, predictor)
        if self.mode == "shape":
            predictor = Predictor(torch.nn.Flatten(0))
            predictor.module.forward = lambda features, graph, segments: features[:, :1]
        for epoch in range(1, self.epochs + 1):
            loss = torch.nn.functional.cross_entropy(module(rows, None, None), labels)
            if self.taught:
                soft = ctx.teachers["teacher"].logits[view.inputs.everything].softmax(1)
                student = module(view.inputs.features, None, None).log_softmax(1)
                loss = loss - (soft * student).sum(1).mean()
            (gradient,) = torch.autograd.grad(loss, module.weight)
            with torch.no_grad():
                module.weight -= self.lr * gradient
                if self.mode == "nan":
                    module.weight *= float("nan")
            time.sleep(float(os.environ.get("TOY_PAUSE_S", "0")))
            if self.mode != "silent":
                ctx.monitor.report(epoch, {"model": predictor}, terms={"loss": float(loss)})
            if self.mode == "slow":
                time.sleep(1.1)
        if self.mode == "settings":
            ctx.extra.update(careless_acts.settings())
        if self.mode.startswith("look"):
            ctx.flags.extend(careless_acts.readable())
        if self.mode == "heavy":
            ctx.extra["sum"] = careless_acts.heavy()
        if self.mode == "extra":
            ctx.extra["ratio"] = float("nan")
        return Fitted({"model": predictor})


def misbehave(mode: str) -> None:
    careless_acts.act(mode)
    if mode == "raise":
        raise RuntimeError("the toy was told to raise")
    if mode == "memory":
        torch.ones(2**40)
    if mode == "hang":
        while True:
            time.sleep(1)
    if mode == "print":
        print("{}", flush=True)
    if mode == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "suicide-once":
        marker = Path(os.environ["TOY_MARKER"])
        if not marker.exists():
            marker.write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    if mode == "peek":
        from gkdbench.data.datasets import load_task

        load_task("csbm:n=400")
