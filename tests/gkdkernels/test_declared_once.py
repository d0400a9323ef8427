"""An operator has one owner: a second declaration or registration under its name is refused."""

from __future__ import annotations

import pytest
from gkdkernels.core import dispatch, registration
from gkdkernels.segment import op as segment


@pytest.fixture(autouse=True)
def _own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert segment  # declares and registers its operators when it is imported
    for table in ("_OPERATORS", "_OWNERS", "_SAME_BITS"):
        monkeypatch.setattr(dispatch, table, dict(getattr(dispatch, table)))


def test_a_second_owner_is_named_with_the_first() -> None:
    words = r"operator 'spmm' is declared twice: .*got gkdkernels\.spmm.*, line \d+ and .*test_declared_once, line \d+"
    before = dispatch._OPERATORS["spmm"]
    with pytest.raises(ValueError, match=words):
        dispatch.declare("spmm", "reference")
    assert dispatch._OPERATORS["spmm"] == before


def test_twice_in_one_module_is_refused_too() -> None:
    assert dispatch.declare("of the test", "reference") == ("reference",)
    with pytest.raises(ValueError, match="'of the test' is declared twice"):
        dispatch.declare("of the test", "reference")


def test_the_same_line_may_declare_it_again() -> None:
    assert [dispatch.declare("of the test", name) for name in ("reference", "cpu")] == [("reference",), ("cpu",)]


def test_a_second_registration_with_torch_is_named_as_well() -> None:
    words = r"operator 'segment_sum' is registered twice: .*got gkdkernels\..*, line \d+ and .*test_declared_once, line"
    with pytest.raises(ValueError, match=words):
        registration.register("segment_sum(Tensor x) -> Tensor", run=lambda x: x, fake=lambda x: x)
