"""Committed ratios: what counts as slower, what is compared at all, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkout import ROOT

from gkdbench.errors import UserError
from gkdbench.measure.ratios import Ratio
from gkdbench.testing.committed_ratios import CommittedRatios, entry
from gkdbench.testing.ratio_session import RatioSession

KNOWN = Ratio(1.0, 0.9, 1.1, 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    CommittedRatios("here", 0.1, "make it", {"a": entry(KNOWN, "MLP")}).write(tmp_path / "ratios.json")
    return tmp_path / "ratios.json"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.0, 1.2, "within"), (1.2, 1.4, "within"), (1.22, 1.4, "slower"), (0.7, 0.81, "faster"), (0.7, 0.9, "within")],
)
def test_the_whole_interval_must_lie_beyond_the_tolerance(file: Path, low: float, high: float, verdict: str) -> None:
    assert CommittedRatios.read(file).judge("a", Ratio(1.0, low, high, 5), "MLP") == verdict


def test_another_name_or_reference_is_new(file: Path) -> None:
    known = CommittedRatios.read(file)
    assert known.judge("b", KNOWN, "MLP") == known.judge("a", KNOWN, "GCN") == "new"


def test_what_seems_slower_is_measured_again(file: Path) -> None:
    session, slow = RatioSession(file, None), Ratio(2.0, 1.9, 2.1, 5)
    session.take("a", slow, "MLP", "here", lambda: KNOWN)
    assert session.summary() == [f"1 of 1 ratios are where {file} has them"]
    with pytest.raises(AssertionError, match=r"a: expected at most 1.00 \[0.90, 1.10\] n=20 of MLP and 10% more"):
        RatioSession(file, None).take("a", slow, "MLP", "here", lambda: slow)


def test_ratios_of_another_device_are_not_compared(file: Path) -> None:
    session = RatioSession(file, None)
    session.take("a", Ratio(9.0, 9.0, 9.0, 5), "MLP", "there", None)
    (line,) = session.summary()
    assert "nothing compared, expected ratios of there, got those of here" in line


def test_a_name_is_taken_once(file: Path) -> None:
    session = RatioSession(None, file)
    session.take("a", KNOWN, "MLP", "here", None)
    with pytest.raises(UserError, match="a: expected one time of that name a test"):
        session.take("a", KNOWN, "MLP", "here", None)
    with pytest.raises(UserError, match="b: expected ratios of one device a run, got there after here"):
        session.take("b", KNOWN, "MLP", "there", None)


def test_a_part_of_the_ratios_is_made_again_and_the_rest_stays(file: Path) -> None:
    session = RatioSession(None, file, "pytest x")
    session.take("b", KNOWN, "MLP", "here", None)
    session.finish()
    found = CommittedRatios.read(file)
    assert (set(found.ratios), found.tolerance, found.made_by) == ({"a", "b"}, 0.1, "pytest x")
    other = RatioSession(None, file)
    other.take("c", KNOWN, "MLP", "there", None)
    other.finish()
    assert (set(CommittedRatios.read(file).ratios), CommittedRatios.read(file).device) == ({"c"}, "there")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "device": "x", "tolerance": -1, "ratios": {}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ratios.json").write_text(text)
    with pytest.raises(UserError, match="expected"):
        CommittedRatios.read(tmp_path / "ratios.json")


def test_the_file_of_this_repository_is_of_its_benches() -> None:
    known = CommittedRatios.read(ROOT / "suites/ratios.json")
    files = {name.partition("::")[0] for name in known.ratios}
    assert files == {f"suites/bench_{what}.py" for what in ("inference", "kernels", "training")}
    assert "--gkd-save-ratios" in known.made_by
