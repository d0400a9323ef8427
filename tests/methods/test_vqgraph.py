"""VQGraph: the codebook, what is reconstructed, the KL of tokens and its released form, limits without transfer."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.pair_loops import graph, random

from gkdbench.methods.gnn_to_mlp import vqgraph, vqgraph_teacher
from gkdbench.nn import vq
from gkdbench.nn.random import Randomness
from gkdbench.nn.vq import VQ, VQConfig, cosine_scores, distance_scores
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.models import build
from gkdbench.training.resolve import resolve

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}
SMALL = {"codes": 16}


def tokenizer() -> tuple[VQ, torch.Tensor]:
    model = VQConfig(codes=8, hidden=6).build(5, 3, Randomness(0))
    return model, random(graph().num_dst, 5).float()


def test_scores_are_cosines_and_negative_distances() -> None:
    x, codes = random(4, 3), random(6, 3, seed=1)
    for i in range(4):
        for k in range(6):
            cosine = x[i] @ codes[k] / (x[i].norm() * codes[k].norm())
            assert cosine_scores(x, codes)[i, k].item() == pytest.approx(cosine.item())
            assert distance_scores(x, codes)[i, k].item() == pytest.approx(-(x[i] - codes[k]).norm().item())


def test_nodes_take_the_nearest_code_and_gradients_pass_by_it() -> None:
    model, x = tokenizer()
    tokens = model.tokens(x, graph())
    nearest = cosine_scores(tokens.h, model.codes).argmax(1)
    assert torch.equal(tokens.code, nearest)
    torch.testing.assert_close(tokens.quantised, model.codes[nearest])
    up = random(*tokens.h.shape, seed=3).float()
    through, direct = (
        torch.autograd.grad((up * v).sum(), tokens.h, retain_graph=True)[0] for v in (tokens.quantised, tokens.h)
    )
    assert torch.equal(through, direct)


@pytest.mark.parametrize(("rows", "count"), [(40, 50), (3, 50), (40, 7), (9, 7)])
def test_distances_have_the_gradient_of_torch_to_the_bit(rows: int, count: int) -> None:
    x, codes, up = random(rows, 6).float(), random(count, 6, seed=1).float(), random(rows, count, seed=2).float()
    codes[0] = x[0]  # at distance 0
    ours, theirs = (
        torch.autograd.grad((f(leaf) * up).sum(), leaf)[0]
        for f, leaf in (
            (lambda z: distance_scores(z, codes), x.clone().requires_grad_()),
            (lambda z: -torch.cdist(z, codes), x.clone().requires_grad_()),
        )
    )
    assert torch.equal(ours, theirs) and ours.abs().sum() > 0


def test_the_nearest_codes_are_sought_again_when_rows_or_codes_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = tokenizer()
    sought: list[int] = []
    monkeypatch.setattr(vq, "cosine_scores", lambda h, codes: sought.append(1) or cosine_scores(h, codes))
    tokens = model.tokens(x, graph())
    assert torch.equal(model.tokens(x, graph()).code, tokens.code) and len(sought) == 1
    model.update_codes(tokens, 0.0)
    model.codes.copy_(model.codes.roll(1, 0))
    rolled = model.tokens(x, graph())
    assert torch.equal(rolled.code, cosine_scores(rolled.h, model.codes).argmax(1)) and len(sought) == 2
    assert not torch.equal(rolled.code, tokens.code)
    other = model.tokens(-x, graph())
    assert torch.equal(other.code, cosine_scores(other.h, model.codes).argmax(1)) and len(sought) == 3


def test_codes_move_towards_their_nodes_and_idle_ones_stay() -> None:
    model, x = tokenizer()
    tokens, before = model.tokens(x, graph()), model.codes.clone()
    model.update_codes(tokens, 0.8)
    h = tokens.h.detach()
    for k in range(8):
        mine = h[tokens.code == k]
        wanted = before[k]
        if len(mine):
            wanted = 0.8 * before[k] + 0.2 * F.normalize(F.normalize(mine, dim=1).mean(0), dim=0)
        torch.testing.assert_close(model.codes[k], wanted)
    assert not torch.equal(model.codes, before)


def test_a_forward_in_training_leaves_the_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = tokenizer()
    before = model.codes.clone()
    model.train()(x, graph())
    assert torch.equal(model.codes, before)


def test_the_dense_reconstruction_is_that_of_a_loop() -> None:
    edges, q = graph(), random(graph().num_dst, 4)
    linked = torch.zeros(edges.num_dst, edges.num_dst, dtype=torch.float64)
    for i, j in zip(edges.row.tolist(), edges.index.tolist(), strict=True):
        linked[i, j] = 1
    products = q @ q.T
    scaled = (products - products.min()) / (products.max() - products.min())
    wanted = ((scaled - linked) ** 2).mean().sqrt()
    assert vqgraph_teacher.dense_reconstruction(q, edges).item() == pytest.approx(wanted.item())


def test_sampled_pairs_are_edges_and_others_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    edges, q = graph(), random(graph().num_dst, 4)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def noting(products: torch.Tensor, linked: torch.Tensor) -> torch.Tensor:
        seen.append((products, linked))
        return products.sum()

    monkeypatch.setattr(vqgraph_teacher, "_distance", noting)
    vqgraph_teacher.sampled_reconstruction(q, edges, 1)
    products, linked = seen[0]
    count = int(linked.sum())
    assert count == edges.num_edges
    torch.testing.assert_close(products[:count], (q[edges.row.long()] * q[edges.index.long()]).sum(1))
    far = {
        (q[i] @ q[j]).item()
        for i in range(len(q))
        for j in range(len(q))
        if not (edges.index[edges.row == i] == j).any()
    }
    assert 0 < len(linked) - count <= edges.num_edges
    assert all(min(abs(value - f) for f in far) < 1e-9 for value in products[count:].tolist())
    vqgraph_teacher.sampled_reconstruction(q, edges, 2)
    assert not torch.equal(seen[0][0][count:], seen[1][0][edges.num_edges :])


@pytest.mark.parametrize(("variant", "dense"), [("corrected", 0), ("as_released", 1)])
def test_only_the_release_builds_a_dense_adjacency(
    bench: Any, monkeypatch: pytest.MonkeyPatch, variant: str, dense: int
) -> None:
    calls: list[int] = []
    whole = vqgraph_teacher.dense_reconstruction

    def counting(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return whole(*arguments)

    monkeypatch.setattr(vqgraph_teacher, "dense_reconstruction", counting)
    bench.run("vqgraph_teacher", variant=variant, model=SMALL, epochs=1)
    assert len(calls) == dense


def test_terms_of_the_teacher_add_up_and_those_of_weight_zero_are_not_computed(bench: Any) -> None:
    run = bench.run("vqgraph_teacher", model=SMALL)
    names = ("ce", "nodes", "edges", "commitment")
    assert all((run.scored.arrays[f"terms/{name}"] > 0).all() for name in names)
    total = sum(run.scored.arrays[f"terms/{name}"] for name in names)
    np.testing.assert_allclose(total, run.scored.arrays["terms/loss"], rtol=1e-5)
    assert 1 <= run.outcome.extra["codes_used"] <= 16
    bare = bench.run("vqgraph_teacher", model=SMALL, node_weight=0.0, edge_weight=0.0, commitment=0.0)
    np.testing.assert_allclose(bare.scored.arrays["terms/ce"], bare.scored.arrays["terms/loss"])


def test_node_order_only_permutes_the_teacher_where_no_pairs_are_drawn(bench: Any) -> None:
    problem = bench.problem("tran")
    moved = renumbered(problem, np.random.default_rng(2).permutation(210))
    method = small_method("vqgraph_teacher", {"edge_weight": 0.0, "model": SMALL}, epochs=3, quiet=True)
    first, second = (bench.workshop.run(method, where, quiet=True).final["model"] for where in (problem, moved))
    assert relative_gap(first, second) < 1e-3


def gradient(loss: Any, scores: torch.Tensor) -> torch.Tensor:
    student = scores.clone().requires_grad_()
    return torch.autograd.grad(loss(student), student)[0].flatten()


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_released_tokens_pull_towards_the_uniform_distribution(tau: float) -> None:
    """protocol trap 5: with probabilities for log-probabilities a sharp target is forgotten; the true KL learns it."""
    student, teacher = tau * random(40, 50), tau * 8 * random(40, 50, seed=1)
    released = gradient(lambda s: vqgraph.released_token_loss(s, teacher, tau=tau), student)
    uniform = gradient(lambda s: kl_to_teacher(s, torch.zeros_like(teacher), tau=tau), student)
    true = gradient(lambda s: kl_to_teacher(s, teacher, tau=tau), student)
    assert F.cosine_similarity(released, uniform, dim=0) > 0.95
    assert F.cosine_similarity(true, uniform, dim=0) < 0.7
    p, log_q = (teacher / tau).softmax(1), (student / tau).log_softmax(1)
    wanted = tau**2 * (p.exp() * (p - log_q)).sum() / 40
    assert vqgraph.released_token_loss(student, teacher, tau=tau).item() == pytest.approx(wanted.item())


def test_the_released_gradient_is_larger_by_the_number_of_codes() -> None:
    """For targets that are nearly uniform, as cosines over 4 are."""
    student, teacher = random(40, 50), random(40, 50, seed=1).clamp(-1, 1)
    released = gradient(lambda s: vqgraph.released_token_loss(s, teacher, tau=4.0), student)
    true = gradient(lambda s: 16 * kl_to_teacher(s, teacher, tau=4.0), student)
    assert 40 < released.norm() / true.norm() * (F.cosine_similarity(released, true, dim=0) > 0) < 120


def objective(bench: Any, **overrides: Any) -> Any:
    method: Any = small_method("vqgraph", {"model": STILL, "token_weight": 0.1, **overrides}, epochs=1)
    view = bench.given("tran").view
    model = build(method.backbone_config(), view, seed=0)
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    return vqgraph._Objective(method, view, teacher, model)


@pytest.mark.parametrize("score", ["distance", "cosine"])
def test_both_sides_are_scored_alike_but_in_the_release(bench: Any, score: str) -> None:
    """A student whose code is the teacher's hidden layer has nothing to learn."""
    corrected, released = (objective(bench, score=score, variant=v) for v in ("corrected", "as_released"))
    every = torch.arange(210)
    assert corrected._tokens(corrected._h, every).item() == pytest.approx(0, abs=1e-5)
    own = released._tokens(released._h, every).item()
    wanted = vqgraph.released_token_loss(
        distance_scores(released._h, released._codes), cosine_scores(released._h, released._codes), tau=4.0
    )
    assert own == pytest.approx(wanted.item())
    assert own > 1


def test_the_loss_is_the_published_sum(bench: Any) -> None:
    made = objective(bench, label_weight=0.3, tau=2.0)
    view, every = made._view, torch.arange(210)
    got = made(vqgraph._Batch(every, torch.arange(60), ("tokens", "kl", "ce")))
    trace = made._model.trace(view.inputs.features)
    own = made._map(trace.hidden[-1].relu())
    tokens = 4 * kl_to_teacher(distance_scores(own, made._codes), distance_scores(made._h, made._codes), tau=2.0)
    ce = F.cross_entropy(trace.logits[view.train.position], view.labels)
    wanted = 0.1 * tokens + 0.7 * kl_to_teacher(trace.logits, made._logits) + 0.3 * ce
    torch.testing.assert_close(got, wanted)
    means = made.means()
    assert sum(means.values()) == pytest.approx(got.item(), rel=1e-5)
    assert means.keys() == {"tokens", "kl", "ce"}


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_scores_that_are_kept_change_no_bit(bench: Any, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """More codes than `FEW`, batches that leave a remainder of less than it."""
    options = {"model": STILL, "codes": 32, "token_weight": 0.1, "variant": variant, "batch_size": 63}
    kept = bench.final("vqgraph", "tran", **options)
    assert objective(bench, codes=32, variant=variant)._taught.shape == (210, 32)
    monkeypatch.setattr(vqgraph, "KEPT_SCORES", 0)
    assert objective(bench, codes=32, variant=variant)._taught is None
    assert identical(kept, bench.final("vqgraph", "tran", **options))


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_without_transfer_it_is_the_mlp(bench: Any, setting: str) -> None:
    options = {"model": STILL, "batch_size": 20, "lr": 0.01, "weight_decay": 5e-4}
    student = bench.final("vqgraph", setting, label_weight=1.0, token_weight=0.0, codes=16, **options)
    assert identical(student, bench.final("mlp", setting, **options))
    tokens = bench.final("vqgraph", setting, label_weight=1.0, token_weight=1.0, codes=16, **options)
    assert not identical(student, tokens)


def test_the_release_takes_three_passes_with_steps_of_their_own(bench: Any, adam_steps: Any) -> None:
    """210 nodes and 60 labels in batches of 40: 6 steps, or 5 + 1 + 5 without the remainders."""
    bench.workshop.teachers(small_method("vqgraph", {}, epochs=1), bench.problem("tran"))
    counts = []
    for variant in ("corrected", "as_released"):
        options = {"variant": variant, "model": STILL, "batch_size": 40, "epochs": 1, "codes": 16}
        bench.run("vqgraph", **options)
        before = adam_steps()
        bench.run("vqgraph", **options)
        counts.append(adam_steps() - before)
    assert counts == [6, 11]


def test_a_student_or_a_teacher_that_cannot_be_compared_is_refused(bench: Any) -> None:
    method = resolve("vqgraph", {"model": {"layers": 1}, "codes": 16, "epochs": 1})
    outcome = bench.workshop.run(method, bench.problem("tran")).outcome
    assert "give it two layers" in outcome.reason
    full = resolve("vqgraph_teacher", {"batch_size": 4, "model": SMALL})
    assert "batch_size: expected None" in bench.workshop.run(full, bench.problem("tran")).outcome.reason


def test_settings_are_glnns_and_the_teacher_is_a_tokenizer_of_the_same_form() -> None:
    for dataset in ("cora", "pubmed", "amazon-computers"):
        found: Any = resolve("vqgraph", dataset=dataset, split="cpf-lcc-20-30")
        other: Any = resolve("glnn", dataset=dataset, split="cpf-lcc-20-30")
        assert (found.lr, found.weight_decay, found.model) == (other.lr, other.weight_decay, other.model)
        assert (found.token_weight, found.tau, found.label_weight, found.codes) == (1e-8, 4.0, 0.0, 5000)
    for variant in ("corrected", "as_released"):
        need = resolve("vqgraph", {"variant": variant, "codes": 7}).requires()["teacher"]
        teacher: Any = resolve(need.method, need.overrides)
        assert (teacher.name, teacher.variant, teacher.model["codes"]) == ("vqgraph_teacher", variant, 7)
        assert (teacher.epochs, teacher.node_weight, teacher.edge_weight) == (100, 1e-3, 0.03)
        assert (teacher.commitment, teacher.decay) == (0.25, 0.8)
