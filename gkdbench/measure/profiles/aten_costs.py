"""Bytes and multiply-adds of torch's own operators, from the tensors of one call.

Each operand is read once and each result written once, as in `gkdkernels.core.cost`; a gather reads the rows that it
takes. Multiply-adds are counted for matrix products and what torch's own counter knows; element-wise operators have
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from gkdkernels.core.cost import Cost
from torch import Tensor
from torch.utils import _pytree as pytree

_FREE = (
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
    "aten::detach", "aten::lift_fresh", "aten::resize_", "aten::set_", "aten::alias",
)  # fmt: skip
_WRITES_ONLY = ("aten::zero_", "aten::fill_", "aten::normal_", "aten::uniform_", "aten::bernoulli_", "aten::random_")
_GATHERS = ("aten::index_select", "aten::gather", "aten::index", "aten::embedding", "aten::take")


def aten_cost(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Bytes and floating-point operations (two a multiply-add; 0 where none are counted) of one call.

    Args:
        func: a `torch._ops.OpOverload`, as a dispatch mode is given it.
        args, kwargs, out: of the call.
    """
    name = func._schema.name
    if func.is_view or name in _FREE:
        return Cost(0, 0)
    given, made = _tensors((args, kwargs)), _tensors(out)
    flops = _flops(func, name, args, kwargs, out) if all(one.layout == torch.strided for one in given) else 0
    written = sum(map(tensor_bytes, made))
    if name in _WRITES_ONLY:
        return Cost(written, flops)
    if name in _GATHERS:
        return Cost(2 * written + sum(map(tensor_bytes, given[1:])), flops)
    if name == "aten::copy_":
        given = given[1:]
    return Cost(sum(map(tensor_bytes, given)) + written, flops)


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of the elements that `tensor` shows, at most those that are stored (an expanded tensor repeats some)."""
    if tensor.layout == torch.sparse_csr:
        return sum(map(tensor_bytes, (tensor.values(), tensor.crow_indices(), tensor.col_indices())))
    if tensor.layout != torch.strided:
        return 0
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _flops(func: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    if name in ("aten::mv", "aten::dot", "aten::vdot"):
        return 2 * int(args[0].numel())
    if name in ("aten::addmv", "aten::addmv_"):
        return 2 * int(args[1].numel())
    if name == "aten::addmm_":
        return 2 * int(args[1].numel()) * int(args[2].shape[-1])
    if name == "mkldnn::_linear_pointwise":
        return 2 * int(args[0].numel()) * int(args[1].shape[0])
    from torch.utils.flop_counter import flop_registry

    counted = flop_registry.get(func.overloadpacket)
    return 0 if counted is None else int(counted(*args, **kwargs, out_val=out))


def _tensors(tree: Any) -> list[Tensor]:
    leaves: Iterable[Any] = pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
