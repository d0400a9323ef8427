"""KRD: its limits without transfer and without sampling, its schedule, its release, its published settings."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.errors import UserError
from gkdbench.methods.gnn_to_mlp import krd
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method
from gkdbench.training.blocks.pairs import Reliability
from gkdbench.training.node_pairs import train_on_pairs
from gkdbench.training.resolve import recipes, resolve

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_with_all_weight_on_labels_it_is_the_mlp(bench: Any, setting: str) -> None:
    options = {"model": {**STILL, "dropout": 0.5}}
    student = bench.run("krd", setting, label_weight=1.0, sample_from=2, **options)
    alone = bench.run("mlp", setting, batch_size=None, lr=0.01, weight_decay=5e-4, **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])
    more = bench.run("krd", setting, label_weight=0.5, sample_from=2, **options)
    assert not identical(more.final["model"], alone.final["model"])


def begun(bench: Any, epochs: int, **overrides: Any) -> list[tuple[int, float, torch.Tensor]]:
    """(epoch, power, pairs of each node [N]) of an untrained student whose answers are fixed noise."""
    method: Any = resolve("krd", {"model": STILL, **overrides})
    view = bench.given("tran").view
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    pairs = krd._Pairs(method, view, teacher)
    randomness = Randomness(0)
    logits = torch.randn(len(view.items), 3, generator=torch.Generator().manual_seed(0))
    found = []
    for epoch in range(1, epochs + 1):
        pairs.begin(epoch, randomness, lambda: logits)
        power = pairs._reliability.power if pairs._reliability else method.power
        found.append((epoch, power, pairs._asked[:, -1].clone()))
        randomness.step += 1
    return found


def test_pairs_are_drawn_from_the_given_epoch_on(bench: Any) -> None:
    every = begun(bench, 6, sample_from=3)
    degree = every[0][2]
    assert torch.equal(every[1][2], degree)
    for (_, _, before), (_, _, after) in pairwise(every[1:]):
        assert not torch.equal(before, after)
        assert (after <= degree).all()
        assert (after >= 1).all(), "a node always learns from its own teacher row"


def test_draws_and_powers_wait_for_their_epoch(bench: Any) -> None:
    found = begun(bench, 7, sample_from=2, sample_every=3, momentum=0.5)
    changed = [epoch for (_, _, a), (epoch, _, b) in pairwise(found) if not torch.equal(a, b)]
    moved = [epoch for (_, a, _), (epoch, b, _) in pairwise(found) if a != b]
    assert changed == [2, 5]
    assert moved == [2, 5]


def test_sampling_can_start_at_once_with_the_first_power(bench: Any) -> None:
    (first,) = begun(bench, 1, sample_from=1, momentum=1.0)
    (whole,) = begun(bench, 1)
    assert first[1] == 1.0
    assert 0 < (whole[2] - first[2]).sum() < whole[2].sum()


def test_seeds_of_the_release() -> None:
    assert [krd.drifted_seed(run) for run in range(5)] == [42, 43, 45, 48, 52]


def test_the_release_starts_from_its_own_seed_and_counts_empty_bins(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    build = train_on_pairs

    def train(view: Any, ctx: Any, *given: Any, **options: Any) -> Any:
        seen["seed"] = ctx.seed
        return build(view, ctx, *given, **options)

    def rated(*given: Any, **options: Any) -> Reliability:
        seen["empty"] = options["empty_bins"]
        return Reliability(*given, **options)

    monkeypatch.setattr(krd, "train_on_pairs", train)
    monkeypatch.setattr(krd, "Reliability", rated)
    for variant, wanted in (("corrected", (2, False)), ("as_released", (45, True))):
        bench.run("krd", seed=2, variant=variant, sample_from=1, epochs=2, model=STILL)
        assert (seen["seed"], seen["empty"]) == wanted
    ties = {variant: resolve("krd", {"variant": variant}).selection_rule() for variant in ("corrected", "as_released")}
    assert ties == {"corrected": "loss", "as_released": "later"}


def test_node_order_permutes_predictions_only_without_draws(bench: Any) -> None:
    problem = bench.problem("tran")
    moved = renumbered(problem, np.random.default_rng(2).permutation(problem.task.num_nodes))
    method = small_method("krd", {"sample_from": 50, "label_weight": 0.3}, epochs=4, quiet=True)
    first, second = (
        bench.workshop.run(method, p, stop_early=False, quiet=True).final["model"] for p in (problem, moved)
    )
    assert relative_gap(first, second) < 1e-3


def test_terms_add_up_and_diagnostics_are_noted(bench: Any) -> None:
    run = bench.run("krd", label_weight=0.3, sample_from=2, model=STILL)
    arrays = run.scored.arrays
    assert (arrays["terms/kl"] > 0).all()
    np.testing.assert_allclose(arrays["terms/kl"] + arrays["terms/ce"], arrays["terms/loss"], rtol=1e-5)
    extra = run.outcome.extra
    assert set(extra) == {"teacher_agreement", "power", "mean_rho", "kept_edges"}
    assert 0 < extra["kept_edges"] < 1
    assert "ce" not in {name.removeprefix("terms/") for name in bench.run("krd", model=STILL).scored.arrays}


def test_a_student_that_does_not_follow_is_flagged(bench: Any) -> None:
    lost = bench.run("krd", lr=1e-6, epochs=1, model=STILL)
    assert lost.outcome.extra["teacher_agreement"] < 0.75
    assert "unstable" in lost.outcome.flags
    followed = bench.run("krd", lr=0.01, epochs=150, patience=None, model=STILL)
    assert followed.outcome.extra["teacher_agreement"] >= 0.75
    assert "unstable" not in followed.outcome.flags


def test_mini_batches_are_refused(bench: Any) -> None:
    method = dataclasses.replace(small_method("krd", {}, epochs=1), batch_size=32)  # type: ignore[call-arg]
    outcome = bench.workshop.run(method, bench.problem("tran")).outcome
    assert outcome.status == "error"
    assert UserError.__name__ in (outcome.reason or "")
    assert "batch_size: expected None, got 32" in (outcome.reason or "")


PUBLISHED = {
    ("cora", "planetoid-public", "gcn"): ("tran", 0.01, 5e-4, 0.5, 0.8, 3, 1024, 0.3, 0.5),
    ("cora", "planetoid-ind", "sage"): ("ind", 0.005, 1e-3, 0.0, 0.8, 2, 512, 0.6, 0.5),
    ("citeseer", "planetoid-public", "gat"): ("tran", 0.01, 5e-4, 0.0, 0.9, 2, 512, 0.3, 0.6),
    ("pubmed", "planetoid-ind", "gcn"): ("ind", 0.01, 1e-3, 0.0, 1.2, 3, 64, 0.5, 0.6),
    ("coauthor-cs", "cpf-lcc-20-30-ind20", "gat"): ("ind", 0.005, 1e-3, 0.0, 1.2, 2, 1024, 0.4, 0.3),
    ("coauthor-physics", "cpf-lcc-20-30", "sage"): ("tran", 0.01, 1e-3, 0.0, 0.9, 2, 1024, 0.4, 0.3),
    ("amazon-photo", "cpf-lcc-20-30", "gcn"): ("tran", 0.01, 0.0, 0.4, 0.8, 2, 1024, 0.4, 0.4),
    ("amazon-photo", "cpf-lcc-20-30-ind20", "sage"): ("ind", 0.005, 1e-3, 0.4, 1.2, 3, 512, 0.5, 0.4),
    ("ogbn-arxiv", "ogb", "gat"): ("tran", 0.005, 0.0, 0.2, 0.8, 3, 2048, 0.2, 0.5),
}
"""(data set, split, teacher): setting, lr, decay, lambda, tau, layers, width, dropout of student and teacher."""


@pytest.mark.parametrize("cell", PUBLISHED, ids=" ".join)
def test_published_settings_are_the_defaults_where_setting_and_teacher_fit(cell: tuple[str, str, str]) -> None:
    dataset, split, teacher = cell
    setting, lr, decay, weight, tau, layers, hidden, dropout, of_teacher = PUBLISHED[cell]
    found: Any = resolve("krd", {"teacher": teacher}, dataset=dataset, split=split)
    assert found.recipe == f"wu2023_krd_{setting}_{teacher}"
    assert (found.teacher, found.lr, found.weight_decay, found.label_weight, found.tau) == (
        teacher,
        lr,
        decay,
        weight,
        tau,
    )
    model = found.model
    assert (model["layers"], model["hidden"], model["dropout"]) == (layers, hidden, dropout)
    assert (found.power, found.bins, found.sample_from, found.epochs, found.patience) == (1.0, 50, 50, 500, 50)
    slow = dataset == "ogbn-arxiv"
    assert (found.momentum, found.sample_every, model["norm"]) == ((0.9, 10, "batch") if slow else (0.99, 1, "none"))
    taught: Any = resolve("teacher", recipe=found.recipe, dataset=dataset, split=split)
    width = taught.model.get("hidden") or taught.model["heads"] * taught.model["head_width"]
    assert (taught.backbone, taught.model["layers"], width) == (teacher, layers, hidden)
    assert (taught.model["dropout"], taught.weight_decay, taught.lr) == (of_teacher, decay, 0.01)


def test_all_cells_of_the_release_are_there() -> None:
    names = [f"wu2023_krd_{setting}_{teacher}" for setting in ("ind", "tran") for teacher in ("gat", "gcn", "sage")]
    assert recipes("krd") == names
    sets = ("cora", "citeseer", "pubmed", "coauthor-cs", "coauthor-physics", "amazon-photo", "ogbn-arxiv")
    assert set(names) <= set(recipes("teacher"))
    for name in names:
        _, _, setting, teacher = name.split("_")
        split = {"tran": "planetoid-public", "ind": "planetoid-ind"}[setting]
        for dataset in sets:
            found: Any = resolve("krd", {"teacher": teacher}, dataset=dataset, split=split)
            assert (found.recipe, found.teacher) == (name, teacher)


def test_without_a_fitting_recipe_the_defaults_stand() -> None:
    for overrides, dataset, split in (
        ({}, "amazon-computers", "cpf-lcc-20-30"),
        ({"teacher": "appnp"}, "cora", "planetoid-public"),
        ({"recipe": None}, "cora", "planetoid-public"),
        ({}, "cora", None),
    ):
        found: Any = resolve("krd", overrides, dataset=dataset, split=split)
        assert (found.recipe, found.model["hidden"], found.tau) == (None, 128, 1.0)
    chosen: Any = resolve("krd", {"recipe": "wu2023_krd_ind_gat"}, dataset="cora", split="planetoid-public")
    assert (chosen.recipe, chosen.teacher, chosen.tau) == ("wu2023_krd_ind_gat", "gat", 1.2)
    own: Any = resolve("krd", {"tau": 3.0, "model": {"hidden": 8}}, dataset="cora", split="planetoid-public")
    assert (own.tau, own.model["hidden"], own.model["layers"]) == (3.0, 8, 3)
