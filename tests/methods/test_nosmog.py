"""NOSMOG: its formula, its limits without transfer, what its release does otherwise, its published settings."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.methods.gnn_to_mlp import nosmog
from gkdbench.nn.random import Randomness
from gkdbench.protocol.bank import BankEntry
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method
from gkdbench.training.blocks import encoded_method
from gkdbench.training.blocks.similarity import Similarity, gram_mse
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import build
from gkdbench.training.resolve import resolve

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}
SHORT = {"num_walks": 1, "walk_length": 8, "dim": 8}
SOLO = {"kd_weight": 0.0, "adv_weight": 0.0, "similarity": 0.0}


@pytest.mark.parametrize("setting", ["tran", "ind", "multilabel"])
@pytest.mark.parametrize("batch_size", [None, 32])
def test_without_transfer_it_is_the_mlp_with_encodings(bench: Any, setting: str, batch_size: int | None) -> None:
    options = {"model": {**STILL, "dropout": 0.5}, "batch_size": batch_size, **SHORT}
    student = bench.run("nosmog", setting, **SOLO, **options)
    alone = bench.run("mlp_encodings", setting, **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])
    for name, value in {"kd_weight": 0.5, "adv_weight": 0.1, "similarity": 0.1}.items():
        more = bench.final("nosmog", setting, **{**SOLO, name: value}, **options)
        assert not identical(more, alone.final["model"]), name


def objective(bench: Any, **overrides: Any) -> tuple[Any, Any, Any, Any]:
    """The loss of one step, the view, the model and the teacher."""
    method = resolve("nosmog", {"model": STILL, **overrides})
    view = bench.given("tran").view
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    model = build(method.backbone_config(), view, seed=0)
    return nosmog._Objective(method, view, teacher, model), view, model, teacher


@pytest.mark.parametrize(("lamb", "mu", "w"), [(1.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.3, 0.7, 0.0), (0.6, 0.7, 0.2)])
def test_the_loss_is_that_of_the_formula(bench: Any, lamb: float, mu: float, w: float) -> None:
    """Against the sum written out; an attack without room (eps = 0) adds the base loss once more."""
    loss, view, model, teacher = objective(bench, kd_weight=lamb, similarity=mu, adv_weight=w, adv_eps=0.0)
    observed, labelled = torch.arange(3, 70), torch.arange(0, 40, 2)
    train = view.train.position[labelled]
    rows = view.inputs.rows(NodeSet(view.items, torch.cat([observed, train])))
    got = loss(rows, nosmog._Batch(observed, labelled))
    of_observed, of_labelled = (model.trace(view.inputs.features[at]) for at in (observed, train))
    base = lamb * kl_to_teacher(of_observed.logits, teacher.logits.value[observed])
    base = base + (1 - lamb) * supervised(of_labelled.logits, view.labels[labelled])
    wanted = (1 + w) * base
    if mu:
        linear = loss.trained[1].linear
        for weight, trace, at in ((lamb, of_observed, observed), (1 - lamb, of_labelled, train)):
            h = F.relu(linear(trace.hidden[-1]))
            t = teacher.hidden.value[at]
            wanted = wanted + mu * weight * ((h @ h.T - t @ t.T) ** 2).mean()
    torch.testing.assert_close(got, wanted)
    mine = torch.autograd.grad(got, list(model.parameters()))
    reference = torch.autograd.grad(wanted, list(model.parameters()))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert set(loss.means()) == {"base", *(["similarity"] if mu else []), *(["adversarial"] if w else [])}
    assert loss.means() == {}


def test_gram_loss_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(20, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(20, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: gram_mse(s, teacher), (student,))
    gram_mse(student, teacher).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


def test_gram_loss_sees_angles_not_axes() -> None:
    teacher = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double())
    assert gram_mse(teacher @ turn, teacher).item() == pytest.approx(0.0, abs=1e-20)
    assert gram_mse(2 * teacher, teacher).item() == pytest.approx(9 * (teacher @ teacher.T).square().mean().item())


def test_similarity_projects_through_a_relu() -> None:
    part = Similarity(3, 5, Randomness(0))
    hidden, teacher = torch.randn(7, 3), torch.randn(7, 5)
    projected = (hidden @ part.linear.weight + part.linear.bias).clamp_min(0)
    torch.testing.assert_close(part(hidden, teacher), gram_mse(projected, teacher))


def test_the_release_steps_twice_an_epoch_and_drops_remainders(bench: Any, adam_steps: Any) -> None:
    """60 labels and 210 nodes in batches of 40: 6 steps, or 1 on labels (gradient zero) and 5 on the teacher."""
    options = {"model": STILL, "batch_size": 40, "epochs": 1, "adv_weight": 0.0, **SHORT}
    for variant in ("corrected", "as_released"):  # trains the teacher of each
        bench.run("nosmog", variant=variant, **options)
    before = adam_steps()
    bench.run("nosmog", **options)
    corrected = adam_steps() - before
    bench.run("nosmog", variant="as_released", **options)
    assert (corrected, adam_steps() - before - corrected) == (6, 1 + 5)


def test_the_release_moves_weights_on_a_zero_gradient(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With lamb = 1 and weight decay the pass over labels alone shrinks the weights."""
    monkeypatch.setattr(nosmog.NOSMOG, "_apart", lambda self, view, model: iter([_labels_only(view)]))
    monkeypatch.setattr(nosmog.NOSMOG, "_together", lambda self, view, model: iter([]))
    options = {"model": STILL, "adv_weight": 0.1, "weight_decay": 0.1, "epochs": 2, **SHORT}
    still = bench.final("nosmog", **options)
    released = bench.final("nosmog", variant="as_released", **options)
    weight = "linears.0.weight"
    assert released[weight].norm() < still[weight].norm()


def _labels_only(view: Any) -> Any:
    return nosmog._Batch(view.train.position[:0], torch.arange(len(view.train)))


def test_encodings_of_the_release_come_from_a_hierarchical_softmax(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compute = encoded_method.deepwalk
    monkeypatch.setattr(encoded_method, "deepwalk", lambda g, s, seed: asked.append(s.softmax) or compute(g, s, seed))
    for variant in ("corrected", "as_released"):
        bench.run("nosmog", variant=variant, epochs=1, adv_weight=0.0, **SHORT)
    assert asked == ["negative", "hierarchical"]


def test_batch_statistics_count_clean_steps_only(bench: Any) -> None:
    """One clean forward a step in the corrected form; the release adds five attacks and the attacked input."""
    options = {"model": {**STILL, "norm": "batch"}, "batch_size": None, "epochs": 3, **SHORT}
    counted = {
        variant: int(bench.final("nosmog", variant=variant, **options)["norms.0.num_batches_tracked"])
        for variant in ("corrected", "as_released")
    }
    assert counted == {"corrected": 3, "as_released": 3 * 2 * 7}


def test_node_order_permutes_predictions_only(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With encodings that know no numbers (degrees), and without the attack's start."""

    def degrees(graph: CSRGraph, settings: Any, seed: int) -> torch.Tensor:
        return graph.degree.float()[:, None].repeat(1, settings.dim)

    monkeypatch.setattr(encoded_method, "deepwalk", degrees)
    problem = bench.problem("tran")
    moved = renumbered(problem, np.random.default_rng(2).permutation(problem.task.num_nodes))
    method = small_method("nosmog", {"adv_weight": 0.0, "kd_weight": 0.7, **SHORT}, epochs=4, quiet=True)
    first, second = (
        bench.workshop.run(method, p, stop_early=False, quiet=True).final["model"] for p in (problem, moved)
    )
    assert relative_gap(first, second) < 1e-3


def test_every_term_is_traced_in_every_epoch(bench: Any) -> None:
    arrays = bench.run("nosmog", **SHORT).scored.arrays
    for name in ("base", "adversarial", "similarity", "loss"):
        assert len(arrays[f"terms/{name}"]) == 4
        assert (arrays[f"terms/{name}"] > 0).all()
    total = sum(arrays[f"terms/{name}"] for name in ("base", "adversarial", "similarity"))
    np.testing.assert_allclose(total, arrays["terms/loss"], rtol=1e-5)


def test_hidden_layers_are_compared_only_where_there_are_some(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = {"model": {**STILL, "layers": 1}, "epochs": 1, **SHORT}
    with pytest.raises(UserError, match="the student has none"):
        objective(bench, model=flat["model"])
    bench.run("nosmog", similarity=0.0, **flat)
    read = BankEntry.read
    monkeypatch.setattr(BankEntry, "read", lambda *given: dataclasses.replace(read(*given), hidden=None))
    with pytest.raises(UserError, match="the teacher has none"):
        objective(bench)


PUBLISHED = {
    "cora": ((0.01, 5e-3, 0.6), (0.04, 0.05), (0.1, 0.1), (50, 5, 5, 1, 64), (50, 1, 3, 3, 64)),
    "citeseer": ((0.01, 1e-3, 0.1), (0.045, 0.05), (0.1, 0.3), (50, 3, 5, 5, 16), (50, 3, 5, 3, 64)),
    "pubmed": ((0.005, 1e-3, 0.4), (0.005, 0.001), (0.9, 0.9), (50, 1, 5, 3, 16), (50, 3, 5, 1, 16)),
    "amazon-computers": ((0.003, 5e-3, 0.1), (0.07, 0.06), (1e-9, 1e-9), (70, 1, 5, 1, 64), (70, 5, 5, 3, 64)),
    "amazon-photo": ((0.001, 1e-3, 0.1), (0.1, 0.1), (1e-9, 1e-8), (30, 1, 5, 1, 64), (50, 1, 3, 1, 32)),
    "ogbn-arxiv": ((0.01, 0.0, 0.2), (0.02, 0.045), (1e-6, 1e-6), (50, 5, 5, 1, 128), (50, 5, 5, 1, 128)),
    "ogbn-products": ((0.003, 0.0, 0.5), (0.005, 0.005), (1e-7, 1e-7), (50, 5, 5, 1, 64), (50, 5, 5, 1, 64)),
}
"""Of the release's configuration: lr, decay, dropout; eps, mu (tran, ind); walks tran; walks ind."""


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_settings(dataset: str) -> None:
    (lr, decay, dropout), eps, mu, *walks = PUBLISHED[dataset]
    for form, recipe in enumerate((None, "tian2023_ind")):
        found = resolve("nosmog", dataset=dataset, split="cpf-lcc-20-30", recipe=recipe).config()
        assert (found["lr"], found["weight_decay"], found["model"]["dropout"]) == (lr, decay, dropout)
        assert (found["adv_eps"], found["similarity"]) == (eps[form], mu[form])
        named = ("walk_length", "num_walks", "window", "iterations", "dim")
        assert tuple(found[name] for name in named) == walks[form]
        assert (found["kd_weight"], found["adv_weight"], found["adv_steps"]) == (1.0, 0.1, 5)
        assert found["epochs"] == 200
        assert found["patience"] == (30 if dataset == "ogbn-products" else 50)
        alone = resolve("mlp_encodings", dataset=dataset, split="cpf-lcc-20-30", recipe=recipe).config()
        assert {key: found[key] for key in alone if key != "recipe"} == {k: alone[k] for k in alone if k != "recipe"}
