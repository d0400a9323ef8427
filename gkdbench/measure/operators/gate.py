"""The gate of the bench: value and every gradient against fp64, on the very inputs that are timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gkdbench.measure.operators.problem import OperatorCall, OperatorProblem, TimedPass

TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Relative L2 error per dtype: several roundings of the output, and far below one wrong term."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """Relative L2 errors of "value" and the gradients by name, and whether all are within the tolerance."""

    errors: dict[str, float]
    green: bool

    def __str__(self) -> str:
        worst = max(self.errors, key=lambda name: self.errors[name])
        return f"{'green' if self.green else 'red'}: {worst} is off by {self.errors[worst]:.1e}"


def truth(problem: OperatorProblem) -> dict[str, Tensor]:
    """fp64 value and gradients of the problem's own inputs."""
    inputs = {name: tensor.detach().double() for name, tensor in problem.inputs.items()}
    return problem.oracle(inputs, problem.upstream.double())


def answer(problem: OperatorProblem, forward: OperatorCall, direction: TimedPass) -> dict[str, Tensor]:
    """A candidate's results: its value and, for "fwd+bwd", its gradients."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in problem.inputs.items()}
    value = forward(leaves)
    if direction == "fwd":
        return {"value": value.detach()}
    gradients = torch.autograd.grad(value, list(leaves.values()), problem.upstream.to(value.dtype))
    return {"value": value.detach(), **dict(zip(leaves, gradients, strict=True))}


def judge(found: dict[str, Tensor], wanted: dict[str, Tensor], dtype: torch.dtype) -> GateResult:
    """Compare `found` with the entries of `wanted` that it has."""
    errors = {name: relative_error(tensor, wanted[name]) for name, tensor in found.items()}
    return GateResult(errors, all(error <= TOLERANCE[dtype] for error in errors.values()))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """``|found - wanted| / |wanted|``; infinite for another shape or a NaN."""
    if found.shape != wanted.shape:
        return float("inf")
    scale = float(torch.linalg.vector_norm(wanted))
    error = float(torch.linalg.vector_norm(found.double() - wanted)) / (scale or 1.0)
    return error if error == error else float("inf")
