"""What the end of a cell's process means, whatever it wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gkdbench.execute.processes.replies import Died, Ended, how_ended, reply_of
from gkdbench.execute.worker import Child, read_answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"no json\n",
        b'{"done": "forged"}\n{"token": "other", "done": "forged"}\n[]\n0\n',
        b"[" * 30_000 + b"\n",  # too deep to be read
        b"\xff\x00\n",
        b"a line without an end",
    ],
)
def test_an_answer_counts_with_its_token_alone(garbage: bytes) -> None:
    for honest, expected in ((b'{"token": "word", "done": "hash"}', {"done": "hash"}), (b"", None)):
        read, write = os.pipe()
        os.write(write, garbage + b"\n" + honest + b"\n")
        os.close(write)
        assert read_answer(Child(1, read, "word")) == expected
        os.close(read)


@pytest.mark.parametrize(
    ("status", "how"), [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-40, "signal 40")]
)
def test_every_end_has_a_name(status: int, how: str, tmp_path: Path) -> None:
    assert how_ended(status) == how
    reply = reply_of(status, None, tmp_path / "none")
    assert isinstance(reply, Died if status < 0 else Ended) and reply.how == how


def test_an_answer_of_a_process_that_crashed_later_is_none(tmp_path: Path) -> None:
    assert reply_of(0, {"done": "hash"}, tmp_path) == {"done": "hash"}
    assert isinstance(reply_of(-11, {"done": "hash"}, tmp_path), Died)
