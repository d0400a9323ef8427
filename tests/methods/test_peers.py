"""The peers' loop: peer 0 without transfer is the solo run, draws are the peers' own, one loss moves one peer."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.model import settings_of
from gkdbench.protocol.predictor import State, state_of
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.training.models import backbone_config
from gkdbench.training.mutual import JointForward, MutualTrainingSettings, Peer, build_peers, train_peers
from gkdbench.training.mutual_method import label_losses
from gkdbench.training.resolve import resolve

SMALL = {"hidden": 8, "layers": 2, "dropout": 0.5}
GIN = {"hidden": 8, "layers": 2, "dropout": 0.5}
BATCHED = {"hidden": 8, "layers": 2, "dropout": 0.5, "norm": "batch"}


def peers_of(
    bench: Any, setting: str, names: list[str], recipe: MutualTrainingSettings, **options: Any
) -> tuple[list[Peer], Any, Any]:
    """Trained peers, the history of their terms, and the view."""
    view = bench.given(setting).view
    losses = options.pop("losses", lambda joint: (label_losses(joint, joint.logits, multi_label=view.multi_label), {}))
    settings = {"gin": GIN, "gcn": BATCHED if setting == "graph" else SMALL, "sage": SMALL}
    peers = build_peers(view, 0, [backbone_config(name, settings[name]) for name in names], recipe, **options)
    monitor = type("Monitor", (), {"report": staticmethod(lambda *_, **__: type("Verdict", (), {"stop": False}))})
    ctx = type("Context", (), {"monitor": monitor, "seed": 0})
    history = train_peers(view, ctx, peers, recipe, losses)[1]  # type: ignore[arg-type]
    return peers, history, view


def weights(peers: list[Peer]) -> list[State]:
    return [state_of(peer.model) for peer in peers]


def pull(joint: JointForward) -> tuple[Tensor, dict[str, Tensor]]:
    """Labels, and the others' detached logits."""
    own = label_losses(joint, joint.logits, multi_label=False)
    mean = sum(z.detach() for z in joint.logits) / len(joint.logits)
    return own + torch.stack([(z - mean).square().mean() for z in joint.logits]), {"pull": own.mean()}


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
@pytest.mark.parametrize(
    ("setting", "first", "batch_size"),
    [
        ("tran", "gcn", None),
        ("tran", "gcn", 32),
        ("ind", "gcn", None),
        ("multilabel", "gcn", None),
        ("graph", "gin", 16),
    ],
)
def test_without_transfer_the_first_peer_is_the_solo_run(
    bench: Any, update: str, setting: str, first: str, batch_size: int | None
) -> None:
    model = backbone_config(first, GIN if first == "gin" else SMALL)
    options = {"backbone": first, "lr": 0.01, "weight_decay": 5e-4, "batch_size": batch_size, "patience": None}
    alone = bench.final(
        "teacher",
        setting,
        fanouts=(),
        model=settings_of(model),
        **options,
    )
    recipe = MutualTrainingSettings(lr=0.01, weight_decay=5e-4, epochs=4, batch_size=batch_size, update=update)  # type: ignore[arg-type]
    peers, _, _ = peers_of(bench, setting, [first, "gcn"], recipe)
    assert identical(weights(peers)[0], alone)
    assert not identical(weights(peers_of(bench, setting, ["gcn", first], recipe)[0])[1], alone)


@pytest.mark.parametrize("setting", ["tran", "graph"])
def test_a_turn_sees_the_others_after_their_step(bench: Any, setting: str) -> None:
    """Of one batch: peer 0 steps as in the joint form, peer 1 sees another peer 0, whose statistics are untouched."""
    found = {}
    for update in ("simultaneous", "alternating"):
        recipe = MutualTrainingSettings(lr=0.01, weight_decay=0.0, epochs=1, update=update)
        found[update] = weights(peers_of(bench, setting, ["gcn", "gcn"], recipe, losses=pull)[0])
    assert identical(found["simultaneous"][0], found["alternating"][0])
    assert not identical(found["simultaneous"][1], found["alternating"][1])


def test_seeds_are_the_peers_own_unless_weights_are_copied(bench: Any) -> None:
    view = bench.given("tran").view
    recipe, config = MutualTrainingSettings(lr=0.01, weight_decay=0.0, epochs=1), backbone_config("gcn", SMALL)
    first, second = (state_of(peer.model) for peer in build_peers(view, 0, [config, config], recipe))
    assert not identical(first, second)
    peers = build_peers(view, 0, [config, config], recipe, copied=True)
    assert identical(*(state_of(peer.model) for peer in peers))
    out = [peer.model(view.inputs.features, view.inputs.graph) for peer in peers]
    assert not torch.equal(*out), "the masks of dropout are the peers' own"
    with pytest.raises(UserError, match="one backbone"):
        build_peers(view, 0, [config, backbone_config("sage", SMALL)], recipe, copied=True)


def test_a_clipped_gradient_has_that_norm(bench: Any) -> None:
    """Under plain gradient steps, weights move by no more than lr times the bound, each peer by its own."""
    moved = {}
    for clip in (None, 1e-3):
        recipe = MutualTrainingSettings(lr=0.0, weight_decay=0.0, epochs=1, clip=clip)
        peers, _, _ = peers_of(bench, "tran", ["gcn", "sage"], recipe)
        moved[clip] = [torch.cat([p.grad.flatten() for p in peer.model.parameters()]).norm().item() for peer in peers]  # type: ignore[union-attr]
    assert all(norm > 2e-3 for norm in moved[None])
    assert moved[1e-3] == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_what_a_peer_owns_is_trained_with_it_and_does_not_decay(bench: Any) -> None:
    owned = [torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)]
    before = [part.weight.detach().clone() for part in owned]
    bias = owned[0].bias.detach().clone()

    def losses(joint: JointForward) -> tuple[Tensor, dict[str, Tensor]]:
        extra = torch.stack(
            [owned[0](joint.logits[0].detach()).mean() - owned[0].bias.sum(), joint.logits[1].sum() * 0]
        )
        return label_losses(joint, joint.logits, multi_label=False) + extra, {}

    recipe = MutualTrainingSettings(lr=0.01, weight_decay=0.5, epochs=2)
    peers_of(bench, "tran", ["gcn", "gcn"], recipe, owned=owned, losses=losses)
    assert not torch.equal(owned[0].weight, before[0])
    assert torch.equal(owned[0].bias, bias), "no gradient, no decay"
    assert torch.equal(owned[1].weight, before[1])


def test_terms_of_an_epoch_are_means_over_its_steps(bench: Any) -> None:
    recipe = MutualTrainingSettings(lr=0.0, weight_decay=0.0, epochs=2, batch_size=20)
    _, history, _ = peers_of(bench, "tran", ["gcn", "gcn", "gcn"], recipe, losses=pull)
    assert [sorted(terms) for terms in history] == [["loss", "loss.peer0", "loss.peer1", "loss.peer2", "pull"]] * 2
    for terms in history:
        assert terms["loss"] == pytest.approx(sum(terms[f"loss.peer{k}"] for k in range(3)) / 3)


def test_targets_and_mask_of_a_step() -> None:
    inputs: Any = type("Inputs", (), {"items": range(4)})
    rows = torch.tensor([3, 1])
    one = JointForward(1, inputs, (), rows, torch.tensor([5, 6]))
    assert one.targets.tolist() == [-1, 6, -1, 5]
    assert one.labelled.tolist() == [False, True, False, True]
    several = JointForward(1, inputs, (), rows, torch.tensor([[1.0, float("nan")], [0.0, 1.0]])).targets
    assert torch.equal(several.isnan(), torch.tensor([[1, 1], [0, 0], [1, 1], [0, 1]]).bool())


def test_settings_of_peers_are_complete_and_checked() -> None:
    method = resolve("dml", {"peers": ["gat", "gcn"], "models": {"gcn": {"hidden": 16}}})
    assert list(method.models) == ["gat", "gcn"]  # type: ignore[attr-defined]
    assert method.models["gcn"]["hidden"] == 16 and method.models["gcn"]["layers"] == 2  # type: ignore[attr-defined]
    assert resolve("dml", method.config()) == method
    with pytest.raises(UserError, match=r"models\.sage"):
        resolve("dml", {"peers": ["gcn", "gat"], "models": {"sage": {"hidden": 3}}})
    with pytest.raises(UserError, match="hiden"):
        resolve("dml", {"models": {"gcn": {"hiden": 3}}})
    for wrong in ([], ["gcn", 3], "gcn", [["gcn"]]):
        with pytest.raises(UserError, match="peers"):
            resolve("dml", {"peers": wrong})


@pytest.mark.parametrize("split", ["tu-10fold", "ogb-graph", "random-80-10-10"])
def test_graph_tasks_have_their_own_peers_and_settings(split: str) -> None:
    graphs: Any = resolve("dml", split=split)
    nodes: Any = resolve("dml", split="planetoid-public")
    assert (graphs.peers, graphs.batch_size, graphs.epochs) == (("gin", "gcn"), 32, 100)
    assert (graphs.models["gcn"]["norm"], graphs.models["gcn"]["layers"]) == ("batch", 3)
    assert {graphs.models[name]["readout"] for name in graphs.peers} == {"mean"}, "GIN's sum begins with logits of tens"
    assert (nodes.peers, nodes.batch_size, nodes.epochs) == (("gcn", "sage"), None, 200)
    assert (nodes.models["gcn"]["norm"], nodes.models["gcn"]["layers"]) == ("none", 2)


def test_peers_of_one_seed_are_the_first_of_a_larger_group(bench: Any) -> None:
    recipe = MutualTrainingSettings(lr=0.01, weight_decay=0.0, epochs=2)
    two = weights(peers_of(bench, "tran", ["gcn", "gcn"], recipe)[0])
    three = weights(peers_of(bench, "tran", ["gcn", "gcn", "gcn"], recipe)[0])
    assert identical(two[1], three[1]) and relative_gap(two[0], three[2]) > 0
