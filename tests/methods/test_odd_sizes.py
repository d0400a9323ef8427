"""Every method trains with finite numbers on one class, on one labelled item, without features and without edges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.odd_data import Kind
from support.odd_runs import SIZES, faults
from torch import nn

from gkdbench.nn import parts
from gkdbench.training import losses
from gkdbench.training.losses import supervised


@pytest.mark.parametrize("kind", ["node", "graph"])
def test_degenerate_tasks_train_with_finite_numbers(kind: Kind, tmp_path: Path) -> None:
    assert faults(tmp_path, kind, SIZES) == []


def test_one_row_is_normalised_by_the_running_moments_and_leaves_them() -> None:
    norm, usual, rows = parts.BatchNorm(3), nn.BatchNorm1d(3), torch.randn(5, 3)
    assert torch.equal(norm(rows), usual(rows))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    alone = norm(rows[:1])
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(alone, norm.eval()(rows[:1]))
    with pytest.raises(ValueError, match="more than 1 value"):
        usual(rows[:1])


def test_no_labels_add_nothing_to_a_loss() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = supervised(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None


@pytest.mark.parametrize("several", [False, True])
def test_row_kl_is_the_mean_that_kl_to_teacher_gives(several: bool) -> None:
    student, teacher = torch.randn(2, 6, 3)
    rows = losses.row_kl(student, teacher, tau=2.0, multi_label=several)
    whole = losses.kl_to_teacher(student, teacher, tau=2.0, multi_label=several)
    assert torch.allclose(rows.mean(), whole, rtol=1e-5)
