"""Parts of a measurement: timed epochs under the test's own clock, checks of answers, noise, one item's query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.measure.cost.answer_checks import Cheat, check_answers, with_other_features
from gkdbench.measure.cost.inference import Deployed, InferenceBudget, measure_inference, timed_ratio
from gkdbench.measure.cost.noise import ProcessorTimes, noise_flags
from gkdbench.measure.cost.references import references
from gkdbench.measure.cost.timed_epochs import LEAST_EPOCHS, EpochTimer, stage_lengths
from gkdbench.measure.ratios import missing_samples, percentile_text
from gkdbench.measure.timers import CpuClock
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.neighbourhood import neighbourhood, within_hops
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.session import monitor_of
from gkdbench.protocol.view import TrainView
from gkdbench.protocol.view_io import TrainingBundle, read_bundle
from gkdbench.testing import small_run
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import Workshop
from gkdbench.training.models import as_predictor, backbone_config, build


class Hand:
    """A clock that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Memory:
    """Reports what the test sets."""

    value = 0

    def reset(self) -> None:
        self.value = 0

    def peak(self) -> int:
        return self.value


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TrainingBundle:
    folder = tmp_path_factory.mktemp("bundle")
    return read_bundle(Workshop(folder).view(small_problem("tran"))[0])


def timer(bundle: TrainingBundle, folder: Path, hand: Hand, *, budget_s: float = 1e9) -> tuple[EpochTimer, Memory]:
    """A timer that has begun; the reference takes two seconds."""
    monitor = monitor_of(bundle, folder, kind=EpochTimer)
    assert isinstance(monitor, EpochTimer)

    def reference() -> None:
        hand.now += 2.0

    memory = Memory()
    monitor.begin(reference, now=hand, wait=lambda: None, memory=memory, budget_s=budget_s)
    return monitor, memory


def mlp(view: TrainView) -> Predictor:
    config = backbone_config("mlp", {"hidden": 8})
    return as_predictor(config, build(config, view, seed=0), view.num_classes)


def test_epochs_are_timed_between_reports_and_stages_apart(bundle: TrainingBundle, tmp_path: Path) -> None:
    hand, model = Hand(), mlp(bundle.view)
    monitor, memory = timer(bundle, tmp_path, hand)
    hand.now += 10.0  # encodings, teachers
    for epoch, selectable in ((1, False), (2, False), (3, False), (4, True), (5, True)):
        hand.now += 1.0 if not selectable else 3.0
        memory.value = 100 * epoch
        monitor.report(epoch, {"model": model}, terms={"loss": 1.0, "unused": 0.0}, selectable=selectable)
        hand.now += 0.0
    found = monitor.finish()
    monitor.close()
    assert found.earlier == [1.0, 1.0]  # the very first epoch warms up
    assert found.ours == [3.0, 3.0]
    assert found.theirs == [2.0, 2.0]
    assert found.setup_s == 10.0
    assert found.peak_bytes == 500
    assert found.terms == {"loss"}


def test_what_the_monitor_does_is_not_part_of_an_epoch(bundle: TrainingBundle, tmp_path: Path) -> None:
    hand = Hand()
    slow = mlp(bundle.view)
    forward = slow.module.forward

    def evaluated(*arguments: object) -> Tensor:
        hand.now += 50.0
        return forward(*arguments)

    slow.module.forward = evaluated
    monitor, _ = timer(bundle, tmp_path, hand)
    for epoch in range(1, 4):
        hand.now += 1.0
        monitor.report(epoch, {"model": slow})
    monitor.close()
    assert monitor.finish().ours == [1.0, 1.0]


def test_a_stage_ends_when_its_seconds_are_spent_but_not_before_the_least_number(
    bundle: TrainingBundle, tmp_path: Path
) -> None:
    hand, model = Hand(), mlp(bundle.view)
    monitor, _ = timer(bundle, tmp_path, hand, budget_s=1.0)
    stops = []
    for epoch in range(1, LEAST_EPOCHS + 2):
        hand.now += 9.0
        stops.append(monitor.report(epoch, {"model": model}).stop)
    monitor.close()
    assert stops == [False] * LEAST_EPOCHS + [True]


def test_epochs_between_reports_share_the_time(bundle: TrainingBundle, tmp_path: Path) -> None:
    hand, model = Hand(), mlp(bundle.view)
    monitor, _ = timer(bundle, tmp_path, hand)
    for epoch in (5, 10):
        hand.now += 10.0
        monitor.report(epoch, {"model": model})
    monitor.close()
    assert monitor.finish().ours == [2.0]


def test_stage_lengths_shorten_and_never_lengthen() -> None:
    config = {"epochs": 500, "pretrain": 12, "warmup": 1, "hidden": 64, "patience": None}
    assert stage_lengths(config, 12) == {"epochs": 12, "pretrain": 2, "warmup": 1}


# Checks ---------------------------------------------------------------------------------------------------------------


def honest(view: TrainView) -> Callable[[Inputs], Tensor]:
    return Deployed([mlp(view)]).answer


def kept_by_id(view: TrainView) -> Callable[[Inputs], Tensor]:
    answer, kept = honest(view), dict[str, Tensor]()
    return lambda inputs: kept.setdefault(inputs.space.name, answer(inputs))


def one_buffer(view: TrainView) -> Callable[[Inputs], Tensor]:
    answer, buffer = honest(view), torch.empty(0)

    def call(inputs: Inputs) -> Tensor:
        nonlocal buffer
        made = answer(inputs)
        buffer = torch.empty_like(made) if buffer.shape != made.shape else buffer
        return buffer.copy_(made)

    return call


def mutating(view: TrainView) -> Callable[[Inputs], Tensor]:
    answer = honest(view)

    def call(inputs: Inputs) -> Tensor:
        made = answer(inputs)
        assert isinstance(inputs.features, Tensor)
        inputs.features.mul_(1.0 + 1e-6)
        return made

    return call


def random(view: TrainView) -> Callable[[Inputs], Tensor]:
    answer = honest(view)
    return lambda inputs: answer(inputs) + torch.rand(1)


def late(view: TrainView) -> Callable[[Inputs], Tensor]:
    import threading

    answer = honest(view)

    def call(inputs: Inputs) -> Tensor:
        made = torch.zeros_like(answer(inputs))
        threading.Timer(0.01, lambda: made.add_(1.0)).start()
        return made

    return call


@pytest.mark.parametrize(
    ("cheat", "message"),
    [
        (kept_by_id, "kept by id"),
        (one_buffer, "a buffer that is used again"),
        (mutating, "changed its inputs|another answer"),
        (random, "another answer"),
        (late, "changed after it was returned"),
    ],
)
def test_each_cheat_is_caught(cheat: Callable[[TrainView], Callable[[Inputs], Tensor]], message: str) -> None:
    view, _ = small_run()
    with pytest.raises(Cheat, match=message):
        check_answers(cheat(view), view.inputs, with_other_features(view.inputs), prepared=False)


def test_an_honest_model_is_never_refused() -> None:
    view, _ = small_run()
    for seed in range(20):
        config = backbone_config(("mlp", "gcn", "sage", "gat")[seed % 4], {})
        model = as_predictor(config, build(config, view, seed=seed), view.num_classes)
        check_answers(Deployed([model]).answer, view.inputs, with_other_features(view.inputs), prepared=False)


def test_a_model_that_answers_a_constant_is_no_cheat() -> None:
    """Units can all die in training: other features then change nothing, and nothing was kept."""
    view, _ = small_run()

    def constant(inputs: Inputs) -> Tensor:
        return torch.ones(len(inputs.items), view.num_classes)

    check_answers(constant, view.inputs, with_other_features(view.inputs), prepared=False)


# Queries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["gcn", "sage", "gat", "gin", "appnp"])
def test_the_neighbourhood_gives_the_whole_graphs_answer(backbone: str) -> None:
    view, _ = small_run()
    config = backbone_config(backbone, {})
    model = as_predictor(config, build(config, view, seed=1), view.num_classes)
    whole = model.evaluate(view.inputs)
    for place in (0, 7, len(view.items) - 1):
        part, number = neighbourhood(view.inputs, place, model.hops or 0)
        assert len(part.space) <= len(view.inputs.space)
        assert part.space.ids[number] == view.inputs.space.ids[place]
        torch.testing.assert_close(model.evaluate(part)[number], whole[place], rtol=1e-4, atol=1e-5)


def test_nodes_within_hops_are_those_of_a_search() -> None:
    view, _ = small_run()
    graph = view.inputs.graph
    found, frontier = {3}, {3}
    for hops in range(4):
        assert within_hops(view.inputs, torch.tensor([3]), hops).tolist() == sorted(found)
        frontier = {int(n) for node in frontier for n in graph.index[graph.indptr[node] : graph.indptr[node + 1]]}
        found |= frontier


def test_a_call_that_takes_longer_shows_in_its_own_number_only() -> None:
    """One query is slowed down by the test's clock; the other sizes keep their ratios."""
    view, _ = small_run()
    now = [0]

    class Slow(nn.Module):
        def forward(self, features: Tensor, graph: object, segments: object) -> Tensor:
            now[0] += 1_000_000 if len(features) == 1 else 10_000
            return features[:, : view.num_classes] * 1.0

    def reference() -> Predictor:
        class Quick(nn.Module):
            def forward(self, features: Tensor, graph: object, segments: object) -> Tensor:
                now[0] += 10_000
                return features[:, : view.num_classes] * 1.0

        return Predictor(Quick())

    clock = CpuClock(lambda: now[0], cache_bytes=1 << 10)
    found = measure_inference(
        Deployed([Predictor(Slow())]), reference(), view.inputs, clock, InferenceBudget(5, 60.0, 64)
    )
    assert found["everything"]["call"]["value"] == pytest.approx(1.0)
    assert found["query"]["call"]["value"] == pytest.approx(100.0)
    assert found["query"]["p90_s"] == pytest.approx(1e-3)
    assert found["query"]["by"] == "features"


def test_a_query_of_a_graph_model_says_how_it_is_answered() -> None:
    view, _ = small_run()
    config = backbone_config("gcn", {})
    model = as_predictor(config, build(config, view, seed=1), view.num_classes)
    found = measure_inference(
        Deployed([model]),
        references(view).answers,
        view.inputs,
        CpuClock(cache_bytes=1 << 10),
        InferenceBudget(5, 0.1, 5),
    )
    assert found["query"]["by"] in ("neighbourhood", "whole graph")
    assert found["query"]["p90_s"] is None
    assert found["query"]["p90_missing"] == 39
    one = NodeSet(view.items, torch.tensor([0]))
    assert model.evaluate(view.inputs, one).shape == (1, view.num_classes)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_how_many_samples_are_missing() -> None:
    assert [missing_samples(0, q) for q in (0.9, 0.95, 0.99)] == [44, 90, 459]
    assert missing_samples(44, 0.9) == 0
    assert percentile_text([1e-3] * 100, 0.99) == "–, 359 more"
    assert percentile_text([1e-3] * 44, 0.9) == "1"
    with pytest.raises(ValueError, match="in \\(0, 1\\)"):
        missing_samples(3, 1.0)


def test_a_histogram_holds_every_sample() -> None:
    found = timed_ratio([1.0, 2.0, 3.0, 100.0], [1.0, 1.0, 1.0, 1.0])
    assert sum(found["histogram"][1]) == 4
    assert timed_ratio([1.0, 1.0], [2.0, 2.0])["value"] == 0.5


def test_noise_of_others_and_of_the_hypervisor() -> None:
    before = ProcessorTimes(busy=100.0, stolen=1.0, own=10.0, wall=1000.0)
    quiet = ProcessorTimes(busy=110.5, stolen=1.1, own=20.0, wall=1010.0)
    busy = ProcessorTimes(busy=120.0, stolen=2.0, own=20.0, wall=1010.0)
    assert noise_flags(before, quiet) == []
    assert noise_flags(before, busy) == [
        "noisy: other processes used 1.00 cores",
        "noisy: the hypervisor took 10% of the time",
    ]
    assert noise_flags(None, busy) == noise_flags(before, None) == []


def test_the_processor_times_of_a_system_without_counters(tmp_path: Path) -> None:
    assert ProcessorTimes.now(tmp_path / "stat") is None
    (tmp_path / "stat").write_text("cpu a b\n")
    assert ProcessorTimes.now(tmp_path / "stat") is None
