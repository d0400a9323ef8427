"""Benches run on one thread, as cells do: on a busy machine, threads that wait for each other hide all else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Numba reads it when it is first imported. Its first parallel loop gives torch as many threads as its own pool has.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever was set before, by a bench or by the environment."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
