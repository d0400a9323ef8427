"""The choice of a backend: `auto` picks, a name is obeyed or refused, nothing falls back silently."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def choose(operator: str, backend: str, exist: Sequence[str], device_of: Tensor) -> str:
    """The backend that runs.

    Args:
        operator: the operator's name, for messages.
        backend: "auto" or one of `exist`.
        exist: the backends of this operator, "reference" among them.
        device_of: the tensor whose device decides.

    Raises:
        ValueError: no such backend, or it does not run on that device.
    """
    on_cpu = device_of.device.type == "cpu"
    if backend == "auto":
        return "cpu" if on_cpu and "cpu" in exist else "reference"
    if backend not in exist:
        raise ValueError(f"backend of {operator} wants one of auto, {', '.join(exist)}; got {backend!r}")
    if backend == "cpu" and not on_cpu:
        raise ValueError(f"backend 'cpu' of {operator} wants tensors on the CPU, got {device_of.device}")
    return backend
