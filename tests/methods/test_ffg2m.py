"""FF-G2M: differences along edges against a loop, parts of the edges, limits without transfer, published settings."""

from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph
from support.pair_loops import CLASSES, NODES, graph, kl, random

from gkdbench.methods.gnn_to_mlp.ffg2m import difference_kl
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.pairs import without_loops
from gkdbench.training.resolve import recipes, resolve

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}


def loop(student: torch.Tensor, teacher: torch.Tensor, edges: CSRGraph, tau: float) -> Any:
    total = torch.zeros((), dtype=torch.float64)
    for i, j in zip(edges.row.tolist(), edges.index.tolist(), strict=True):
        p = ((teacher[i] - teacher[j]).abs() / tau).softmax(0)
        q = ((student[i] - student[j]).abs() / tau).softmax(0)
        total = total + kl(p, q)
    return total / edges.num_edges


@pytest.mark.parametrize("tau", [1.0, 1.5])
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_differences_are_those_of_a_loop(tau: float, at_once: int) -> None:
    edges = without_loops(graph())
    teacher, student = random(NODES, CLASSES).requires_grad_(), random(NODES, CLASSES, seed=1).requires_grad_()
    got = difference_kl(student, teacher, edges, tau=tau, at_once=at_once)
    wanted = loop(student, teacher.detach(), edges, tau)
    torch.testing.assert_close(got, wanted)
    mine, reference = (torch.autograd.grad(3 * value, student)[0] for value in (got, wanted))
    torch.testing.assert_close(mine, reference)
    assert torch.autograd.gradcheck(lambda s: difference_kl(s, teacher, edges, tau=tau, at_once=at_once), (student,))
    difference_kl(student, teacher, edges, tau=tau).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


def test_equal_differences_and_no_edges_cost_nothing() -> None:
    edges, logits = without_loops(graph()), random(NODES, CLASSES)
    shifted = logits + random(1, CLASSES, seed=2)
    assert difference_kl(shifted, logits, edges, tau=1.0).item() == pytest.approx(0.0, abs=1e-12)
    nothing = CSRGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), NODES)
    student = logits.clone().requires_grad_()
    value = difference_kl(student, logits, nothing, tau=1.0)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_with_all_weight_on_labels_it_is_the_mlp(bench: Any, setting: str) -> None:
    options = {"model": STILL, "epochs": 2}
    student = bench.run("ffg2m", setting, label_weight=1.0, **options)
    alone = bench.run("mlp", setting, batch_size=None, lr=0.01, weight_decay=5e-4, **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])
    assert not identical(bench.final("ffg2m", setting, label_weight=0.5, **options), alone.final["model"])


def test_terms_add_up(bench: Any) -> None:
    arrays = bench.run("ffg2m", label_weight=0.3, model=STILL).scored.arrays
    assert (arrays["terms/low"] > 0).all()
    assert (arrays["terms/high"] > 0).all()
    total = sum(arrays[f"terms/{name}"] for name in ("ce", "low", "high"))
    np.testing.assert_allclose(total, arrays["terms/loss"], rtol=1e-5)


def test_a_tie_wins_in_the_release_alone() -> None:
    variants = ("corrected", "as_released")
    ties = {variant: resolve("ffg2m", {"variant": variant}).selection_rule() for variant in variants}
    assert ties == {"corrected": "loss", "as_released": "later"}


PUBLISHED = {
    ("cora", "gcn"): (0.01, 0.4, 1.5, 3, 512, 0.6),
    ("cora", "gat"): (0.01, 0.5, 1.2, 3, 1024, 0.3),
    ("citeseer", "gat"): (0.01, 0.1, 1.0, 2, 2048, 0.4),
    ("pubmed", "sage"): (0.01, 0.0, 1.3, 2, 2048, 0.6),
    ("coauthor-cs", "sage"): (0.01, 0.5, 1.4, 2, 256, 0.6),
    ("coauthor-physics", "gcn"): (0.01, 0.2, 1.2, 2, 2048, 0.3),
    ("amazon-photo", "sage"): (0.001, 0.2, 1.5, 3, 1024, 0.4),
}
"""(data set, teacher): lr, lambda, tau, layers, width, dropout, which the release stores as `dropout_t`."""


@pytest.mark.parametrize("cell", PUBLISHED, ids=" ".join)
def test_published_settings_with_dropout_where_it_acted(cell: tuple[str, str]) -> None:
    dataset, teacher = cell
    found: Any = resolve("ffg2m", {"teacher": teacher}, dataset=dataset, split="cpf-lcc-20-30")
    model = found.model
    got = (found.lr, found.label_weight, found.tau, model["layers"], model["hidden"], model["dropout"])
    assert got == PUBLISHED[cell]
    assert found.recipe == f"wu2023_ffg2m_tran_{teacher}"
    inductive: Any = resolve("ffg2m", {"teacher": teacher}, dataset=dataset, split="cpf-lcc-20-30-ind20")
    assert inductive.recipe is None


def test_all_cells_of_the_release_are_there() -> None:
    assert recipes("ffg2m") == [f"wu2023_ffg2m_tran_{teacher}" for teacher in ("gat", "gcn", "sage")]
    for teacher in ("gcn", "sage", "gat"):
        for dataset in ("cora", "citeseer", "pubmed", "coauthor-cs", "coauthor-physics", "amazon-photo"):
            assert resolve("ffg2m", {"teacher": teacher}, dataset=dataset, split="planetoid-public").recipe
