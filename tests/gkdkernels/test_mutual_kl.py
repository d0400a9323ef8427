"""Pairwise KL, cross-entropy and entropy of K peers against an oracle in fp64, written from the formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import mutual_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[..., Tensor]
BACKENDS = ["reference", "cpu", "triton"] + ["numba"] * (find_spec("numba") is not None)
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@dataclass(frozen=True)
class Case:
    """One way of asking."""

    peers: int = 3
    rows: int = 63
    classes: int = 7
    weight: str = "pairs"  # pairs, teachers, nodes
    masked: bool = False
    labels: bool = False
    entropy: bool = False
    apart: bool = False  # cross-entropy and entropy from logits of their own
    attached: bool = False
    multi_label: bool = False

    def __str__(self) -> str:
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in changed) or "plain"


CASES = [
    Case(),
    Case(weight="teachers"),
    Case(weight="nodes"),
    Case(masked=True),
    Case(weight="nodes", masked=True),
    Case(labels=True),
    Case(entropy=True),
    Case(labels=True, entropy=True, masked=True),
    Case(labels=True, entropy=True, masked=True, apart=True),
    Case(attached=True),
    Case(attached=True, weight="nodes", masked=True),
    Case(multi_label=True),
    Case(multi_label=True, weight="nodes"),
    Case(multi_label=True, labels=True, entropy=True, masked=True),
    Case(multi_label=True, attached=True, masked=True),
    Case(peers=1, labels=True),
    Case(peers=2, classes=1),
    Case(peers=2, rows=1),
    Case(peers=5, rows=3, classes=47, labels=True),
    Case(peers=4, rows=70, classes=5),
    Case(peers=9, rows=260, classes=3, labels=True),
]


@dataclass
class Inputs:
    leaves: dict[str, Tensor]  # fp64, what gradient is asked for
    options: dict[str, Any]
    upstream: Tensor  # [K]

    def call(self, dtype: torch.dtype, backend: str, device: torch.device, **more: Any) -> tuple[Tensor, Tensor]:
        """(loss, kl); the leaves in their `dtype` are put into `self.cast`."""
        self.cast = {
            name: leaf.to(device, torch.float64 if name == "pair_weight" else dtype, copy=True).requires_grad_()
            for name, leaf in self.leaves.items()
        }
        options = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.options.items()}
        logits, *_ = self.cast.values()
        rest = {name: leaf for name, leaf in self.cast.items() if name != "logits"}
        return mutual_kl(logits, **{**rest, **options, **more}, backend=backend)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.cast.values()), self.upstream.to(loss), materialize_grads=True)
        return dict(zip(self.cast, found, strict=True))


def inputs(case: Case, draw: Draw) -> Inputs:
    generator = torch.Generator().manual_seed(case.rows)
    k, n, c = case.peers, case.rows, case.classes
    leaves = {"logits": 2 * draw(k, n, c)}
    leaves["pair_weight"] = draw(*{"pairs": (k, k), "teachers": (k,), "nodes": (n, k)}[case.weight]).abs()
    options: dict[str, Any] = {"multi_label": case.multi_label, "detach_target": not case.attached}
    if case.masked:
        options["kl_mask"] = torch.rand(n, generator=generator) > 0.4
    if case.labels:
        options["targets"] = torch.randint(-1, c, (n,), generator=generator)
        options["ce_weight"] = 0.7
    if case.labels and case.multi_label:
        options["targets"] = torch.rand(n, c, generator=generator).round()
        options["targets"][torch.rand(n, c, generator=generator) > 0.7] = torch.nan
    if case.entropy:
        options |= {"entropy_weight": 0.3, "entropy_mask": torch.rand(n, generator=generator) > 0.5}
    if case.apart:
        leaves |= {"ce_logits": draw(k, n, c), "entropy_logits": draw(k, n, c)}
    return Inputs(leaves, options, draw(k))


def oracle(case: Case, given: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """loss [K] and kl [K, K], node by node and pair by pair."""
    z, w = given.leaves["logits"].numpy(), given.leaves["pair_weight"].numpy()
    k, n, _ = z.shape
    options = given.options
    mask = options["kl_mask"].numpy() if case.masked else np.ones(n, bool)

    def probabilities(z: np.ndarray) -> list[np.ndarray]:
        if case.multi_label:
            p = 1 / (1 + np.exp(-z))
            return [p, 1 - p]
        e = np.exp(z)
        return [e / e.sum(-1, keepdims=True)]

    spread = z.shape[-1] if case.multi_label else 1
    p = probabilities(z)
    shape = {"pairs": (1, k, k), "teachers": (1, k, 1), "nodes": (n, k, 1)}[case.weight]
    weights = np.broadcast_to(w.reshape(shape), (n, k, k))
    loss, kl = np.zeros(k), np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            if i == j:
                continue
            rows = sum((x[i] * (np.log(x[i]) - np.log(x[j]))).sum(-1) for x in p) / spread
            kl[i, j] = rows[mask].sum() / max(1, mask.sum())
            loss[j] += (weights[:, i, j] * rows)[mask].sum() / max(1, mask.sum())
    if case.labels:
        q = probabilities(given.leaves.get("ce_logits", given.leaves["logits"]).numpy())
        y = options["targets"].numpy()
        for j in range(k):
            if case.multi_label:
                known = ~np.isnan(y)
                bits = -(y * np.log(q[0][j]) + (1 - y) * np.log(q[1][j]))[known]
            else:
                known = y >= 0
                bits = -np.log(q[0][j][np.flatnonzero(known), y[known]])
            loss[j] += 0.7 * bits.sum() / max(1, known.sum())
    if case.entropy:
        q = probabilities(given.leaves.get("entropy_logits", given.leaves["logits"]).numpy())
        inside = options["entropy_mask"].numpy()
        for j in range(k):
            rows = -sum((x[j] * np.log(x[j])).sum(-1) for x in q) / spread
            loss[j] -= 0.3 * rows[inside].sum() / max(1, inside.sum())
    return loss, kl


def slopes(case: Case, given: Inputs) -> dict[str, np.ndarray]:
    """Gradients by central differences of the oracle, in random directions: {leaf: <gradient, direction>}."""
    found = {}
    for name, leaf in given.leaves.items():
        direction = direction_of(leaf)
        values = []
        for step in (1e-5, -1e-5):
            moved = {**given.leaves, name: leaf + step * direction}
            if name == "logits" and not case.attached:
                values.append(_learners_moved(case, given, leaf + step * direction))
            else:
                values.append(oracle(case, Inputs(moved, given.options, given.upstream))[0])
        found[name] = (values[0] - values[1]) @ given.upstream.numpy() / 2e-5
    return found


def direction_of(leaf: Tensor) -> Tensor:
    return torch.sin(torch.arange(leaf.numel(), dtype=torch.float64) * 1.7 + 0.3).view(leaf.shape)


def _learners_moved(case: Case, given: Inputs, moved: Tensor) -> np.ndarray:
    """The losses with peer j at `moved` as learner and every teacher where it was: the target is a constant."""
    loss = np.zeros(case.peers)
    for j in range(case.peers):
        logits = given.leaves["logits"].clone()
        logits[j] = moved[j]
        loss[j] = oracle(case, Inputs({**given.leaves, "logits": logits}, given.options, given.upstream))[0][j]
    return loss


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Case, backend: str, draw: Draw, device: torch.device) -> None:
    given = inputs(case, draw)
    loss, kl = given.call(torch.float64, backend, device)
    wanted = oracle(case, given)
    np.testing.assert_allclose(loss.detach().cpu(), wanted[0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(kl.cpu(), wanted[1], rtol=1e-10, atol=1e-10)
    assert not kl.requires_grad
    along = slopes(case, given)
    for name, grad in given.gradients(loss).items():
        got = float((grad.cpu() * direction_of(given.leaves[name])).sum())
        np.testing.assert_allclose(got, along[name], rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [CASES[7], CASES[10], CASES[13]], ids=str)
def test_precisions(case: Case, backend: str, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    given = inputs(case, draw)
    given.leaves["logits"] = given.leaves["logits"].to(dtype).double()  # rounding of the input is not the kernel's
    loss, kl = given.call(dtype, backend, device)
    assert loss.dtype == kl.dtype == torch.promote_types(dtype, torch.float32)
    value = given.gradients(loss)
    exact = Inputs(given.leaves, given.options, given.upstream)
    wanted, wanted_kl = exact.call(torch.float64, "reference", torch.device("cpu"))
    torch.testing.assert_close(loss.double().cpu(), wanted, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(kl.double().cpu(), wanted_kl, rtol=2e-5, atol=2e-6)
    for name, grad in exact.gradients(wanted).items():
        error = (value[name].double().cpu() - grad).norm() / grad.norm()
        assert error < TOLERANCE[dtype], name


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_and_sequences_are_the_stack(backend: str, draw: Draw, device: torch.device) -> None:
    z, w, g = draw(3, 50, 7).to(device), draw(3, 3).abs().to(device), draw(3).to(device)
    wanted = None
    for shaped in (
        z,
        z.permute(1, 0, 2).contiguous().permute(1, 0, 2),  # [N, K, C] in memory
        z.permute(2, 0, 1).contiguous().permute(1, 2, 0),  # [C, K, N] in memory
        list(z),
        [z[0], z[1].t().contiguous().t(), z[2]],
    ):
        leaves = [x.detach().requires_grad_() for x in ([shaped] if isinstance(shaped, Tensor) else shaped)]
        logits = leaves[0] if isinstance(shaped, Tensor) else leaves
        loss, kl = mutual_kl(logits, pair_weight=w, backend=backend)
        grads = torch.autograd.grad(loss, leaves, g)
        got = (loss, kl, grads[0] if isinstance(shaped, Tensor) else torch.stack(grads))
        wanted = wanted or got
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("peers", "rows", "classes"), [(2, 0, 7), (3, 5, 0), (1, 4, 3)])
def test_nothing_to_learn(backend: str, peers: int, rows: int, classes: int, draw: Draw, device: torch.device) -> None:
    z = draw(peers, rows, classes).to(device).requires_grad_()
    weight = torch.ones(peers, peers, device=device)
    loss, kl = mutual_kl(z, pair_weight=weight, entropy_mask=None, backend=backend)
    assert loss.tolist() == [0.0] * peers
    assert not kl.any()
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_terms_without_rows_are_zero(backend: str, draw: Draw, device: torch.device) -> None:
    z = draw(2, 9, 4).to(device).requires_grad_()
    nobody = torch.zeros(9, dtype=torch.bool, device=device)
    loss, _ = mutual_kl(
        z,
        pair_weight=torch.ones(2, 2, device=device),
        kl_mask=nobody,
        targets=torch.full((9,), -1, device=device),
        entropy_mask=nobody,
        entropy_weight=1.0,
        backend=backend,
    )
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert loss.tolist() == [0.0, 0.0]
    assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_no_peer_is_moved_by_anothers_loss(backend: str, multi_label: bool, draw: Draw, device: torch.device) -> None:
    z = [draw(20, 5).to(device).requires_grad_() for _ in range(3)]
    weight = torch.ones(3, 3, device=device)
    loss, _ = mutual_kl(z, pair_weight=weight, multi_label=multi_label, backend=backend)
    own, *others = torch.autograd.grad(loss[0], z, allow_unused=True)
    assert own.any()
    assert all(grad is None or not grad.any() for grad in others)
    both = mutual_kl(z, pair_weight=weight, detach_target=False, multi_label=multi_label, backend=backend)[0]
    assert all(grad.any() for grad in torch.autograd.grad(both[0], z))


@pytest.mark.parametrize("backend", BACKENDS)
def test_identical_peers_have_nothing_to_teach(backend: str, draw: Draw, device: torch.device) -> None:
    z = (5 * draw(40, 7).float().to(device)).expand(4, 40, 7)
    weight = torch.full((4, 4), 1 / 3, device=device)
    loss, kl = mutual_kl(z, pair_weight=weight, backend=backend)
    assert kl.abs().max() < 1e-7
    assert loss.abs().max() < 1e-7


@pytest.mark.parametrize("backend", BACKENDS)
def test_doubling_identical_peers_changes_nothing(backend: str, draw: Draw, device: torch.device) -> None:
    learner, teacher = draw(30, 6).to(device), draw(30, 6).to(device)

    def loss(teachers: int) -> Tensor:
        weight = torch.full((teachers + 1,), 1 / teachers, device=device, dtype=torch.float64)
        return mutual_kl([learner, *[teacher] * teachers], pair_weight=weight, backend=backend)[0][0]

    torch.testing.assert_close(loss(1), loss(2))
    torch.testing.assert_close(loss(1), loss(4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_logits_stay_finite(backend: str, draw: Draw, device: torch.device) -> None:
    for multi_label in (False, True):
        z = (1e4 * draw(3, 20, 7)).float().to(device).requires_grad_()
        weight = torch.ones(3, 3, device=device, requires_grad=True)
        loss, kl = mutual_kl(z, pair_weight=weight, entropy_weight=0.1, multi_label=multi_label, backend=backend)
        assert all(x.isfinite().all() for x in (loss, kl, *torch.autograd.grad(loss.sum(), (z, weight))))
        assert (kl >= 0).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # by the interpreter, which uses NumPy
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_stays_where_it_is(backend: str, draw: Draw, device: torch.device) -> None:
    z = draw(3, 70, 5).float().to(device)
    z[1, 66, 2] = torch.nan
    z[:, 3, 4] = -torch.inf  # a class that nobody may choose
    z.requires_grad_()
    weight = torch.full((3,), 0.5, device=device)
    mask = torch.ones(70, dtype=torch.bool, device=device)
    loss, _ = mutual_kl(z, pair_weight=weight, kl_mask=mask, backend=backend)
    assert loss.isnan().all()
    labels = torch.zeros(70, dtype=torch.int64, device=device)
    labels[66] = -1
    (grad,) = torch.autograd.grad(mutual_kl(z, pair_weight=0 * weight, targets=labels, backend=backend)[0].sum(), z)
    if backend != "reference":  # which differentiates 0 (log 0 - log 0)
        assert grad[:, 3].isfinite().all()
        assert not grad[:, 3, 4].any()
    assert grad[1, 66].isnan().all()
    assert grad[1, :66].isfinite().all() or backend == "reference"


@settings(max_examples=40, deadline=None)
@given(
    peers=st.integers(1, 5),
    rows=st.integers(0, 40),
    classes=st.integers(1, 9),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.floats(-100, 100),
    multi_label=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_properties(
    peers: int, rows: int, classes: int, spread: float, shift: float, multi_label: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(peers, rows, classes, generator=generator)
    weight = torch.rand(peers, peers, generator=generator)
    targets = torch.randint(-1, classes, (rows,), generator=generator)
    asked = {"pair_weight": weight, "multi_label": multi_label}
    if not multi_label:
        asked["targets"] = targets
    loss, kl = mutual_kl(z, **asked, backend="cpu")  # type: ignore[arg-type]
    assert (kl >= -1e-6 * max(spread, 1.0)).all()  # a difference of entropies of size 1
    assert not kl.diagonal().any()
    order = torch.randperm(peers, generator=generator)
    nodes = torch.randperm(rows, generator=generator)
    transposed = {**asked, "pair_weight": weight[order][:, order]}
    if not multi_label:
        transposed["targets"] = targets[nodes]
    permuted, permuted_kl = mutual_kl(z[order][:, nodes], **transposed, backend="cpu")  # type: ignore[arg-type]
    torch.testing.assert_close(permuted, loss[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(permuted_kl, kl[order][:, order], rtol=1e-4, atol=1e-5)
    if not multi_label:
        moved, _ = mutual_kl(z + shift, **asked, backend="cpu")  # type: ignore[arg-type]
        torch.testing.assert_close(moved, loss, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(backend: str, draw: Draw, device: torch.device) -> None:
    given = inputs(CASES[7], draw)
    before = {name: leaf.clone() for name, leaf in given.leaves.items()}
    runs = []
    for _ in range(2):
        loss, kl = given.call(torch.float32, backend, device)
        runs.append((loss, kl, *given.gradients(loss).values()))
        assert torch.equal(given.cast["logits"].detach().cpu(), before["logits"].float())
        assert torch.equal(given.cast["pair_weight"].detach().cpu(), before["pair_weight"])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_blocks_of_nodes_are_one_block(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(Case(rows=150, labels=True, entropy=True, masked=True, attached=True), draw)
    cpu = torch.device("cpu")
    whole = given.call(torch.float64, "cpu", cpu)
    wanted = (*whole, *given.gradients(whole[0]).values())
    monkeypatch.setattr(import_module("gkdkernels.mutual_kl.cpu"), "_BLOCK_ELEMENTS", 1)
    cut = given.call(torch.float64, "cpu", cpu)
    for one, other in zip((*cut, *given.gradients(cut[0]).values()), wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that torch hands out uninitialised is full of NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned", "poison")
@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("case", [CASES[4], CASES[7], CASES[10], CASES[13], CASES[18]], ids=str)
def test_every_element_is_written(case: Case, backend: str, draw: Draw, device: torch.device) -> None:
    given = inputs(case, draw)
    loss, kl = given.call(torch.float32, backend, device)
    assert all(x.isfinite().all() for x in (loss, kl, *given.gradients(loss).values()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_targets_of_either_integer(backend: str, draw: Draw, device: torch.device) -> None:
    given = inputs(CASES[5], draw)
    wide = given.call(torch.float64, backend, device)[0]
    narrow = given.call(torch.float64, backend, device, targets=given.options["targets"].int().to(device))[0]
    assert torch.equal(wide, narrow)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name in ("cpu", "numba")])
@pytest.mark.parametrize("case", [CASES[7], CASES[10]], ids=str)
def test_threads_do_not_change_a_bit(case: Case, backend: str, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("gkdkernels.mutual_kl.cpu"), "_BLOCK_ELEMENTS", 1)
    given = inputs(Case(**{**vars(case), "rows": 600}), draw)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss, kl = given.call(torch.float32, backend, torch.device("cpu"))
            runs.append((loss, kl, *given.gradients(loss).values()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_can_run_twice(backend: str, draw: Draw, device: torch.device) -> None:
    z = draw(2, 9, 4).to(device).requires_grad_()
    loss, _ = mutual_kl(z, pair_weight=torch.ones(2, device=device), backend=backend)
    for j in range(2):
        loss[j].backward(retain_graph=True)
    apart = z.grad
    z.grad = None
    loss.sum().backward()
    torch.testing.assert_close(apart, z.grad)


@pytest.mark.parametrize("case", [CASES[8], CASES[10], CASES[13]], ids=str)
def test_gradcheck(case: Case, draw: Draw) -> None:
    given = inputs(Case(**{**vars(case), "rows": 7, "attached": True}), draw)
    names = list(given.leaves)

    def run(*leaves: Tensor) -> Tensor:
        asked = dict(zip(names, leaves, strict=True))
        return mutual_kl(asked.pop("logits"), **asked, **given.options, backend="cpu")[0]  # type: ignore[arg-type]

    leaves = [leaf.clone().requires_grad_() for leaf in given.leaves.values()]
    assert torch.autograd.gradcheck(run, leaves)


def test_compiles_whole(draw: Draw) -> None:
    given = inputs(CASES[7], draw)

    def run(z: Tensor, w: Tensor) -> Tensor:
        return mutual_kl(1.5 * z, pair_weight=w, **given.options, backend="cpu")[0].sum()

    leaves = [given.leaves[name].clone().requires_grad_() for name in ("logits", "pair_weight")]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*leaves), run(*leaves))
    for one, other in zip(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(run(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_pair_of_nodes_and_peers_is_a_pair_of_peers(draw: Draw) -> None:
    z, w = draw(2, 2, 3), draw(2, 2).abs()
    pairs = mutual_kl(z, pair_weight=w)[0]
    nodes = mutual_kl(z, pair_weight=w[..., None])[0]
    rows = torch.stack([mutual_kl(z[:, n : n + 1], pair_weight=w[n])[0] for n in range(2)])
    torch.testing.assert_close(nodes, rows.mean(0))
    assert not torch.allclose(pairs, nodes)


Z = torch.zeros(2, 9, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": Z[0]}, r"logits: expected shape \[K, N, C\] or a sequence of K \[N, C\], got \(9, 4\)"),
        ({"logits": []}, "logits: expected at least one peer, got none"),
        ({"logits": [Z[0], Z[0, :8]]}, r"logits\[1\]: expected shape \[9, 4\], got \(8, 4\)"),
        ({"logits": [Z[0, 0]]}, r"logits\[0\]: expected shape \[N, C\], got \(4,\)"),
        ({"logits": [Z[0], Z[0].double()]}, r"logits\[1\]: expected torch.float32 on cpu, got torch.float64"),
        ({"logits": Z.long()}, "logits: expected a float dtype, got torch.int64"),
        ({"pair_weight": torch.ones(3)}, r"pair_weight: expected shape \[2, 2\], \[2\] or \[9, 2\] .*got \(3,\)"),
        ({"pair_weight": torch.ones(2).long()}, "pair_weight: expected a float dtype on cpu, got torch.int64"),
        ({"kl_mask": torch.ones(9)}, r"kl_mask: expected bool of shape \[9\] on cpu, got torch.float32"),
        (
            {"entropy_mask": torch.ones(8).bool()},
            r"entropy_mask: expected bool of shape \[9\] .*got torch.bool of \(8,\)",
        ),
        ({"targets": torch.ones(8).long()}, r"targets: expected int32 or int64 of shape \[9\] .*of \(8,\)"),
        ({"targets": torch.ones(9, 4)}, "use multi_label=True for several labels per item"),
        ({"targets": torch.ones(9).long(), "multi_label": True}, r"targets: expected float of shape \[9, 4\]"),
        (
            {"ce_logits": Z[:1], "targets": torch.ones(9).long()},
            "ce_logits: expected 2 peers, as many as logits, got 1",
        ),
        (
            {"entropy_logits": Z[:, :8], "entropy_weight": 1.0},
            r"entropy_logits\[0\]: expected shape \[9, 4\], got \(8, 4\)",
        ),
        ({"backend": "cuda"}, "backend of mutual_kl: expected one of auto, reference, cpu, triton, numba, got 'cuda'"),
    ],
)
def test_bad_input(change: dict[str, Any], words: str) -> None:
    given = {"logits": Z, "pair_weight": torch.ones(2, 2), **change}
    with pytest.raises(ValueError, match=words):
        mutual_kl(given.pop("logits"), **given)
