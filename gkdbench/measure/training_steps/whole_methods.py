"""Whole steps of three methods compared with their official code's structure: what is left of the kernels' speed-up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import pairwise

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features, structure_kl
from torch import Tensor, nn

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.memory import allocated
from gkdbench.measure.operators.bench import BenchSettings, run_cases
from gkdbench.measure.operators.gate import relative_error
from gkdbench.measure.operators.graphs import POWER_LAWS, power_law
from gkdbench.measure.operators.problem import Case, normal
from gkdbench.measure.ratios import Ratio
from gkdbench.measure.timers import Clock, TimedCall
from gkdbench.measure.training_steps.gnn_steps import StepData, dense_features, tenth
from gkdbench.measure.training_steps.official_code import PlainRbM, Routed, plain_gat, plain_structure_kl
from gkdbench.measure.training_steps.pairwise import TOLERANCE, PairwiseTiming, TimingComparison, largest_error
from gkdbench.nn.gat import GAT, GATConfig
from gkdbench.nn.mixture import Routing
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import Trace, parameter_count
from gkdbench.nn.random import Randomness
from gkdbench.nn.rbm import RbMConfig, RbMModel

RELEASED = "the released structure, re-written plainly"
RBM = {
    "cora": RbMConfig(hidden=512, layers=3, dropout=0.3, experts=4, k=3),
    "pubmed": RbMConfig(hidden=256, layers=2, dropout=0.5, experts=7, k=2, gate=True, gate_start=1.1),
}
"""Configurations of Rumiantsev and Coates 2024, transductive."""
_COMMITMENT, _BALANCE = 0.05, 0.01
_GAT = GATConfig(head_width=64, heads=3, out_heads=3, layers=5, dropout=0.0, attention_dropout=0.0)
_SIGMA = 100.0  # of the released laplace-exp kernel
BATCHES = (1, 1024)
_LR = 0.005

StructureLoss = Callable[[CSRGraph, Tensor, Tensor], Tensor]


def rbm(data: StepData, config: RbMConfig) -> Iterator[PairwiseTiming]:
    """RbM: a full-batch training step, and inference for one row, 1,024 rows and all.

    Inference reads dense rows on every side, and one row sparse, as it is stored, too. A plain MLP with as many
    parameters may take the ratio of multiply-adds of the time, and a quarter more. Where numba is installed, more lines
    have the layers by it, as ``model.folded(backend="numba")`` gives them.
    """
    dense, model = dense_features(data.features), started(config, data)
    for name, inputs, limit in (("sparse first layer", data.features, 0.5), ("dense inputs", dense, 1.0)):
        if isinstance(inputs, Tensor) and name.startswith("sparse"):
            continue
        error = _rbm_error(model, inputs, dense, data)
        mine, plain = copy.deepcopy(model).train(), PlainRbM(model).train()
        ours = _step(mine, partial(_rbm_loss, partial(_routed, mine, inputs), data, config.experts), fused=True)
        theirs = _step(plain, partial(_rbm_loss, partial(plain, dense), data, config.experts))
        yield PairwiseTiming(f"RbM, training step, {name}", data.name, RELEASED, limit, error, ours, theirs)
    folded, plain = model.eval().folded(), PlainRbM(model).eval()
    mlp = MLPConfig(
        hidden=_hidden_for(parameter_count(model), dense.size(1), data.classes, config.layers), layers=config.layers
    )
    other = mlp.build(dense.size(1), data.classes, Randomness(seed=0)).eval()
    macs = [one.macs(dense.size(1), data.classes, 1, 0, dense.size(1)) for one in (config, mlp)]
    if not isinstance(data.features, Tensor):
        rows, sparse = dense[:1].contiguous(), data.features.rows(torch.zeros(1, dtype=torch.int64))
        with torch.no_grad():
            error = relative_error(folded(sparse), plain(rows)[0].double())
        what = "RbM, inference, 1 row, sparse first layer"
        yield PairwiseTiming(
            what, data.name, RELEASED, 1 / 3, error, quiet(partial(folded, sparse)), quiet(partial(plain, rows))
        )
    looped = model.folded(backend="numba") if find_spec("numba") is not None else None
    for size in (*BATCHES, dense.size(0)):
        rows = dense[:size].contiguous()
        what = f"RbM, inference, {'all' if size == dense.size(0) else size} row{'s' * (size != 1)}"
        with torch.no_grad():
            error = relative_error(folded(rows), plain(rows)[0].double())
        ours, theirs, small = (quiet(partial(one, rows)) for one in (folded, plain, other))
        yield PairwiseTiming(what, data.name, RELEASED, 1 / 3 if size == 1 else None, error, ours, theirs)
        equal, limit = "MLP of equal parameters", 1.25 * macs[0] / macs[1]
        yield PairwiseTiming(what, data.name, equal, limit, 0.0, ours, small)
        if looped is not None:
            error = relative_error(looped(rows), folded(rows).double())
            yield PairwiseTiming(
                f"{what}, layers by numba", data.name, equal, limit, error, quiet(partial(looped, rows)), small
            )


def started(config: RbMConfig, data: StepData) -> RbMModel:
    """A model whose memories are k-means' and whose experts differ."""
    model = config.build(data.features.shape[1], data.classes, Randomness(seed=0))
    if not isinstance(model, RbMModel):
        raise TypeError(f"rbm: expected an RbMModel, got {type(model).__name__}")
    drawn = {name: value.clone() for name, value in model.named_parameters()}
    model.begin_routing(data.features)
    model.load_state_dict(drawn, strict=False)
    return model


def _routed(model: RbMModel, x: Features) -> tuple[Tensor, Sequence[Routing]]:
    model.randomness.step += 1
    trace = model.node_trace(x, None)
    return trace.logits, trace.routings


def _rbm_loss(call: Callable[[], tuple[Tensor, Sequence[Routing | Routed]]], data: StepData, experts: int) -> Tensor:
    """Labels of a tenth, a KL to fixed soft targets of all, commitment and balance; the same code on both sides."""
    logits, routings = call()
    train = tenth(data.labels)
    target = normal(*logits.shape, seed=20, dtype=logits.dtype, device=logits.device).log_softmax(1)
    loss = F.cross_entropy(logits[train], data.labels[train])
    loss = loss + F.kl_div(logits.log_softmax(1), target, reduction="batchmean", log_target=True)
    for routing in routings:
        alpha = routing.alpha
        share = alpha.new_zeros(logits.size(0), experts).scatter(1, routing.index, alpha).sum(0)
        loss = loss - _COMMITMENT * (alpha * routing.score).sum(1).mean()
        loss = loss + _BALANCE * share.var() / (share.mean().square() + 1e-10)
    return loss


def _rbm_error(model: RbMModel, inputs: Features, dense: Tensor, data: StepData) -> float:
    """The largest error of loss, gradients and moved memories, without dropout."""
    ours, theirs = copy.deepcopy(model).train(), PlainRbM(model).train()
    for layer, other in zip(ours.memories, theirs.experts, strict=True):
        layer.dropout.p = other.p = 0.0
    experts = len(theirs.experts[0].weights)
    calls = (partial(_routed, ours, inputs), partial(theirs, dense))
    losses = [_rbm_loss(call, data, experts) for call in calls]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    pairs = [(losses[0], losses[1])]
    kinds = [(layer.weight, layer.bias, *([] if layer.gate is None else [layer.gate])) for layer in ours.memories]
    mine = [p.grad for kind in kinds for p in kind if p.grad is not None]
    pairs += zip(mine, theirs.gradients(), strict=True)
    pairs += [(a.memory, b.memory) for a, b in zip(ours.memories, theirs.experts, strict=True)]
    return largest_error(pairs)


def _hidden_for(parameters: int, width: int, classes: int, layers: int) -> int:
    """Width of the MLP of so many layers with at least so many parameters."""
    hidden = 1
    while sum((a + 1) * b for a, b in pairwise((width, *[hidden] * (layers - 1), classes))) < parameters:
        hidden += 1
    return hidden


def alignahead(data: StepData) -> Iterator[PairwiseTiming]:
    """Alignahead with two GATs of four hidden layers: one step of each student, aligned with the other's next layer.

    Ours runs as the methods' loop does: both students answer once, and the first once more after its step, for the
    second to follow. The official code computes the co-student's features again in every step. Where numba is
    installed, a second line has the structures by it, as ``backend="numba"`` gives them.
    """
    yield _alignahead(data, "auto", "")
    if find_spec("numba") is not None:
        yield _alignahead(data, "numba", ", structures by numba")


def _alignahead(data: StepData, backend: str, addition: str) -> PairwiseTiming:
    graph, x = data.graph.prepare(), dense_features(data.features)
    row, col = graph.row.long(), graph.index.long()
    first, second = _gats(data)

    def fused(model: GAT) -> Trace:
        return model.trace(x, graph)

    def plain(model: GAT) -> Trace:
        return plain_gat(model, x, row, col)

    structure = partial(_fused_structure, backend=backend)
    loss = partial(_aligned, data=data, structure=structure)
    plain_loss = partial(_aligned, data=data, structure=_plain_structure)
    twins = copy.deepcopy(first)
    losses = [loss(fused, first, second), plain_loss(plain, twins, second)]
    for one in losses:
        one.backward()  # type: ignore[no-untyped-call]
    gradients = [[p.grad for p in model.parameters() if p.grad is not None] for model in (first, twins)]
    error = largest_error([(losses[0], losses[1]), *zip(*gradients, strict=True)])
    pairs = [[copy.deepcopy(model) for model in (first, second)] for _ in range(2)]
    turns = [_step(a, partial(plain_loss, plain, a, b)) for a, b in (pairs[1], pairs[1][::-1])]
    sides = partial(_round, fused, pairs[0], _adams(pairs[0]), data, structure), partial(_in_turn, turns)
    what = f"Alignahead, one step of each of two GATs with four hidden layers{addition}"
    return PairwiseTiming(what, data.name, RELEASED, 0.25, error, *sides)


def _gats(data: StepData, config: GATConfig = _GAT) -> tuple[GAT, GAT]:
    width = data.features.shape[1]
    models = [config.build(width, data.classes, Randomness(seed=0, peer=peer)) for peer in range(2)]
    first, second = (model.train() for model in models)
    if not isinstance(first, GAT) or not isinstance(second, GAT):
        raise TypeError("alignahead: expected GAT models, got others")
    return first, second


def _aligned(
    call: Callable[[GAT], Trace],
    student: GAT,
    other: GAT,
    data: StepData,
    structure: StructureLoss | None,
) -> Tensor:
    """The loss of a student that computes the other's features for itself; without a `structure` its labels' alone."""
    own = call(student)
    if structure is None:
        return _of_labels(own, data)
    with torch.no_grad():
        ahead = call(other).hidden
    return _following(own, ahead, data, structure)


def _of_labels(own: Trace, data: StepData) -> Tensor:
    train = tenth(data.labels)
    return F.cross_entropy(own.logits[train], data.labels[train])


def _following(own: Trace, ahead: Sequence[Tensor], data: StepData, structure: StructureLoss) -> Tensor:
    """Cross-entropy, and each hidden layer's divergence from the other's next one (the last one's from the first)."""
    loss = _of_labels(own, data)
    for depth, hidden in enumerate(own.hidden):
        loss = loss + structure(data.graph, hidden, ahead[(depth + 1) % len(ahead)])
    return loss


def _round(
    call: Callable[[GAT], Trace],
    students: Sequence[GAT],
    optimisers: Sequence[torch.optim.Optimizer],
    data: StepData,
    structure: StructureLoss,
) -> list[float]:
    """One step of two students in turn, as `gkdbench.training.mutual` makes them; their losses."""
    traces, losses = [call(model) for model in students], []
    for turn, optimiser in enumerate(optimisers):
        optimiser.zero_grad(set_to_none=True)
        ahead = [hidden.detach() for hidden in traces[1 - turn].hidden]
        loss = _following(traces[turn], ahead, data, structure)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        if turn == 0:
            with torch.no_grad():
                traces[0] = call(students[0])
    return losses


def _adams(models: Sequence[nn.Module]) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(model.parameters(), lr=_LR, fused=True) for model in models]


def _fused_structure(graph: CSRGraph, student: Tensor, teacher: Tensor, backend: str = "auto") -> Tensor:
    return structure_kl(graph, student, teacher, kernel="laplace-exp", sigma=_SIGMA, backend=backend)


def _plain_structure(graph: CSRGraph, student: Tensor, teacher: Tensor) -> Tensor:
    return plain_structure_kl(graph, student, teacher, _SIGMA)


def structure_memory(*, quick: bool) -> TimingComparison:
    """Peak bytes that the structure loss adds to a step of one fused GAT: ours over the edge-materialising form's.

    One hidden layer is aligned: what the other form holds for each more would not fit the memory of a laptop.
    """
    name = "power-law-tiny" if quick else "power-law-arxiv"
    graph = power_law(POWER_LAWS[name]).prepare()
    nodes, width = graph.num_dst, _GAT.head_width * _GAT.heads
    labels = torch.arange(nodes) % 40
    data = StepData(name, graph, normal(nodes, width, seed=21, dtype=torch.float32, device=graph.device), labels, 40)
    student, other = _gats(data, replace(_GAT, layers=2))
    x = dense_features(data.features)

    def peak(structure: StructureLoss | None) -> tuple[float, int]:
        loss = partial(_aligned, lambda model: model.trace(x, graph), student, other, data, structure)
        run = _step(student, loss, lr=0.0)
        run()  # what is kept from step to step is there before it is counted
        return float(loss().detach()), allocated(run, graph.device).peak_bytes

    (_, without), (value, ours), (wanted, theirs) = map(peak, (None, _fused_structure, _plain_structure))
    error = abs(value - wanted) / abs(wanted)
    share = max(ours - without, 0) / max(theirs - without, 1)
    what = f"Alignahead, extra peak memory of the structure loss, one layer of width {width}"
    found = Ratio(share, share, share, 1) if error <= TOLERANCE else None
    return TimingComparison(what, name, "edges x features held", 0.1, error, found)


def mutual_loss(
    device: torch.device, clock: Clock, roofs: MachinePeaks, settings: BenchSettings, *, quick: bool
) -> TimingComparison:
    """The loss of four peers at pubmed's size, value and gradient, compared with the usual loop over pairs."""
    case = Case("mutual_kl", {"peers": 4, "nodes": 200 if quick else 19_717, "classes": 3})
    mine, pairs = "gkdkernels cpu", "torch softmax + kl_div of each pair"
    only = BenchSettings(settings.rounds, settings.budget_s, memory=False, only=frozenset({mine, pairs}))
    (result,) = run_cases([case], device=device, clock=clock, roofs=roofs, settings=only, load=_no_graph)
    error = max((error for row in result.rows for error in row.errors.values()), default=float("inf"))
    return TimingComparison(
        "mutual KL of four peers, the loss alone", "pubmed's size", pairs, 0.4, error, result.ratio(mine, pairs)
    )


def _step(model: nn.Module, loss: Callable[[], Tensor], *, lr: float = _LR, fused: bool = False) -> TimedCall:
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, fused=fused)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def quiet(call: Callable[[], object]) -> TimedCall:
    """`call` without gradients."""

    def run() -> object:
        with torch.no_grad():
            return call()

    return run


def _in_turn(runs: Sequence[TimedCall]) -> None:
    for run in runs:
        run()


def _no_graph(name: str) -> CSRGraph:
    raise KeyError(name)
