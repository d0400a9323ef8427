"""Every method trains on several labels an item, with unknown ones among them, or says beforehand that it does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import support.odd_runs
import torch.nn.functional as F
from support.document_blocks import ROOT
from support.odd_data import Kind
from support.odd_runs import IN_FULL, LABELS, SIZES, faults

from gkdbench.cli import main
from gkdbench.errors import UserError
from gkdbench.execute.grid import _check_fits
from gkdbench.methods.baselines import mlp
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


def test_the_page_and_show_say_which_methods_take_one_class(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/methods/index.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page.partition("## Labels")[2].partition("\n## ")[0], re.M))
    assert rows == {name: METHODS.get(name).one_label for name in METHODS.names() if not METHODS.get(name).multi_label}
    assert main(["show", "krd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == f"one class an item: {rows['krd']}"


def test_a_run_that_is_not_finite_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: unknown labels that a loss does not leave out."""
    monkeypatch.setattr(support.odd_runs, "of_kind", lambda kind: ["mlp", "krd"])
    monkeypatch.setattr(mlp, "supervised", lambda z, y, multi_label: F.binary_cross_entropy_with_logits(z, y))
    (found,) = faults(tmp_path, "node", ["labels with holes"])
    assert found.startswith("mlp (corrected) on nodes, labels with holes: nan:")
