"""Alignahead: who follows which layer, what the release does otherwise, and what is said about a run."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph, edge_log_probs, structure_kl

from gkdbench.errors import UserError
from gkdbench.methods.mutual import _alignment
from gkdbench.nn.model import Trace
from gkdbench.protocol.predictor import state_of
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.gradient_share import FLAG
from gkdbench.training.mutual import JointForward, build_peers
from gkdbench.training.resolve import resolve

SMALL: dict[str, Any] = {
    "backbone": "gcn",
    "model": {"hidden": 8, "layers": 4, "dropout": 0.0},
    "eval_every": 1,
    "patience": None,
}


def ring(nodes: int = 8) -> CSRGraph:
    """Every node has its two neighbours and the one after next as sources; self-loops too."""
    at = torch.arange(nodes)
    edges = torch.cat([torch.stack([(at + s) % nodes, at]) for s in (-1, 0, 1, 2)], 1)
    return CSRGraph.from_edge_index(edges[:, torch.argsort(edges[1] * nodes + edges[0])], nodes, False)


def features(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(8, 3, dtype=torch.float64, generator=generator) for _ in range(count))


def joint_of(students: list[tuple[torch.Tensor, ...]], turn: int | None = None) -> JointForward:
    """What the peers' loop would hand over for students of these hidden layers."""
    inputs: Any = type("Inputs", (), {"graph": ring(), "items": range(8)})
    traces = tuple(Trace(hidden[0][:, :2] * 1.0, hidden) for hidden in students)
    return JointForward(1, inputs, traces, torch.arange(4), torch.tensor([0, 1, 0, 1]), turn)


def objective(students: int, hidden: int = 3, **overrides: Any) -> Any:
    """The method's losses, for students of `hidden` hidden layers."""
    overrides = {"model": {**SMALL["model"], "layers": hidden + 1}, **overrides}
    method: Any = resolve("alignahead", {**SMALL, "students": students, **overrides})
    peers: Any = [type("Peer", (), {"model": torch.nn.Linear(1, 1)}) for _ in range(students)]
    alone: Any = method.alignment(peers, [], multi_label=False)
    for share in alone.shares:
        share.look = lambda *_: None
    return alone


FOLLOWED = {"ahead": [1, 2, 0], "behind": [2, 0, 1], "one-to-one": [0, 1, 2]}


@pytest.mark.parametrize("direction", FOLLOWED)
def test_each_layer_follows_the_layer_that_the_direction_names(direction: str) -> None:
    """A hand-made pair of three layers: the terms are those of the pairs written down above, and no other."""
    first, second = features(3, 0), features(3, 1)
    losses, readings = objective(2, direction=direction, kernel="laplace", sigma=2.0)(joint_of([first, second]))
    for peer, (own, other) in enumerate([(first, second), (second, first)]):
        for layer, followed in enumerate(FOLLOWED[direction]):
            wanted = structure_kl(ring(), own[layer], other[followed], kernel="laplace", sigma=2.0)
            assert readings[f"structure.peer{peer}.layer{layer + 1}"].item() == pytest.approx(wanted.item(), rel=1e-9)
    tasks, _ = objective(2, direction="none")(joint_of([first, second]))
    for peer in (0, 1):
        total = sum(float(readings[f"structure.peer{peer}.layer{layer}"]) for layer in (1, 2, 3))
        assert losses[peer].item() == pytest.approx(tasks[peer].item() + total, rel=1e-9)


def test_with_two_hidden_layers_ahead_and_behind_are_the_same() -> None:
    pair = joint_of([features(2, 0), features(2, 1)])
    ahead, behind = (objective(2, hidden=2, direction=d)(pair)[0] for d in ("ahead", "behind"))
    assert torch.equal(ahead, behind)


@pytest.mark.parametrize("kernel", ["laplace-exp", "laplace", "rbf", "rbf-exp", "l2", "cosine", "poly"])
@pytest.mark.parametrize("sigma", [1.0, "auto"])
def test_value_and_gradient_are_those_of_the_formula(kernel: str, sigma: Any) -> None:
    first, second = features(3, 2), features(3, 3)
    if sigma != "auto":  # a mean distance is a constant in the gradient, which differences do not know
        own, along = [h.clone().requires_grad_() for h in first], features(3, 8)
        alone = objective(2, kernel=kernel, sigma=sigma)
        alone(joint_of([tuple(own), second]))[0][0].backward()
        slope = sum(float((h.grad * v).sum()) for h, v in zip(own, along, strict=True) if h.grad is not None)
        up, down = (
            alone(joint_of([tuple(h + step * v for h, v in zip(first, along, strict=True)), second]))[0][0].item()
            for step in (1e-6, -1e-6)
        )
        assert slope == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-9)
    readings = objective(2, kernel=kernel, sigma=sigma)(joint_of([first, second]))[1]
    target = edge_log_probs(ring(), second[1], kernel, sigma, backend="reference")
    ours = edge_log_probs(ring(), first[0], kernel, sigma, backend="reference")
    wanted = (target.exp() * (target - ours)).sum() / 8
    assert readings["structure.peer0.layer1"].item() == pytest.approx(wanted.item(), rel=1e-8)


def test_co_students_get_no_gradient_and_their_number_does_not_matter() -> None:
    """protocol trap 13: the loss of a student moves it alone, and twice the same co-student is no more than once."""
    first, second = ([h.requires_grad_() for h in features(3, seed)] for seed in (4, 5))
    losses, _ = objective(2)(joint_of([tuple(first), tuple(second)]))
    losses[0].backward(retain_graph=True)
    assert all(h.grad is None or not h.grad.any() for h in second)
    assert all(h.grad is not None and h.grad.any() for h in first)
    doubled, _ = objective(3)(joint_of([tuple(first), tuple(second), tuple(second)]))
    assert doubled[0].item() == pytest.approx(losses[0].item(), rel=1e-12)


def test_each_structure_is_computed_once_however_many_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release measures a student's distances again for each co-student: 2 L (M - 1) structures, here L M."""
    calls = []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(args)
        return edge_log_probs(*args)

    monkeypatch.setattr(_alignment, "edge_log_probs", counted)
    objective(4)(joint_of([features(3, seed) for seed in range(4)], 1))
    assert len(calls) == 3 * 4


def test_in_its_turn_a_student_has_the_same_loss() -> None:
    pair = [features(3, 6), features(3, 7)]
    together, _ = objective(2)(joint_of(pair))
    for turn in (0, 1):
        alone, readings = objective(2)(joint_of(pair, turn))
        assert alone[turn].item() == together[turn].item()
        assert all(f"peer{turn}" in name for name in readings)


def test_the_released_losses_are_laplace_exp_behind() -> None:
    first, second = features(3, 0), features(3, 1)
    released = objective(2, variant="as_released", a=7.0)(joint_of([first, second]))[0]
    wanted = objective(2, direction="behind", kernel="laplace-exp", sigma=100.0, a=7.0)(joint_of([first, second]))[0]
    assert torch.equal(released, wanted)
    one = objective(2, variant="as_released", direction="one-to-one", a=7.0)(joint_of([first, second]))[0]
    assert not torch.equal(released, one), "the release knows its one-to-one strategy too"


def test_without_alignment_it_is_the_solo_run(bench: Any) -> None:
    """One student, weight 0 and direction none: peer 0 is the solo model of the seed, to the bit."""
    shared = {"epochs": 4, "lr": 0.01, "weight_decay": 5e-4, "batch_size": None}
    for setting in ("tran", "ind", "multilabel"):
        alone = bench.final("teacher", setting, backbone="gcn", model=SMALL["model"], patience=None, **shared)
        for changes in ({"students": 1}, {"a": 0.0}, {"direction": "none"}, {"direction": "none", "students": 3}):
            run = bench.run("alignahead", setting, **SMALL, **shared, clip=None, **changes)
            assert identical(run.final["peer0"], alone), (setting, changes)
        clipped = [bench.run("alignahead", setting, **SMALL, **shared, clip=0.05, **c) for c in ({"students": 1},
                   {"direction": "none"})]  # fmt: skip
        assert identical(*(run.final["peer0"] for run in clipped))
        assert not identical(clipped[0].final["peer0"], alone)


def test_students_start_apart_unless_copies_are_asked_for(bench: Any) -> None:
    """docs/protocol.md, trap 11."""
    view = bench.given("tran").view
    recipe = resolve("alignahead", SMALL)._settings()  # type: ignore[attr-defined]
    config = resolve("alignahead", SMALL).backbone_config()  # type: ignore[attr-defined]
    apart, copied = (
        [state_of(peer.model) for peer in build_peers(view, 0, [config] * 3, recipe, copied=copies)]
        for copies in (False, True)
    )
    assert identical(copied[0], copied[1])
    assert identical(copied[0], copied[2])
    assert identical(copied[0], apart[0])
    assert not any(torch.equal(apart[0][name], apart[1][name]) for name in apart[0] if "weight" in name)


@pytest.mark.parametrize(
    ("changes", "same"), [({}, False), ({"init": "copied"}, True), ({"variant": "as_released"}, True)]
)
def test_agreement_before_training_tells_how_students_began(bench: Any, changes: dict[str, Any], same: bool) -> None:
    extra = bench.run("alignahead", **{**SMALL, **changes}, epochs=2).outcome.extra
    before = [extra[f"agreement.layer{layer}.before"] for layer in (1, 2, 3)]
    assert (before == pytest.approx([1.0] * 3)) is same
    assert all(-1 <= extra[f"agreement.layer{layer}.after"] <= 1 for layer in (1, 2, 3))
    assert all(0 < extra[f"dirichlet.layer{layer}.{when}"] < 2 for layer in (1, 2, 3) for when in ("before", "after"))
    assert extra["steps"] == 2


def test_alignment_lowers_the_divergence_and_is_traced(bench: Any) -> None:
    options = {**SMALL, "epochs": 40, "a": 30.0, "direction": "one-to-one"}
    aligned, control = (bench.run("alignahead", **{**options, **c}) for c in ({}, {"direction": "none"}))
    trace = aligned.scored.arrays["terms/structure.peer0.layer1"]
    assert trace[-1] < 0.5 * trace[0]
    assert "terms/structure.peer0.layer1" not in control.scored.arrays


def test_every_declared_term_is_there_in_every_epoch(bench: Any) -> None:
    """docs/protocol.md, trap 19: there is no hidden schedule, in either variant."""
    for variant in ("corrected", "as_released"):
        arrays = bench.run("alignahead", **SMALL, variant=variant, epochs=5, students=3).scored.arrays
        for peer in range(3):
            for layer in (1, 2, 3):
                later = arrays[f"terms/structure.peer{peer}.layer{layer}"][1:]  # copies agree at first
                assert (later > 0).all(), (variant, peer, layer)
    assert "terms/structure.peer0.layer4" not in arrays


def test_the_released_kernel_is_flagged_as_vacuous(bench: Any) -> None:
    """protocol.md, trap 23: the released alignment moves nothing and says so; with the corrected kernel it does."""
    released = bench.run("alignahead", **SMALL, variant="as_released", epochs=24)
    assert FLAG in released.outcome.flags
    assert released.outcome.extra["gradient_share"] < 0.01
    corrected = bench.run("alignahead", **SMALL, a=10.0, epochs=24)
    assert FLAG not in corrected.outcome.flags
    assert corrected.outcome.extra["gradient_share"] > 0.02


def test_one_student_as_released_is_an_error_that_names_the_fix(bench: Any) -> None:
    for changes, words in (
        ({"students": 1}, "variant=corrected, where one student is the solo run"),
        ({"backbone": "gat", "model": {"layers": 3}}, "use variant=corrected, or model.layers=4"),
    ):
        method = resolve("alignahead", {**SMALL, "epochs": 1, "variant": "as_released", **changes})
        outcome = bench.workshop.run(method, bench.problem("tran")).outcome
        assert outcome.status == "error"
        assert UserError.__name__ in (outcome.reason or "")
        assert words in (outcome.reason or "")
        assert bench.run("alignahead", **{**SMALL, **changes, "epochs": 1}).outcome.status == "ok"
    outcome = bench.workshop.run(
        resolve("alignahead", {**SMALL, "model": {"layers": 1}}), bench.problem("tran")
    ).outcome
    assert "model.layers=1" in (outcome.reason or "")


def test_schedules_differ_and_the_release_takes_turns(bench: Any) -> None:
    """In turn, the second student sees the first one's new weights; the first sees the same in either schedule."""
    runs = {u: bench.run("alignahead", **SMALL, update=u, epochs=1, a=10.0) for u in ("alternating", "simultaneous")}
    assert identical(runs["alternating"].final["peer0"], runs["simultaneous"].final["peer0"])
    assert not identical(runs["alternating"].final["peer1"], runs["simultaneous"].final["peer1"])
    released: Any = resolve("alignahead", {**SMALL, "variant": "as_released", "update": "simultaneous"})
    assert (released._settings().update, released._settings().clip, released._settings().store_on_loss) == (
        "alternating",
        None,
        True,
    )


def test_the_release_clips_nothing_and_a_spike_is_flagged(bench: Any) -> None:
    """protocol.md, trap 33: with the release's step rule a run that blows up says so; the corrected one is clipped."""
    options = {**SMALL, "epochs": 40, "lr": 2.0, "weight_decay": 0.0}
    assert "loss spike" in bench.run("alignahead", **options, variant="as_released", seed=1).outcome.flags
    resolved: Any = resolve("alignahead", SMALL)
    assert resolved._settings().clip == 1.0


def test_the_release_decides_late_and_stores_on_loss(bench: Any) -> None:
    """Traps 2 and 7: deployed logits are 0.5 lower; a state is stored although validation did not improve."""
    run = bench.run("alignahead", "multilabel", **SMALL, variant="as_released", epochs=30, lr=0.05)
    assert all(name.startswith("model.") for name in run.final["peer0"])
    curve = run.scored.arrays["peer0/val/curve"]
    selected = run.selected["peer0"][0]
    assert selected > int(np.argmax(curve)) + 1, "the training loss fell on, and the best score went down"
    corrected = bench.run("alignahead", "multilabel", **SMALL, epochs=30, lr=0.05)
    curve, loss = (corrected.scored.arrays[f"peer0/val/{what}"] for what in ("curve", "loss"))
    assert corrected.selected["peer0"][0] == int(np.where(curve == curve.max(), loss, np.inf).argmin()) + 1


def test_the_residual_of_the_release_is_an_identity() -> None:
    found: Any = resolve("alignahead", recipe="guo2022_alignahead_ppi")
    learned = {}
    for heads in (3, 1):
        for variant in ("corrected", "as_released"):
            of_heads = dataclasses.replace(found, variant=variant, model={**found.model, "heads": heads})
            model = of_heads._config().build(50, 121, torch_randomness())
            learned[variant, heads] = [name for name, _ in model.named_parameters() if name.startswith("skips")]
    assert learned["corrected", 3] == learned["as_released", 3] == [f"skips.{layer}.weight" for layer in (1, 2, 3, 4)]
    assert learned["corrected", 1] == learned["corrected", 3]
    assert learned["as_released", 1] == ["skips.4.weight"]


def torch_randomness() -> Any:
    from gkdbench.nn.random import Randomness

    return Randomness(0)


def test_the_paper_s_settings_are_a_recipe() -> None:
    found: Any = resolve("alignahead", recipe="guo2022_alignahead_ppi")
    assert (found.lr, found.weight_decay, found.epochs, found.eval_every, found.students) == (0.005, 0.0, 300, 10, 2)
    assert (found.model["head_width"], found.model["heads"], found.model["layers"]) == (64, 3, 5)
    assert found.model["dropout"] == 0


def test_plus_plus_adds_classifiers_and_feature_transfer(bench: Any) -> None:
    """The reconstruction trains its auxiliary parts and deploys none; b = 0 and a = 0 leave deep supervision alone."""
    options = {**SMALL, "epochs": 3, "students": 3}
    runs = {
        name: bench.run("alignahead", **options, **changes)
        for name, changes in {
            "plain": {},
            "plus": {"deep_supervision": True},
            "features": {"deep_supervision": True, "a": 0.0},
            "heads": {"deep_supervision": True, "a": 0.0, "b": 0.0},
            "alone": {"deep_supervision": True, "direction": "none"},
        }.items()
    }
    states = {name: run.final["peer0"] for name, run in runs.items()}
    assert all(state.keys() == states["plain"].keys() for state in states.values())
    assert identical(states["heads"], states["alone"])
    kinds = ("plain", "plus", "features", "heads")
    assert not any(identical(states[a], states[b]) for a in kinds for b in kinds if a < b)
    label = resolve("alignahead", {**SMALL, "deep_supervision": True}).label
    assert label.startswith("Alignahead++ (reconstruction) ahead, 2 x GCN")


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "GCN 4x8"),
        ({"a": 0.1}, ", a = 0.1"),
        ({"kernel": "laplace-exp", "sigma": 100.0, "a": 1000.0}, ", laplace-exp, sigma = 100, a = 1000"),
        ({"init": "copied", "update": "simultaneous"}, ", copied weights, all at once"),
        ({"kernel": "rbf", "direction": "none"}, "GCN 4x8"),
        ({"kernel": "rbf", "variant": "as_released"}, "GCN 4x8"),
    ],
)
def test_labels_tell_what_is_not_the_default(changes: dict[str, Any], end: str) -> None:
    assert resolve("alignahead", {**SMALL, **changes}).label.endswith(end)


def test_the_label_tells_the_direction_that_is_computed() -> None:
    """The official code's "alignahead" follows the layer behind; its "OC" is layer by layer in both forms."""
    found = {
        (variant, direction): resolve("alignahead", {**SMALL, "variant": variant, "direction": direction})
        for variant in ("corrected", "as_released")
        for direction in ("ahead", "behind", "one-to-one")
    }
    said = {key: method.label.split(",")[0].removeprefix("Alignahead ") for key, method in found.items()}
    followed: Any = {key: FOLLOWED[words] for key, words in said.items()}
    assert followed == {key: method.target_layers(3) for key, method in found.items()}  # type: ignore[attr-defined]
    assert said["as_released", "ahead"] == "behind"


def test_auxiliary_terms_are_what_they_are_said_to_be() -> None:
    from gkdbench.methods.mutual._deep_supervision import DeepSupervision

    deep = DeepSupervision(2, 3, 4, torch_randomness())
    hidden = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    targets = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    wanted = sum(((h @ m.weight + m.bias - t) ** 2).mean() for m, h, t in zip(deep.maps, hidden, targets, strict=True))
    got = deep.transfer(hidden, targets)
    torch.testing.assert_close(got, wanted)
    got.backward()
    assert all(t.grad is None for t in targets)
    assert [tuple(z.shape) for z in deep.logits(hidden)] == [(5, 4)] * 2
