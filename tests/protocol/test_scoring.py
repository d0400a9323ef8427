"""Every published score re-computes from its side-car; a single changed prediction is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.toy_predictors import Walk

from gkdbench.metrics import score
from gkdbench.protocol.scoring import Scored, arrays_sha256, rescore, score_run
from gkdbench.protocol.session import run_session

Get = Callable[[str], Any]
SETTINGS = ["tran", "ind", "graph", "multilabel"]


@pytest.fixture(scope="session")
def walked(ready: Get, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Scored]]:
    """walked(setting): the case and a scored run on it, made once."""
    made: dict[str, tuple[Any, Scored]] = {}

    def of(setting: str) -> tuple[Any, Scored]:
        if setting not in made:
            case, scratch = ready(setting), tmp_path_factory.mktemp("scratch")
            outcome = run_session(Walk(epochs=3), bundle=case.folder, scratch=scratch, seed=0, teachers={})
            made[setting] = (case, score_run(case.problem, case.evaluation_graphs, scratch, outcome.models))
        return made[setting]

    return of


@pytest.mark.parametrize("setting", SETTINGS)
def test_scores_are_the_metric_on_the_kept_predictions(walked: Get, setting: str) -> None:
    case, result = walked(setting)
    task = case.problem.task
    for scored_set in case.evaluation_graphs.scored_sets:
        kept = result.arrays[f"model/{scored_set.column}/selected"]
        truth = task.labels[scored_set.items.ids].numpy()
        found = result.models[0].scores[scored_set.column]
        assert (found.value, found.n) == (score(task.metric, kept, truth), len(truth))


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_untouched_side_car_confirms_its_record(walked: Get, setting: str) -> None:
    case, result = walked(setting)
    assert rescore(case.problem, case.evaluation_graphs, result.arrays, result.models[0]) == []


def one_changed(result: Scored, key: str, at: int, to: int) -> dict[str, np.ndarray]:
    arrays = {name: array.copy() for name, array in result.arrays.items()}
    assert arrays[key][at] != to
    arrays[key][at] = to
    return arrays


@pytest.mark.parametrize("setting", ["tran", "ind", "graph"])
def test_one_changed_prediction_is_found_even_between_two_wrong_classes(walked: Get, setting: str) -> None:
    case, result = walked(setting)
    columns = [("val", case.evaluation_graphs.val)] + [
        (scored_set.column, scored_set.items) for scored_set in case.evaluation_graphs.scored_sets
    ]
    for column, items in columns:
        key = f"model/{column}/selected"
        kept, truth = result.arrays[key], case.problem.task.labels[items.ids].numpy()
        wrong = np.flatnonzero(kept != truth)
        at = int(wrong[0])
        other = next(c for c in range(case.problem.task.num_classes) if c not in (kept[at], truth[at]))
        found = rescore(case.problem, case.evaluation_graphs, one_changed(result, key, at, other), result.models[0])
        assert len(found) == 1, f"{column}: {found}"
        assert column in found[0]
        found = rescore(
            case.problem, case.evaluation_graphs, one_changed(result, key, at, int(truth[at])), result.models[0]
        )
        assert found, f"{column}: a wrong prediction made right was not found"


def test_every_changed_decision_of_a_multilabel_run_that_moves_the_score_is_found(walked: Get) -> None:
    case, result = walked("multilabel")
    key = "model/tran/selected"
    arrays = {name: array.copy() for name, array in result.arrays.items()}
    arrays[key][0, 0] ^= True
    assert rescore(case.problem, case.evaluation_graphs, arrays, result.models[0])


def test_a_score_changed_in_the_record_is_found(walked: Get) -> None:
    case, result = walked("ind")
    model = result.models[0]
    for column, old in model.scores.items():
        scores = {**model.scores, column: old.model_copy(update={"value": old.value - 1e-6})}
        changed = model.model_copy(update={"scores": scores})
        assert any(column in line for line in rescore(case.problem, case.evaluation_graphs, result.arrays, changed)), (
            column
        )
    assert rescore(
        case.problem, case.evaluation_graphs, result.arrays, model.model_copy(update={"val": model.val - 1e-6})
    )
    fewer = {column: old for column, old in model.scores.items() if column != "coldstart"}
    assert rescore(case.problem, case.evaluation_graphs, result.arrays, model.model_copy(update={"scores": fewer}))


def test_missing_predictions_are_named(walked: Get) -> None:
    case, result = walked("ind")
    arrays = {name: array for name, array in result.arrays.items() if name != "model/ind/selected"}
    assert rescore(case.problem, case.evaluation_graphs, arrays, result.models[0]) == ["model: no predictions for ind"]


def test_the_hash_covers_names_types_shapes_and_values() -> None:
    base = {"a": np.zeros((2, 3), np.uint8)}
    others = [{"b": base["a"]}, {"a": base["a"].astype(np.int8)}, {"a": base["a"].reshape(3, 2)}, {"a": base["a"] + 1}]
    assert len({arrays_sha256(arrays) for arrays in [base, *others]}) == 5
    assert arrays_sha256({"a": base["a"], "b": base["a"]}) == arrays_sha256({"b": base["a"], "a": base["a"]})
    assert arrays_sha256({"a": np.asfortranarray(base["a"])}) == arrays_sha256(base)


def test_classes_are_kept_in_one_byte_and_scores_of_a_ranking_metric_in_two(walked: Get, tmp_path: Path) -> None:
    assert walked("tran")[1].arrays["model/tran/selected"].dtype == np.uint8
    assert walked("multilabel")[1].arrays["model/tran/selected"].dtype == np.bool_
