"""Selected epochs against curves: what the rule gives passes, and every planted fault is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import one_run

from gkdbench.execute.selected_epochs import selection_problems
from gkdbench.records.schema import ModelResult, Record
from gkdbench.records.sidecar import SidecarArrays

VAL = [0.25, 0.75, 0.75, 0.75, 0.5]
LOSS = [1.5, 0.9, 0.8, 0.8, 0.7]
TEST = [0.1, 0.2, 0.3, 0.4, 0.5]
"""Of equal scores the first is epoch 2, the last with the smallest loss epoch 4."""


def arrays(**changes: list[float]) -> SidecarArrays:
    values = {"val/curve": VAL, "val/loss": LOSS, "tran/curve": TEST, "ind/curve": TEST} | changes
    found: SidecarArrays = {f"model/{name}": np.array(curve, dtype=np.float32) for name, curve in values.items()}
    found["model/epochs"] = np.arange(1, len(values["val/curve"]) + 1, dtype=np.int32)
    return found


def model(epoch: int = 4, **changes: Any) -> ModelResult:
    (found,) = one_run.row().models
    at = epoch - 1
    score = found.scores["tran"].model_copy(update={"value": TEST[at]})
    facts = {"selected_epoch": epoch, "val": VAL[at], "val_loss": LOSS[at], "scores": {"tran": score, "ind": score}}
    return found.model_copy(update=facts | changes)


def record(protocol: int = 2, **changes: Any) -> Record:
    return one_run.record(one_run.row()).model_copy(
        update={"protocol_version": protocol, "selection": "loss" if protocol == 2 else "first"} | changes
    )


def problems(of: Record, found: SidecarArrays, selected: ModelResult, own: bool = True) -> list[str]:
    return list(selection_problems(of, found, selected, ["tran"], own_method=own))


@pytest.mark.parametrize(
    ("rule", "epoch"), [("loss", 4), ("later", 4), ("first", 2), ("loss, start 5", 5), ("first, start 3", 3)]
)
def test_what_a_rule_selects_passes_and_another_epoch_does_not(rule: str, epoch: int) -> None:
    of = record(selection=rule)
    for selected in range(1, 6):
        found = problems(of, arrays(), model(selected))
        assert found == (
            [] if selected == epoch else [f"model: epoch {selected} was selected, its curve gives {epoch}"]
        )


def test_protocol_1_keeps_the_first_and_has_no_losses() -> None:
    found = {name: value for name, value in arrays().items() if name != "model/val/loss"}
    assert problems(record(1), found, model(2, val_loss=None)) == []
    assert problems(record(1), found, model(3, val_loss=None)) == ["model: epoch 3 was selected, its curve gives 2"]
    assert problems(record(2), found, model(4)) == [
        "model: expected a validation loss, and one for every epoch of its curve, got none or fewer"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": 0.5}, "val is 0.500000, its curve has 0.750000 at epoch 4"),
        ({"val_loss": 0.7}, "val_loss is 0.700000, its curve has 0.800000 at epoch 4"),
        ({"scores": model(3).scores}, "tran is 0.300000, its curve has 0.400000 at epoch 4"),
        ({"selected_epoch": 9}, "its selected epoch 9 is not one of its curve"),
    ],
)
def test_a_changed_number_is_found(changes: dict[str, Any], message: str) -> None:
    """Test scores of items that were not predicted during training are left to the audit."""
    assert problems(record(), arrays(), model(**changes)) == [f"model: {message}"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val/curve": [0.25, 0.75, 0.75, 0.75, 0.8]}, "epoch 4 was selected, its curve gives 5"),
        ({"val/loss": [1.5, 0.9, 0.7, 0.8, 0.7]}, "epoch 4 was selected, its curve gives 3"),
        ({"val/loss": LOSS[:4]}, "expected a validation loss, and one for every epoch of its curve, got none or fewer"),
        ({"tran/curve": TEST[::-1]}, "tran is 0.400000, its curve has 0.200000 at epoch 4"),
        ({"tran/curve": TEST[:3]}, "no curve of tran"),
    ],
)
def test_a_changed_curve_is_found(changes: dict[str, list[float]], message: str) -> None:
    assert problems(record(), arrays(**changes), model()) == [f"model: {message}"]


def test_a_missing_curve_or_one_at_other_epochs_is_found() -> None:
    found = arrays()
    del found["model/val/curve"]
    assert problems(record(), found, model()) == ["model: no validation curve"]
    found = arrays() | {"model/epochs": np.arange(1, 4, dtype=np.int32)}
    assert "predictions were kept at others" in problems(record(), found, model())[0]


def test_between_audited_epochs_the_reports_say_which_epoch_a_value_is_of() -> None:
    found = arrays(**{"tran/curve": [0.2, 0.4]}) | {"model/epochs": np.array([2, 4], dtype=np.int32)}
    found["terms/epoch"] = np.arange(1, 6, dtype=np.float32)
    assert problems(record(audit_every=2), found, model()) == []
    assert problems(record(audit_every=2), found, model(2)) == ["model: epoch 2 was selected, its curve gives 4"]


def test_a_form_of_a_release_follows_the_first_or_the_later() -> None:
    of = record(variant="as_released")
    assert problems(of, arrays(), model(2)) == problems(of, arrays(), model(4)) == []
    assert problems(of, arrays(), model(3)) == ["model: epoch 3 was selected, its curve gives 2 or 4"]
    assert problems(record(variant="as_released", method="lsp"), arrays(), model(3)) == []


def test_epochs_before_the_final_architecture_may_be_better() -> None:
    found = arrays(**{"val/curve": [0.9, 0.9, 0.75, 0.75, 0.5]})
    assert problems(record(method="rbm", config={"pretrain": 2}), found, model()) == []
    assert problems(record(method="rbm", config={"pretrain": 1}), found, model()) == [
        "model: epoch 4 was selected, its curve gives 2"
    ]


def test_of_a_method_of_another_package_only_later_epochs_are_looked_at() -> None:
    found = arrays(**{"val/curve": [0.9, 0.9, 0.75, 0.75, 0.5]})
    assert problems(record(method="toy"), found, model(), own=False) == []
    assert problems(record(method="toy"), arrays(), model(3), own=False) == [
        "model: epoch 3 was selected, its curve gives 4"
    ]


def test_scores_that_are_equal_in_single_precision_may_have_differed() -> None:
    of = record()
    of = of.model_copy(update={"data": of.data.model_copy(update={"metric": "rocauc"})})
    assert [problems(of, arrays(), model(epoch)) for epoch in (2, 3, 4)] == [[], [], []]
    assert problems(of, arrays(), model(5)) == ["model: epoch 5 was selected, its curve gives 2 or 3 or 4"]


def test_a_rule_with_a_window_is_of_exact_scores_and_an_ensemble_has_no_curve() -> None:
    assert problems(record(selection="loss, window 3"), arrays(), model(3)) == []
    assert problems(record(), {}, model(name="ensemble")) == []


def test_a_gpu_may_add_in_another_order() -> None:
    moved = model(val=VAL[3] + 1e-3, val_loss=LOSS[3] + 1e-3)
    assert problems(record(device="a GPU"), arrays(), moved) == []
    assert len(problems(record(), arrays(), moved)) == 2


def test_only_mixtures_and_a_search_report_epochs_that_may_not_be_selected() -> None:
    """`selected_epochs` takes the first selectable epoch of a mixture from its configuration; a search has names of
    its own, which no record holds."""
    root = Path(__file__).parents[2] / "gkdbench"
    places = [p for folder in ("methods", "training") for p in (root / folder).rglob("*.py")]
    users = {path.name for path in places if "selectable=" in path.read_text(encoding="utf-8")}
    assert users == {"_student.py", "cohop.py"}
