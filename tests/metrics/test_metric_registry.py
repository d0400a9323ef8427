"""The registry of metrics: names, laziness, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from gkdbench.errors import UserError
from gkdbench.metrics import METRICS
from gkdbench.metrics.metric import Metric
from gkdbench.metrics.registry import _check


@dataclass(frozen=True)
class Unnamed(Metric):
    name: str = "something_else"
    from_logits = from_probs = __call__ = None  # type: ignore[assignment]


def test_builtin_metrics_and_their_facts() -> None:
    facts = {name: (METRICS.get(name).ranks, METRICS.get(name).higher_is_better) for name in METRICS.names()}
    assert facts == {"accuracy": (False, True), "micro_f1": (False, True), "rocauc": (True, True)}


def test_listing_and_scoring_import_no_torch() -> None:
    code = (
        "import sys; from gkdbench.metrics import METRICS, score; METRICS.names(); "
        "score('accuracy', [0], [0]); print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_wrong_objects_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected a gkdbench\.metrics\.metric\.Metric"):
        _check("thing", 3)
    with pytest.raises(UserError, match="got 'something_else'"):
        _check("thing", Unnamed)
