"""GML-R: its loss, its weighting units, what collapses and what does not (docs/protocol.md: H1, H3, traps 13, 24)."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from support.peer_formulas import (
    CLASSES,
    ITEMS,
    assert_equal_with_gradients,
    assert_one_loss_moves_one_peer,
    bernoulli_divergence,
    cross_entropy,
    divergence,
    entropy,
    joint_of,
    logits_of,
)
from torch import Tensor

from gkdbench.data.splits import prepare_named
from gkdbench.methods.mutual._logit_weighting import (
    MAX_TEMPERATURE,
    LogitWeighting,
    WeightedModel,
    WeightingKind,
    collapsed,
    uncertainty,
)
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.testing.runs import Workshop
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

SMALL = {"hidden": 8, "layers": 2, "dropout": 0.5}


def gml(**overrides: Any) -> Any:
    return resolve("gml", overrides)


def units_of(kind: WeightingKind, peers: int, *, multi_label: bool = False) -> list[LogitWeighting]:
    return [
        LogitWeighting(kind, CLASSES, multi_label=multi_label, randomness=Randomness(0, k)).double()
        for k in range(peers)
    ]


def written_out(
    joint: JointForward, method: Any, weighted: Sequence[Tensor], ce: Sequence[Tensor], several: bool
) -> Tensor:
    """The class's formula, term by term."""
    chosen: dict[str, Tensor] = {"all": torch.arange(ITEMS), "train": joint.rows}
    losses = []
    for j, z in enumerate(joint.logits):
        loss = cross_entropy(ce[j], joint)
        p = [zt.sigmoid() if several else zt.softmax(1) for zt in weighted]
        apart = bernoulli_divergence if several else divergence
        for i in range(len(weighted)):
            if i != j:
                loss = loss + method.lam / (len(weighted) - 1) * apart(p[i], p[j])[chosen[method.nodes]].mean()
        spread = uncertainty(z, multi_label=True) if several else entropy(z.softmax(1))
        losses.append(loss - method.beta * spread[chosen[method.entropy_nodes]].mean())
    return torch.stack(losses)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("ce_on", ["weighted", "raw"])
@pytest.mark.parametrize(
    ("weighting", "nodes", "entropy_nodes", "peers"),
    [("none", "all", "train", 2), ("temp", "all", "all", 3), ("gate", "train", "train", 2), ("sig", "train", "all", 4)],
)
def test_loss_and_gradients_are_those_of_the_formula(
    weighting: Any, nodes: str, entropy_nodes: str, peers: int, ce_on: str, several: bool
) -> None:
    logits = logits_of(peers)
    joint = joint_of(logits, several=several)
    units = [] if weighting == "none" else units_of(weighting, peers, multi_label=several)
    method = gml(
        peers=["gcn"] * peers,
        weighting=weighting,
        ce_on=ce_on,
        lam=0.7,
        beta=0.3,
        nodes=nodes,
        entropy_nodes=entropy_nodes,
    )
    got, readings = method.losses(joint, multi_label=several, weightings=units)
    weighted = [unit(z) for unit, z in zip(units, logits, strict=True)] if units else logits
    ce = weighted if ce_on == "weighted" else logits
    wanted = written_out(joint, method, weighted, ce, several)
    own = [p for unit in units for p in unit.parameters()]
    assert_equal_with_gradients(got, wanted, [*logits, *own])
    assert ("scale.peer0" in readings) == (weighting != "none")


def test_one_loss_moves_one_peer_and_its_own_unit() -> None:
    for peers in (2, 3):
        units = units_of("temp", peers)
        method = gml(peers=["gcn"] * peers)
        assert_one_loss_moves_one_peer(
            lambda joint, m=method, u=units: m.losses(joint, multi_label=False, weightings=u), peers
        )
    values = method.losses(joint_of(logits_of(3)), multi_label=False, weightings=units)[0]
    for j, value in enumerate(values):
        for i, unit in enumerate(units):
            grads = torch.autograd.grad(
                value, list(unit.parameters()), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            assert any(bool(grad.any()) for grad in grads) == (i == j)


@pytest.mark.parametrize("name", ["gml", "dml"])
def test_doubling_identical_peers_changes_no_loss(name: str) -> None:
    """protocol trap 13: the mutual term is a mean over the others, so three copies of a peer teach what one does."""
    first, second = logits_of(2)
    overrides: dict[str, Any] = {"weighting": "none"} if name == "gml" else {}
    two = resolve(name, {"peers": ["gcn"] * 2, "lam": 1.0, **overrides})
    many = resolve(name, {"peers": ["gcn"] * 4, "lam": 1.0, **overrides})
    small = two.losses(joint_of([first, second]), multi_label=False)[0]  # type: ignore[attr-defined]
    large = many.losses(joint_of([first, second, second, second]), multi_label=False)[0]  # type: ignore[attr-defined]
    assert large[0].item() == pytest.approx(small[0].item(), rel=1e-12)


@pytest.mark.parametrize("setting", ["tran", "multilabel", "graph"])
def test_without_transfer_and_entropy_the_first_peer_is_the_solo_run(bench: Any, setting: str) -> None:
    first = "gin" if setting == "graph" else "gcn"
    options = {"lr": 0.01, "weight_decay": 5e-4, "batch_size": 16 if setting == "graph" else None, "patience": None}
    peers: dict[str, Any] = {"peers": [first, "sage"], "models": {first: SMALL}, "lam": 0.0}
    run = bench.run("gml", setting, beta=0.0, **peers, **options)
    alone = bench.run("teacher", setting, backbone=first, model=gml(**peers).models[first], fanouts=(), **options)
    assert identical(run.final["peer0"], alone.final["model"])
    assert run.selected["peer0"] == alone.selected["model"]
    entropic = bench.run("gml", setting, **peers, **options)
    assert not identical(entropic.final["peer0"], alone.final["model"])


def test_one_peer_has_nobody_to_learn_from(bench: Any) -> None:
    alone = bench.run("gml", peers=["gcn"], models={"gcn": SMALL}, beta=0.0)
    two = bench.run("gml", peers=["gcn", "gcn"], models={"gcn": SMALL}, beta=0.0, lam=0.0)
    assert identical(alone.final["peer0"], two.final["peer0"])


def test_without_weights_and_entropy_it_is_dml(bench: Any) -> None:
    models = {"gcn": SMALL, "sage": SMALL}
    plain = bench.run("gml", models=models, weighting="none", beta=0.0).final
    assert all(identical(plain[name], state) for name, state in bench.run("dml", models=models).final.items())


def test_weights_have_their_ranges() -> None:
    z = logits_of(1, scale=30.0)[0]
    temp, gate, sig = (units_of(kind, 1)[0] for kind in ("temp", "gate", "sig"))
    assert temp.temperature(0 * z).mean().item() == pytest.approx(1.14, abs=0.1), "it begins near 1"
    assert temp.temperature(z).min() >= 1 and temp.temperature(z).max() <= MAX_TEMPERATURE
    torch.testing.assert_close((gate(z) / z).mean(1), torch.ones(len(z)).double())
    assert (sig(z) / z).min() >= 0 and (sig(z) / z).max() <= 1
    for unit in (temp, gate, sig):
        grad = torch.autograd.grad(unit(z).sum(), z)[0]
        torch.testing.assert_close(grad, (unit(z) / z).detach(), msg="the unit reads detached logits")


def test_a_peer_answers_by_the_logits_of_its_cross_entropy(bench: Any) -> None:
    models = {"gcn": SMALL, "sage": SMALL}
    raw = bench.run("gml", models=models, ce_on="raw", weighting="gate").final["peer0"]
    weighted = bench.run("gml", models=models, weighting="gate").final["peer0"]
    assert not any(name.startswith("unit.") for name in raw)
    assert {name.partition(".")[0] for name in weighted} == {"model", "unit"}


def test_the_weighted_answer_is_the_units_of_the_models() -> None:
    model = gml().configs()[0].build(4, CLASSES, Randomness(0)).eval()
    unit = LogitWeighting("gate", CLASSES, multi_label=False, randomness=Randomness(0))
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(WeightedModel(model, unit)(x, graph), unit(model(x, graph)))


@pytest.mark.parametrize(
    ("history", "flag"),
    [
        ([{"scale.peer0": 0.31, "scale.peer1": 1.0}] * 50, False),
        ([{"scale.peer0": 1.0, "scale.peer1": 0.29}], True),
        ([{"temperature.peer0": 3.95}] * 19 + [{"temperature.peer0": 3.0}] + [{"temperature.peer0": 3.95}] * 19, False),
        ([{"temperature.peer0": 1.0, "temperature.peer1": 3.95}] * 20, True),
        ([{"loss": 0.0, "kl01": 0.0}] * 50, False),
    ],
)
def test_what_counts_as_collapsed(history: list[dict[str, float]], flag: bool) -> None:
    assert collapsed(history) == flag


def test_scales_of_every_epoch_are_stored(bench: Any) -> None:
    run = bench.run("gml", models={"gcn": SMALL, "sage": SMALL})
    for name in ("scale.peer0", "scale.peer1", "temperature.peer0", "entropy.peer1", "kl01", "kl10", "loss.peer0"):
        assert len(run.scored.arrays[f"terms/{name}"]) == 4
    assert {"scale.peer0", "temperature.peer1"} <= set(run.outcome.extra)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    yield Workshop(tmp_path_factory.mktemp("cora"))


@pytest.mark.full
@pytest.mark.data
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_gate_that_only_the_mutual_term_sees_collapses(workshop: Workshop, seed: int) -> None:
    """And the default does not (docs/protocol.md, trap 24), on cora."""
    problem = prepare_named("cora", "planetoid-public")
    flags = {}
    for overrides in ({"weighting": "sig", "ce_on": "raw"}, {}):
        method = resolve("gml", overrides, dataset="cora", split="planetoid-public")
        run = workshop.run(method, problem, seed=seed)
        assert run.outcome.status == "ok"
        flags[len(overrides)] = "collapsed" in run.outcome.flags
    assert flags == {2: True, 0: False}


@pytest.mark.full
@pytest.mark.data
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_default_keeps_its_weights_on_graphs(workshop: Workshop, fold: int) -> None:
    """With GIN's sum of nodes the temperature goes to its bound on every fold: that is why peers read means."""
    problem = prepare_named("mutag", "tu-10fold", fold)
    method = resolve("gml", dataset="mutag", split="tu-10fold")
    run = workshop.run(method, problem)
    assert run.outcome.status == "ok"
    assert "collapsed" not in run.outcome.flags
