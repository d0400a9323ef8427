"""The choice of a backend."""

from __future__ import annotations

import pytest
import torch
from gkdkernels import explain
from gkdkernels.core.dispatch import choose

ALL = ("reference", "cpu", "triton", "numba", "torch_scatter")
ON_CPU, ELSEWHERE = torch.empty(0), torch.empty(0, device="meta")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


class OnCuda:
    device = torch.device("cuda:0")


def test_auto_takes_the_best_of_the_device() -> None:
    assert choose("op", "auto", ALL, ON_CPU) == "cpu"
    assert choose("op", "auto", ("reference", "triton"), ON_CPU) == "reference"
    assert choose("op", "auto", ALL, ELSEWHERE) == "reference"
    assert choose("op", "auto", ALL, OnCuda()) == "triton"  # type: ignore[arg-type]
    assert choose("op", "auto", ("reference", "cpu"), OnCuda()) == "reference"  # type: ignore[arg-type]


def test_triton_on_the_cpu_wants_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("op", "triton", ALL, ON_CPU) == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match=r"expected tensors on a CUDA device, got cpu; .*set TRITON_INTERPRET=1"):
        choose("op", "triton", ALL, ON_CPU)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("cuda", "backend of op: expected one of auto, reference, cpu, triton, numba, torch_scatter, got 'cuda'"),
        ("cpu", "backend 'cpu' of op: expected tensors on the CPU, got meta"),
        ("numba", "backend 'numba' of op: expected tensors on the CPU, got meta"),
        ("triton", "backend 'triton' of op: expected tensors on a CUDA device, got meta"),
    ],
)
def test_a_name_is_obeyed_or_refused(backend: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose("op", backend, ALL, ELSEWHERE)


@pytest.mark.parametrize("backend", ["numba", "torch_scatter"])
def test_a_missing_package_is_named_with_its_extra(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkdkernels.core.dispatch._ABSENT", frozenset({"triton", "numba", "torch_scatter"}))
    with pytest.raises(ValueError, match=rf"expected the package {backend}, .*pip install \"gkdbench\["):
        choose("op", backend, ALL, ON_CPU)


@pytest.mark.usefixtures("compiled")
def test_explain_gives_a_reason_for_every_backend() -> None:
    found = explain("spmm", ON_CPU)
    assert (found.backend, found.why) == ("cpu", "the fastest that runs on cpu without an extra")
    assert found.others["reference"] == "slower than 'cpu'"
    named = explain("spmm", ON_CPU, backend="reference")
    assert named.why == "asked for by name"
    assert named.others["cpu"] == "'reference' was asked for"
    assert str(named).splitlines()[0] == "spmm runs on 'reference': asked for by name"
    assert "  not 'cpu': 'reference' was asked for" in str(named).splitlines()


@pytest.mark.usefixtures("compiled")
def test_auto_takes_an_extra_only_where_it_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkdkernels.core.dispatch._ABSENT", frozenset())
    found = explain("spmm max", ON_CPU)
    assert found.backend == "numba"
    assert found.why == "the fastest that runs on cpu, bitwise equal to 'cpu', which is used for small inputs"
    assert found.others["cpu"] == "slower than 'numba'"
    free = explain("mutual_kl", ON_CPU)
    assert free.backend == "cpu"
    assert free.others["numba"] == "runs only when named: what is installed must not change results"
    assert explain("mutual_kl", ON_CPU, backend="numba").why == "asked for by name"
    monkeypatch.setattr("gkdkernels.core.dispatch._ABSENT", frozenset({"triton", "numba", "torch_scatter"}))
    assert explain("spmm max", ON_CPU).backend == "cpu"


@pytest.mark.parametrize(
    ("operator", "tensors", "words"),
    [
        ("spmv", (ON_CPU,), "operator: expected one of .*spmm.*, got 'spmv'"),
        ("spmm", (), "explain: expected tensors on one device, got no tensor"),
        ("spmm", (ON_CPU, ELSEWHERE), r"explain: expected tensors on one device, got \['cpu', 'meta'\]"),
    ],
)
def test_bad_question(operator: str, tensors: tuple[torch.Tensor, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explain(operator, *tensors)
