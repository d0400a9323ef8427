"""AdaGMLP: boosting against its formula, parts, masks, its limits, what its release does otherwise, its settings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import SparseFeatures
from support.pair_loops import CLASSES, NODES, kl, random

from gkdbench.errors import UserError
from gkdbench.methods.gnn_to_mlp import adagmlp
from gkdbench.nn.matching import match_macs
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.mlps import MLPs, MLPsConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.models import backbone_config, build
from gkdbench.training.resolve import recipes, resolve

STILL = {"hidden": 8, "layers": 2, "dropout": 0.0, "members": 2}


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_row_kl_is_that_of_a_loop(tau: float) -> None:
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1).requires_grad_()
    got = adagmlp.row_kl(student, teacher, tau=tau)
    wanted = [kl((teacher[i] / tau).softmax(0), (student[i] / tau).softmax(0)) for i in range(NODES)]
    torch.testing.assert_close(got, torch.stack(wanted))
    torch.testing.assert_close(got.mean(), kl_to_teacher(student, teacher, tau=tau))
    weight = torch.rand(NODES, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: (weight * adagmlp.row_kl(s, teacher, tau=tau)).sum(), (student,))


@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_boosting_is_the_formula(beta: float) -> None:
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1)
    weight = torch.rand(NODES, dtype=torch.float64)
    weight = weight / weight.sum()
    error = [1 - math.exp(-beta * kl(teacher[i].softmax(0), student[i].softmax(0)).item()) for i in range(NODES)]
    mean = sum(w * e for w, e in zip(weight.tolist(), error, strict=True))
    alpha = max(math.log((1 - mean) / mean + 1e-16), 1e-16)
    wanted = np.array([w * math.exp(alpha * e) for w, e in zip(weight.tolist(), error, strict=True)])
    got, got_alpha = adagmlp.boosted(student, teacher, weight, beta=beta)
    assert got_alpha.item() == pytest.approx(alpha)
    np.testing.assert_allclose(got, wanted / wanted.sum())
    hard = int(np.argmax(error))
    assert got[hard] / weight[hard] >= got.div(weight).max() - 1e-12


def test_a_perfect_and_a_hopeless_member_have_finite_weights() -> None:
    logits, even = random(NODES, CLASSES), torch.full((NODES,), 1 / NODES, dtype=torch.float64)
    weight, alpha = adagmlp.boosted(logits, logits, even, beta=1.0)
    torch.testing.assert_close(weight, even)
    assert 30 < alpha < 40
    weight, alpha = adagmlp.boosted(-1e4 * logits, logits, even, beta=1.0)
    assert alpha == 1e-16
    assert weight.isfinite().all()


def test_the_answer_is_the_weighted_mean_of_probabilities() -> None:
    model = MLPsConfig(members=3, hidden=5).build(4, CLASSES, Randomness(0)).eval()
    assert isinstance(model, MLPs)
    model.alpha.copy_(torch.tensor([0.5, 0.5, 0.0]))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    wanted = 0.5 * model.member(0)(x).softmax(1) + 0.5 * model.member(1)(x).softmax(1)
    torch.testing.assert_close(model(x).exp(), wanted)


def test_members_differ_in_weights_and_in_every_steps_dropout() -> None:
    model = MLPsConfig(members=2, hidden=64).build(4, CLASSES, Randomness(0))
    assert isinstance(model, MLPs)
    alone = MLPConfig(hidden=64).build(4, CLASSES, Randomness(0))
    assert identical(model.member(0).state_dict(), alone.state_dict())
    assert not torch.equal(model.member(0).linears[0].weight, model.member(1).linears[0].weight)  # type: ignore[arg-type]
    x, answers = torch.ones(3, 4), []
    for step in (1, 2):
        model.randomness.step = step
        answers.append(model.member_trace(0, x).logits)
    assert not torch.equal(*answers)


def objective(bench: Any, **overrides: Any) -> Any:
    method: Any = small_method("adagmlp", {"model": STILL, **overrides}, epochs=1)
    view = bench.given("tran").view
    model = build(backbone_config("mlps", method.model), view, seed=0)
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    return adagmlp._Objective(method, view, teacher, model)  # type: ignore[arg-type]


@pytest.mark.parametrize(("variant", "members", "sizes"), [("corrected", 7, {8, 9}), ("as_released", 7, {8})])
def test_parts_are_disjoint_and_only_the_release_drops_some(
    bench: Any, variant: str, members: int, sizes: set[int]
) -> None:
    """60 labelled nodes in 7 parts; a permutation composed with itself is still one."""
    parts = objective(bench, variant=variant)._parts(members)
    assert {len(part) for part in parts} == sizes
    places = torch.cat(parts).tolist()
    assert len(set(places)) == len(places) == (60 if variant == "corrected" else 56)


def test_node_weights_go_on_in_the_release_and_where_asked(bench: Any) -> None:
    """The same parameters, asked twice: with weights that start equal in every epoch the KL is the same again."""
    for variant, persist, same in (
        ("corrected", False, True),
        ("corrected", True, False),
        ("as_released", False, False),
    ):
        epoch = objective(bench, variant=variant, persist=persist, mask=0.0)
        first = (epoch(), epoch.terms["kl"])[1]
        second = (epoch(), epoch.terms["kl"])[1]
        assert (first == second) == same
        assert epoch._weight.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_loss_is_the_mean_over_members_of_the_published_sum(bench: Any) -> None:
    epoch = objective(bench, label_weight=0.3, tau=0.7, beta=2.0, mask=0.0)
    view, model, teacher = epoch._view, epoch._model, epoch._teacher
    weight, wanted, alphas = torch.full((210,), 1 / 210), torch.zeros(()), []
    for k, part in enumerate(epoch._parts(2)):
        logits = model.member(k)(view.inputs.features)
        ce = torch.nn.functional.cross_entropy(logits[view.train.position[part]], view.labels[part])
        wanted = wanted + 0.3 * ce + 0.7 * (weight * adagmlp.row_kl(logits, teacher, tau=0.7)).sum()
        weight, alpha = adagmlp.boosted(logits, teacher, weight, beta=2.0)
        alphas.append(alpha)
    torch.testing.assert_close(epoch(), wanted / 2)
    torch.testing.assert_close(model.alpha, torch.stack(alphas) / sum(alphas))


def test_terms_add_up_and_masks_are_what_switches_alignment_on(bench: Any) -> None:
    arrays = bench.run("adagmlp", model=STILL, mask=0.2).scored.arrays
    names = ("ce", "kl", "align_logits", "align_hidden")
    assert all((arrays[f"terms/{name}"] > 0).all() for name in names)
    np.testing.assert_allclose(sum(arrays[f"terms/{name}"] for name in names), arrays["terms/loss"], rtol=1e-5)
    assert "terms/align_logits" not in bench.run("adagmlp", model=STILL, mask=0.0).scored.arrays


def test_rows_are_scaled_to_one_in_the_release_alone(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    sparse = adagmlp.scaled_to_one(SparseFeatures.from_dense(dense))
    assert isinstance(sparse, SparseFeatures)
    for got in (adagmlp.scaled_to_one(dense), sparse.dense()):
        torch.testing.assert_close(got, wanted)
    calls: list[int] = []
    monkeypatch.setattr(adagmlp, "scaled_to_one", lambda x: calls.append(1) or x)  # type: ignore[func-returns-value]
    for variant, count in (("corrected", 0), ("as_released", 2)):
        calls.clear()
        objective(bench, variant=variant, mask=0.1)()
        assert len(calls) == count


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_one_member_with_all_weight_on_labels_is_the_mlp(bench: Any, setting: str) -> None:
    one = {"hidden": 8, "layers": 2, "dropout": 0.3}
    student = bench.run("adagmlp", setting, label_weight=1.0, mask=0.0, model={**one, "members": 1})
    alone = bench.run("mlp", setting, batch_size=None, model=one, lr=0.01, weight_decay=5e-4)
    state = {name.removeprefix("members.0."): value for name, value in student.final["model"].items()}
    assert state.pop("alpha").tolist() == [1.0]
    assert identical(state, alone.final["model"])
    taught = bench.final("adagmlp", setting, label_weight=0.9, mask=0.0, model={**one, "members": 1})
    assert not torch.equal(taught["members.0.linears.0.weight"], student.final["model"]["members.0.linears.0.weight"])


def test_node_order_only_permutes_where_nothing_is_drawn_by_position(bench: Any) -> None:
    problem = bench.problem("tran")
    moved = renumbered(problem, np.random.default_rng(2).permutation(210))
    for variant in ("corrected", "as_released"):
        overrides = {"model": STILL | {"members": 1}, "mask": 0.0, "variant": variant}
        method = small_method("adagmlp", overrides, epochs=4, quiet=True)
        first, second = (bench.workshop.run(method, where, quiet=True).final["model"] for where in (problem, moved))
        assert relative_gap(first, second) < 1e-3


def by_hand(bench: Any, run: Any, members: list[int]) -> dict[str, float]:
    """Accuracy per reported setting, from the selected weights and the full data, in nodes' own ids."""
    problem = bench.problem("ind")
    method: Any = resolve("adagmlp", {"model": STILL})
    config = backbone_config("mlps", method.model)
    model = config.build(problem.task.num_features, problem.task.num_classes, Randomness(0)).eval()
    model.load_state_dict(run.final["model"])
    assert isinstance(model, MLPs)
    alpha = model.alpha if len(members) > 1 else torch.ones(2)
    answers = [alpha[k] * model.member(k)(problem.task.features).softmax(1) for k in members]
    right = sum(answers).argmax(1) == problem.task.labels
    return {"ind": right[problem.split.unseen].float().mean().item()}


@pytest.mark.parametrize(("variant", "members"), [("corrected", [0, 1]), ("as_released", [1])])
def test_unseen_nodes_are_answered_by_all_members_but_in_the_release(
    bench: Any, variant: str, members: list[int]
) -> None:
    """Protocol trap 16: the inductive score, once more by hand; one epoch, so that the final state is the selected
    one."""
    run = bench.run("adagmlp", "ind", variant=variant, model=STILL, epochs=1)
    got = run.scored.models[0].scores
    assert got["ind"].value == pytest.approx(by_hand(bench, run, members)["ind"])


def test_the_release_answers_unseen_nodes_otherwise(bench: Any) -> None:
    view = bench.given("ind").view
    model = MLPsConfig(**STILL).build(view.num_features, view.num_classes, Randomness(0)).eval()  # type: ignore[arg-type]
    assert isinstance(model, MLPs)
    whole = Predictor(model)
    released = adagmlp.SecondOnUnseen(whole, model, view.inputs.space.name)
    full = bench.later("ind", "full")
    assert torch.equal(released(view.inputs), whole(view.inputs))
    assert torch.equal(released(full), model.member(1)(full.features))
    assert torch.equal(released(full, full.everything.take(torch.tensor([5, 3]))), released(full)[[5, 3]])


def test_seeds_of_the_release_drift() -> None:
    assert [adagmlp.drifted_seed(run) for run in range(5)] == [52, 62, 82, 112, 152]


def test_batches_are_refused(bench: Any) -> None:
    method = resolve("adagmlp", {"batch_size": 10})
    outcome = bench.workshop.run(method, bench.problem("tran")).outcome
    assert outcome.status == "error"
    assert "batch_size: expected None" in outcome.reason
    with pytest.raises(UserError):
        resolve("adagmlp", {"beta": 0.0})


def test_the_mac_matched_mlp_beside_it() -> None:
    target = MLPsConfig(members=3, hidden=64, layers=3)
    macs = target.macs(1433, 7, 1, 0, 18)
    found = match_macs(macs, MLPConfig(layers=3), 18, 7)
    assert found.macs(1433, 7, 1, 0, 18) == pytest.approx(macs, rel=0.02)


PUBLISHED = {
    ("cora", "gcn"): (0.1, 0.4, 3, 1.0, 0.9, 0.1),
    ("cora", "sage"): (0.5, 0.9, 2, 4.0, 0.0, 0.0),
    ("cora", "gat"): (0.7, 0.6, 2, 2.0, 0.1, 0.1),
    ("citeseer", "gat"): (0.7, 0.01, 3, 4.0, 0.9, 0.0),
    ("pubmed", "gat"): (0.2, 0.05, 3, 1.0, 0.7, 0.1),
    ("amazon-photo", "sage"): (0.2, 0.1, 2, 0.5, 0.5, 0.0),
    ("coauthor-cs", "sage"): (0.1, 0.9, 2, 2.0, 0.9, 0.0),
    ("coauthor-physics", "gcn"): (0.2, 0.05, 2, 0.5, 0.1, 0.0),
    ("ogbn-arxiv", "sage"): (0.7, 0.1, 2, 2.0, 0.0, 0.0),
}
"""(data set, teacher): lambda, tau, K, beta, lambda_a, masked share."""


@pytest.mark.parametrize("cell", PUBLISHED, ids=" ".join)
def test_published_settings_at_the_width_that_ran(cell: tuple[str, str]) -> None:
    """docs/protocol.md, trap 26: the release's students are 64 wide, whatever its command lines say."""
    dataset, teacher = cell
    found: Any = resolve("adagmlp", {"teacher": teacher}, dataset=dataset, split="cpf-lcc-20-30")
    model = found.model
    got = (found.label_weight, found.tau, model["members"], found.beta, found.align_logits, found.mask)
    assert got == PUBLISHED[cell]
    assert (model["hidden"], found.recipe) == (64, f"lu2024_adagmlp_tran_{teacher}")
    inductive: Any = resolve("adagmlp", {"teacher": teacher}, dataset=dataset, split="cpf-lcc-20-30-ind20")
    assert inductive.recipe is None


def test_all_cells_of_the_release_are_there() -> None:
    assert recipes("adagmlp") == [f"lu2024_adagmlp_tran_{teacher}" for teacher in ("gat", "gcn", "sage")]
    sets = ("cora", "citeseer", "pubmed", "amazon-photo", "coauthor-cs", "coauthor-physics", "ogbn-arxiv")
    for teacher in ("gcn", "sage", "gat"):
        assert all(resolve("adagmlp", {"teacher": teacher}, dataset=d, split="planetoid-public").recipe for d in sets)


def test_several_labels_are_mixed_label_by_label(bench: Any) -> None:
    """The answer is the logit of the mean of the members' sigmoids, wherever the model is built."""
    view = bench.given("multilabel").view
    model = build(backbone_config("mlps", {"members": 3, "hidden": 8}), view, seed=0).eval()
    assert isinstance(model, MLPs)
    model.alpha.copy_(torch.tensor([0.5, 0.3, 0.2]))
    each = torch.stack([model.member_trace(k, view.inputs.features).logits.sigmoid() for k in range(3)])
    mean = (model.alpha[:, None, None] * each).sum(dim=0)
    assert torch.allclose(model(view.inputs.features).sigmoid(), mean, atol=1e-6)
