"""Linear experts against an oracle written from the formula, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gkdkernels import MixedFeatures, SparseFeatures, keyed_dropout
from gkdkernels.experts.cpu import dense_pays
from gkdkernels.experts.op import expert_linear
from gkdkernels.experts.triton import Tiles, tile_sizes, weight_splits
from gkdkernels.graph import Features
from hypothesis import given, settings
from hypothesis import strategies as st
from support.official_experts import race
from torch import Tensor

Draw = Callable[..., Tensor]
BACKENDS = ["reference", "cpu", "triton"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# N, D, H, E, k
SHAPES = [(0, 3, 2, 2, 1), (1, 1, 1, 1, 1), (7, 5, 47, 3, 2), (63, 7, 4, 5, 3), (33, 0, 3, 2, 1), (9, 4, 0, 3, 2)]
BIG = [(1000, 17, 9, 6, 2), (700, 8, 33, 40, 3), (63, 20, 21, 3, 3)]


def oracle(
    x: Tensor, weight: Tensor, bias: Tensor, index: Tensor, alpha: Tensor, g: Tensor, gate: Tensor, t: Tensor
) -> tuple[Tensor, ...]:
    """Value, and gradients of x, weight, bias, alpha, gate and t; ``x: [N, k, D]``, a row for each pair."""
    y, dx, dw = torch.zeros_like(g), torch.zeros_like(x), torch.zeros_like(weight)
    db, da, dc, dt = torch.zeros_like(bias), torch.zeros_like(alpha), torch.zeros_like(gate), torch.zeros_like(t)
    heat = t.clamp(max=math.log(100)).exp()
    open_t = float(t <= math.log(100))
    for n in range(index.size(0)):
        for j in range(index.size(1)):
            e = int(index[n, j])
            c = gate[e].clamp(max=math.log(100)).exp()
            inputs = c * x[n, j]
            out = inputs @ weight[e] + bias[e]
            back = heat * (weight[e] @ g[n])
            y[n] += heat * alpha[n, j] * out
            dx[n, j] += alpha[n, j] * c * back
            dw[e] += heat * alpha[n, j] * torch.outer(inputs, g[n])
            db[e] += heat * alpha[n, j] * g[n]
            da[n, j] += heat * (out @ g[n])
            dc[e] += alpha[n, j] * inputs * back * (gate[e] <= math.log(100))
            dt += open_t * heat * alpha[n, j] * (out @ g[n])
    return y, dx, dw, db, da, dc, dt


def scene(draw: Draw, shape: tuple[int, int, int, int, int], integer: torch.dtype = torch.int64) -> dict[str, Tensor]:
    rows, width, out, experts, k = shape
    index = draw(rows, experts).argsort(1)[:, :k].contiguous().to(integer)
    gate = draw(experts, width)
    gate[:, :1] = 5.0  # above the cut-off
    return {
        "x": draw(rows, width),
        "weight": draw(experts, width, out),
        "bias": draw(experts, out),
        "index": index,
        "alpha": draw(rows, k).softmax(1),
        "g": draw(rows, out),
        "gate": gate,
        "t": torch.tensor(0.3, dtype=torch.float64),
    }


def close(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert got.shape == wanted.shape
    error = (got.detach().cpu().double() - wanted).norm()
    assert error <= TOLERANCE[dtype] * max(1.0, float(wanted.norm())), float(error)


def check(
    draw: Draw,
    shape: tuple[int, int, int, int, int],
    backend: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    integer: torch.dtype = torch.int64,
) -> None:
    parts = scene(draw, shape, integer)
    rounded = {name: t.to(dtype) if t.is_floating_point() and name != "alpha" else t for name, t in parts.items()}
    rounded["alpha"] = parts["alpha"].to(torch.promote_types(dtype, torch.float32))
    exact = {name: t.double() if t.is_floating_point() else t for name, t in rounded.items()}
    wanted = oracle(exact["x"][:, None].repeat(1, shape[4], 1), *(exact[n] for n in list(parts)[1:]))
    inputs = {name: t.clone().to(device) for name, t in rounded.items()}
    names = ["x", "weight", "bias", "alpha", "gate", "t"]
    leaves = [inputs[name].requires_grad_() for name in names]
    y = expert_linear(
        inputs["x"],
        inputs["weight"],
        inputs["bias"],
        inputs["index"],
        inputs["alpha"],
        gate=inputs["gate"],
        log_temperature=inputs["t"],
        backend=backend,
    )
    grads = torch.autograd.grad(y, leaves, inputs["g"])
    assert y.dtype == dtype
    close(y, wanted[0], dtype)
    close(grads[0], wanted[1].sum(1), dtype)
    for leaf, grad, right in zip(leaves[1:], grads[1:], wanted[2:], strict=True):
        assert grad.dtype == leaf.dtype
        close(grad, right, dtype)
    assert all(torch.equal(inputs[name].detach().cpu(), rounded[name]) for name in parts)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few rows, so that small shapes have several."""
    monkeypatch.setattr("gkdkernels.experts.cpu._ROWS_PER_EXPERT", 2)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients(
    draw: Draw, device: torch.device, shape: tuple[int, int, int, int, int], backend: str, dtype: torch.dtype
) -> None:
    check(draw, shape, backend, device if backend == "triton" else torch.device("cpu"), dtype)


@pytest.mark.parametrize("shape", BIG, ids=str)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_larger_shapes_on_the_cpu(draw: Draw, shape: tuple[int, int, int, int, int], integer: torch.dtype) -> None:
    check(draw, shape, "cpu", torch.device("cpu"), torch.float64, integer)


@pytest.mark.usefixtures("small_tiles", "poison")
@pytest.mark.parametrize("shape", [(63, 7, 4, 5, 2), (23, 3, 4, 3, 3)], ids=str)
def test_many_chunks(draw: Draw, shape: tuple[int, int, int, int, int]) -> None:
    check(draw, shape, "cpu", torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precisions(draw: Draw, device: torch.device, backend: str, dtype: torch.dtype) -> None:
    check(draw, (40, 9, 5, 4, 2), backend, device if backend == "triton" else torch.device("cpu"), dtype)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_an_empty_expert_and_one_that_takes_all(
    draw: Draw, device: torch.device, backend: str, integer: torch.dtype
) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (19, 4, 3, 4, 1)).items()}
    weight, bias = parts["weight"].requires_grad_(), parts["bias"].requires_grad_()
    index = torch.full((19, 1), 2, dtype=integer, device=on)
    y = expert_linear(parts["x"], weight, bias, index, torch.ones_like(parts["alpha"]), backend=backend)
    torch.testing.assert_close(y, parts["x"] @ weight[2] + bias[2])
    dweight, dbias = torch.autograd.grad(y, (weight, bias), parts["g"])
    torch.testing.assert_close(dweight[2], parts["x"].t() @ parts["g"])
    assert not dweight[[0, 1, 3]].any()
    assert not dbias[[0, 1, 3]].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_experts_are_a_dense_mixture(draw: Draw, device: torch.device, backend: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (30, 4, 5, 3, 3)).items()}
    y = expert_linear(*(parts[n] for n in ("x", "weight", "bias", "index", "alpha")), backend=backend)
    share = torch.zeros(30, 3, dtype=torch.float64, device=on).scatter_(1, parts["index"], parts["alpha"])
    each = torch.einsum("nd,edh->neh", parts["x"], parts["weight"]) + parts["bias"]
    torch.testing.assert_close(y, torch.einsum("ne,neh->nh", share, each))


@pytest.mark.parametrize("backend", BACKENDS)
def test_renaming_experts_changes_nothing(draw: Draw, device: torch.device, backend: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (41, 6, 3, 5, 2)).items()}
    order = torch.tensor([3, 0, 4, 1, 2], device=on)
    renamed = torch.argsort(order)[parts["index"]]
    first = expert_linear(*(parts[n] for n in ("x", "weight", "bias", "index", "alpha")), backend=backend)
    other = expert_linear(
        parts["x"], parts["weight"][order], parts["bias"][order], renamed, parts["alpha"], backend=backend
    )
    torch.testing.assert_close(first, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_bias_is_a_bias_of_zero(draw: Draw, device: torch.device, backend: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (12, 4, 3, 4, 2)).items()}
    leaves = [parts[name].requires_grad_() for name in ("x", "weight", "alpha")]

    def run(bias: Tensor | None) -> tuple[Tensor, ...]:
        y = expert_linear(leaves[0], leaves[1], bias, parts["index"], leaves[2], backend=backend)
        return (y, *torch.autograd.grad(y, leaves, parts["g"]))

    for one, other in zip(run(None), run(torch.zeros_like(parts["bias"])), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_is_asked_for(draw: Draw, device: torch.device, backend: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (15, 4, 3, 4, 2)).items()}
    names = ["x", "weight", "bias", "alpha"]

    def run(asked: list[str]) -> list[Tensor]:
        inputs = {name: parts[name].clone().requires_grad_(name in asked) for name in names}
        y = expert_linear(*(inputs[n] for n in names[:3]), parts["index"], inputs["alpha"], backend=backend)
        return list(torch.autograd.grad(y, [inputs[n] for n in asked], parts["g"]))

    everything = dict(zip(names, run(names), strict=True))
    for name in names:
        torch.testing.assert_close(run([name])[0], everything[name])


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_strides_and_two_runs(draw: Draw, device: torch.device, backend: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    x, weight = draw(6, 50).float().to(on).t(), draw(4, 5, 6).float().to(on).transpose(1, 2)
    bias, g = draw(5, 4).float().to(on).t(), draw(5, 50).float().to(on).t()
    index = draw(4, 50).argsort(0).to(on).t()[:, ::2]
    alpha = draw(4, 50).float().to(on).t()[:, ::2]

    def run(backend: str) -> tuple[Tensor, ...]:
        leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight, bias, alpha)]
        y = expert_linear(*leaves[:3], index, leaves[3], backend=backend)
        return (y, *torch.autograd.grad(y, leaves, g))

    first, again, reference = run(backend), run(backend), run("reference")
    for one, other, right in zip(first, again, reference, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradcheck(draw: Draw, backend: str) -> None:
    parts = scene(draw, (9, 3, 4, 4, 2))
    leaves = [parts[name].requires_grad_() for name in ("x", "weight", "bias", "alpha", "gate", "t")]

    def run(x: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor, gate: Tensor, t: Tensor) -> Tensor:
        return expert_linear(x, weight, bias, parts["index"], alpha, gate=gate, log_temperature=t, backend=backend)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("per", ["row", "pair"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_a_mask_on_the_inputs(draw: Draw, device: torch.device, backend: str, per: str) -> None:
    on = device if backend == "triton" else torch.device("cpu")
    parts = {name: t.to(on) for name, t in scene(draw, (31, 6, 5, 4, 2)).items()}
    mask = keyed_dropout(torch.ones(31 if per == "row" else 62, 6, dtype=torch.float64, device=on), 0.4, 5).cpu()
    mask = mask.view(31, -1, 6).expand(31, 2, 6)
    cpu = {name: t.cpu() for name, t in parts.items()}
    one = torch.tensor(0.0, dtype=torch.float64)
    wanted = oracle(
        cpu["x"][:, None] * mask,
        *(cpu[n] for n in ("weight", "bias", "index", "alpha", "g")),
        torch.zeros_like(cpu["gate"]),
        one,
    )
    leaves = [parts[name].requires_grad_() for name in ("x", "weight", "bias", "alpha")]
    y = expert_linear(*leaves[:3], parts["index"], leaves[3], dropout=0.4, key=5, dropout_per=per, backend=backend)
    got = (y, *torch.autograd.grad(y, leaves, parts["g"]))
    torch.testing.assert_close(got[1].cpu(), (wanted[1] * mask).sum(1))
    for a, b in zip((got[0], *got[2:]), (wanted[0], *wanted[2:5]), strict=True):
        torch.testing.assert_close(a.cpu(), b)


def bag_of_words(draw: Draw) -> Tensor:
    words = draw(40, 13) * (draw(40, 13) > 0.8)
    words[3] = 0.0
    return words


@pytest.mark.parametrize("mixed", [False, True], ids=["sparse", "mixed"])
@pytest.mark.parametrize("per", ["row", "pair"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_sparse_features_are_their_dense_copy(draw: Draw, backend: str, per: str, mixed: bool) -> None:
    words, encodings = bag_of_words(draw), draw(40, 5)
    sparse = SparseFeatures.from_dense(words)
    x: Features = MixedFeatures(sparse, encodings) if mixed else sparse
    dense = torch.cat([words, encodings], 1) if mixed else words
    parts = scene(draw, (40, dense.size(1), 3, 4, 2))
    leaves = [parts[name].requires_grad_() for name in ("weight", "bias", "alpha", "gate")]

    def run(x: Features, backend: str, **dropout: float) -> tuple[Tensor, ...]:
        y = expert_linear(
            x, *leaves[:2], parts["index"], leaves[2], gate=leaves[3], dropout_per=per, backend=backend, **dropout
        )
        return (y, *torch.autograd.grad(y, leaves, parts["g"]))

    for one, other in zip(run(x, backend), run(dense, "reference"), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(run(x, backend, dropout=0.5, key=3), run(x, "reference", dropout=0.5, key=3), strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_on_sparse_features_is_on_their_non_zeros(draw: Draw) -> None:
    words = bag_of_words(draw)
    sparse, parts = SparseFeatures.from_dense(words), scene(draw, (40, 13, 3, 4, 2))
    dropped = SparseFeatures(sparse.graph, keyed_dropout(sparse.value, 0.5, 9))
    rest = [parts[name] for name in ("weight", "bias", "index", "alpha")]
    torch.testing.assert_close(expert_linear(sparse, *rest, dropout=0.5, key=9), expert_linear(dropped.dense(), *rest))


@pytest.mark.parametrize("whole", [False, True])
def test_the_peer_of_the_bench_computes_the_same(whole: bool) -> None:
    race(4, 2, rows=50, width=7, rounds=1, whole=whole)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 40),
    width=st.integers(0, 9),
    out=st.integers(0, 9),
    experts=st.integers(1, 9),
    k=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_paths_agree(rows: int, width: int, out: int, experts: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parts = scene(draw, (rows, width, out, experts, min(k, experts)))
    leaves = [parts[name].requires_grad_() for name in ("x", "weight", "bias", "alpha")]
    results = []
    for backend in ("reference", "cpu"):
        y = expert_linear(*leaves[:3], parts["index"], leaves[3], backend=backend)
        results.append((y, *torch.autograd.grad(y, leaves, parts["g"])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_dense_pays_when_every_expert_is_used() -> None:
    def pays(rows: int, experts: int, k: int, dtype: torch.dtype = torch.float32, pairs: bool = False) -> bool:
        x = torch.empty(rows * k if pairs else rows, 256, dtype=dtype)
        return dense_pays(x, torch.empty(experts, 256, 256), torch.empty(rows, k))

    assert pays(20_000, 4, 4)
    assert pays(1, 5, 3)  # a few calls cost more than a few products
    assert not pays(20_000, 8, 3)
    assert not pays(20_000, 4, 4, torch.bfloat16)
    assert not pays(20_000, 4, 4, pairs=True)


@pytest.mark.full
def test_compiles_in_one_graph(draw: Draw) -> None:
    parts = {name: t.float() if t.is_floating_point() else t for name, t in scene(draw, (20, 4, 3, 4, 2)).items()}
    leaves = [parts[name].requires_grad_() for name in ("x", "weight", "bias", "alpha", "gate", "t")]

    def run(x: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor, gate: Tensor, t: Tensor) -> Tensor:
        return expert_linear(x, weight, bias, parts["index"], alpha, gate=gate, log_temperature=t, backend="cpu")

    wanted = torch.autograd.grad(run(*leaves), leaves, parts["g"])
    got = torch.autograd.grad(torch.compile(run, fullgraph=True, backend="aot_eager")(*leaves), leaves, parts["g"])
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(5)}, r"x: expected a float matrix \[N, D\]"),
        ({"x": torch.zeros(5, 3)}, r"weight: expected shape \[E, 3, H\]"),
        ({"weight": torch.zeros(2, 2)}, r"weight: expected shape \[E, 2, H\]"),
        ({"weight": torch.zeros(2, 2, 3).double()}, "weight: expected torch.float32 on cpu like x, got torch.float64"),
        ({"bias": torch.zeros(3)}, r"bias: expected shape \[2, 3\], got \(3,\)"),
        ({"index": torch.zeros(4, 1, dtype=torch.int64)}, r"index: expected shape \[5, k\]"),
        ({"index": torch.zeros(5, 1)}, "index: expected int32 or int64, got torch.float32"),
        ({"index": torch.full((5, 1), 2)}, r"index: expected values in \[0, 2\), got 2..2"),
        ({"index": torch.full((5, 1), -1)}, r"index: expected values in \[0, 2\), got -1..-1"),
        ({"alpha": torch.zeros(5, 2)}, r"alpha: expected shape \[5, 1\], got \(5, 2\)"),
        ({"alpha": torch.zeros(5, 1, device="meta")}, "alpha: expected torch.float32 on cpu"),
        ({"gate": torch.zeros(2)}, r"gate: expected shape \[2, 2\], got \(2,\)"),
        ({"log_temperature": torch.zeros(1)}, r"log_temperature: expected shape \[\], got \(1,\)"),
        ({"dropout": 1.5, "key": 1}, r"dropout: expected a probability in \[0, 1\], got 1.5"),
        ({"dropout": 0.5}, "key: expected a seed when dropout > 0, got None"),
        ({"dropout_per": "expert"}, "dropout_per: expected one of row, pair, got 'expert'"),
        ({"backend": "cuda"}, "backend of expert_linear: expected one of auto, reference, cpu, triton, got 'cuda'"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    good = {
        "x": torch.zeros(5, 2),
        "weight": torch.zeros(2, 2, 3),
        "bias": torch.zeros(2, 3),
        "index": torch.zeros(5, 1, dtype=torch.int64),
        "alpha": torch.ones(5, 1),
    }
    with pytest.raises(ValueError, match=words):
        expert_linear(**{**good, **change})  # type: ignore[arg-type]


def test_a_gradient_of_sparse_features_is_refused() -> None:
    x = SparseFeatures.from_dense(torch.eye(5, 2))
    x.value.requires_grad_()
    with pytest.raises(ValueError, match=r"use a dense .* tensor to differentiate in x"):
        expert_linear(x, torch.zeros(2, 2, 3), None, torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1))


def test_tiles_follow_the_shape() -> None:
    assert tile_sizes(256, 256, torch.bfloat16) == Tiles(64, 64, 32, 8)
    assert tile_sizes(256, 256, torch.float32).depth == 16
    assert tile_sizes(3, 7, torch.float32) == Tiles(64, 16, 16, 8)
    assert weight_splits(60_000, 256, 256, 8) == 4
    assert weight_splits(100, 256, 256, 8) == 1
    assert weight_splits(60_000, 64, 64, 1) == 234


def test_few_sparse_rows_fold_only_their_experts_and_keep_every_bit() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    dense = normal(3, 12) * (torch.rand(3, 12, generator=generator) < 0.4)
    x = SparseFeatures.from_dense(dense)
    weight, bias = normal(9, 12, 5), normal(9, 5)
    options = {"gate": normal(9, 12), "log_temperature": torch.tensor(0.3)}
    index = torch.tensor([[8, 2], [2, 0], [5, 8]])
    alpha = torch.rand(3, 2, generator=generator).softmax(1)
    everything = expert_linear(x, weight, bias, index, alpha, **options)
    with torch.no_grad():
        assert torch.equal(expert_linear(x, weight, bias, index, alpha, **options), everything)
        assert torch.equal(
            expert_linear(x, weight, None, index, alpha), expert_linear(x, weight, 0 * bias, index, alpha)
        )
