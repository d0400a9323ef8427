"""What is compared: a case as data, its problem, and the candidates that solve it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

import torch
from gkdkernels import CSRGraph, explain
from gkdkernels.core.cost import Cost
from torch import Tensor

Tensors = Mapping[str, Tensor]
OperatorCall = Callable[[Tensors], Tensor]
"""The differentiable inputs by name -> the one output, differentiable in them."""
TimedPass = Literal["fwd", "fwd+bwd"]


class CandidateUnavailable(Exception):
    """A candidate that cannot take part; the message is the reason that is printed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table of cases.

    Attributes:
        operator: a key of `gkdbench.measure.operators.cases.MODULES`.
        sizes: sizes of the operator's inputs: width, heads, peers, classes, experts, ...
        graph: a name that `graph_named` knows; "" for operators without a graph.
        option: reduce of spmm, kernel of structure_kl.
    """

    operator: str
    sizes: Mapping[str, int]
    graph: str = ""
    option: str = ""
    dtype: str = "float32"
    direction: TimedPass = "fwd+bwd"

    @property
    def name(self) -> str:
        """``spmm-max/power-law-arxiv/width=128/float32/fwd+bwd``."""
        what = f"{self.operator}-{self.option}" if self.option else self.operator
        sizes = ",".join(f"{key}={value}" for key, value in self.sizes.items())
        return "/".join(part for part in (what, self.graph, sizes, self.dtype, self.direction) if part)

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute the output.

    Attributes:
        make: builds what may be kept between calls (a transpose, compiled code); raises `CandidateUnavailable`.
        ours: an operator of gkdkernels, not a competitor.
        yardstick: written for the bench alone, so that no ratio to the fastest competitor counts it.
        slow: seconds of compilation or of one call: left out of quick runs.
    """

    name: str
    make: Callable[[], OperatorCall]
    ours: bool = False
    yardstick: bool = False
    slow: bool = False


@dataclass(frozen=True, slots=True)
class OperatorProblem:
    """Inputs, the fp64 reference, and the candidates.

    Attributes:
        inputs: differentiable leaves, in the case's dtype.
        upstream: gradient of the output, drawn at random.
        oracle: fp64 inputs, fp64 upstream -> value and gradients ("value", and the names of `inputs`), from the
            formula; works in blocks, so that problems as large as the memory have a truth.
        cost: of the case's direction, counting each gathered row once per edge (what no cache can help).
        floor: the same, counting it once per node: the compulsory traffic.
    """

    inputs: dict[str, Tensor]
    upstream: Tensor
    oracle: Callable[[Tensors, Tensor], dict[str, Tensor]]
    candidates: list[Candidate]
    cost: Cost
    floor: Cost
    notes: list[str] = field(default_factory=list)


def ours(operator: str, device: torch.device, forward: Callable[[str], OperatorCall]) -> list[Candidate]:
    """One candidate for each backend of `operator` that is made for this kind of device.

    Args:
        forward: backend -> the operator's call.
    """
    found = explain(operator, torch.empty(0, device=device))
    names = [name for name in (found.backend, *found.others) if name != "reference"]
    fitting = [name for name in names if (name == "triton") == (device.type == "cuda")]

    def make(backend: str) -> Callable[[], OperatorCall]:
        def build() -> OperatorCall:
            try:
                explain(operator, torch.empty(0, device=device), backend=backend)
            except ValueError as error:
                raise CandidateUnavailable(str(error)) from error
            return forward(backend)

        return build

    return [Candidate(f"gkdkernels {name}", make(name), ours=True) for name in fitting]


def competitor(name: str, make: Callable[[], OperatorCall], *needs: str, slow: bool = False) -> Candidate:
    """A candidate of others; `needs` are the modules it imports."""

    def build() -> OperatorCall:
        for module in needs:
            if find_spec(module) is None:
                raise CandidateUnavailable(f"{module} is not installed")
        return make()

    return Candidate(name, build, slow=slow)


def compiled(name: str, forward: OperatorCall) -> Candidate:
    """`torch.compile` of `forward`, its default mode."""
    return Candidate(name, lambda: torch.compile(forward, dynamic=False), slow=True)


def normal(*shape: int, seed: int, dtype: torch.dtype, device: torch.device, scale: float = 1.0) -> Tensor:
    """Normal numbers of a seed, the same on every device."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale
    return drawn.to(device=device, dtype=dtype)


def edge_blocks(graph: CSRGraph, most: int) -> list[tuple[slice, slice]]:
    """(rows, edges) of consecutive blocks of rows with at most `most` edges, or of one row."""
    ends = graph.indptr.cpu().long()
    blocks, first = [], 0
    while first < graph.num_dst:
        last = int(torch.searchsorted(ends, ends[first] + most, right=True)) - 1
        last = min(max(last, first + 1), graph.num_dst)
        blocks.append((slice(first, last), slice(int(ends[first]), int(ends[last]))))
        first = last
    return blocks


def by_blocks(
    inputs: Tensors,
    upstream: Tensor,
    blocks: list[tuple[slice, slice]],
    block: Callable[[Tensors, slice, slice], Tensor],
) -> dict[str, Tensor]:
    """Value and gradients of an output whose rows are computed block by block."""
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    value = torch.zeros_like(upstream)
    for rows, edges in blocks:
        part = block(leaves, rows, edges)
        value[rows] = part.detach()
        part.backward(upstream[rows])  # type: ignore[no-untyped-call]
    return {"value": value} | {name: gradient_of(leaf) for name, leaf in leaves.items()}


def gradient_of(leaf: Tensor) -> Tensor:
    """What accumulated in a leaf, zeros if nothing did."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def sparse_matrix(graph: CSRGraph, value: Tensor) -> Tensor:
    """[num_dst, num_src] torch's own CSR matrix with ``value: [E]``."""
    size = (graph.num_dst, graph.num_src)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(graph.indptr, graph.index, value, size, check_invariants=False)
