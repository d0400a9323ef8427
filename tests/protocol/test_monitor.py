"""Selection, patience, scratch files and the guards of the Monitor (protocol section 4.1, protocol traps 1, 2, 8,
19, 33)."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.protocol.monitor import EpochResult, NonFinite, OutOfTime, WrongPredictions
from gkdbench.protocol.selection import SelectionRule

Make = Callable[..., "object"]


def look(stage: Any, epoch: int, right: int, sharp: float = 1.0, **options: Any) -> EpochResult:
    """Report predictions of which `right` are right; the larger `sharp`, the smaller is the loss of right ones."""
    for model in stage.models.values():
        model.module.logits = sharp * stage.logits(right)
        model.module.weight.data.fill_(epoch)
    return stage.monitor.report(epoch, stage.models, **options)


def test_a_better_score_wins_whatever_its_loss(monitor_of: Make) -> None:
    stage = monitor_of()
    run = [(1, 1.0), (3, 1.0), (2, 0.1), (4, 0.01), (3, 9.0)]
    improved = [look(stage, epoch, *at).improved["model"] for epoch, at in enumerate(run, start=1)]
    assert improved == [True, True, False, True, False]
    best, state = stage.monitor.selected("model")
    assert (best.epoch, best.score, best.value) == (4, 1.0, 1.0)
    assert state["weight"].item() == 4  # a copy: later epochs wrote other values into the module


def test_of_equal_scores_the_smaller_loss_wins_and_of_equal_losses_the_later(monitor_of: Make) -> None:
    stage = monitor_of()
    improved = [look(stage, epoch, 4, sharp).improved["model"] for epoch, sharp in enumerate([2, 1, 3, 3, 2], start=1)]
    assert improved == [True, False, True, True, False]
    assert stage.monitor.selected("model")[0].epoch == 4


def test_losses_are_mean_cross_entropies_rounded_to_single_precision(monitor_of: Make) -> None:
    stage = monitor_of()
    loss = look(stage, 1, 3, 2.0).val_loss["model"]
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss == float(np.float32((3 * right + wrong) / 4)) == stage.monitor.losses("model")[0]


@pytest.mark.parametrize(("rule", "selected"), [("loss", 2), ("later", 3), ("first", 1)])
def test_each_rule_decides_between_equal_scores(monitor_of: Make, rule: str, selected: int) -> None:
    stage = monitor_of(rule=SelectionRule.parse(rule))
    for epoch, sharp in enumerate([2, 3, 1], start=1):
        look(stage, epoch, 4, sharp)
    assert stage.monitor.selected("model")[0].epoch == selected


@pytest.mark.parametrize(("rule", "stops"), [("loss", [False, False, False, False, True]),
                                             ("later", [False] * 5),
                                             ("first", [False, False, True, True, True])])  # fmt: skip
def test_an_epoch_that_wins_between_equal_scores_resets_the_patience(
    monitor_of: Make, rule: str, stops: list[bool]
) -> None:
    stage = monitor_of(rule=SelectionRule.parse(rule), patience=2)
    assert [look(stage, e, 4, sharp).stop for e, sharp in enumerate([1, 2, 3, 2, 2], start=1)] == stops


def test_training_losses_change_no_selected_epoch(monitor_of: Make) -> None:
    """Falling training losses, flat validation scores and flat validation losses: the order of the training losses
    plays no part."""
    selected = set()
    for number, losses in enumerate(itertools.permutations([1.0, 0.5, 0.25, 0.125])):
        stage = monitor_of(names=[f"run{number}"])
        for epoch, loss in enumerate(losses, start=1):
            look(stage, epoch, 2, terms={"loss": loss})
        selected.add(stage.monitor.selected(f"run{number}")[0].epoch)
    assert selected == {4}


def test_a_rule_with_a_start_selects_no_earlier_epoch_and_patience_runs_from_there(monitor_of: Make) -> None:
    stage = monitor_of(rule=SelectionRule.parse("loss, start 3"), patience=2)
    results = [look(stage, epoch, right) for epoch, right in enumerate([4, 4, 3, 2, 1], start=1)]
    assert [result.stop for result in results] == [False, False, False, False, True]
    assert stage.monitor.selected("model")[0].epoch == 3
    assert stage.monitor.curve("model") == [1.0, 1.0, 0.75, 0.5, 0.25]


def test_a_rule_with_a_window_compares_means_and_keeps_the_value_of_the_epoch(monitor_of: Make) -> None:
    stage = monitor_of(rule=SelectionRule.parse("first, window 2"))
    for epoch, right in enumerate([4, 1, 3, 3, 0], start=1):
        look(stage, epoch, right)
    best, _ = stage.monitor.selected("model")
    assert (best.epoch, best.score, best.value) == (4, 0.75, 0.75)


def test_every_evaluation_of_a_predictor_is_counted(monitor_of: Make) -> None:
    stage = monitor_of(names=["a", "b"])
    look(stage, 1, 2, selectable=False)
    look(stage, 2, 3)
    assert stage.monitor.looks == 4


def test_other_predictors_than_the_returned_ones_are_declared_beforehand(monitor_of: Make) -> None:
    stage = monitor_of(names=["a", "b", "c"])
    stage.monitor.declare("b")
    look(stage, 1, 2)
    with pytest.raises(WrongPredictions, match=r"returned models \(a\).*got 1 other predictors: c; call"):
        stage.monitor.check_names(["a"])
    stage.monitor.check_names(["a", "c"])
    with pytest.raises(WrongPredictions, match="expected before the first report, got it after epoch 1"):
        stage.monitor.declare("c")


def test_stops_when_the_patience_of_every_predictor_is_spent(monitor_of: Make) -> None:
    stage = monitor_of(patience=2, names=["a", "b"])
    curve = [{"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 1}, {"a": 1, "b": 1}]
    assert [stage.score(e, right).stop for e, right in enumerate(curve, start=1)] == [False, False, False, True]
    assert [stage.monitor.selected(name)[0].epoch for name in ("a", "b")] == [1, 2]


def test_without_patience_it_never_stops(monitor_of: Make) -> None:
    stage = monitor_of(patience=None)
    assert not any(stage.score(epoch, 1).stop for epoch in range(1, 60))


def test_unselectable_epochs_are_recorded_but_never_selected_and_cost_no_patience(monitor_of: Make) -> None:
    stage = monitor_of(patience=2)
    early = [stage.score(epoch, 4, selectable=False) for epoch in (1, 2, 3, 4)]
    assert not any(v.stop or v.improved["model"] for v in early)
    late = [stage.score(epoch, right) for epoch, right in ((5, 2), (6, 1), (7, 1))]
    assert [v.stop for v in late] == [False, False, True]
    assert stage.monitor.selected("model")[0].epoch == 5
    stage.monitor.close()
    assert np.fromfile(stage.scratch / "model.epochs", dtype=np.int32).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert stage.monitor.curve("model") == [1.0] * 4 + [0.5] + [0.25] * 2


@pytest.mark.parametrize("second", [1, 0, -3])
def test_epochs_are_reported_once_and_in_order(monitor_of: Make, second: int) -> None:
    stage = monitor_of()
    stage.score(1, 1)
    with pytest.raises(WrongPredictions, match=f"got {second} after 1"):
        stage.score(second, 1)


@pytest.mark.parametrize("answer", [torch.zeros(6, 3), torch.zeros(5, 2), torch.zeros(6), (torch.zeros(6, 2),)])
def test_wrong_shapes_name_the_predictor_and_what_was_wanted(monitor_of: Make, answer: object) -> None:
    stage = monitor_of()
    stage.models["model"].module.logits = answer
    with pytest.raises(WrongPredictions, match=r"'model': expected logits \[6, 2\], got"):
        stage.monitor.report(1, stage.models)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_logits_and_loss_terms_end_the_run(monitor_of: Make, value: float) -> None:
    stage = monitor_of()
    with pytest.raises(NonFinite, match="'kl' became"):
        stage.score(1, 1, terms={"kl": value})
    stage.models["model"].module.logits = torch.full((6, 2), value)
    with pytest.raises(NonFinite, match="not finite"):
        stage.monitor.report(2, stage.models)


def test_the_deadline_ends_the_run(monitor_of: Make) -> None:
    stage = monitor_of(deadline=0.0)
    with pytest.raises(OutOfTime, match="epoch 1"):
        stage.score(1, 1)


def test_a_model_that_was_never_reported_has_no_selection(monitor_of: Make) -> None:
    stage = monitor_of()
    stage.score(1, 4, selectable=False)
    for name in ("model", "other"):
        with pytest.raises(WrongPredictions, match=f"{name!r}: expected selectable reports, got none"):
            stage.monitor.selected(name)


def test_term_traces_have_one_value_per_epoch_from_the_first(monitor_of: Make) -> None:
    stage = monitor_of()
    for epoch, terms in enumerate([{"ce": 2.0}, {"ce": 1.5, "kl": 0.5}, {"kl": 0.25}], start=1):
        stage.score(epoch, 1, terms=terms)
    assert stage.monitor.terms == {"ce": [2.0, 1.5, 0.0], "kl": [0.0, 0.5, 0.25], "epoch": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("losses", "spiked"),
    [([2.0, 1.0, 0.1, 5.0], True), ([2.0, 1.0, 0.5, 0.6], False), ([1.0, 0.001, 0.02, 0.001], False), ([], False)],
)
def test_a_loss_that_blows_up_after_having_been_small_is_flagged(
    monitor_of: Make, losses: list[float], spiked: bool
) -> None:
    stage = monitor_of()
    for epoch, loss in enumerate(losses, start=1):
        stage.score(epoch, 1, terms={"loss": loss})
    assert stage.monitor.spiked is spiked


def test_scratch_holds_the_predictions_of_every_audited_epoch_and_of_the_best(monitor_of: Make) -> None:
    stage = monitor_of(audit_every=3)
    for epoch, right in enumerate([1, 6, 1, 1, 1, 1], start=1):
        stage.score(epoch, right)
    stage.monitor.close()
    assert np.fromfile(stage.scratch / "model.epochs", dtype=np.int32).tolist() == [1, 2, 3, 6]
    kept = np.fromfile(stage.scratch / "model.tran.pred", dtype=np.uint8).reshape(4, 2)
    assert kept.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]


def test_evaluation_leaves_the_training_mode_as_it_was(monitor_of: Make) -> None:
    stage = monitor_of()
    for mode in (True, False):
        stage.models["model"].module.train(mode)
        stage.score(1 + (not mode), 1)
        assert stage.models["model"].module.training is mode


def test_scores_of_a_ranking_metric_stay_finite_in_two_bytes(monitor_of: Make) -> None:
    kept = monitor_of(metric="rocauc").monitor.encode(torch.tensor([[-1e6, 0.5], [1e6, -2.0]]))
    assert kept.dtype == np.float16
    assert np.isfinite(kept).all()
    assert kept[0, 0] < kept[1, 1] < kept[0, 1] < kept[1, 0]
