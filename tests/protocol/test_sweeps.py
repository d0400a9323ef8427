"""Sweeps: nothing of the run changes, and every number equals what is computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_predictors import Linear, Walk

from gkdbench.metrics.diagnostics import ece
from gkdbench.nn.random import Randomness
from gkdbench.protocol.corruption import Corruption, corrupted
from gkdbench.protocol.scoring import Scored, score_run
from gkdbench.protocol.session import RunOutcome, run_session
from gkdbench.protocol.sweeps import resweep, with_sweeps
from gkdbench.protocol.view_io import read_bundle
from gkdbench.records.schema import CorruptedResult, Row

SWEEPS = {"feature_noise": [0.3, 1.0], "edge_drop": [0.5]}
Get = Callable[[str], Any]


def swept(case: Any, method: Any, scratch: Path, sweeps: dict[str, list[float]]) -> tuple[RunOutcome, Scored]:
    scratch.mkdir()
    outcome = run_session(method, bundle=case.folder, scratch=scratch, seed=5, teachers={}, sweeps=sweeps)
    assert outcome.status == "ok", outcome.traceback
    scored = score_run(case.problem, case.evaluation_graphs, scratch, outcome.models)
    return outcome, with_sweeps(case.problem, case.evaluation_graphs, scratch, scored, sweeps)


def step(found: Scored, kind: str, level: float) -> CorruptedResult:
    (one,) = [s for s in found.sweeps if (s.kind, s.level) == (kind, level)]
    return one


@pytest.mark.parametrize("setting", ["tran", "ind", "graph", "multilabel"])
def test_a_sweep_leaves_the_run_as_it_is(ready: Get, tmp_path: Path, setting: str) -> None:
    method = Walk(epochs=3, peers=2, hops=1)
    plain, result = swept(ready(setting), method, tmp_path / "plain", {})
    tried, found = swept(ready(setting), method, tmp_path / "swept", SWEEPS)
    assert plain.models == tried.models and result.models == found.models
    assert result.sweeps == [] and not list((tmp_path / "plain").glob("sweeps*"))
    for name, array in result.arrays.items():
        np.testing.assert_array_equal(array, found.arrays[name])
    assert [(s.kind, s.level) for s in found.sweeps] == [
        ("clean", 0.0),
        ("feature_noise", 0.3),
        ("feature_noise", 1.0),
        ("edge_drop", 0.5),
    ]
    clean = found.sweeps[0].scores
    assert clean == {m.name: {c: s.value for c, s in m.scores.items()} for m in found.models}
    assert found.sweeps[1].scores != clean


@pytest.mark.parametrize(("kind", "level"), [("feature_noise", 0.3), ("edge_drop", 0.5)])
@pytest.mark.parametrize("column", ["tran", "ind", "coldstart"])
def test_scores_and_calibration_are_those_of_the_selected_weights_on_the_disturbed_graph(
    ready: Get, tmp_path: Path, kind: Any, level: float, column: str
) -> None:
    case = ready("ind")
    outcome, found = swept(case, Walk(epochs=4, peers=2, hops=1), tmp_path / "run", SWEEPS)
    view = read_bundle(case.folder).view
    scored_set = next(w for w in case.handed.scored_sets if w.column == column)
    place = torch.from_numpy(case.evaluation_graphs.place[column])
    inputs = corrupted(case.handed.graphs[scored_set.graph_name], Corruption(kind, level), 5)
    adjacency = torch.zeros(len(inputs.space), len(inputs.space))
    adjacency[inputs.graph.row.long(), inputs.graph.index.long()] = 1
    original = next(w for w in case.evaluation_graphs.scored_sets if w.column == column)
    labels = case.problem.task.labels[original.items.ids].numpy()
    position = scored_set.items.position[place.argsort()]
    stored = step(found, kind, level)
    answers, mean = [], np.zeros((len(labels), 3))
    for i, model in enumerate(outcome.models[:2]):
        weight = Linear(view, 5 + i).weight.detach()
        for epoch in range(1, model["selected_epoch"] + 1):
            weight = weight + torch.empty_like(weight).normal_(generator=Randomness(5, i).initial(str(epoch)))
        probs = (adjacency @ (inputs.features @ weight)).softmax(1)[position].numpy()
        mean = mean + probs / 2
        answers.append(probs.argmax(1))
        assert stored.scores[f"peer{i}"][column] == (probs.argmax(1) == labels).mean()
        assert stored.ece[f"peer{i}"][column] == pytest.approx(ece(probs, labels), abs=0.01)
    assert stored.disagreement["peer0-peer1"][column] == (answers[0] != answers[1]).mean()
    answer = found.arrays[f"sweep/{kind}={level}/ensemble/{column}/selected"]
    assert stored.scores["ensemble"][column] == (answer == labels).mean()
    clear = np.diff(np.sort(mean, axis=1)[:, -2:])[:, 0] > 1e-5  # two peers may be equally sure of two classes
    assert clear.mean() > 0.5 and (answer == mean.argmax(1))[clear].all()
    scores = stored.scores["peer0"]
    assert scores["prod"] == pytest.approx(0.2 * scores["ind"] + 0.8 * scores["tran"])


def test_several_labels_have_scores_and_disagreement_and_no_calibration(ready: Get, tmp_path: Path) -> None:
    _, found = swept(ready("multilabel"), Walk(epochs=2, peers=2), tmp_path / "run", SWEEPS)
    assert all(s.ece == {} and 0 < s.disagreement["peer0-peer1"]["tran"] < 1 for s in found.sweeps)


def test_a_model_of_features_alone_does_not_mind_lost_edges(ready: Get, tmp_path: Path) -> None:
    _, found = swept(ready("tran"), Walk(epochs=2), tmp_path / "run", SWEEPS)
    assert step(found, "edge_drop", 0.5).scores == found.sweeps[0].scores
    assert found.sweeps[0].disagreement == {}


def row_of(found: Scored, sweeps: list[CorruptedResult]) -> Row:
    return Row(index=0, seed=5, status="ok", command="", split_sha256="", models=found.models, sweeps=sweeps)


def test_what_a_side_car_does_not_confirm_is_said(ready: Get, tmp_path: Path) -> None:
    case = ready("tran")
    _, found = swept(case, Walk(epochs=3, peers=2, hops=1), tmp_path / "run", SWEEPS)

    def problems(sweeps: list[CorruptedResult], arrays: Any = found.arrays) -> str:
        return "\n".join(resweep(case.problem, case.evaluation_graphs, arrays, row_of(found, sweeps), SWEEPS))

    assert problems(found.sweeps) == ""
    assert "expected 4 steps, got 3" in problems(found.sweeps[:-1])
    last = found.sweeps[-1]
    for what in ("scores", "ece", "disagreement"):
        values = {name: dict.fromkeys(of, 0.123) for name, of in getattr(last, what).items()}
        changed = last.model_copy(update={what: values})
        assert problems([*found.sweeps[:-1], changed]) == f"{what} under edge_drop 0.5 are not what the side-car gives"
    name = "sweep/feature_noise=0.3/peer1/tran/selected"
    assert name in problems(found.sweeps, {n: a for n, a in found.arrays.items() if n != name})
