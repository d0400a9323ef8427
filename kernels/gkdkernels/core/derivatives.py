"""Derivatives that an operator does not have are refused, by whichever way they are asked for.

The fast paths are differentiable once. `torch.autograd.function.once_differentiable` says so only to those who come
through an upstream gradient that needs one: after ``autograd.grad(y.sum(), x, create_graph=True)`` the gradient has no
graph, and a penalty on it trains nothing without a word. Here the gradient is tied to the operator's inputs by a node
that raises. Forward mode, which would take a registered operator for a constant, and `torch.func` raise, too.

All errors are `NotImplementedError`, a `RuntimeError`, and name the reference, which has every derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gkdkernels.core.autocast import shielded

_Gradients = tuple[Tensor | None, ...]
_transforms_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


class Link:
    """A tensor without elements that depends on the inputs of an operator, kept where those are not saved."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def link_to(*inputs: Tensor | None) -> Link | None:
    """For ``ctx.link`` of a `torch.autograd.Function` that saves results instead of its inputs; see `once`.

    It keeps no memory of the inputs. None where no gradient is recorded, in a trace and inside `torch.func`.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or _transforms_active():
        return None
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    return Link(_Tie.apply(None, 0, *wanted)[0]) if wanted else None  # type: ignore[no-untyped-call]


def once(operator: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of the backward of a `torch.autograd.Function`: a second derivative raises.

    The gradients are tied to the upstream gradients, to the saved tensors, and to ``ctx.link`` where forward has set it
    to a `Link`: what a gradient depends on must be among them.

    Args:
        operator: its public name, for the message.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        plain = shielded(backward)

        @functools.wraps(backward)
        def run(ctx: Any, *upstream: Tensor | None) -> Any:
            if torch.compiler.is_compiling():
                return backward(ctx, *upstream)
            with torch.no_grad():
                grads = plain(ctx, *upstream)
            if not torch.is_grad_enabled():
                return grads
            link: Link | None = getattr(ctx, "link", None)
            several = grads if isinstance(grads, tuple) else (grads,)
            tied = tie(operator, several, (*upstream, *ctx.saved_tensors, link.tensor if link else None))
            return tied if isinstance(grads, tuple) else tied[0]

        return run

    return decorate


def tie(operator: str, grads: _Gradients, to: Iterable[Tensor | None]) -> _Gradients:
    """`grads`, which raise when they are differentiated in any of `to` that needs a gradient."""
    wanted = [tensor for tensor in to if tensor is not None and tensor.requires_grad]
    place = [i for i, grad in enumerate(grads) if grad is not None]
    if not wanted or not place:
        return grads
    found = [grads[i] for i in place]
    tied = _Tie.apply(operator, len(found), *found, *wanted)  # type: ignore[no-untyped-call]
    out = list(grads)
    for i, grad in zip(place, tied, strict=True):
        out[i] = grad
    return tuple(out)


def apply_once(operator: str, function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``function.apply(*arguments)``; inside the transforms of `torch.func`, or with tangents, a clear error."""
    refuse_tangents(operator, arguments)
    if not torch.compiler.is_compiling():
        refuse_transforms(operator)
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


def refuse_transforms(operator: str) -> None:
    """Raise inside a transform of `torch.func`.

    Raises:
        NotImplementedError: one is active.
    """
    if _transforms_active():
        raise NotImplementedError(
            f"{operator}: expected a call outside torch.func's transforms (vmap, grad, jvp, ...), got one inside; "
            "try backend='reference', or torch.autograd.grad for a gradient"
        )


def refuse_tangents(operator: str, arguments: Iterable[Any]) -> None:
    """Raise where an argument, or an element of one that is a list, has a forward-mode tangent.

    Raises:
        NotImplementedError: there is one.
    """
    if forward_ad._current_level < 0:
        return
    for argument in arguments:
        for each in argument if isinstance(argument, list | tuple) else (argument,):
            if isinstance(each, Tensor) and _may_have_a_tangent(each):
                raise NotImplementedError(
                    f"{operator}: expected no forward-mode tangent, got one; it has a gradient in reverse mode only: "
                    "try backend='reference'"
                )


def _may_have_a_tangent(tensor: Tensor) -> bool:
    """A trace does not know which tensors have one: there, all that could."""
    if torch.compiler.is_compiling():
        return tensor.is_floating_point()
    return forward_ad.unpack_dual(tensor).tangent is not None


def no_second_derivative(operator: str) -> NotImplementedError:
    """The error of a derivative that is asked for twice."""
    return NotImplementedError(
        f"{operator}: expected one derivative, got a derivative of its gradient (create_graph=True); "
        "this backend is differentiable once: try backend='reference'"
    )


class _Tie(torch.autograd.Function):
    """The first `count` of the tensors as they are, or an empty one for ``count=0``; backward raises."""

    @staticmethod
    def forward(ctx: Any, operator: str | None, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.operator = operator
        if count == 0:
            return (tensors[0].new_empty(0),)
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise no_second_derivative(ctx.operator or "this operator")
