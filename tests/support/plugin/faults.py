"""Ways in which the `fit` of a method goes wrong, each of which must end as one failed record with its cause."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView

Fault = Callable[[TrainView, Context, Predictor], Any]
BAD = "file\udcff"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd(torch.nn.Module):
    """Answers whatever `make` makes of [N] rows and C classes."""

    def __init__(self, make: Callable[[int, int], Any], classes: int) -> None:
        super().__init__()
        self.make, self.classes = make, classes

    def forward(self, features: Any, graph: Any, segments: Any) -> Any:
        return self.make(features.shape[0], self.classes)


def raising(error: BaseException) -> Fault:
    def fault(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
        raise error

    return fault


def noting(**found: Any) -> Fault:
    """A plain run that leaves `extra` or `flags` behind."""

    def fault(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
        ctx.monitor.report(1, {"model": predictor}, terms={"loss": 1.0})
        if "extra" in found:
            ctx.extra.update(found["extra"])
        if "flags" in found:
            ctx.flags.extend(found["flags"])
        for name in ("extra", "flags"):
            if f"new_{name}" in found:
                setattr(ctx, name, found[f"new_{name}"])
        return Fitted({"model": predictor})

    return fault


def answering(make: Callable[[int, int], Any]) -> Fault:
    def fault(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
        odd = Predictor(Odd(make, view.num_classes))
        ctx.monitor.report(1, {"model": odd}, terms={"loss": 1.0})
        return Fitted({"model": odd})

    return fault


def reporting(epoch: Any, name: Any = "model", **terms: Any) -> Fault:
    def fault(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
        ctx.monitor.report(epoch, {name: predictor}, terms=terms)
        return Fitted({name: predictor})

    return fault


def returning(make: Callable[[Predictor], Any]) -> Fault:
    def fault(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
        ctx.monitor.report(1, {"model": predictor}, terms={"loss": 1.0})
        return make(predictor)

    return fault


def deep(view: TrainView, ctx: Context, predictor: Predictor) -> Any:
    return deep(view, ctx, predictor)


FAULTS: dict[str, tuple[Fault, str]] = {
    "raises KeyError": (raising(KeyError("no such layer")), "KeyError: 'no such layer'"),
    "raises without text": (raising(Mute()), "no text: its __str__ raises RuntimeError"),
    "raises with a surrogate": (raising(ValueError(BAD)), r"ValueError: file\udcff"),
    "raises a novel": (raising(ValueError("x" * 10**6)), "characters left out"),
    "raises SystemExit": (raising(SystemExit(0)), "SystemExit"),
    "raises KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "raises a group": (raising(RuntimeError("a\0b\x1b[2J")), "RuntimeError: a"),
    "recurses": (deep, "RecursionError"),
    "asserts": (raising(AssertionError()), "AssertionError"),
    "stops iterating": (raising(StopIteration()), "StopIteration"),
    "extra NaN": (noting(extra={"share": float("nan")}), "ctx.extra['share']: expected a finite number, got nan"),
    "extra inf": (noting(extra={"share": np.float32("inf")}), "ctx.extra['share']: expected a finite number"),
    "extra text": (noting(extra={"share": "high"}), "ctx.extra['share']: expected a finite number, got str"),
    "extra tensor": (
        noting(extra={"share": torch.ones(3)}),
        "ctx.extra['share']: expected a finite number, got Tensor",
    ),
    "extra nested": (noting(extra={"share": {"a": 1.0}}), "ctx.extra['share']: expected a finite number, got dict"),
    "extra huge": (noting(extra={"share": 10**400}), "ctx.extra['share']: expected a finite number"),
    "extra surrogate": (noting(extra={BAD: 1.0}), "lone surrogate"),
    "extra long name": (noting(extra={"x" * 10**6: 1.0}), "expected at most 200 characters, got 1,000,000"),
    "extra number as name": (noting(extra={3: 1.0}), "expected text, got int"),
    "extra many": (noting(extra={str(i): 1.0 for i in range(1_001)}), "expected at most 1,000 numbers"),
    "extra replaced": (noting(new_extra=[1.0]), "ctx.extra: expected a dict of numbers, got list"),
    "flag object": (noting(flags=[object()]), "a flag of ctx.flags: expected text, got object"),
    "flag surrogate": (noting(flags=[BAD]), "lone surrogate"),
    "flag novel": (noting(flags=["x" * 10**6]), "expected at most 1000 characters, got 1,000,000"),
    "flags a word": (noting(new_flags="bad"), "ctx.flags: expected a list of words, got str"),
    "answers NaN": (answering(lambda n, c: torch.full((n, c), torch.nan)), ""),
    "answers text": (answering(lambda n, c: "logits"), "got str"),
    "answers doubles": (answering(lambda n, c: torch.full((n, c), 1e300, dtype=torch.float64)), "finite logits"),
    "answers one row": (answering(lambda n, c: torch.zeros(1, c)), "expected logits"),
    "answers ints": (
        answering(lambda n, c: torch.zeros(n, c, dtype=torch.int64)),
        "expected logits of floats, got torch.int64",
    ),
    "answers complex": (
        answering(lambda n, c: torch.zeros(n, c, dtype=torch.complex64)),
        "expected logits of floats, got torch.complex64",
    ),
    "reports epoch 0": (reporting(0), "epoch"),
    "reports a word": (reporting("first"), ""),
    "names a path": (reporting(1, "../model"), "a predictor's name: expected"),
    "names a surrogate": (reporting(1, BAD), "a predictor's name: expected"),
    "names a novel": (reporting(1, "x" * 10**5), "a predictor's name: expected"),
    "names nothing": (reporting(1, ""), "a predictor's name: expected"),
    "names a number": (reporting(1, 7), "a predictor's name: expected"),
    "loss is text": (reporting(1, loss="low"), ""),
    "loss is NaN": (reporting(1, loss=float("nan")), "loss term 'loss' became nan"),
    "returns None": (returning(lambda predictor: None), "fit: expected a Fitted, got NoneType"),
    "returns nothing fitted": (returning(lambda predictor: Fitted({})), ""),
    "returns a module": (
        returning(lambda predictor: Fitted({"model": predictor.module})),
        "expected a Predictor, got Linear",
    ),
    "returns others": (returning(lambda predictor: Fitted({"other": predictor})), "other"),
    "never reports": (lambda view, ctx, predictor: Fitted({"model": predictor}), ""),
}
"""Name -> (what `fit` does, a part of the reason that the record gives; "" where it is not ours to word)."""
HARMLESS: dict[str, Fault] = {
    "notes of numpy": noting(extra={"a": np.float32(0.5), "b": torch.tensor(2), "c": True, "d": np.int64(7)})
}
"""Name -> what looks odd and is a healthy run."""
NAMES = frozenset(FAULTS) | frozenset(HARMLESS)


def commit(name: str, view: TrainView, ctx: Context, predictor: Predictor) -> Any:
    """Do what the fault `name` does."""
    sys.setrecursionlimit(500)
    fault = HARMLESS[name] if name in HARMLESS else FAULTS[name][0]
    return fault(view, ctx, predictor)
