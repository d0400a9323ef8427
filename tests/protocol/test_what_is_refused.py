"""What a method cannot reach, and what ends a run: other weights than the selected ones, undeclared predictors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_predictors import Does, Linear
from torch import Tensor

import gkdbench.protocol.session as session_module
from gkdbench.methods.baselines.teacher import TeacherMethod
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.session import RunOutcome, run_session
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.resolve import resolve

Get = Callable[[str], Any]


def session(case: Any, method: Any, scratch: Path, **options: Any) -> RunOutcome:
    return run_session(method, **{"bundle": case.folder, "scratch": scratch, "seed": 0, "teachers": {}} | options)


class Careless(Linear):
    """Its answers depend on more than its state."""

    def __init__(self, view: TrainView, how: str) -> None:
        super().__init__(view, 0)
        self.how, self.calls, self.sign = how, 0, 1.0
        self.draws = torch.Generator().manual_seed(1)

    def forward(self, features: Tensor, graph: Any, segments: Tensor | None) -> Tensor:
        logits = super().forward(features, graph, segments)
        self.calls += 1
        if self.how == "draws":
            return logits + 5 * torch.randn(logits.shape, generator=self.draws)
        if self.how == "counts":
            return logits if self.calls == 1 else -logits
        return logits * self.sign if self.how == "attribute" else logits


def careless(how: str) -> Does:
    def fit(view: Any, ctx: Any) -> Fitted:
        module = Careless(view, how)
        module.weight.data = _useful_weight(view)
        model = Predictor(module)
        ctx.monitor.report(1, {"model": model})
        module.sign = -1.0  # "reset" for the next stage
        ctx.monitor.report(2, {"model": model})
        return Fitted({"model": model})

    return Does(fit)


def _useful_weight(view: Any) -> Tensor:
    x = view.inputs.features[view.train.position]
    return torch.stack([x[view.labels == c].mean(0) for c in range(view.num_classes)], dim=1)


@pytest.mark.parametrize("how", ["attribute", "draws", "counts"])
def test_a_restored_model_that_is_another_is_an_error(
    ready: Get, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ready("tran")
    outcome = session(case, careless(how), tmp_path)
    assert (outcome.status, outcome.phase, outcome.models) == ("error", "select", [])
    assert "expected the restored state of epoch" in (outcome.reason or "") and "got 0." in (outcome.reason or "")
    monkeypatch.setattr(session_module, "_check_selected", lambda *_: None)  # without the check it is published
    assert session(case, careless(how), tmp_path).status == "ok"


def test_a_model_that_is_all_in_its_state_is_no_error(ready: Get, tmp_path: Path) -> None:
    assert session(ready("tran"), careless(""), tmp_path).status == "ok"


def probing(*, declared: bool) -> Does:
    def fit(view: Any, ctx: Any) -> Fitted:
        models = {"model": Predictor(Linear(view, 0))} | {f"probe{i}": Predictor(Linear(view, i)) for i in range(9)}
        if declared:
            ctx.monitor.declare(*models)
        ctx.monitor.report(1, models)
        return Fitted({"model": models["model"]})

    return Does(fit)


def test_predictors_that_are_neither_returned_nor_declared_end_the_run(ready: Get, tmp_path: Path) -> None:
    outcome = session(ready("tran"), probing(declared=False), tmp_path)
    assert (outcome.status, outcome.phase) == ("error", "predict")
    assert "got 9 other predictors: probe0, probe1" in (outcome.reason or "")
    outcome = session(ready("tran"), probing(declared=True), tmp_path)
    assert (outcome.status, outcome.looks) == ("ok", 10)


def test_every_evaluation_on_validation_is_counted(ready: Get, tmp_path: Path) -> None:
    def fit(view: Any, ctx: Any) -> Fitted:
        models = {f"peer{i}": Predictor(Linear(view, i)) for i in range(3)}
        for epoch in range(1, 5):
            ctx.monitor.report(epoch, models, selectable=epoch > 2)
        return Fitted(models)

    assert session(ready("tran"), Does(fit), tmp_path).looks == 12


def test_unseen_nodes_are_out_of_reach_while_fit_runs(ready: Get, tmp_path: Path) -> None:
    case, seen = ready("ind"), {}

    def fit(view: Any, ctx: Any) -> Fitted:
        graphs = ctx.monitor._scenes
        for name in ("full", "coldstart"):
            with pytest.raises(OSError, match=name):
                graphs[name]
        seen["columns"] = [w.column for w in ctx.monitor._scored_sets]
        model = Predictor(Linear(view, 0))
        ctx.monitor.report(1, {"model": model})
        return Fitted({"model": model})

    outcome = session(case, Does(fit), tmp_path)
    assert outcome.status == "ok", outcome.reason
    assert seen["columns"] == ["tran"]
    assert (tmp_path / "model.ind.selected.npy").exists()


class ReadsGraph(Linear):
    """Averages neighbours where it is given a graph, and notes whether it was."""

    given: list[bool]

    def forward(self, features: Tensor, graph: Any, segments: Tensor | None) -> Tensor:
        self.given.append(graph is not None)
        return super().forward(features, graph, segments)


@pytest.mark.parametrize("setting", ["tran", "ind", "graph"])
@pytest.mark.parametrize("needs", ["features", "graph"])
def test_a_model_that_declares_features_is_given_no_graph(ready: Get, tmp_path: Path, setting: str, needs: Any) -> None:
    given: list[bool] = []
    prepared: list[int] = []

    def prepare(inputs: Any) -> Any:
        prepared.append(inputs.graph.num_edges)
        return inputs

    def fit(view: Any, ctx: Any) -> Fitted:
        module = ReadsGraph(view, 0)
        module.given = given
        model = Predictor(module, needs=needs, hops=1 if needs == "graph" else None, prepare=prepare)
        ctx.monitor.report(1, {"model": model})
        return Fitted({"model": model})

    outcome = session(ready(setting), Does(fit), tmp_path, bank=tmp_path / "bank")
    assert outcome.status == "ok", outcome.traceback
    assert set(given) == {needs == "graph"}
    assert all(n == 0 for n in prepared) == (needs == "features")


def descends(steps: int) -> Does:
    """Logistic regression on sums over neighbours, from zero; without a step it tells no class from another."""

    def fit(view: Any, ctx: Any) -> Fitted:
        module = Linear(view, 0, hops=1)
        model = Predictor(module, needs="graph", hops=1)
        module.weight.data.zero_()
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(model(view.inputs, view.train), view.labels)
            (gradient,) = torch.autograd.grad(loss, module.weight)
            module.weight.data -= 0.05 * gradient
        ctx.monitor.report(1, {"model": model})
        return Fitted({"model": model})

    return Does(fit)


@pytest.mark.parametrize(("steps", "flags"), [(0, ["flat"]), (300, [])])
def test_a_model_that_learned_nothing_is_flagged_and_so_are_its_students(
    ready: Get, tmp_path: Path, steps: int, flags: list[str]
) -> None:
    case, folder = ready("tran"), tmp_path / "bank"
    for name in ("teacher", "student"):
        (tmp_path / name).mkdir()
    outcome = session(case, descends(steps), tmp_path / "teacher", bank=folder)
    assert outcome.flags == flags
    assert (outcome.models[0]["train_ce_ratio"] > 0.9) == bool(flags)
    entry = BankEntry(folder, "teacher", TeacherMethod().config(), 0)
    student = session(case, descends(300), tmp_path / "student", teachers={"teacher": entry})
    assert student.flags == ["flat teacher"] * bool(flags)


def test_releases_choose_their_teacher_by_their_own_rule() -> None:
    for name in ("glnn", "krd", "nosmog"):
        released, corrected = (
            resolve(name, {"variant": v}).requires()["teacher"] for v in ("as_released", "corrected")
        )
        rules = [resolve("teacher", one.overrides).selection_rule() for one in (released, corrected)]
        assert rules == ["later", "loss"]


def test_a_context_hands_out_no_label_of_validation(ready: Get, tmp_path: Path) -> None:
    """Public names of the Monitor give scores, losses and states, and nothing per item."""
    public: dict[str, Any] = {}

    def fit(view: TrainView, ctx: Context) -> Fitted:
        model = Predictor(Linear(view, 0))
        result = ctx.monitor.report(1, {"model": model})
        public.update({name: value for name, value in vars(ctx.monitor).items() if not name.startswith("_")})
        public.update(
            vars(result) if hasattr(result, "__dict__") else {n: getattr(result, n) for n in result.__slots__}
        )
        return Fitted({"model": model})

    case = ready("tran")
    assert session(case, Does(fit), tmp_path).status == "ok"
    count = len(case.evaluation_graphs.val)
    assert {"val", "val_loss", "looks"} <= public.keys()
    assert all(not hasattr(value, "__len__") or len(value) != count for value in public.values())
