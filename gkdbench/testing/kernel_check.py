"""A kernel of an author compared with a plain formula: values and gradients first, then time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from gkdkernels.core.cost import Cost
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.measure.operators.bench import timed
from gkdbench.measure.operators.gate import GateResult, answer, judge, truth
from gkdbench.measure.operators.problem import (
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    TimedPass,
    by_blocks,
    normal,
)
from gkdbench.testing.timed_runs import LatencyReport, time_in_turns

_NOT_COUNTED = Cost(0, 0)


@dataclass(frozen=True, slots=True)
class KernelReport:
    """A kernel that agrees with its formula.

    Attributes:
        errors: relative L2 errors against fp64, of "value" and of each gradient by the name of its input.
        latency: the kernel's times in turns with the formula's.
    """

    errors: dict[str, float]
    latency: LatencyReport

    def __str__(self) -> str:
        worst = max(self.errors, key=lambda name: self.errors[name])
        return f"{worst} is off by {self.errors[worst]:.1e}; {self.latency}"


def kernel_problem(reference: Callable[..., Tensor], inputs: Mapping[str, Tensor], *, seed: int = 0) -> OperatorProblem:
    """The inputs, an upstream gradient drawn with `seed`, and `reference` in fp64 as the truth.

    Args:
        reference: called as ``reference(**inputs)``, differentiable by torch; gives one tensor.
        inputs: floating-point tensors of one dtype on one device; what takes no gradient belongs into the closure.

    Raises:
        UserError: no inputs, other tensors, or a reference that gives no tensor.
    """
    kinds = {(tensor.dtype, tensor.device) for tensor in inputs.values() if isinstance(tensor, Tensor)}
    if len(kinds) != 1 or not all(isinstance(x, Tensor) and x.is_floating_point() for x in inputs.values()):
        got = {name: getattr(x, "dtype", type(x).__name__) for name, x in inputs.items()}
        raise UserError(
            f"inputs: expected floating-point tensors of one dtype on one device, got {got or 'none'}; try "
            "functools.partial for graphs, indices and options"
        )
    ((dtype, device),) = kinds
    leaves = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    with torch.no_grad():
        value = reference(**leaves)
    if not isinstance(value, Tensor):
        raise UserError(f"the reference: expected one tensor, got {type(value).__name__}; try one output a call")
    upstream = normal(*value.shape, seed=seed, dtype=dtype, device=device)

    def oracle(exact: Tensors, gradient: Tensor) -> dict[str, Tensor]:
        everything = [(slice(None), slice(None))]
        return by_blocks(exact, gradient, everything, lambda given, *_: reference(**given))

    return OperatorProblem(leaves, upstream, oracle, [], _NOT_COUNTED, _NOT_COUNTED)


def check_kernel(
    kernel: Callable[..., Tensor], problem: OperatorProblem, direction: TimedPass = "fwd+bwd"
) -> GateResult:
    """Compare the kernel's value, and for "fwd+bwd" its gradients, with the truth of `problem`.

    Raises:
        AssertionError: an error above the tolerance of the dtype (`gkdbench.measure.operators.gate.TOLERANCE`), or
            inputs that the kernel changed.
    """
    before = {name: tensor.clone() for name, tensor in problem.inputs.items()}
    dtype = problem.upstream.dtype
    given: list[Tensors] = []

    def forward(leaves: Tensors) -> Tensor:
        given.append(leaves)
        return kernel(**leaves)

    try:
        found = answer(problem, forward, direction)
    except RuntimeError as error:
        raise AssertionError(
            f"the kernel: expected a value{' and gradients' * (direction == 'fwd+bwd')}, got {error}; a kernel without "
            "gradients is checked with direction='fwd'"
        ) from error
    verdict = judge(found, truth(problem), dtype)
    changed = [name for name, tensor in given[0].items() if not torch.equal(tensor.detach(), before[name])]
    if changed:
        raise AssertionError(f"the kernel: expected its inputs as they were, got changed values in {changed}")
    if not verdict.green:
        raise AssertionError(f"the kernel differs from the reference in fp64: {verdict}; all errors: {verdict.errors}")
    return verdict


def compare_kernel(
    kernel: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Mapping[str, Tensor],
    *,
    words: str,
    direction: TimedPass = "fwd+bwd",
    rounds: int,
    budget_s: float,
) -> KernelReport:
    """Values and gradients, then times in turns with the reference; arguments as of `kernel_problem`, `time_in_turns`.

    Raises:
        AssertionError: see `check_kernel`: then nothing is timed. UserError: see `kernel_problem`.
    """
    problem = kernel_problem(reference, inputs)
    verdict = check_kernel(kernel, problem, direction)
    case = Case("", {}, direction=direction)
    mine, plain = (timed(problem, _by_name(call), case) for call in (kernel, reference))
    latency = time_in_turns(mine, plain, words=words, device=problem.upstream.device, rounds=rounds, budget_s=budget_s)
    return KernelReport(verdict.errors, latency)


def _by_name(call: Callable[..., Tensor]) -> OperatorCall:
    return lambda leaves: call(**leaves)
