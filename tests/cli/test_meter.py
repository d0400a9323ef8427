"""Progress of checks and downloads: silent when short, a line now and then in a log, one line on a terminal."""

from __future__ import annotations

import io

from gkdbench.meter import WorkMeter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO, steps: int, seconds_a_step: float) -> str:
    now = [0.0]
    meter = WorkMeter(steps, "records checked", stream=stream, clock=lambda: now[0])
    for step in range(steps):
        now[0] += seconds_a_step
        meter.step(f"r{step}")
    meter.end()
    return stream.getvalue()


def test_short_work_prints_nothing_into_a_log() -> None:
    assert said(io.StringIO(), 40, 0.1) == ""


def test_long_work_prints_a_line_now_and_then_with_the_time_left() -> None:
    lines = said(io.StringIO(), 100, 1.0).splitlines()
    assert lines[:2] == [
        "[5 of 100 records checked, 95 s left] r4".replace("95 s", "2 min"),
        "[35 of 100 records checked, 65 s left] r34",
    ]
    assert len(lines) == 4


def test_a_terminal_has_one_line_that_is_taken_away() -> None:
    text = said(Terminal(), 3, 1.0)
    assert "\n" not in text and text.count("\r") == 3 + 2
    assert text.rpartition("\r")[0].rpartition("\r")[2].strip() == ""
