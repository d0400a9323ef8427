"""Numbers change only with a bump of a revision (docs/design.md, decision 2); how they are renewed: see golden.py."""

import golden
import pytest

from gkdbench.training.registry import METHODS


def mend(name: str = "NAME") -> str:
    return f"run `python tests/methods/golden.py {name}` and commit golden.json"


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> golden.Meter:
    return golden.Meter(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("case", golden.cases(), ids=" ".join)
def test_numbers_are_those_of_their_revision(meter: golden.Meter, case: golden.Case) -> None:
    stored = golden.load().get(golden.key(case))
    assert stored is not None, f"no numbers for {golden.key(case)}: {mend(case[0])}"
    moved = golden.differences(stored, meter.measure(case))
    then = f"bump `revision` of the method or its backbone, then {mend(case[0])}"
    assert not moved, f"{golden.key(case)}: {moved}; {then}"


def test_no_numbers_of_old_revisions_are_kept() -> None:
    stale = set(golden.load()) - {golden.key(case) for case in golden.cases()}
    assert not stale, f"{sorted(stale)} are not measured any more: {mend()}"


def test_a_small_change_is_noticed(meter: golden.Meter) -> None:
    measured = meter.measure(("mlp", "corrected", "tran", "{}"))
    assert golden.differences(measured, measured) == []
    for what, value in measured.items():
        assert len(golden.differences(measured, {**measured, what: value * (1 + 3e-4) + 1e-6})) == 1, what
    assert len(golden.differences(measured, {})) == len(measured)


def test_a_bumped_revision_asks_for_new_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {case: golden.key(case) for case in golden.cases()}
    monkeypatch.setattr(METHODS.get("teacher"), "revision", 99)
    after = {case: golden.key(case) for case in golden.cases()}
    assert before["teacher", "corrected", "tran", "{}"] != after["teacher", "corrected", "tran", "{}"]
    assert before["glnn", "corrected", "tran", "{}"] != after["glnn", "corrected", "tran", "{}"], "a student's too"
    assert before["mlp", "corrected", "tran", "{}"] == after["mlp", "corrected", "tran", "{}"]


def test_renewing_refuses_to_overwrite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    case = ("mlp", "corrected", "tran", "{}")
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")  # type: ignore[operator]
    monkeypatch.setattr(golden, "cases", lambda: [case])
    assert golden.main() == 0
    stored = golden.load()
    wrong = {golden.key(case): {**stored[golden.key(case)], "loss 1": 9.0}, "old": {}}
    golden.FILE.write_text(golden.json.dumps(wrong))
    assert golden.main() == 1
    assert "loss 1: 9 before" in capsys.readouterr().out
    assert golden.load() == {golden.key(case): wrong[golden.key(case)]}


def test_a_method_in_the_making_replaces_its_own_numbers_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    case = ("mlp", "corrected", "tran", "{}")
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")  # type: ignore[operator]
    golden.FILE.write_text(golden.json.dumps({"mlp old": {"loss 1": 9.0}, "kd other": {"loss 1": 8.0}}))
    assert golden.main(["mlp"]) == 0
    stored = golden.load()
    assert stored.pop("kd other") == {"loss 1": 8.0}
    assert golden.key(case) in stored
    assert all(name.split()[0] == "mlp" and name != "mlp old" for name in stored)
