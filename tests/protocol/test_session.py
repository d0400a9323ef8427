"""One run in the worker: failures become outcomes, replay and ensembles equal what is computed by hand (protocol
trap 16)."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_predictors import Does, Linear, Walk

from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor, state_bytes, state_from_bytes, state_of
from gkdbench.protocol.scoring import DECLARED_LOOKS, Scored, score_run
from gkdbench.protocol.session import RunOutcome, run_session
from gkdbench.protocol.view import Fitted
from gkdbench.protocol.view_io import read_bundle, write_bundle
from gkdbench.testing.problems import renumbered

Get = Callable[[str], Any]


def session(case: Any, method: Any, scratch: Path, **options: Any) -> RunOutcome:
    return run_session(method, bundle=case.folder, scratch=scratch, seed=0, teachers={}, **options)


def scored(case: Any, method: Any, scratch: Path, **options: Any) -> tuple[RunOutcome, Scored]:
    outcome = session(case, method, scratch, **options)
    assert outcome.status == "ok", outcome.traceback
    return outcome, score_run(case.problem, case.evaluation_graphs, scratch, outcome.models)


def weights_per_epoch(case: Any, epochs: int, hops: int) -> list[torch.Tensor]:
    """The weights of `Walk` after every epoch, made by a second walk."""
    kept: list[torch.Tensor] = []

    class Ear:
        def report(self, epoch: int, models: Any, **_: object) -> Any:
            kept.append(models["model"].module.weight.detach().clone())
            return type("Verdict", (), {"stop": False})

    view = read_bundle(case.folder).view
    Walk(epochs=epochs, hops=hops).fit(view, type("Ctx", (), {"monitor": Ear(), "seed": 0}))  # type: ignore[arg-type]
    return kept


def by_hand(case: Any, weight: torch.Tensor, hops: int, *, cold: bool = False) -> np.ndarray:
    """Predictions for all nodes on the full graph, in the task's own numbering, with dense matrices."""
    task = case.problem.task
    z = task.features @ weight
    if hops:
        adjacency = torch.zeros(task.num_nodes, task.num_nodes)
        adjacency[task.graph.row.long(), task.graph.index.long()] = 1
        if cold:
            unseen = torch.from_numpy(case.problem.split.unseen)
            own = adjacency.diag().clone()
            adjacency[unseen, :] = 0
            adjacency[:, unseen] = 0
            adjacency += torch.diag(own - adjacency.diag())
        z = adjacency @ z
    return z.argmax(dim=1).numpy()


@pytest.mark.parametrize("hops", [0, 1])
def test_unseen_nodes_are_predicted_on_the_full_graph_with_each_epochs_weights(
    ready: Get, tmp_path: Path, hops: int
) -> None:
    case = ready("ind")
    outcome, result = scored(case, Walk(epochs=4, hops=hops), tmp_path)
    labels, unseen = case.problem.task.labels.numpy(), case.problem.split.unseen
    weights = weights_per_epoch(case, 4, hops)
    for column, cold in (("ind", False), ("coldstart", True)):
        curve = [(by_hand(case, w, hops, cold=cold)[unseen] == labels[unseen]).mean() for w in weights]
        np.testing.assert_allclose(result.arrays[f"model/{column}/curve"], curve, rtol=1e-6)
        chosen = weights[outcome.models[0]["selected_epoch"] - 1]
        predicted = by_hand(case, chosen, hops, cold=cold)[unseen]
        assert result.arrays[f"model/{column}/selected"].tolist() == predicted.tolist()
        assert result.models[0].scores[column].value == (predicted == labels[unseen]).mean()


def test_observed_test_nodes_are_predicted_without_the_unseen(ready: Get, tmp_path: Path) -> None:
    case = ready("ind")
    outcome, result = scored(case, Walk(epochs=4, hops=1), tmp_path)
    weight = weights_per_epoch(case, 4, 1)[outcome.models[0]["selected_epoch"] - 1]
    task, unseen = case.problem.task, case.problem.split.unseen
    adjacency = torch.zeros(task.num_nodes, task.num_nodes)
    adjacency[task.graph.row.long(), task.graph.index.long()] = 1
    adjacency[:, torch.from_numpy(unseen)] = 0
    predicted = (adjacency @ task.features @ weight).argmax(dim=1).numpy()
    ids = case.evaluation_graphs.test_ids("tran")
    assert result.arrays["model/tran/selected"].tolist() == predicted[ids].tolist()


def test_test_graphs_are_replayed_with_each_epochs_weights(ready: Get, tmp_path: Path) -> None:
    case = ready("graph")
    _, result = scored(case, Walk(epochs=3), tmp_path)
    task, ids = case.problem.task, case.problem.split.test
    border = task.graph_ptr.tolist()
    curve = []
    for weight in weights_per_epoch(case, 3, 0):
        z = torch.stack([(task.features[border[g] : border[g + 1]] @ weight).sum(0) for g in ids])
        curve.append((z.argmax(1) == task.labels[ids]).double().mean().item())
    np.testing.assert_allclose(result.arrays["model/graph/curve"], curve, rtol=1e-6)


def test_states_on_disk_are_gone_after_the_replay(ready: Get, tmp_path: Path) -> None:
    session(ready("ind"), Walk(epochs=2), tmp_path)
    assert not list(tmp_path.glob("*.states"))


def test_a_model_without_parameters_is_replayed_too(ready: Get, tmp_path: Path) -> None:
    """Label propagation has nothing to train; its predictions on unseen nodes are still kept per epoch."""

    class Fixed(torch.nn.Module):
        def forward(self, features: torch.Tensor, graph: object, segments: object) -> torch.Tensor:
            return features[:, :3]

    def fit(view: Any, ctx: Any) -> Fitted:
        model = Predictor(Fixed())
        for epoch in (1, 2):
            ctx.monitor.report(epoch, {"model": model})
        return Fitted({"model": model})

    _, result = scored(ready("ind"), Does(fit), tmp_path)
    assert len(result.arrays["model/ind/curve"]) == 2


def test_an_ensemble_is_the_mean_probability_of_peers_at_their_own_epochs(ready: Get, tmp_path: Path) -> None:
    case = ready("ind")
    outcome, result = scored(case, Walk(epochs=5, peers=3), tmp_path)
    assert [m["name"] for m in outcome.models] == ["peer0", "peer1", "peer2", "ensemble"]
    assert len({m["selected_epoch"] for m in outcome.models[:3]}) > 1, (
        "the peers must differ for this test to mean anything"
    )
    view = read_bundle(case.folder).view
    mean = torch.zeros(case.problem.task.num_nodes, 3)
    for i, model in enumerate(outcome.models[:3]):
        weight = Linear(view, i).weight.detach()
        for epoch in range(1, model["selected_epoch"] + 1):
            weight = weight + torch.empty_like(weight).normal_(generator=Randomness(0, i).initial(str(epoch)))
        mean += (case.problem.task.features @ weight).softmax(dim=1) / 3
    labels = case.problem.task.labels
    for column in ("tran", "ind"):
        ids = torch.from_numpy(case.evaluation_graphs.test_ids(column))
        assert result.arrays[f"ensemble/{column}/selected"].tolist() == mean[ids].argmax(1).tolist()
        share = (mean[ids].argmax(1) == labels[ids]).double().mean().item()
        assert result.models[3].scores[column].value == pytest.approx(share)
    assert result.models[3].parameters == 3 * result.models[0].parameters
    assert not result.models[3].audit


@pytest.mark.parametrize("setting", ["tran", "multilabel"])
def test_an_ensemble_of_saturated_peers_is_scored(ready: Get, tmp_path: Path, setting: str) -> None:
    """Probabilities of exactly 0 and 1 have no finite logit."""
    _, result = scored(ready(setting), Walk(epochs=2, peers=2, scale=1e4), tmp_path)
    assert result.models[-1].name == "ensemble"


@pytest.mark.parametrize("setting", ["tran", "ind", "graph", "multilabel"])
def test_the_audit_is_the_peak_of_the_curve_and_never_below_the_selected_score(
    ready: Get, tmp_path: Path, setting: str
) -> None:
    _, result = scored(ready(setting), Walk(epochs=12), tmp_path, audit_every=5)
    model = result.models[0]
    for column, audit in model.audit.items():
        curve = result.arrays[f"model/{column}/curve"]
        assert audit.peak == pytest.approx(curve.max(), rel=1e-6)
        assert audit.peak >= model.scores[column].value
        assert audit.gap == pytest.approx(audit.peak - model.scores[column].value)
        assert audit.epoch == result.arrays["model/epochs"][curve.argmax()]
        assert audit.final == pytest.approx(curve[-1], rel=1e-6)
    assert set(model.audit) == set(model.scores)


def test_production_is_a_fifth_inductive(ready: Get, tmp_path: Path) -> None:
    _, result = scored(ready("ind"), Walk(epochs=6), tmp_path)
    scores, audit = result.models[0].scores, result.models[0].audit
    assert scores["prod"].value == pytest.approx(0.2 * scores["ind"].value + 0.8 * scores["tran"].value, abs=1e-12)
    assert scores["prod"].n == scores["ind"].n + scores["tran"].n
    mixed = 0.2 * result.arrays["model/ind/curve"] + 0.8 * result.arrays["model/tran/curve"]
    assert audit["prod"].peak == pytest.approx(mixed.max(), rel=1e-6)


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_shuffled_ids_permute_predictions_and_leave_scores(ready: Get, tmp_path: Path, setting: str) -> None:
    case = ready(setting)
    order = np.random.default_rng(1).permutation(case.problem.task.num_nodes)
    moved = renumbered(case.problem, order)
    other = SimpleNamespace(
        problem=moved, folder=tmp_path / "view", evaluation_graphs=write_bundle(moved, tmp_path / "view")
    )
    results = []
    for number, here in enumerate((case, other)):
        (tmp_path / str(number)).mkdir()
        results.append(scored(here, Walk(epochs=4, hops=1), tmp_path / str(number))[1])
    first, second = results
    assert first.models[0].scores == second.models[0].scores
    for scored_set in case.evaluation_graphs.scored_sets:
        key = f"model/{scored_set.column}/selected"
        old = dict(
            zip(case.evaluation_graphs.test_ids(scored_set.column).tolist(), first.arrays[key].tolist(), strict=True)
        )
        new = dict(
            zip(
                order[other.evaluation_graphs.test_ids(scored_set.column)].tolist(),
                second.arrays[key].tolist(),
                strict=True,
            )
        )
        assert old == new, scored_set.column


def _raise(error: Exception) -> Does:
    def fit(view: Any, ctx: Any) -> Fitted:
        raise error

    return Does(fit)


def _answers(make: Callable[[torch.Tensor], Any]) -> Does:
    class Bad(Linear):
        def forward(self, features: torch.Tensor, graph: object, segments: torch.Tensor | None) -> Any:
            return make(super().forward(features, graph, segments))

    def fit(view: Any, ctx: Any) -> Fitted:
        model = Predictor(Bad(view, 0))
        ctx.monitor.report(1, {"model": model})
        return Fitted({"model": model})

    return Does(fit)


def _never_reports(view: Any, ctx: Any) -> Fitted:
    return Fitted({"model": Predictor(Linear(view, 0))})


@pytest.mark.parametrize(
    ("method", "status", "phase", "reason"),
    [
        (_raise(ValueError("lost the way")), "error", "fit", "ValueError: lost the way"),
        (_raise(MemoryError()), "oom", "fit", "MemoryError"),
        (_raise(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9")), "oom", "fit", "allocate"),
        (_answers(lambda z: z * float("nan")), "nan", "fit", "not finite"),
        (_answers(lambda z: z[:-1]), "error", "fit", "expected logits"),
        (Does(_never_reports), "error", "predict", "expected selectable reports, got none"),
    ],
)
def test_a_failure_is_an_outcome(
    ready: Get, tmp_path: Path, method: Does, status: str, phase: str, reason: str
) -> None:
    outcome = session(ready("tran"), method, tmp_path)
    assert (outcome.status, outcome.phase) == (status, phase)
    assert reason in (outcome.reason or "")
    assert outcome.models == []


def test_the_time_limit_is_an_outcome(ready: Get, tmp_path: Path) -> None:
    outcome = session(ready("tran"), Walk(), tmp_path, time_limit_s=-1.0)
    assert (outcome.status, outcome.phase) == ("timeout", "fit")


def test_a_loss_spike_is_flagged(ready: Get, tmp_path: Path) -> None:
    def fit(view: Any, ctx: Any) -> Fitted:
        model = Predictor(Linear(view, 0))
        for epoch, loss in enumerate([1.0, 0.01, 3.0], start=1):
            ctx.monitor.report(epoch, {"model": model}, terms={"loss": loss})
        return Fitted({"model": model})

    assert session(ready("tran"), Does(fit), tmp_path).flags == ["flat", "loss spike"]


@pytest.mark.parametrize("declared", [False, True])
def test_looks_are_points_of_curves_and_what_the_side_car_counts(ready: Get, tmp_path: Path, declared: bool) -> None:
    """A declared predictor that is not returned has no curve; a run that returns all it evaluated needs no count."""

    def fit(view: Any, ctx: Any) -> Fitted:
        models = {name: Predictor(Linear(view, 0)) for name in (("a", "b", "c") if declared else ("a", "b"))}
        ctx.monitor.declare(*models)
        for epoch in (1, 2):
            ctx.monitor.report(epoch, models, terms={"loss": 1.0})
        return Fitted({name: models[name] for name in ("a", "b")})

    outcome, result = scored(ready("tran"), Does(fit), tmp_path)
    points = sum(len(result.arrays[f"{name}/val/curve"]) for name in ("a", "b"))
    assert (points, outcome.looks) == (4, 6 if declared else 4)
    assert [int(n) for n in result.arrays.get(DECLARED_LOOKS, [])] == [2] * declared


def test_the_selected_state_is_what_is_deployed(ready: Get, tmp_path: Path) -> None:
    kept: dict[str, Predictor] = {}

    def fit(view: Any, ctx: Any) -> Fitted:
        fitted = Walk(epochs=6).fit(view, ctx)
        kept.update(fitted.predictors)
        return fitted

    case = ready("tran")
    outcome = session(case, Does(fit), tmp_path)
    weight = weights_per_epoch(case, 6, 0)[outcome.models[0]["selected_epoch"] - 1]
    assert torch.equal(kept["model"].module.weight, weight)
    like = state_of(kept["model"].module)
    assert torch.equal(state_from_bytes(state_bytes(like), like)["weight"], weight)
