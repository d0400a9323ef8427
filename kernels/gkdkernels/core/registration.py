"""Registration with torch, so that `torch.compile` sees each operator as one opaque call on plain tensors.

`torch.library.Library` and not `custom_op`: the first call of a `custom_op` imports the compiler, more than a second in
each process, and its wrappers cost twice the time per call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gkdkernels.core.autocast import shielded
from gkdkernels.core.derivatives import no_second_derivative, refuse_tangents, refuse_transforms
from gkdkernels.core.dispatch import claim

_OWNERS: dict[str, str] = {}  # operator -> module and line that registered it
_LIBRARY = torch.library.Library("gkdkernels", "DEF")  # type: ignore[no-untyped-call]


def register(
    schema: str,
    run: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    transforms: bool = False,
) -> Callable[..., Any]:
    """Define ``torch.ops.gkdkernels.<name>`` and return what calls it.

    Derivatives that it does not have raise: of an operator without `backward`, and in forward mode, of any.

    Args:
        schema: ``name(Tensor x, ...) -> Tensor``; no argument is changed in place, no output aliases an input.
        run: the operator on real tensors of any device, without autograd and without autocast.
        fake: the same on tensors without data: shapes and dtypes of the outputs.
        setup_context: ``(ctx, inputs, output)``, saves what `backward` needs.
        backward: ``(ctx, *upstream)`` -> one gradient for each input, made of torch's and of registered operators;
            None if there is no gradient.
        transforms: whether it may be called inside `torch.func`'s vmap and grad: a plain function of tensors.

    Raises:
        ValueError: another line of code has registered an operator of this name.
    """
    claim(_OWNERS, schema.partition("(")[0], "registered")
    name: str = _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, shielded(run), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"gkdkernels::{name}", fake, lib=_LIBRARY)

    def refuse(*_: Any) -> Any:
        raise no_second_derivative(name.removesuffix("_backward"))

    formula = backward or refuse
    torch.library.register_autograd(f"gkdkernels::{name}", formula, setup_context=setup_context, lib=_LIBRARY)
    found: Callable[..., Any] = getattr(torch.ops.gkdkernels, name).default

    def call(*arguments: Any) -> Any:
        refuse_tangents(name, arguments)
        if not transforms and not torch.compiler.is_compiling():
            refuse_transforms(name)
        return found(*arguments)

    return call
