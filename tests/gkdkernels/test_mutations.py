"""The gate can turn red: planted faults are caught."""

from __future__ import annotations

import pytest
from mutations import FAST, FAULTS, SOURCES, Fault, caught


def test_every_fault_is_another_and_its_line_is_there_once() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    texts = {fault.file: (SOURCES / fault.file).read_text(encoding="utf-8") for fault in FAULTS}
    assert {fault.name: texts[fault.file].count(fault.right) for fault in FAULTS} == {f.name: 1 for f in FAULTS}


def test_a_fault_is_caught_and_no_fault_is_not() -> None:
    fault = next(fault for fault in FAULTS if fault.name == FAST)
    assert caught(fault, fault.tests[:1]) == "caught"
    assert caught(None, fault.tests[:1]) == "missed"


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_all_faults_are_caught(fault: Fault) -> None:
    assert caught(fault, fault.tests, fault.only) == "caught"
