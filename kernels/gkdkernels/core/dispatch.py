"""The choice of a backend: `auto` picks, a name is obeyed or refused, nothing falls back silently.

Also what all backends of an operator agree on: the dtype of sums, and the largest tile of a program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

_AUTO = (
    "triton",
    "cpu",
    "reference",
)  # the first that runs; of the extras (numba, torch_scatter) those before it that change no bit
MAX_TILE = 8192
"""Padded elements (all classes of a row, of all peers) that a program on a GPU holds: 16 for each of 512 threads."""
_OPERATORS: dict[str, tuple[str, ...]] = {}
_OWNERS: dict[str, str] = {}  # operator -> module and line that declared it
_SAME_BITS: dict[str, tuple[str, ...]] = {}


_threads = {"loops ran": False, "forked since": False}


class _OnDevice(Protocol):
    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would run, and why nothing else would.

    Attributes:
        operator: its public name.
        backend: the one that runs.
        why: the reason, a phrase.
        others: the operator's other backends, each with the reason why it does not run.
    """

    operator: str
    backend: str
    why: str
    others: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{self.operator} runs on '{self.backend}': {self.why}"]
        return "\n".join([*lines, *(f"  not '{name}': {reason}" for name, reason in self.others.items())])


def declare(operator: str, *backends: str, same_bits: Sequence[str] = ()) -> tuple[str, ...]:
    """Record the backends of `operator`, and return them.

    Args:
        same_bits: the extras among them that are bitwise equal to "cpu": "auto" takes them where they are installed.

    Raises:
        ValueError: another line of code has declared an operator of this name.
    """
    claim(_OWNERS, operator, "declared")
    _OPERATORS[operator], _SAME_BITS[operator] = backends, tuple(same_bits)
    return backends


def claim(owners: dict[str, str], operator: str, what: str) -> None:
    """Enter the line that calls the caller as the owner of `operator` in `owners`.

    The same line may claim it again: an import that failed half-way is tried again.

    Args:
        owners: operator -> module and line.
        what: what owners do with it, for the message.

    Raises:
        ValueError: another line owns it; both are named.
    """
    frame = sys._getframe(2)
    owner = f"{frame.f_globals.get('__name__', '?')}, line {frame.f_lineno}"
    if owners.setdefault(operator, owner) != owner:
        raise ValueError(
            f"operator {operator!r} is {what} twice: expected one owner, got {owners[operator]} and {owner}; "
            f"try another name for one of them"
        )


def choose(operator: str, backend: str, exist: Sequence[str], device_of: Tensor) -> str:
    """The backend that runs.

    Args:
        operator: the operator's name, for messages.
        backend: "auto" or one of `exist`.
        exist: the backends of this operator, "reference" among them.
        device_of: the tensor whose device decides.

    Raises:
        ValueError: no such backend, or it does not run here or on that device.
    """
    if backend == "auto":
        order = (*_SAME_BITS.get(operator, ()), *_AUTO)
        return next(n for n in order if n in exist and _passed_over(operator, n, device_of.device) is None)
    if backend not in exist:
        raise ValueError(f"backend of {operator}: expected one of auto, {', '.join(exist)}, got {backend!r}")
    if obstacle := _obstacle(backend, device_of.device):
        raise ValueError(f"backend {backend!r} of {operator}: {obstacle}")
    return backend


def explain(operator: str, *tensors: _OnDevice, backend: str = "auto") -> Explanation:
    """What would run for these inputs, and why.

    Args:
        operator: the name of a public operator, e.g. "spmm".
        tensors: the inputs that decide: tensors or graphs, all on one device.
        backend: as the operator's keyword.

    Raises:
        ValueError: an unknown operator, no tensor, tensors on several devices, or a backend that cannot run.

    Example:
        >>> import gkdkernels  # declares the operators
        >>> found = explain("gat_aggregate", torch.empty(0))
        >>> found.backend, found.why
        ('cpu', 'the fastest that runs on cpu without an extra')
        >>> explain("gat_aggregate", torch.empty(0), backend="reference").others["cpu"]
        "'reference' was asked for"
    """
    if operator not in _OPERATORS:
        raise ValueError(f"operator: expected one of {', '.join(sorted(_OPERATORS))}, got {operator!r}")
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1:
        raise ValueError(f"explain: expected tensors on one device, got {sorted(map(str, devices)) or 'no tensor'}")
    (device,) = devices
    exist = _OPERATORS[operator]
    chosen = choose(operator, backend, exist, torch.empty(0, device=device))
    why = "asked for by name"
    if backend == "auto":
        extra = chosen in _SAME_BITS[operator]
        why = f"the fastest that runs on {device}" + (
            ", bitwise equal to 'cpu', which is used for small inputs" if extra else " without an extra"
        )
    others = {}
    for name in exist:
        if name != chosen:
            reason = _obstacle(name, device)
            asked = None if backend == "auto" else f"'{chosen}' was asked for"
            others[name] = reason or asked or _passed_over(operator, name, device) or f"slower than '{chosen}'"
    return Explanation(operator, chosen, why, others)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32 for half precisions, `dtype` itself otherwise."""
    return torch.promote_types(dtype, torch.float32)


def loops_ran() -> None:
    """Note that compiled loops have started threads: a process that is forked from this one cannot run any."""
    _threads["loops ran"] = True


def _after_fork() -> None:
    _threads["forked since"] = _threads["loops ran"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def padded(size: int) -> int:
    """The next power of 2."""
    return 1 << max(0, size - 1).bit_length()


def interpreted() -> bool:
    """Whether triton kernels run under its interpreter, which knows no device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _passed_over(operator: str, backend: str, device: torch.device) -> str | None:
    """Why "auto" does not consider `backend` on `device`; None if it does."""
    if obstacle := _obstacle(backend, device):
        return obstacle
    if backend not in (*_AUTO, *_SAME_BITS.get(operator, ())):
        return "runs only when named: what is installed must not change results"
    if backend == "triton" and device.type == "cpu":
        return "the interpreter is for tests: it runs only when named"
    return None


def _obstacle(backend: str, device: torch.device) -> str | None:
    """Why `backend` cannot run on `device` here; None if it can."""
    if backend in ("cpu", "numba") and device.type != "cpu":
        return f"expected tensors on the CPU, got {device}"
    if backend == "triton" and not (device.type == "cuda" or (device.type == "cpu" and interpreted())):
        hint = "; on the CPU, run its interpreter: set TRITON_INTERPRET=1" if device.type == "cpu" else ""
        return f"expected tensors on a CUDA device, got {device}{hint}"
    if backend == "numba" and _threads["forked since"]:
        return (
            "expected a process that was not forked after compiled loops ran, got one (GNU OpenMP would end it); "
            "try backend='cpu', or a DataLoader with multiprocessing_context='spawn' or 'forkserver'"
        )
    if backend in _ABSENT:
        return f"expected the package {backend}, got none installed; try {_INSTALL[backend]}"
    return None


_INSTALL = {
    "triton": "pip install triton",
    "numba": 'pip install "gkdbench[numba]"',
    "torch_scatter": 'pip install "gkdbench[torch-scatter]" --no-build-isolation (compiles against torch)',
}
_ABSENT = frozenset(name for name in _INSTALL if find_spec(name) is None)  # now: not to be looked up while traced
