"""Classes, experts and other indices that an operator reads by: what lies outside their range is refused.

On the CPU before anything is launched. On a GPU that would be a wait for the device: there the kernels leave such rows
out and set a flag in memory of the host, which is looked at by the next call of an operator that takes indices. Until
the device is through the flag may not be set yet: `check_indices` waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

_flags: dict[torch.device, Tensor] = {}  # [1] int32 each, in pinned memory of the host
_named: dict[torch.device, str] = {}


def check_indices_of(name: str, index: Tensor, size: int, *, negative: bool = False) -> None:
    """Refuse indices outside [0, `size`) where they can be read without waiting, on the CPU.

    Args:
        name: of the argument, for the message.
        index: integers of any shape.
        negative: whether a negative one means "none".

    Raises:
        ValueError: an index out of range; on a GPU, one of an earlier call.
    """
    if torch.compiler.is_compiling() or index.numel() == 0:
        return
    if index.device.type != "cpu":
        raise_flagged(index.device)
        return
    low, high = (int(bound) for bound in index.aminmax())
    if high >= size or (low < 0 and not negative):
        rest = ", or negative for none" if negative else ""
        raise ValueError(f"{name}: expected values in [0, {size}){rest}, got {low}..{high}")


def flag_for(name: str, index: Tensor) -> Tensor:
    """[1] int32 that a kernel sets to 1 where it meets an index out of range.

    Pinned: a kernel on a GPU writes to the host's memory, and only then; nobody has to copy or to wait.
    """
    device = index.device
    if device not in _flags:
        flag = torch.zeros(1, dtype=torch.int32)
        _flags[device] = flag if device.type == "cpu" else flag.pin_memory()
    _named[device] = name
    return _flags[device]


def raise_flagged(device: torch.device) -> None:
    """Raise if a kernel on `device` has set the flag, without waiting for it; the flag is taken back.

    Raises:
        ValueError: an index of an earlier call was out of range.
    """
    flag = _flags.get(device)
    if flag is not None and int(flag[0]):
        flag.zero_()
        raise ValueError(
            f"{_named[device]}: expected classes or experts within range, got one outside in this or an earlier call "
            f"on {device}, which left its rows out; try the call on the CPU, which names the values"
        )


def check_indices() -> None:
    """Wait for all GPUs that were used, and refuse indices out of range that their kernels have met.

    Operators do not wait for a GPU to look at the values of targets and experts: kernels leave out rows whose index is
    out of range, and the error comes with a later call, or with this function.

    Raises:
        ValueError: an index was out of range.

    Example:
        >>> check_indices()  # nothing was wrong
    """
    for device in list(_flags):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        raise_flagged(device)
