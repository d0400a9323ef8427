"""How soon a level is reached: epochs, gradient steps, seconds, peer by peer; a claim of sooner and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.records_factory import TEN, record

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.report.claimpage import claim_page
from gkdbench.report.convergence import EpochsToTarget, arrivals, pace


def curves(*peers: list[float], run: tuple[int, int] = (3, 7), every: int = 1) -> SidecarArrays:
    prefix = f"{run[0]}-{run[1]}"
    found: SidecarArrays = {f"{prefix}/peer{k}/val/curve": np.array(p, dtype=np.float32) for k, p in enumerate(peers)}
    found[f"{prefix}/terms/epoch"] = np.arange(1, len(peers[0]) + 1, dtype=np.float32) * every
    return found


def test_epochs_to_the_rivals_best_are_counted_peer_by_peer() -> None:
    solo = curves([0.1, 0.5, 0.4, 0.6, 0.6], [0.2, 0.3, 0.3, 0.1, 0.1])
    fast = curves([0.7, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.9])
    (found,) = arrivals(fast, solo, [(3, 7)])
    # the second peer is as late as counts: twice 2
    assert found == EpochsToTarget(ours=(1 + 4) / 2, theirs=(4 + 2) / 2, saved=(3 / 4 - 1) / 2, reached=2, models=2)
    (never,) = arrivals(curves([0.1] * 5, [0.1] * 5), solo, [(3, 7)])
    assert (never.ours, never.reached) == ((8 + 4) / 2, 0)
    assert arrivals(solo, solo, [(3, 7)])[0].saved == 0
    with pytest.raises(UserError, match="no validation curve of the same model"):
        arrivals(solo, {}, [(3, 7)])
    nowhere = {name: value for name, value in solo.items() if "terms" not in name}
    with pytest.raises(UserError, match="without terms/epoch"):
        arrivals(nowhere, nowhere, [(3, 7)])


def test_epochs_are_those_of_the_reports() -> None:
    (found,) = arrivals(curves([0.1, 0.9], every=10), curves([0.1, 0.2], every=5), [(3, 7)])
    assert (found.ours, found.theirs) == (20.0, 10.0)


def run_of(seconds: float, steps: float | None = 2.0, **fields: object) -> Record:
    made = record(runs=TEN, **fields)  # type: ignore[arg-type]
    extra = {} if steps is None else {"steps": steps * 20}
    rows = [row.model_copy(update={"train_s": seconds, "epochs": 20, "extra": extra}) for row in made.rows]
    return made.model_copy(update={"rows": rows})


def test_steps_and_seconds_follow_from_those_of_an_epoch() -> None:
    found = [EpochsToTarget(5.0, 10.0, 0.5, 1, 2) for _ in TEN]
    got = pace(run_of(30.0, steps=4.0), run_of(10.0), found, TEN)
    assert (got.reached, got.models) == (10, 20)
    assert got.epochs == pytest.approx((0.5, 0.5, 0.5))
    assert got.steps == pytest.approx((1.0, 1.0, 1.0))
    assert got.seconds == pytest.approx((1.5, 1.5, 1.5))
    silent = pace(run_of(0.0, steps=None), run_of(10.0), found, TEN)
    assert silent.steps is None and silent.seconds is None


def test_a_claim_of_sooner_says_what_it_costs(tmp_path: Path) -> None:
    page = tmp_path / "soon.toml"
    page.write_text(
        "title = 'x'\nintro = ''\n[row.a]\nname = 'A'\nmethod = 'a'\n[row.b]\nname = 'B'\nmethod = 'b'\n"
        "[[claim]]\nsays = 'A is sooner'\nsource = 's'\nreads = 'r.'\ntest = 'sooner'\ncandidate = 'a'\n"
        "against = ['b']\ndatasets = ['cora']\nsplits = ['planetoid-public']\nsettings = ['tran']\n"
    )
    slow, fast = [0.1, 0.2, 0.3, 0.4], [0.1, 0.5, 0.1, 0.1]
    ours, theirs = run_of(30.0, method="a", label="A"), run_of(10.0, method="b", label="B")
    side_cars = {
        one.key: {name: value for run in TEN for name, value in curves(values, run=run).items()}
        for one, values in ((ours, fast), (theirs, slow))
    }
    text, _ = claim_page(page, [ours, theirs], lambda one: side_cars[one.key])
    assert "**supported**" in text
    assert "| 2.0 | B | 4.0 | +50.00 |" in text
    assert "| B | 10 of 10 | 0.50 [0.50, 0.50] | 0.50 [0.50, 0.50] | 1.50 [1.50, 1.50] |" in text.replace("\\", "")
    with pytest.raises(UserError, match="reads side-cars"):
        claim_page(page, [ours, theirs])
