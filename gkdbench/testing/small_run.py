"""What a `fit` is called with, on a small built-in problem: to try a method or a trainer in an interactive session."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import torch

from gkdbench.protocol.selection import SelectionRule
from gkdbench.protocol.session import monitor_of
from gkdbench.protocol.view import Context, TrainView
from gkdbench.protocol.view_io import read_bundle
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import Workshop, small_method
from gkdbench.training.method import Method


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
    folder = Path(tempfile.mkdtemp(prefix="gkdbench-small-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    chosen = small_method(method, {}, epochs=5) if isinstance(method, str) else method
    problem, workshop = small_problem(setting), Workshop(folder)
    bundle = read_bundle(workshop.view(problem)[0])
    teachers = workshop.teachers(chosen, problem, seed=seed)
    scratch = folder / "scratch"
    scratch.mkdir()
    rule = SelectionRule.parse(chosen.selection_rule())
    monitor = monitor_of(bundle, scratch, patience=getattr(chosen, "patience", None), rule=rule)
    known = {role: entry.read(bundle.view) for role, entry in teachers.items()}
    return bundle.view, Context(monitor, known, seed, torch.device("cpu"))
