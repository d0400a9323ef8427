"""First against later of equal validation scores, from stored curves alone; the published page is what they give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.records_factory import TEN, record

from gkdbench.records.schema import Predictions, Record
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.report.ties import TieShift, shifts, ties_section
from gkdbench.verbs.reporting import fill_ties, records_in

ROOT = Path(__file__).parents[2]
VAL = [0.5, 0.7, 0.8, 0.8, 0.6, 0.8, 0.7]
TEST = [0.5, 0.5, 0.6, 0.7, 0.7, 0.65, 0.9]


def old(**fields: Any) -> Record:
    """A record of protocol 1 whose models were selected in epoch 3."""
    kept = Predictions(path="a.npz", sha256="a" * 64, size_bytes=1)
    facts = {"protocol_version": 1, "selection": "first", "predictions": kept} | fields
    return record("glnn", "GLNN", runs=TEN[:2]).model_copy(update=facts)


def curves(of: Record, test: bool = True) -> SidecarArrays:
    """The first run's score is reached again, the second's is not."""
    found: SidecarArrays = {}
    for run, val in (("0-0", VAL), ("1-1", [*VAL[:3], 0.1, 0.1, 0.1, 0.1])):
        found[f"{run}/student/val/curve"] = np.array(val, dtype=np.float32)
        found[f"{run}/student/epochs"] = np.arange(1, 8, dtype=np.int32)
        if test:
            found[f"{run}/student/tran/curve"] = np.array(TEST, dtype=np.float32)
    return found


def test_a_selected_epoch_moves_to_the_last_one_with_its_score() -> None:
    moved, stayed = shifts(old(), curves(old()))
    assert moved.epochs == 3 and moved.test == pytest.approx(0.05)
    assert stayed == TieShift(0, 0.0)
    assert [shift.test for shift in shifts(old(), curves(old(), test=False))] == [None, None]
    assert list(shifts(old(), {})) == []


def test_the_section_counts_what_the_first_of_equal_scores_selected() -> None:
    others = [
        old(variant="as_released"),
        old(protocol_version=2, selection="loss"),
        old(predictions=None),
    ]
    text = ties_section([old(), *others], curves)
    assert text.startswith("1 records, 2 models, 1 of them moved.")
    assert "| cora | planetoid-public | 2 | 1 (50%) | 3 | 3 | +0.00 | +5.00 | +5.00 to +5.00 |" in text
    assert "| cora | planetoid-public | glnn | – | 2 | 1 (50%) | 3 | 3 | +0.00 | +5.00 | +5.00 to +5.00 |" in text
    without = ties_section([old()], lambda of: curves(of, test=False))
    assert "| 1 (50%) | 3 | 3 | +0.00 | – | – |" in without


@pytest.mark.timeout(400)  # reads every published side-car
def test_the_page_is_what_the_command_makes(tmp_path: Path) -> None:
    from functools import partial

    from gkdbench.report.loading import load_curves

    results = ROOT / "results"
    if not any(results.rglob("*.npz")):
        pytest.skip("no published records in this checkout")
    page = Path(shutil.copy(ROOT / "docs/selection.md", tmp_path))
    fill_ties(page, records_in([results]), partial(load_curves, [results]))
    written = (ROOT / "docs/selection.md").read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == written, "run `gkdbench report results --ties docs/selection.md`"
