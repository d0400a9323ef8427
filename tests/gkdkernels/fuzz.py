"""Random cases of every operator against plain loops in fp64: values and all gradients.

A case is its seed: operator, backend, dtype, shapes, graph (isolated rows, hubs, parallel edges, none) and how each
tensor lies in memory (strided, transposed, expanded, at an offset; what lies between is NaN). Inputs are multiples of
1/8, so that ties and scores of exactly 0 are frequent, and products exact in half precision.

``python tests/gkdkernels/fuzz.py [FIRST [LAST]]`` runs the cases of these seeds and prints those that fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

os.environ.setdefault("TRITON_INTERPRET", "1")

import fuzz_oracles as plain
import gkdkernels as gk
from gkdkernels.core.dropout import keyed_mask

Chosen = TypeVar("Chosen")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-5, torch.float16: 8e-3, torch.bfloat16: 5e-2}
"""Of the largest wanted element, at least 1."""
NUMBA = ("numba",) * (find_spec("numba") is not None)
HUB = 4
TRITON_SHARE = 12  # one in so many draws of the interpreter is kept: it is a hundred times slower than the others


@dataclass
class Problem:
    """One operator with drawn options.

    Attributes:
        call: the operator, of the tensors by name, and a backend.
        wanted: the same in fp64, of the same tensors.
        floats: fp64 tensors with a gradient; `constants`: those without, of any dtype, laid out as strangely.
    """

    what: str
    call: Callable[[dict[str, Tensor], str], Tensor]
    wanted: Callable[[dict[str, Tensor]], Tensor]
    floats: dict[str, Tensor]
    constants: dict[str, Tensor] = field(default_factory=dict)


class Draw:
    """Random choices of one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.backend = "reference"  # set once it is drawn: the dropout masks depend on it

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, options: Sequence[Chosen]) -> Chosen:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.integer(1, one_in) == 1

    def eighths(self, *shape: int, most: int = 16) -> Tensor:
        return torch.randint(-most, most + 1, shape, generator=self.generator).double() / 8

    def edges(self) -> plain.Edges:
        """Sorted by destination, then by source."""
        num_dst, num_src = self.integer(0, 7), self.integer(0, 7)
        if self.chance(2):
            num_dst = num_src
        count = self.integer(0, 24) if num_dst and num_src else 0
        ends = [(self.integer(0, num_dst - 1), self.integer(0, num_src - 1)) for _ in range(count)]
        if ends and self.chance(3):  # a hub
            ends += [(ends[0][0], self.integer(0, num_src - 1)) for _ in range(self.integer(HUB, 3 * HUB))]
        ends.sort()
        return [i for i, _ in ends], [j for _, j in ends], num_dst, num_src

    def graph(self, edges: plain.Edges) -> gk.CSRGraph:
        indptr = torch.tensor([sum(i < row for i in edges[0]) for row in range(edges[2] + 1)])
        index = torch.tensor(edges[1], dtype=torch.int64)
        if self.chance(3):
            indptr, index = indptr.int(), index.int()
        return gk.CSRGraph(self.laid_out(indptr), self.laid_out(index), edges[3])

    def laid_out(self, tensor: Tensor) -> Tensor:
        """`tensor` in other strides, among what must not be read."""
        if tensor.dim() == 0:
            return tensor
        how, shape = self.integer(0, 5), tensor.shape
        filler: Any = True if tensor.dtype == torch.bool else torch.nan if tensor.is_floating_point() else 10**6
        if how == 0:
            around = tensor.new_full((tensor.numel() + 7,), filler)
            there = around[3 : 3 + tensor.numel()].view(shape)
        elif how == 1:
            there = tensor.new_full((*shape[:-1], 2 * shape[-1]), filler)[..., ::2]
        elif how == 2:
            there = tensor.new_full((*shape[:-1], shape[-1] + 3), filler)[..., 1 : 1 + shape[-1]]
        elif how == 3:
            there = torch.empty_like(tensor.transpose(0, -1).contiguous()).transpose(0, -1)
        elif how == 4 and tensor.numel() and tensor.dim() > 1 and bool((tensor == tensor[:1]).all()):
            return tensor[:1].expand(shape)
        else:
            return tensor
        return there.copy_(tensor)


def spmm(draw: Draw) -> Problem:
    edges, reduce, width = draw.edges(), draw.choice(("sum", "mean", "max")), draw.integer(1, 9)
    graph, kind = draw.graph(edges), draw.choice(("none", "learned", "constant", "norm"))
    stack = (draw.integer(1, 3),) if draw.chance(3) else ()
    floats, constants = {"x": draw.eighths(*stack, edges[3], width)}, {}
    if kind == "learned":
        floats["weight"] = draw.eighths(len(edges[0]))
    elif kind == "constant":
        constants["weight"] = draw.eighths(len(edges[0]))

    def call(given: dict[str, Tensor], backend: str) -> Tensor:
        weight = gk.gcn_norm(graph) if kind == "norm" else given.get("weight")
        return gk.spmm(graph, given["x"], weight, reduce, backend=backend)

    def wanted(given: dict[str, Tensor]) -> Tensor:
        weight = plain.gcn_weights(edges) if kind == "norm" else given.get("weight")
        return plain.neighbour_reduction(edges, given["x"], weight, reduce)

    if kind == "norm" and reduce == "max":  # rounded norms make other ties
        kind = "none"
    return Problem(f"{reduce}, weight {kind}", call, wanted, floats, constants)


def gat_aggregate(draw: Draw) -> Problem:
    edges, heads, width = draw.edges(), draw.integer(1, 3), draw.integer(1, 5)
    graph, slope, dropout = draw.graph(edges), draw.choice((0.0, 0.25, 1.0)), 0.5 * draw.chance(3)
    floats = {
        "h": draw.eighths(edges[3], heads, width),
        "el": draw.eighths(edges[3], heads, most=4),
        "er": draw.eighths(edges[2], heads, most=4),
    }
    mask: Tensor | None = None
    if dropout and draw.backend == "triton":
        from gkdkernels.gat.triton import dropout_mask

        device = torch.device("cpu")
        mask = dropout_mask(len(edges[0]), heads, dropout, 5, dtype=torch.float64, device=device)
    elif dropout:
        shape = torch.Size((heads, len(edges[0])))
        mask = keyed_mask(shape, dropout, 5, dtype=torch.float64, device=torch.device("cpu"))
    options: dict[str, Any] = {"negative_slope": slope, "dropout": dropout, "key": 5}
    return Problem(
        f"slope {slope}, dropout {dropout}",
        lambda given, backend: gk.gat_aggregate(graph, *given.values(), **options, backend=backend),
        lambda given: plain.attention(edges, given["h"], given["el"], given["er"], slope, mask),
        floats,
    )


def edge_log_probs(draw: Draw) -> Problem:
    i, j, num_dst, _ = draw.edges()
    edges = (i, [source % num_dst for source in j] if num_dst else [], num_dst, num_dst)
    order = sorted(range(len(i)), key=lambda e: (edges[0][e], edges[1][e]))
    edges = ([edges[0][e] for e in order], [edges[1][e] for e in order], num_dst, num_dst)
    kernel = draw.choice(("laplace", "laplace-exp", "rbf", "rbf-exp", "cosine", "poly"))
    graph, sigma, x = draw.graph(edges), draw.choice((2.0, 5.0)), draw.eighths(num_dst, draw.integer(1, 6)) + 2.25
    return Problem(
        kernel,
        lambda given, backend: gk.edge_log_probs(graph, given["x"], kernel, sigma, backend=backend),
        lambda given: plain.edge_distribution(edges, given["x"], kernel, sigma),
        {"x": x},
    )


def segment(draw: Draw) -> Problem:
    lengths = [draw.integer(0, 6) for _ in range(draw.integer(0, 5))]
    starts = [sum(lengths[:g]) for g in range(len(lengths) + 1)]
    reduce = draw.choice(("sum", "mean", "max", "softmax"))
    operator: Callable[..., Tensor] = getattr(gk, f"segment_{reduce}")
    return Problem(
        reduce,
        lambda given, backend: operator(given["x"], given["ptr"], backend=backend),
        lambda given: plain.readout(starts, given["x"], reduce),
        {"x": draw.eighths(starts[-1], draw.integer(1, 9))},
        {"ptr": torch.tensor(starts)},
    )


def soft_kl(draw: Draw) -> Problem:
    shape, kind = (draw.integer(1, 6), draw.integer(1, 9)), draw.choice(("Logits", "Probs", "LogProbs"))
    tau, teacher = draw.choice((0.5, 1.0, 4.0)), draw.eighths(*shape)
    target = {"Logits": teacher, "Probs": teacher.softmax(-1), "LogProbs": teacher.log_softmax(-1)}[kind]
    constants = {"teacher": target}
    if draw.chance(2):
        constants["mask"] = draw.eighths(shape[0]) > 0
    wrap: Callable[[Tensor], Any] = getattr(gk, kind)
    return Problem(
        f"{kind}, tau {tau}, {'masked' if 'mask' in constants else 'whole'}",
        lambda given, backend: gk.soft_kl(
            given["student"], wrap(given["teacher"]), tau=tau, mask=given.get("mask"), backend=backend
        ),
        lambda given: plain.distillation(given["student"], given["teacher"], kind, tau, given.get("mask")),
        {"student": draw.eighths(*shape)},
        constants,
    )


def mutual_kl(draw: Draw) -> Problem:
    peers, nodes, classes = draw.integer(1, 4), draw.integer(1, 6), draw.integer(1, 7)
    entropy, constants = draw.choice((0.0, 0.5)), {"weight": draw.eighths(peers, peers).abs()}
    if draw.chance(2):
        constants["mask"] = draw.eighths(nodes) > 0
    if draw.chance(2):
        constants["targets"] = torch.randint(-1, classes, (nodes,), generator=draw.generator)

    def call(given: dict[str, Tensor], backend: str) -> Tensor:
        options: dict[str, Any] = {"kl_mask": given.get("mask"), "targets": given.get("targets")}
        weight = given["weight"]
        return gk.mutual_kl(given["logits"], pair_weight=weight, entropy_weight=entropy, **options, backend=backend)[0]

    return Problem(
        f"{peers} peers, entropy {entropy}, with {', '.join(constants)}",
        call,
        lambda given: plain.mutual(given["logits"], given["weight"], given.get("mask"), given.get("targets"), entropy),
        {"logits": draw.eighths(peers, nodes, classes)},
        constants,
    )


def expert_linear(draw: Draw) -> Problem:
    rows, count, width, out = draw.integer(1, 9), draw.integer(1, 4), draw.integer(1, 7), draw.integer(1, 6)
    k = draw.integer(1, count)
    index = torch.stack([torch.randperm(count, generator=draw.generator)[:k] for _ in range(rows)])
    floats = {"x": draw.eighths(rows, width), "weight": draw.eighths(count, width, out, most=8)}
    if draw.chance(2):
        floats["bias"] = draw.eighths(count, out)
    floats["alpha"] = draw.eighths(rows, k).abs()

    def call(given: dict[str, Tensor], backend: str) -> Tensor:
        ordered = (given["x"], given["weight"], given.get("bias"), given["index"], given["alpha"])
        return gk.expert_linear(*ordered, backend=backend)

    return Problem(
        f"{k} of {count} experts",
        call,
        lambda given: plain.experts(given["x"], given["weight"], given.get("bias"), given["index"], given["alpha"]),
        floats,
        {"index": index},
    )


OPERATORS: dict[str, tuple[Callable[[Draw], Problem], tuple[str, ...]]] = {
    "spmm": (spmm, ("reference", "cpu", "triton", *NUMBA)),
    "gat_aggregate": (gat_aggregate, ("reference", "cpu", "triton", *NUMBA)),
    "edge_log_probs": (edge_log_probs, ("reference", "cpu", "triton", *NUMBA)),
    "segment": (segment, ("reference", "triton")),
    "soft_kl": (soft_kl, ("reference", "cpu", "triton")),
    "mutual_kl": (mutual_kl, ("reference", "cpu", "triton", *NUMBA)),
    "expert_linear": (expert_linear, ("reference", "cpu", "triton")),
}


def failure(seed: int) -> str | None:
    """What is wrong in the case of `seed`; None: nothing."""
    draw = Draw(seed)
    name = draw.choice(list(OPERATORS))
    make, backends = OPERATORS[name]
    backend = draw.choice(backends)
    if backend == "triton" and not draw.chance(TRITON_SHARE):
        backend = draw.choice([other for other in backends if other != "triton"])
    draw.backend, dtype = backend, draw.choice(list(TOLERANCE))
    problem = make(draw)
    if name == "spmm" and backend == "numba" and not problem.what.startswith("max"):
        backend = "cpu"
    exact = {key: t.to(dtype).double().requires_grad_(draw.integer(0, 3) > 0) for key, t in problem.floats.items()}
    fixed = {key: t.to(dtype) if t.is_floating_point() else t for key, t in problem.constants.items()}
    given = {key: draw.laid_out(t.detach().to(dtype)).requires_grad_(t.requires_grad) for key, t in exact.items()}
    laid = {key: draw.laid_out(t) for key, t in fixed.items()}
    case = f"seed {seed}: {name}, {problem.what}, {backend}, {dtype}"
    try:
        found = problem.call(given | laid, backend)
        wanted = problem.wanted(exact | {key: t.double() if t.is_floating_point() else t for key, t in fixed.items()})
        if found.shape != wanted.shape:
            return f"{case}: shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}"
        pairs = [("value", found.detach(), wanted.detach())]
        learned = [key for key, t in exact.items() if t.requires_grad]
        if learned and wanted.requires_grad:
            one = draw.eighths(*(1,) * wanted.dim()).expand(wanted.shape) if draw.chance(3) else None
            upstream = draw.eighths(*wanted.shape) if one is None else one
            laid_upstream = draw.laid_out(upstream.to(found.dtype)) if one is None else upstream.to(found.dtype)
            grads = torch.autograd.grad(found, [given[key] for key in learned], laid_upstream)
            right = torch.autograd.grad(
                wanted, [exact[key] for key in learned], upstream, allow_unused=True, materialize_grads=True
            )
            pairs += zip([f"gradient of {key}" for key in learned], grads, right, strict=True)
    except Exception as error:  # whatever is raised on these inputs is a failure
        return f"{case}: {type(error).__name__}: {error}"
    for what, ours, theirs in pairs:
        scale = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
        if not torch.allclose(ours.double(), theirs, rtol=0, atol=TOLERANCE[dtype] * scale):
            return f"{case}: {what} off by {float((ours.double() - theirs).abs().max()):.3g}, largest {scale:.3g}"
    return None


def main() -> int:
    """Run the seeds named on the command line."""
    words = [int(word) for word in sys.argv[1:]]
    first, last = (*words, *(0, 1000)[len(words) :])
    import gkdkernels.graph

    gkdkernels.graph.HUB_EDGES = HUB
    bad = 0
    for seed in range(first, last):
        if found := failure(seed):
            bad += 1
            print(found, flush=True)
    print(f"{bad} of {last - first} cases failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
