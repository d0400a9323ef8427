"""Matrix products in fp32 on CPUs against fp64, by either library."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gkdkernels.core.matmul_cpu import matrix_product, multiply
from torch import Tensor

Draw = Callable[..., Tensor]
SHAPES = [(1, 1, 1), (63, 7, 47), (1000, 3, 1), (1, 300, 5), (0, 4, 3), (4, 0, 3), (4, 3, 0)]


@pytest.fixture(params=["oneDNN", "torch"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to multiply; where torch lacks oneDNN they are one."""
    if request.param == "torch":
        monkeypatch.setattr("gkdkernels.core.matmul_cpu._onednn", lambda: False)


def layouts(a: Tensor) -> dict[str, Tensor]:
    """The same matrix with other strides."""
    wide = torch.zeros(a.size(0), 2 * a.size(1) + 3, dtype=a.dtype)
    wide[:, 1 : 2 * a.size(1) + 1 : 2] = a
    return {
        "rows": a.contiguous(),
        "columns": a.t().contiguous().t(),
        "part": torch.cat((a, a), 1)[:, : a.size(1)],
        "every other": wide[:, 1 : 2 * a.size(1) + 1 : 2],
    }


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["fp32", "fp64", "bf16"])
def test_values(draw: Draw, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = shape
    a, b, bias = (t.to(dtype) for t in (draw(m, k), draw(k, n), draw(n)))
    product, shifted = a.double() @ b.double(), a.double() @ b.double() + bias.double()
    bound = 4 * torch.finfo(dtype).eps * (a.double().abs() @ b.double().abs() + bias.double().abs() + 1)
    for left in layouts(a).values():
        for right in layouts(b).values():
            for got, wanted in ((multiply(left, right), product), (multiply(left, right, bias), shifted)):
                assert got.dtype == dtype
                assert got.shape == (m, n)
                assert bool(((got.double() - wanted).abs() <= bound).all())


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)], ids=["both", "left", "right"])
def test_gradients(draw: Draw, wanted: tuple[bool, bool]) -> None:
    a, b, g = (draw(*shape).float() for shape in ((63, 47), (47, 7), (63, 7)))
    leaves = [t.requires_grad_(w) for t, w in zip((a, b), wanted, strict=True)]
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    got = torch.autograd.grad(matrix_product(*leaves), asked, g)
    truth = {0: g.double() @ b.detach().double().t(), 1: a.detach().double().t() @ g.double()}
    for found, leaf in zip(got, asked, strict=True):
        torch.testing.assert_close(found.double(), truth[0 if leaf is a else 1], rtol=1e-5, atol=1e-5)


def test_gradcheck_twice(draw: Draw) -> None:
    leaves = draw(5, 3).requires_grad_(), draw(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(matrix_product, leaves)
    assert torch.autograd.gradgradcheck(matrix_product, leaves)


def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(draw: Draw) -> None:
    a, b = draw(1000, 63).float(), draw(63, 47).float()
    assert torch.equal(multiply(a, b), multiply(a, b))
    before = a.clone(), b.clone()
    multiply(a.t(), a)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.full
def test_compiles_as_one_call(draw: Draw) -> None:
    a, b = draw(9, 5).float().requires_grad_(), draw(5, 4).float().requires_grad_()
    g = draw(9, 4).float()
    compiled = torch.compile(matrix_product, fullgraph=True, backend="aot_eager")
    for x, y in zip(torch.autograd.grad(compiled(a, b), (a, b), g), torch.autograd.grad(a @ b, (a, b), g), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), r"expected shapes \[M, K\] and \[K, N\], got \(2, 3\) and \(2, 3\)"),
        (torch.zeros(3), torch.zeros(3, 2), r"got \(3,\) and \(3, 2\)"),
        (torch.zeros(2, 3), torch.zeros(3, 2).double(), "b: expected torch.float32 on cpu like a, got torch.float64"),
    ],
)
def test_bad_input(a: Tensor, b: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        matrix_product(a, b)
