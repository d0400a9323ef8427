"""Whole runs in one process: view, teachers, training, scores, and what the run touched on the way."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkdbench.data.splits import SplitTask
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs
from gkdbench.protocol.predictor import State, state_of
from gkdbench.protocol.scoring import Scored, score_run
from gkdbench.protocol.session import RunOutcome, run_session
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.protocol.view_io import write_bundle
from gkdbench.records.key import member_seed
from gkdbench.training.method import Method
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve


@dataclass(frozen=True, eq=False)
class TracedRun:
    """One run and its traces.

    Args:
        outcome: as the worker tells it.
        scored: scores and arrays; empty for a run that failed.
        final: per model its weights when ``fit`` returned, before selection put others in.
        read: configuration fields that the run read.
        touched: global random generators that the run advanced.
        scratch: what the worker left.
    """

    outcome: RunOutcome
    scored: Scored
    final: Mapping[str, State]
    read: frozenset[str]
    touched: tuple[str, ...]
    scratch: Path

    @property
    def selected(self) -> dict[str, tuple[int, str]]:
        """Model -> (selected epoch, hash of the selected weights)."""
        return {model["name"]: (model["selected_epoch"], model["weights_sha256"]) for model in self.outcome.models}


def small_method(name: str, overrides: Mapping[str, Any], *, epochs: int, quiet: bool = False) -> Method:
    """Method `name` with its smoke budget, at most `epochs` epochs.

    Args:
        quiet: without dropout, mini-batches and neighbour sampling, so that no draw depends on the order of nodes.
    """
    cls = METHODS.get(name)
    fields = {f.name for f in dataclasses.fields(cls)}
    budget = dict(cls.smoke) | ({"epochs": epochs} if "epochs" in fields else {})
    method = resolve(name, budget | dict(overrides))
    if not quiet:
        return method
    changes: dict[str, Any] = {}
    if isinstance(model := getattr(method, "model", None), Mapping):
        changes["model"] = _without_dropout(model)
    if isinstance(models := getattr(method, "models", None), Mapping):
        changes["models"] = {backbone: _without_dropout(settings) for backbone, settings in models.items()}
    changes |= {key: off for key, off in (("batch_size", None), ("fanouts", ())) if key in fields}
    return dataclasses.replace(method, **changes)


def _without_dropout(settings: Mapping[str, Any]) -> dict[str, Any]:
    still = {key: 0.0 for key, value in settings.items() if "dropout" in key and isinstance(value, float)}
    return {**settings, **still}


@dataclass(eq=False)
class Workshop:
    """Runs methods in `folder`, training (and keeping) the teachers that they require.

    Args:
        folder: existing; everything is written below it.
        epochs: of teachers.
    """

    folder: Path
    epochs: int = 5
    _views: dict[int, tuple[SplitTask, Path, EvaluationGraphs]] = field(default_factory=dict, init=False)
    _teachers: dict[tuple[int, str, int], BankEntry] = field(default_factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def view(self, problem: SplitTask) -> tuple[Path, EvaluationGraphs]:
        """The bundle's folder of `problem` and its evaluation_graphs; written once."""
        if id(problem) not in self._views:
            folder = self.folder / f"view{len(self._views)}"
            self._views[id(problem)] = (problem, folder, write_bundle(problem, folder))
        return self._views[id(problem)][1:]

    def run(
        self,
        method: Method,
        problem: SplitTask,
        *,
        seed: int = 0,
        stop_early: bool = True,
        quiet: bool = False,
        teachers_on: SplitTask | None = None,
        bank: Path | None = None,
    ) -> TracedRun:
        """Train `method` on `problem`, teachers first, and score it.

        Args:
            stop_early: keep the method's patience; False trains for all its epochs.
            quiet: as in `small_method`, for the teachers.
            teachers_on: the problem that teachers are trained on, when it is another.
            bank: write the first model there as a teacher.
        """
        view, evaluation_graphs = self.view(problem)
        read: set[str] = set()
        watched = _watched(method, read)
        teachers = self.teachers(watched, teachers_on or problem, seed=seed, quiet=quiet)
        spy = _Spy(watched)
        scratch = self.folder / f"run{self._count}"
        self._count += 1
        scratch.mkdir()
        patience = getattr(watched, "patience", None)
        outcome = run_session(
            spy,
            bundle=view,
            scratch=scratch,
            seed=seed,
            teachers=teachers,
            patience=patience if stop_early else None,
            selection=watched.selection_rule(),
            bank=bank,
        )
        scored = (
            score_run(problem, evaluation_graphs, scratch, outcome.models) if outcome.status == "ok" else Scored([], {})
        )
        return TracedRun(outcome, scored, spy.final, frozenset(read), tuple(spy.touched), scratch)

    def teachers(
        self, method: Method, problem: SplitTask, *, seed: int = 0, quiet: bool = False
    ) -> dict[str, BankEntry]:
        """Role -> the trained teacher that `method` requires on `problem`."""
        found = {}
        for role, need in method.requires().items():
            wanted = dict(need.overrides) | ({"recipe": need.recipe} if need.recipe else {})
            teacher = small_method(need.method, wanted, epochs=self.epochs, quiet=quiet)
            own = member_seed(seed, need.member or 0)
            key = (id(problem), repr((teacher.name, teacher.config())), own)
            if key not in self._teachers:
                folder = self.folder / f"bank{len(self._teachers)}"
                run = self.run(teacher, problem, seed=own, quiet=quiet, bank=folder)
                if run.outcome.status != "ok":
                    raise AssertionError(f"the teacher of {method.name!r} failed: {run.outcome.reason}")
                self._teachers[key] = BankEntry(folder, teacher.name, teacher.config(), own)
            found[role] = self._teachers[key]
        return found


class _Spy:
    """A method that remembers what `fit` left behind: final weights, and global generators it advanced."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.final: dict[str, State] = {}
        self.touched: list[str] = []

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        before = _generators()
        fitted = self._method.fit(view, ctx)
        after = _generators()
        self.touched = [name for name in before if before[name] != after[name]]
        self.final = {name: state_of(predictor.module) for name, predictor in fitted.predictors.items()}
        return fitted


def _generators() -> dict[str, bytes]:
    """States of the global generators."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(
            [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
        ).encode(),
        "random": repr(random.getstate()).encode(),
    }


def _watched(method: Method, read: set[str]) -> Method:
    """A copy of `method` that adds the name of every attribute that is looked up to `read`."""
    kind: Any = type(method)

    def look_up(self: Method, name: str) -> Any:
        read.add(name)
        return kind.__getattribute__(self, name)

    copy: Method = object.__new__(type(kind.__name__, (kind,), {"__getattribute__": look_up}))
    vars(copy).update(vars(method))
    read.clear()
    return copy
