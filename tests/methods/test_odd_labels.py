"""Every method trains on several labels an item, with unknown ones among them, or says beforehand that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.odd_data import Kind
from support.odd_runs import IN_FULL, LABELS, SIZES, faults

from gkdbench.errors import UserError
from gkdbench.execute.grid import _check_fits
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve


@pytest.mark.parametrize("kind", ["node", "graph"])
def test_several_labels_train_with_unknown_ones_left_out(kind: Kind, tmp_path: Path) -> None:
    assert faults(tmp_path, kind, LABELS) == []


@pytest.mark.full
@pytest.mark.parametrize("kind", ["node", "graph"])
def test_what_is_released_and_the_other_odd_tasks(kind: Kind, tmp_path: Path) -> None:
    assert faults(tmp_path / "corrected", kind, IN_FULL) == []
    assert faults(tmp_path / "released", kind, (*LABELS, *SIZES, *IN_FULL), released=True) == []


def test_a_method_of_one_class_an_item_says_why() -> None:
    """Lists and the plan have the same sentence; settings may ask for one class too."""
    for name in METHODS.names():
        cls = METHODS.get(name)
        assert bool(cls.one_label) != cls.multi_label, name
        assert cls.multi_label or METHODS.facts(name)["one_label"] == cls.one_label
    for name, settings in (("aekd", {}), ("kdcl", {"target": "minlogit"}), ("rbm", {"reliable": True})):
        method = resolve(name, settings)
        with pytest.raises(UserError, match="one class an item") as refused:
            _check_fits(method, "node", True, "a set")
        assert method.why_one_label() in str(refused.value)
        _check_fits(method, "node", False, "a set")
