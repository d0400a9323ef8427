"""Times of tests by a clock whose every tick is known, and kernels that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.measure.timers import CpuClock
from gkdbench.protocol.predictor import Predictor
from gkdbench.testing import timed_runs
from gkdbench.testing.kernel_check import check_kernel, compare_kernel, kernel_problem
from gkdbench.testing.problems import small_problem
from gkdbench.testing.sample_replay import SampleReplay
from gkdbench.testing.small_runs import small_fit
from gkdbench.testing.timed_runs import asking, standard_reference, time_in_turns

CPU = torch.device("cpu")


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Seconds -> a call that takes as long by the clock of this test."""
    now = [0]
    monkeypatch.setattr(timed_runs, "checked_clock", lambda device: CpuClock(lambda: now[0], cache_bytes=1 << 10))

    def of(seconds: float) -> Callable[[], None]:
        def move() -> None:
            now[0] += round(seconds * 1e9)

        return move

    return of


def test_every_call_is_a_sample_and_the_ratio_is_of_one_run(spend: Callable[[float], Callable[[], None]]) -> None:
    report = time_in_turns(spend(3e-6), spend(2e-6), words="b", device=CPU, rounds=50, budget_s=60.0)
    assert report.samples_s == pytest.approx([3e-6] * 50) and report.reference_s == pytest.approx([2e-6] * 50)
    assert report.ratio.value == pytest.approx(1.5)
    assert report.p50 == report.p90 == pytest.approx(3e-6)
    assert (report.percentile(0.99), report.missing(0.99), report.told(0.99)) == (None, 409, "–, 409 more")
    assert str(report) == "p50 0.003 ms, p90 0.003 ms, 1.50 [1.50, 1.50] n=50 of b"


def test_what_cannot_be_timed_is_a_sentence(spend: Callable[[float], Callable[[], None]]) -> None:
    with pytest.raises(UserError, match="the reference b: expected a call that returns, got ZeroDivisionError"):
        time_in_turns(spend(1.0), lambda: 1 / 0, words="b", device=CPU, rounds=5, budget_s=1.0)
    with pytest.raises(UserError, match="rounds: expected 1 or more, got 0"):
        time_in_turns(spend(1.0), spend(1.0), words="b", device=CPU, rounds=0, budget_s=1.0)
    with pytest.raises(UserError, match="query_size: expected 1 or more items"):
        asking(standard_reference(small_problem("tran"), CPU)[1], small_problem("tran"), 0)


class Watched(nn.Module):
    """Remembers the rows that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []

    def forward(self, features: Tensor, graph: object, segments: object) -> Tensor:
        self.rows.append(features)
        return features


@pytest.mark.parametrize(("size", "rows"), [(1, 1), (5, 5), (None, 12)])
def test_queries_are_unseen_items_in_turn(size: int | None, rows: int) -> None:
    problem, module = small_problem("ind"), Watched()
    ask = asking(Predictor(module), problem, size)
    ask(), ask()
    first, second = module.rows
    features = problem.task.features
    assert isinstance(features, Tensor) and len(first) == rows <= len(problem.split.unseen)
    assert torch.equal(first, features[torch.from_numpy(problem.split.unseen)][:rows])
    assert torch.equal(first, second) == (size is None)


@pytest.mark.parametrize("setting", ["tran", "ind", "graph", "multilabel"])
def test_the_reference_answers_queries_of_every_task(setting: str) -> None:
    problem = small_problem(setting)
    words, predictor = standard_reference(problem, CPU)
    logits = asking(predictor, problem)()
    assert isinstance(logits, Tensor) and logits.shape == (1, 3)
    assert words == ("GIN 5x64" if setting == "graph" else "MLP 2x128")


def test_a_replayed_sample_is_exactly_one_round() -> None:
    replay, seen = SampleReplay(), []

    class Rounds:
        def pedantic(
            self, step: Callable[[], None], *, setup: Callable[[], None], rounds: int, iterations: int
        ) -> None:
            for _ in range(rounds):
                setup()
                start = replay()
                step()
                seen.append(replay() - start)

    replay.feed(Rounds(), [0.1, 1e9, 0.3])
    assert seen == [0.1, 1e9, 0.3]
    assert replay() != replay() or replay() > 0.3  # the real clock again
    with pytest.raises(ValueError, match="samples: expected one at least"):
        replay.feed(Rounds(), [])


def test_a_fit_is_done_anew_at_every_call() -> None:
    fit = small_fit("mlp")
    first, second = fit(), fit()
    assert first is not second
    states = [one.predictors["model"].module.state_dict() for one in (first, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class Halved(torch.autograd.Function):
    """The square with half of its gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return upstream * x


def spoiled(x: Tensor) -> Tensor:
    value = x * x
    x.data[0] = 0.0
    return value


WRONG = {
    "value": (lambda x: x * x * x, "all errors: {'value': 0.7"),
    "gradient": (Halved.apply, "x is off by 5.0e-01"),
    "input": (spoiled, "expected its inputs as they were, got changed values in"),
    "none": (lambda x: (x * x).detach(), "kernel without gradients is checked with direction='fwd'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_is_not_timed(fault: str) -> None:
    kernel, message = WRONG[fault]
    with pytest.raises(AssertionError, match=message):
        compare_kernel(kernel, lambda x: x * x, {"x": torch.linspace(1, 2, 9)}, words="", rounds=5, budget_s=1.0)


def test_a_kernel_without_gradients() -> None:
    problem = kernel_problem(lambda x: x * x, {"x": torch.linspace(1, 2, 9)})
    assert check_kernel(lambda x: (x * x).detach(), problem, "fwd").green


@pytest.mark.parametrize("inputs", [{}, {"x": torch.arange(3)}, {"x": torch.ones(2), "y": torch.ones(2).double()}])
def test_inputs_that_take_no_gradient_are_refused(inputs: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="inputs: expected floating-point tensors of one dtype"):
        kernel_problem(lambda **given: next(iter(given.values())), inputs)
