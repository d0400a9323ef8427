"""confusion, agreement, calibration and entropy against hand values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from gkdbench.errors import UserError
from gkdbench.metrics import score
from gkdbench.metrics.diagnostics import agreement, confusion, ece, entropy


def test_confusion_is_true_by_predicted_and_its_trace_is_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    table = confusion(predicted, labels, 4)
    assert (table == confusion_matrix(labels, predicted)).all()
    assert np.trace(table) / 100 == score("accuracy", predicted, labels)
    assert confusion(np.array([1]), np.array([0]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(UserError, match="got class 3"):
        confusion(np.array([3]), np.array([0]), 3)


def test_agreement_is_symmetric() -> None:
    assert agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 1])) == 0.5
    assert agreement(np.array([0, 1, 1, 1]), np.array([0, 1, 2, 2])) == 0.5


def test_ece_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 1])
    # 2 bins put all confidences in (0.5, 1]: |3/4 - 0.7375|
    assert ece(probs, labels, bins=2) == pytest.approx(0.0125)
    # 10 bins: (.8,.9] right, (.7,.8] wrong, (.6,.7] right, (.5,.6] right
    assert ece(probs, labels, bins=10) == pytest.approx((0.1 + 0.8 + 0.3 + 0.45) / 4)
    assert ece(np.eye(3), np.arange(3)) == 0.0


def test_entropy_per_item() -> None:
    assert entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx([0.0, np.log(2)])
