"""What a `fit` is called with, on a small built-in problem: to try a method or a trainer, or to time one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from gkdbench.protocol.selection import SelectionRule
from gkdbench.protocol.session import monitor_of
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.protocol.view_io import read_bundle
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import Workshop, small_method
from gkdbench.training.method import Method

EPOCHS = 5


def small_run(method: Method | str = "mlp", setting: str = "tran", *, seed: int = 0) -> tuple[TrainView, Context]:
    """The view and the context of one run on a problem of 90 to 210 items; nothing is stored.

        view, ctx = small_run("glnn")  # with the teacher that GLNN requires, trained for five epochs
        fitted = MyMethod(epochs=3).fit(view, ctx)

    The view holds no test label; the Monitor in the context holds the validation labels, as in a worker. Its files go
    to a temporary folder that is removed when the interpreter ends.

    Args:
        method: whose teachers and whose patience the context has.
        setting: ``"tran"``, ``"ind"``, ``"graph"`` or ``"multilabel"``, see `small_problem`.
    """
    chosen = small_method(method, {}, epochs=EPOCHS) if isinstance(method, str) else method
    view, context = _prepared(chosen, setting, seed)
    return view, context()


def small_fit(method: Method | str, setting: str = "tran", *, seed: int = 0) -> Callable[[], Fitted]:
    """A call that trains `method` anew, as `small_run` does it; its teachers are trained before this returns.

        gkd_latency(small_fit("glnn"), small_fit("mlp"), words="MLP 2x128")  # whole trainings of five epochs

    Arguments as of `small_run`.
    """
    chosen = small_method(method, {}, epochs=EPOCHS) if isinstance(method, str) else method
    view, context = _prepared(chosen, setting, seed)
    return lambda: chosen.fit(view, context())


def _prepared(method: Method, setting: str, seed: int) -> tuple[TrainView, Callable[[], Context]]:
    """The view, and a call that gives a context which nothing was reported to yet."""
    folder = Path(tempfile.mkdtemp(prefix="gkdbench-small-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    problem, workshop = small_problem(setting), Workshop(folder)
    bundle = read_bundle(workshop.view(problem)[0])
    known = {role: entry.read(bundle.view) for role, entry in workshop.teachers(method, problem, seed=seed).items()}
    rule, patience = SelectionRule.parse(method.selection_rule()), getattr(method, "patience", None)
    numbers = count()

    def context() -> Context:
        scratch = folder / f"scratch{next(numbers)}"
        scratch.mkdir()
        return Context(monitor_of(bundle, scratch, patience=patience, rule=rule), known, seed, torch.device("cpu"))

    return bundle.view, context
