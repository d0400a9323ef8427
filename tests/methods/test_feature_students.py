"""AT, FitNet, G-CRD and GSP: their terms against the formulas, their released defects, sampling, the zero weight."""

from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph

from gkdbench.errors import UserError
from gkdbench.methods.structure import _feature_student
from gkdbench.methods.structure._feature_student import sampled
from gkdbench.methods.structure.gsp import alike
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.projections import Projection
from gkdbench.training.resolve import resolve

NAMES = ("at", "fitnet", "gcrd", "gsp")
STILL = {"hidden": 8, "layers": 2, "dropout": 0.0}
ROWS = torch.arange(20)


def term(name: str, student: int = 5, teacher: int = 7, **overrides: Any) -> Any:
    """The method's term, in double precision."""
    return resolve(name, overrides).term(student, teacher, Randomness(0)).double()  # type: ignore[attr-defined]


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(20, 5, dtype=torch.float64, generator=generator),
        torch.randn(20, 7, dtype=torch.float64, generator=generator),
    )


def unit(h: torch.Tensor) -> torch.Tensor:
    return h / h.norm(dim=1, keepdim=True)


def test_attention_is_compared_as_unit_vectors_over_nodes() -> None:
    s, t = features()
    q = [(h**2).sum(1) / (h**2).sum(1).norm() for h in (s, t)]
    wanted = ((q[0] - q[1]) ** 2).sum().item()
    assert term("at")(s, t, ROWS, None).item() == pytest.approx(wanted)
    assert term("at", variant="as_released")(s, t, ROWS, None).item() == pytest.approx(wanted / 20)


def test_the_released_attention_shrinks_with_the_number_of_nodes() -> None:
    """The same nodes ten times over: the released term is a tenth, the corrected one the same."""
    s, t = features()
    many = [torch.cat([h] * 10) for h in (s, t)]
    rows = torch.arange(200)
    for variant, factor in (("corrected", 1.0), ("as_released", 0.1)):
        of_few, of_many = term("at", variant=variant)(s, t, ROWS, None), term("at", variant=variant)(*many, rows, None)
        assert of_many.item() == pytest.approx(factor * of_few.item())


def test_hints_are_compared_as_unit_rows() -> None:
    s, t = features()
    one = term("fitnet")
    own = s @ one.student.weight + one.student.bias
    assert one(s, t, ROWS, None).item() == pytest.approx(((unit(own) - unit(t)) ** 2).mean().item())
    assert [name for name, _ in one.named_parameters()] == ["student.weight", "student.bias"]


def test_the_released_hint_trains_its_target() -> None:
    s, t = features()
    for overrides, moved in (({}, False), ({"project": "both"}, True), ({"variant": "as_released"}, True)):
        one = term("fitnet", **overrides)
        one(s, t, ROWS, None).backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in one.teacher.parameters()) is moved


def test_contrast_finds_its_own_node_among_the_others() -> None:
    s, t = features()
    one = term("gcrd", tau=0.5)
    p, q = unit(one.student(s)), unit(one.teacher(t))
    logits = p @ q.T / 0.5
    wanted = -(logits.diagonal() - logits.exp().sum(1).log()).mean()
    assert one(s, t, ROWS, None).item() == pytest.approx(wanted.item())
    assert one.noted == {"compared": 20.0}


def test_the_graph_projection_reads_neighbours_and_is_refused_without_a_graph() -> None:
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    graph = CSRGraph.from_edge_index(edges[:, torch.argsort(edges[1])], 4, True)
    projection = Projection(3, 2, name="p", randomness=Randomness(0), over_graph=True).eval()
    h = torch.randn(4, 3)
    wanted = torch.relu(projection.norm((h @ projection.linear.weight)[[1, 0, 3, 2]]))
    torch.testing.assert_close(projection(h, graph), wanted)
    with pytest.raises(UserError, match="for graph tasks take one without"):
        projection(h)


@pytest.mark.parametrize("kernel", ["cosine", "poly", "l2", "rbf"])
def test_pairs_are_as_alike_as_the_kernel_says(kernel: Any) -> None:
    s, t = features()
    by_hand = torch.empty(20, 20, dtype=torch.float64)
    for i in range(20):
        for j in range(20):
            cosine, distance = unit(s)[i] @ unit(s)[j], (s[i] - s[j]).norm()
            by_hand[i, j] = {"cosine": cosine, "poly": cosine**2, "l2": distance, "rbf": (-0.5 * distance**2).exp()}[
                kernel
            ]
    torch.testing.assert_close(alike(s, kernel), by_hand, atol=1e-6, rtol=1e-6)
    one = term("gsp", kernel=kernel)
    wanted = ((alike(one.student(s), kernel) - alike(t, kernel)) ** 2).mean()
    assert one(s, t, ROWS, None).item() == pytest.approx(wanted.item())
    assert one.noted == {"pairs": 400.0}
    x = s.clone().requires_grad_()
    alike(x, kernel).sum().backward()
    assert bool(torch.isfinite(x.grad).all())


def test_the_released_pairs_have_a_moving_target() -> None:
    assert [n for n, _ in term("gsp").named_parameters() if n.startswith("teacher")] == []
    assert [n for n, _ in term("gsp", variant="as_released").named_parameters() if n.startswith("teacher")] != []


def test_rows_are_sampled_anew_and_capped_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, randomness = torch.arange(100, 200), Randomness(0)
    assert torch.equal(sampled(rows, 100, 4, randomness), rows)
    first = sampled(rows, 10, 4, randomness)
    assert len(set(first.tolist())) == 10
    assert set(first.tolist()) <= set(rows.tolist())
    assert torch.equal(first, sampled(rows, 10, 4, randomness)), "keyed by the step"
    randomness.step += 1
    assert not torch.equal(first, sampled(rows, 10, 4, randomness))
    monkeypatch.setattr(_feature_student, "PAIR_BYTES", 4 * 4 * 25)
    assert sampled(rows, 10, 4, randomness).numel() == 5, "four matrices of 5 x 5 floats"


def test_without_a_weight_they_are_the_solo_run(bench: Any) -> None:
    options = {"model": STILL, "lr": 0.01, "weight_decay": 5e-4, "epochs": 3}
    alone = bench.final("teacher", backbone="gcn", batch_size=None, **options)
    for name in NAMES:
        assert identical(bench.final(name, beta=0.0, **options), alone), name
        assert not identical(bench.final(name, **options), alone), name
    alone = bench.final("teacher", "graph", backbone="gin", batch_size=32, model={"hidden": 8, "layers": 2},
                        lr=0.01, weight_decay=5e-4, epochs=2)  # fmt: skip
    for name in ("at", "gcrd"):
        graphs = {
            "backbone": "gin",
            "teacher": "gin",
            "batch_size": 32,
            "model": {"hidden": 8, "layers": 2},
            "lr": 0.01,
        }
        assert identical(bench.final(name, "graph", beta=0.0, weight_decay=5e-4, epochs=2, **graphs), alone)


def test_kd_beside_the_term_is_hintons_and_the_released_one_too_small(bench: Any) -> None:
    """With beta = 0 and KD on, the run is that of the method kd, with its released defect as well."""
    options = {"model": STILL, "alpha": 0.9, "epochs": 3}
    for variant in ("corrected", "as_released"):
        beside = bench.run("gcrd", beta=0.0, temperature=2.0, variant=variant, **options).scored.arrays
        alone = bench.run("kd", tau=2.0, variant=variant, **options).scored.arrays
        assert beside["terms/loss"].tolist() == pytest.approx(alone["terms/loss"].tolist(), rel=1e-5)


def test_projections_are_decayed_by_the_release_alone(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gkdbench.training import hidden_features as _imitation

    seen: list[Any] = []
    adam = _imitation.adam

    def noting(model: Any, **settings: Any) -> Any:
        seen.append(adam(model, **settings))
        return seen[-1]

    monkeypatch.setattr(_imitation, "adam", noting)
    for variant in ("corrected", "as_released"):
        bench.run("gsp", variant=variant, model=STILL, weight_decay=0.1, epochs=1)
    assert [[group["weight_decay"] for group in optimiser.param_groups] for optimiser in seen] == [[0.1, 0.0], [0.1]]


def test_terms_are_traced_and_the_count_is_reported(bench: Any) -> None:
    run = bench.run("gsp", model=STILL, alpha=0.5, max_samples=16, epochs=3)
    terms = {name.removeprefix("terms/") for name in run.scored.arrays if name.startswith("terms/")}
    assert terms == {"loss", "task", "features", "kd", "gradient_share", "epoch"}
    assert run.outcome.extra["pairs"] == 256
    assert 0 < run.outcome.extra["gradient_share"] < 1


def test_a_student_without_a_hidden_layer_is_told_so(bench: Any) -> None:
    outcome = bench.workshop.run(resolve("at", {"epochs": 1, "model": {"layers": 1}}), bench.problem("tran")).outcome
    assert "the student has 0 hidden layers" in (outcome.reason or "")


def test_published_weights_are_recipes() -> None:
    for name, recipe, field, value in (
        ("at", "joshi2022_at_arxiv_gcn", "beta", 1e5),
        ("fitnet", "joshi2022_fitnet_kd_arxiv_sage", "alpha", 0.9),
        ("gcrd", "joshi2022_gcrd_kd", "tau", 0.05),
        ("gsp", "joshi2022_gsp_rbf", "max_samples", 2048),
    ):
        assert getattr(resolve(name, recipe=recipe), field) == value
