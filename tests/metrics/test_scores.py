"""accuracy, micro_f1, rocauc: values, invariances, and what each refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score

from gkdbench.errors import UserError
from gkdbench.metrics import METRICS, score
from gkdbench.metrics.rocauc import area_under_roc

SIGMOID_TIE = 1e-6  # below, sigmoid(z) rounds to 0.5 although z < 0


def _pair_counting_auc(target: np.ndarray, value: np.ndarray) -> float:
    """The definition: share of (positive, negative) pairs in the right order, ties half."""
    difference = value[target == 1][:, None] - value[target == 0][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def test_accuracy_counts_right_classes() -> None:
    assert score("accuracy", np.array([0, 2, 1, 1], dtype=np.uint8), np.array([0, 1, 1, 1])) == 0.75


def test_argmax_ties_go_to_the_lowest_class_and_stay_small() -> None:
    metric = METRICS.get("accuracy")
    predictions = metric.from_logits(np.array([[1.0, 1.0, 0.0], [-3.0, 0.0, 0.0]]))
    assert predictions.tolist() == [0, 1] and predictions.dtype == np.uint8
    assert metric.from_logits(np.zeros((1, 257))).dtype == np.int32


@pytest.mark.parametrize("name", ["accuracy", "micro_f1", "rocauc"])
def test_sigmoid_of_the_logits_through_its_own_door_changes_nothing(name: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 5)) * 3
    logits[0, 0] = 0.0
    labels = rng.integers(0, 5, 64) if name == "accuracy" else (rng.random((64, 5)) < 0.4).astype(float)
    metric = METRICS.get(name)
    probs = 1 / (1 + np.exp(-logits))
    assert metric(metric.from_logits(logits), labels) == metric(metric.from_probs(probs), labels)
    with pytest.raises(UserError, match="from_logits"):
        metric.from_probs(logits)


@given(
    hnp.arrays(np.bool_, (13, 4)),
    hnp.arrays(np.float64, (13, 4), elements=st.sampled_from([0.0, 1.0])),
    st.integers(1, 12),
)
def test_micro_f1_is_sklearns_and_pools_over_batches(predicted: np.ndarray, labels: np.ndarray, cut: int) -> None:
    value = score("micro_f1", predicted, labels)
    assert value == pytest.approx(f1_score(labels, predicted, average="micro", zero_division=0.0))
    order = np.r_[cut:13, 0:cut]
    assert score("micro_f1", predicted[order], labels[order]) == value
    assert score("micro_f1", np.where(predicted, 0.5, 0.49), labels) == value


def test_micro_f1_leaves_unknown_labels_out() -> None:
    predicted = np.array([[True, False], [True, True]])
    assert score("micro_f1", predicted, np.array([[1.0, np.nan], [np.nan, 0.0]])) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="no label is known"):
        score("micro_f1", predicted, np.full((2, 2), np.nan))
    with pytest.raises(UserError, match="0, 1 or NaN"):
        score("micro_f1", predicted, np.full((2, 2), 2.0))


def test_rocauc_is_the_pair_count_over_known_labels_of_tasks_with_both_classes() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((40, 4)) < 0.3).astype(float)
    labels[rng.random((40, 4)) < 0.2] = np.nan
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 1.0)
    scores = rng.normal(size=(40, 4)).round(1)
    expected = []
    for task in (0, 1, 3):
        known = ~np.isnan(labels[:, task])
        expected.append(_pair_counting_auc(labels[known, task], scores[known, task]))
    assert score("rocauc", scores, labels) == pytest.approx(np.mean(expected), abs=1e-12)
    assert score("rocauc", scores.astype(np.float16), labels) == pytest.approx(
        score("rocauc", scores.astype(np.float16).astype(float), labels)
    )


def test_rocauc_equals_ogbs_evaluator() -> None:
    evaluate = pytest.importorskip("ogb.graphproppred", reason="the ogb extra is not installed").Evaluator
    rng = np.random.default_rng(2)
    labels = (rng.random((50, 12)) < 0.3).astype(float)
    labels[rng.random((50, 12)) < 0.3] = np.nan
    scores = rng.normal(size=(50, 12))
    assert score("rocauc", scores, labels) == pytest.approx(
        evaluate("ogbg-moltox21").eval({"y_true": labels, "y_pred": scores})["rocauc"], abs=1e-12
    )


def test_the_area_has_the_bits_of_scikit_learn() -> None:
    """Ties, few items, scores in half precision, one task that is ranked perfectly."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    for items, digits in [(2, 3), (3, 0), (17, 1), (150, 1), (204, 9), (500, 0)]:
        for _ in range(5):
            truth = (rng.random(items) < 0.4).astype(float)
            truth[:2] = 0, 1
            scores = rng.normal(size=items).round(digits).astype(np.float16).astype(float)
            assert area_under_roc(truth, scores) == roc_auc_score(truth, scores)
    assert area_under_roc(truth, truth) == 1.0
    assert area_under_roc(truth, -truth) == 0.0


def test_rocauc_refuses_a_third_label() -> None:
    with pytest.raises(UserError, match="expected 0, 1 or NaN, got 2"):
        score("rocauc", np.zeros((3, 1)), np.array([[0.0], [1.0], [2.0]]))


def test_rocauc_without_both_classes_is_undefined() -> None:
    with pytest.raises(UserError, match="undefined"):
        score("rocauc", np.zeros((3, 1)), np.ones((3, 1)))


@pytest.mark.parametrize(
    ("metric", "predictions", "labels", "message"),
    [
        ("accuracy", np.array([0, 1]), np.array([0]), "same items"),
        ("accuracy", np.array([0, 1]), np.array([0, -1]), "unknown"),
        ("accuracy", np.zeros((2, 2)), np.array([0, 1]), "one class per item"),
        ("accuracy", np.array([0.5, 1.0]), np.array([0, 1]), "integer classes"),
        ("accuracy", np.array([], dtype=int), np.array([], dtype=int), "nothing to score"),
        ("micro_f1", np.array([[3.0]]), np.array([[1.0]]), "from_logits"),
        ("rocauc", np.array([[np.nan]]), np.array([[1.0]]), "NaN"),
        ("rocauc", np.array([1.0]), np.array([1.0]), "two dimensions"),
        ("acuracy", np.array([0]), np.array([0]), "did you mean 'accuracy'"),
    ],
)
def test_bad_input_is_named(metric: str, predictions: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(metric, predictions, labels)


@given(hnp.arrays(np.float64, (9, 3), elements=st.floats(-30, 30)).filter(lambda z: (abs(z) > SIGMOID_TIE).all()))
def test_micro_f1_decisions_are_the_same_through_both_doors(logits: np.ndarray) -> None:
    metric = METRICS.get("micro_f1")
    assert (metric.from_logits(logits) == metric.from_probs(1 / (1 + np.exp(-logits)))).all()


def test_two_classes_are_ranked_by_the_lead_of_the_second() -> None:
    logits = np.array([[5.0, 5.5], [0.0, 2.0], [3.0, 1.0], [-1.0, -1.5]])
    labels = np.array([1, 1, 0, 0])
    lead = logits[:, 1] - logits[:, 0]
    assert score("rocauc", logits, labels) == score("rocauc", lead[:, None], labels[:, None].astype(float)) == 1.0
    assert score("rocauc", logits, np.array([0, 1, 1, 0])) == 0.5
