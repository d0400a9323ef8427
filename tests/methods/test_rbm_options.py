"""Options of the mixtures: reliable sampling, propagated labels, encodings; and the release's order and patience."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gkdbench.errors import UserError
from gkdbench.methods.mixture import _student, _targets
from gkdbench.nn.random import Randomness
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.testing.method_case import identical
from gkdbench.testing.problems import small_problem
from gkdbench.training.blocks.encodings import EncodingTable, places
from gkdbench.training.blocks.pairs import Reliability, without_loops
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.resolve import resolve

SMALL = {"hidden": 16, "layers": 2, "experts": 4, "k": 2}
SHORT = {"epochs": 3, "pretrain": 2}
WALKS = {"walk_length": 8, "num_walks": 1, "dim": 8}


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_options_train_together(bench: Any, variant: str) -> None:
    options = {"encodings": True, **WALKS, "adv_weight": 0.05, "similarity": 0.1}
    options |= {"reliable": True, "label_propagation": True}
    run = bench.run("rbm", "ind", model=SMALL, variant=variant, **options, **SHORT)
    assert {m["needs"] for m in run.outcome.models} == {"features+encodings"}
    assert (run.scored.arrays["terms/adversarial"] > 0).all()
    assert (run.scored.arrays["terms/similarity"] > 0).all()


def lessons(bench: Any, monkeypatch: pytest.MonkeyPatch, kept: torch.Tensor | None = None, **overrides: Any) -> Any:
    """The transfer term after its first draw, the view, and the teacher's logits."""
    method: Any = resolve("rbm", {"reliable": True, **overrides})
    view = bench.given("tran").view
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    if kept is not None:
        monkeypatch.setattr(Reliability, "sample", lambda self, edges, key: kept[: edges.num_edges])
    found = _targets.TeacherLoss(method, view, teacher)
    found.begin(1, Randomness(0), lambda: pytest.fail("the power moves from `update_from` on"))
    return found, view, teacher.logits.value


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_reliable_pairs_are_those_of_a_loop(bench: Any, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    kept = torch.rand(100_000, generator=torch.Generator().manual_seed(1)).round()
    term, view, target = lessons(bench, monkeypatch, kept, tau=0.7, variant=variant)
    logs = _targets.scaled if variant == "as_released" else lambda z, tau: F.log_softmax(z / tau, dim=1)
    items = torch.arange(5, 60, 3)
    logits = torch.randn(len(items), view.num_classes, generator=torch.Generator().manual_seed(2))
    graph, pairs = without_loops(view.inputs.graph), []
    for row, i in enumerate(items.tolist()):
        edges = range(int(graph.indptr[i]), int(graph.indptr[i + 1]))
        pairs += [(row, j) for j in [i, *(int(graph.index[e]) for e in edges if kept[e])]]
    p, q = logs(target, 0.7), logs(logits, 0.7)
    wanted = sum((p[j].exp() * (p[j] - q[row])).sum() for row, j in pairs) / len(pairs)
    torch.testing.assert_close(term(items, logits), wanted, rtol=1e-4, atol=1e-6)


def test_without_reliable_pairs_each_node_learns_from_itself(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    term, view, target = lessons(bench, monkeypatch, torch.zeros(100_000))
    items, logits = torch.arange(30), torch.randn(30, view.num_classes, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(term(items, logits), kl_to_teacher(logits, target[:30]), rtol=1e-4, atol=1e-6)


def test_the_sampler_works_from_the_first_epoch_and_learns_later(bench: Any) -> None:
    options = {"model": SMALL, "reliable": True, "momentum": 0.5, **SHORT}
    still = bench.run("rbm", update_from=6, **options)
    moved = bench.run("rbm", update_from=2, **options)
    assert still.outcome.extra["power"] == 1.0
    assert moved.outcome.extra["power"] != 1.0
    first = [run.scored.arrays["terms/loss"][0] for run in (still, bench.run("rbm", model=SMALL, **SHORT))]
    assert first[0] != first[1]


def test_labels_are_propagated_by_the_formula(bench: Any) -> None:
    """``(I + 0.1 P)^9 0.1 P Y``, by dense powers; the own label leaves a row in the corrected form (protocol trap
    17)."""
    view = bench.given("tran").view
    graph = view.inputs.graph  # with its loops, as in the official code
    mean = torch.zeros(graph.num_dst, graph.num_src, dtype=torch.float64)
    mean[graph.row.long(), graph.index.long()] = 1.0
    mean /= mean.sum(1, keepdim=True).clamp_min(1)
    labels = torch.zeros(graph.num_dst, view.num_classes, dtype=torch.float64)
    labels[view.train.position] = F.one_hot(view.labels, view.num_classes).double()
    walks = torch.linalg.matrix_power(torch.eye(len(mean)).double() + 0.1 * mean, 9) @ (0.1 * mean)
    wanted = walks @ labels
    got = _student.propagated_labels(view, own_label=True, key=0).of(view.inputs)
    torch.testing.assert_close(got.double(), wanted / (wanted.sum(1, keepdim=True) + 1e-6), rtol=1e-4, atol=1e-5)
    own = walks.diagonal()[view.train.position]
    assert (own > 0).any(), "walks come back"


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_a_node_does_not_read_its_own_label_but_in_the_release(bench: Any, variant: str) -> None:
    """docs/protocol.md, trap 17: another label for one training node, and its own row."""
    view = bench.given("tran").view
    method: Any = resolve("rbm", {"label_propagation": True, "variant": variant})
    (histogram,) = method._encoders(view, 0)
    before = histogram.of(view.inputs)
    changed = []
    for place, node in list(enumerate(view.train.position.tolist()))[:12]:
        was = int(histogram.known.value[place])
        histogram.known.value[place] = (was + 1) % view.num_classes
        changed.append(not torch.equal(histogram.of(view.inputs)[node], before[node]))
        histogram.known.value[place] = was
    assert any(changed) == (variant == "as_released")


def test_propagated_labels_stand_at_their_nodes_in_every_scene(bench: Any) -> None:
    """protocol trap 15: positions of the observed graph are none of the whole one; nodes keep their labels by id."""
    view, scenes = bench.given("ind").view, make_evaluation_graphs(small_problem("ind")).graphs
    known = _student.propagated_labels(view, own_label=True, key=0).known
    at = places(known.space, scenes["full"].space)
    assert (at != view.train.position).any(), "else the test says nothing"
    assert torch.equal(scenes["full"].space.ids[at], view.train.ids)
    labels = scenes["full"].features.new_zeros(len(scenes["full"].space), view.num_classes)
    labels[at] = F.one_hot(view.labels, view.num_classes).float()
    histogram = _student.propagated_labels(view, own_label=True, key=0).of(scenes["full"])
    near = without_loops(scenes["full"].graph)
    reached = torch.zeros(near.num_dst, dtype=torch.bool)
    reached[near.row[labels[near.index.long()].sum(1) > 0].long()] = True
    assert (histogram[reached].sum(1) > 0.9).all()


def test_reliable_sampling_refuses_several_labels_and_propagation_counts_those_that_are_there(bench: Any) -> None:
    view = bench.given("multilabel").view
    method: Any = resolve("rbm", {"reliable": True})
    assert "use reliable = false" in method.why_one_label()
    with pytest.raises(UserError, match="use reliable = false"):
        _targets.TeacherLoss(method, view, None)  # type: ignore[arg-type]
    assert resolve("rbm", {}).why_one_label() == ""
    labels = view.labels.clone()
    labels[:, 0] = torch.nan  # unknown: counts for nothing
    histogram = _student.propagated_labels(dataclasses.replace(view, labels=labels), own_label=True, key=0)
    counted = histogram.of(view.inputs)
    assert (counted[:, 0] == 0).all() and counted[:, 1:].sum() > 0


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_the_release_shares_transductive_encodings_between_seeds(bench: Any, variant: str) -> None:
    """docs/protocol.md, trap 18."""
    method: Any = resolve("rbm", {"encodings": True, "variant": variant, **WALKS})
    same = {}
    for setting in ("tran", "ind"):
        view = bench.given(setting).view
        first, second = (
            next(e for e in method._encoders(view, seed) if isinstance(e, EncodingTable)) for seed in (1, 2)
        )
        same[setting] = torch.equal(first.observed.value, second.observed.value)
    assert same == {"tran": variant == "as_released", "ind": False}


def test_batches_come_in_order_in_the_release(bench: Any) -> None:
    view = bench.given("tran").view
    method: Any = resolve("rbm", {"batch_size": 50})
    count = len(view.items)
    released = torch.cat([batch.observed for batch in method._apart(view)])
    assert torch.equal(released, torch.arange(count))
    model = _student.build(method.student(), view, seed=0)
    shuffled = torch.cat([batch.observed for batch in method._together(view, model)])
    assert not torch.equal(shuffled, torch.arange(count))
    assert torch.equal(shuffled.sort().values, torch.arange(count))


def test_patience_runs_before_the_switch_in_the_release_only(bench: Any) -> None:
    options = {"model": SMALL, "pretrain": 12, "epochs": 1, "patience": 3, "lr": 1e-9}
    assert bench.run("rbm", variant="as_released", **options).outcome.epochs < 12
    assert bench.run("rbm", **options).outcome.epochs == 13


def test_options_that_are_off_change_nothing(bench: Any) -> None:
    plain = bench.final("rbm", model=SMALL, **SHORT)
    assert identical(plain, bench.final("rbm", model=SMALL, power=2.0, momentum=0.1, update_from=1, **SHORT))
    assert not identical(plain, bench.final("rbm", model=SMALL, reliable=True, **SHORT))
