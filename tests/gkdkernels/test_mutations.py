"""The gate can turn red: planted faults are caught."""

from __future__ import annotations

import pytest
from fault import Fault
from mutations import FAULTS, SOURCES, caught


def test_every_fault_is_another_and_its_line_is_there_once() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    texts = {fault.file: (SOURCES / fault.file).read_text(encoding="utf-8") for fault in FAULTS}
    assert {fault.name: texts[fault.file].count(fault.right) for fault in FAULTS} == {f.name: 1 for f in FAULTS}


OFTEN = [fault for fault in FAULTS if fault.often]


@pytest.mark.parametrize("fault", OFTEN, ids=lambda fault: fault.name)
def test_one_fault_of_each_kind_is_caught(fault: Fault) -> None:
    assert caught(fault, fault.tests, fault.only) == "caught"


def test_no_fault_is_not_caught() -> None:
    fault = next(fault for fault in OFTEN if fault.only)
    assert caught(None, fault.tests, fault.only) == "missed"


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.often], ids=lambda fault: fault.name)
def test_every_other_fault_is_caught(fault: Fault) -> None:
    if not fault.possible:
        pytest.skip(f"{fault.needs} is not installed")
    assert caught(fault, fault.tests, fault.only) == "caught"
