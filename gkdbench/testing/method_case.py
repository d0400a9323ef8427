"""What every method must pass: it runs where it says it does, repeatably, and learns from nothing it may not see."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from gkdbench.data.splits import SplitTask
from gkdbench.protocol.predictor import State
from gkdbench.testing.problems import (
    order_within_graphs,
    relabelled,
    renumbered,
    small_problem,
    with_other_unseen,
)
from gkdbench.testing.runs import TracedRun, Workshop, small_method
from gkdbench.training.method import Method
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve_stored

LEAK_TESTS = ("test_ignores_test_labels", "test_ignores_unseen_nodes")
"""These have no excuse."""


class MethodCase:
    """Inherit, set `name`; every ``test_*`` method here then runs on that method, on problems of 100 to 200 nodes.

    Class attributes:
        name: registered name.
        overrides: hyper-parameters for all runs.
        unread: field -> why a run may leave it unread (protocol trap 26); a field that every run reads is refused here.
        excused: test -> why this method cannot pass it; the leak tests cannot be excused.
        epochs: of every run.
    """

    name: ClassVar[str]
    overrides: ClassVar[Mapping[str, Any]] = {}
    unread: ClassVar[Mapping[str, str]] = {}
    excused: ClassVar[Mapping[str, str]] = {}
    epochs: ClassVar[int] = 5

    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    _workshop: ClassVar[Workshop]
    _problems: ClassVar[dict[str, SplitTask]]
    _runs: ClassVar[dict[tuple[str, str], TracedRun]]

    @classmethod
    def setup_class(cls) -> None:
        """A folder and empty caches for this class."""
        cls._folder = tempfile.TemporaryDirectory(prefix="gkdbench-case-")
        cls._workshop = Workshop(Path(cls._folder.name), epochs=cls.epochs)
        cls._problems, cls._runs = {}, {}

    @classmethod
    def teardown_class(cls) -> None:
        """Remove what the runs wrote."""
        cls._folder.cleanup()

    def setup_method(self, method: Any) -> None:
        """Skip what this method is excused from, with its reason."""
        reason = self.excused.get(method.__name__)
        if reason is not None and method.__name__ not in LEAK_TESTS:
            raise unittest.SkipTest(reason)

    @classmethod
    def settings(cls) -> list[str]:
        """Settings that the method declares to handle."""
        method = METHODS.get(cls.name)
        nodes, graphs = "node" in method.kinds, "graph" in method.kinds
        fits = {"tran": nodes, "ind": nodes, "graph": graphs, "multilabel": nodes and method.multi_label}
        return [setting for setting in fits if fits[setting]]

    def cases(self) -> Iterator[tuple[str, str]]:
        """(setting, variant) of every run."""
        for setting in self.settings():
            for variant in METHODS.get(self.name).variants:
                yield setting, variant

    def method(self, variant: str, **more: Any) -> Method:
        """The method under test with its small budget."""
        return small_method(self.name, {**self.overrides, "variant": variant}, epochs=self.epochs, **more)

    def problem(self, setting: str) -> SplitTask:
        """The small problem of `setting`, made once."""
        if setting not in self._problems:
            self._problems[setting] = small_problem(setting)
        return self._problems[setting]

    def run_on(self, setting: str, variant: str) -> TracedRun:
        """The plain run, made once; it must succeed."""
        if (setting, variant) not in self._runs:
            self._runs[setting, variant] = self.again(setting, variant, self.problem(setting))
        return self._runs[setting, variant]

    def again(self, setting: str, variant: str, problem: SplitTask, **options: Any) -> TracedRun:
        """A run on `problem`, in the place of the setting's own."""
        run = self._workshop.run(self.method(variant), problem, **options)
        where = f"{self.name} ({variant}) on {setting}"
        require(
            run.outcome.status == "ok", f"{where}: {run.outcome.status}\n{run.outcome.traceback or run.outcome.reason}"
        )
        return run

    def test_declares_what_tables_need(self) -> None:
        """Class attributes that tables, docs and `show` are made from are there and sensible."""
        cls = METHODS.get(self.name)
        summary = METHODS.facts(self.name).get("summary") or (cls.__doc__ or "").split("\n")[0]
        require(bool(cls.paper), f"{self.name}: `paper` is empty; name the paper, or the control it is")
        require(bool(summary), f"{self.name}: the class has no docstring; its first line is what `show` prints")
        require(bool(cls.kinds) and set(cls.kinds) <= {"node", "graph"}, f"{self.name}: kinds are {cls.kinds}")
        require(isinstance(cls.revision, int) and cls.revision >= 1, f"{self.name}: revision is {cls.revision!r}")
        require(bool(cls.smoke), f"{self.name}: `smoke` is empty; give overrides for a run of seconds")
        require("corrected" in cls.variants, f"{self.name}: variants {cls.variants} lack 'corrected'")
        require(set(cls.variants) <= {"corrected", "as_released"}, f"{self.name}: variants are {cls.variants}")
        if "as_released" in cls.variants:
            require(bool(cls.deviations), f"{self.name}: has as_released, so `deviations` must say what differs")
        require(dataclasses.is_dataclass(cls), f"{self.name}: not a dataclass")

    def test_config_makes_the_same_method_again(self) -> None:
        """The configuration that a record stores is all that it takes to run the cell again (protocol.md, trap 34)."""
        for variant in METHODS.get(self.name).variants:
            method = self.method(variant)
            stored = json.loads(json.dumps(method.config()))
            same(
                f"{self.name}: the method made from its stored configuration", resolve_stored(self.name, stored), method
            )

    def test_runs_in_every_setting_and_variant(self) -> None:
        """Every declared kind of task trains, and every reported setting is scored."""
        for setting, variant in self.cases():
            run = self.run_on(setting, variant)
            columns = {"tran": {"tran"}, "graph": {"graph"}, "multilabel": {"tran"}}
            expected = columns.get(setting, {"tran", "ind", "prod", "coldstart"})
            for model in run.scored.models:
                same(f"{self.name} on {setting}: scored columns of {model.name}", set(model.scores), expected)
                for column, audit in model.audit.items():
                    require(
                        audit.peak >= model.scores[column].value, f"{self.name}: audit peak below the selected score"
                    )
            trained = [m for m in run.outcome.models if m["name"] in run.final]
            same(f"{self.name} on {setting}: models scored", {m["name"] for m in trained}, set(run.final))
            if setting == "tran":
                needs = {m["needs"] for m in trained}
                same(f"{self.name}: what its predictors read, and `needs`", needs, {METHODS.get(self.name).needs})

    def test_same_seed_same_run(self) -> None:
        """Two runs give bit-identical weights, selected epochs, predictions and loss terms."""
        for setting, variant in self.cases():
            first, second = self.run_on(setting, variant), self.again(setting, variant, self.problem(setting))
            self.same_training(f"a second run on {setting} ({variant})", first, second)
            same(f"{self.name}: predictions, curves and loss terms", second.scored.sha256, first.scored.sha256)

    def test_other_seed_other_weights(self) -> None:
        """The seed reaches the draws."""
        setting, variant = next(self.cases())
        other = self.again(setting, variant, self.problem(setting), seed=1, teachers_on=self.problem(setting))
        before, after = self.run_on(setting, variant).selected, other.selected
        require(before != after, f"{self.name}: seeds 0 and 1 gave the same weights; draws must derive from ctx.seed")

    def test_ignores_test_labels(self) -> None:
        """Leak canary: with every test label changed, nothing about the training changes (docs/protocol.md, trap 1)."""
        for setting, variant in self.cases():
            changed = relabelled(self.problem(setting), self.problem(setting).split.test)
            run = self.again(setting, variant, changed)
            self.same_training(f"other test labels on {setting} ({variant})", self.run_on(setting, variant), run)

    def test_ignores_unseen_nodes(self) -> None:
        """Leak canary: other labels, features and edges of what is out of sight change nothing (protocol traps 15,
        18)."""
        for setting, variant in self.cases():
            if setting in ("ind", "graph"):
                run = self.again(setting, variant, with_other_unseen(self.problem(setting)))
                what = f"other nodes out of sight on {setting} ({variant})"
                self.same_training(what, self.run_on(setting, variant), run)

    def test_validation_labels_only_select(self) -> None:
        """With other validation labels, weights after all epochs are the same (docs/protocol.md, trap 9)."""
        for setting, variant in self.cases():
            problem = self.problem(setting)
            changed = relabelled(problem, problem.split.val)
            first = self.again(setting, variant, problem, stop_early=False)
            second = self.again(setting, variant, changed, stop_early=False, teachers_on=problem)
            for name, state in first.final.items():
                what = f"{self.name} on {setting} ({variant}): final weights of {name} with other validation labels"
                require(identical(state, second.final[name]), f"{what} differ: they reach the training")

    def test_node_order_only_permutes(self) -> None:
        """Without dropout and batches, weights depend on the order of nodes through rounding alone (protocol traps
        15, 27)."""
        for setting, variant in self.cases():
            if setting not in ("tran", "graph"):
                continue
            problem = self.problem(setting)
            order = np.random.default_rng(2).permutation(problem.task.num_nodes)
            if setting == "graph":
                order = order_within_graphs(problem.task, seed=2)
            moved = renumbered(problem, order)
            method = self.method(variant, quiet=True)
            first = self._workshop.run(method, problem, stop_early=False, quiet=True)
            second = self._workshop.run(method, moved, stop_early=False, quiet=True)
            for name, state in first.final.items():
                gap = relative_gap(state, second.final[name])
                what = f"{self.name} on {setting} ({variant}): weights of {name} with nodes in another order"
                require(gap < 1e-3, f"{what}, no dropout, full batch, differ by {gap:.1e}; sums alone explain less")

    def test_every_setting_is_read(self) -> None:
        """Every field is read in every run, or the case says why not (docs/protocol.md, trap 26)."""
        fields = {f.name for f in dataclasses.fields(METHODS.get(self.name))} - {"recipe"}
        if len(METHODS.get(self.name).variants) == 1:
            fields -= {"variant"}
        left = set()
        for setting, variant in self.cases():
            here = fields - self.run_on(setting, variant).read
            left |= here
            surprise = sorted(here - set(self.unread))
            what = f"{self.name} on {setting} ({variant}) never read {', '.join(surprise)}"
            require(not surprise, f"{what}; drop the field, use it, or say in `unread` why this run does not")
        same(f"{self.name}: fields in `unread` that every run reads", set(self.unread) - left, set())

    def test_global_random_state_is_untouched(self) -> None:
        """No draw comes from the global generators of torch, numpy or random."""
        for setting, variant in self.cases():
            touched = self.run_on(setting, variant).touched
            what = f"{self.name} on {setting} ({variant}) advanced the global generators of {', '.join(touched)}"
            require(not touched, f"{what}; draw from gkdbench.nn.random.Randomness(ctx.seed, peer)")

    def test_excuses_are_no_leaks(self) -> None:
        """Excuses name tests that exist, and never a leak test."""
        hidden = set(self.excused) & set(LEAK_TESTS)
        require(not hidden, f"{self.name}: {', '.join(sorted(hidden))} cannot be excused")
        unknown = [name for name in self.excused if not hasattr(MethodCase, name)]
        same(f"{self.name}: excused tests that do not exist", unknown, [])

    def same_training(self, what: str, first: TracedRun, second: TracedRun) -> None:
        """Both runs selected the same epochs and hold bit-identical weights, selected and final."""
        same(f"{self.name}, {what}: selected epochs and weights", second.selected, first.selected)
        for name, state in first.final.items():
            require(identical(state, second.final[name]), f"{self.name}, {what}: final weights of {name} differ")
        same(f"{self.name}, {what}: teachers", second.outcome.teachers, first.outcome.teachers)


def require(condition: bool, message: str) -> None:
    """Fail with `message` unless `condition`."""
    if not condition:
        raise AssertionError(message)


def same(what: str, got: Any, expected: Any) -> None:
    """Fail, showing both, unless they are equal."""
    require(got == expected, f"{what}: expected {expected!r}, got {got!r}")


def identical(first: State, second: State) -> bool:
    """Whether two states are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def relative_gap(first: State, second: State) -> float:
    """Largest ``|a - b| / max(|a|, |b|)`` in norm over the tensors of two states of the same names."""
    gaps = [0.0]
    for name in first:
        a, b = first[name].double(), second[name].double()
        scale = max(float(a.norm()), float(b.norm()))
        gaps.append(float((a - b).norm()) / scale if scale else 0.0)
    return max(gaps)
