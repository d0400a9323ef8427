"""The pytest plugin for authors of methods and kernels; pytest loads it where gkdbench is installed.

    def test_my_model_answers_fast(gkd_latency, gkd_task):
        report = gkd_latency(my_predictor)
        assert report.ratio.high < 2.0  # of an MLP 2x128 in the same run

Fixtures: `gkd_task`, `gkd_latency`, `gkd_kernel`, `gkd_ratio`. Where pytest-benchmark is there and a test asks for its
fixture ``benchmark`` too, the samples become its rounds and its JSON gets the percentiles. Neither torch nor a model is
imported before a fixture is used, so that other packages' tests pay nothing for this plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from gkdbench.errors import UserError
from gkdbench.testing.ratio_session import RatioSession
from gkdbench.testing.sample_replay import SampleReplay

if TYPE_CHECKING:
    from torch import Tensor

    from gkdbench.data.splits import SplitTask
    from gkdbench.measure.ratios import Ratio
    from gkdbench.protocol.predictor import Predictor
    from gkdbench.testing.kernel_check import KernelReport
    from gkdbench.testing.timed_runs import LatencyReport

SETTINGS = ("tran", "ind", "graph", "multilabel")
MARKERS = (
    'gkd_task(setting): what gkd_task gives: "tran" (default), "ind", "graph" or "multilabel"',
    "gkd_rounds(rounds, budget_s): samples that gkd_latency and gkd_kernel take, and seconds after which none begins",
    "gkd_percentiles: put percentiles of the test's rounds into pytest-benchmark's JSON",
)
ROUNDS, BUDGET_S = 100, 5.0
_TIMING = {"gkd_latency", "gkd_kernel"}
_RATIOS = pytest.StashKey[RatioSession]()
_PERCENTILES = pytest.StashKey[set[str]]()
_REPLAY = SampleReplay()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gkdbench")
    group.addoption("--gkd-ratios", metavar="FILE", type=Path, help="fail tests that are slower than FILE's ratios")
    group.addoption("--gkd-save-ratios", metavar="FILE", type=Path, help="write the ratios of this run to FILE")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    compare, save = config.getoption("gkd_ratios"), config.getoption("gkd_save_ratios")
    if (compare or save) and config.getoption("numprocesses", None):
        raise pytest.UsageError("--gkd-ratios: expected one process, got several (-n), which disturb times; try -n 0")
    words = [str(word) for word in config.invocation_params.args]
    try:
        config.stash[_RATIOS] = RatioSession(compare, save, " ".join(["pytest", *words]))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that ask for ``benchmark`` and for a fixture that times have its samples replayed as their rounds."""
    config.stash[_PERCENTILES] = wanted = set()
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if "benchmark" in names and _TIMING & names:
            own = item.get_closest_marker("benchmark")
            item.add_marker(pytest.mark.benchmark(**{**(own.kwargs if own else {}), "timer": _REPLAY}), append=False)
        if _TIMING & names or item.get_closest_marker("gkd_percentiles"):
            wanted.add(item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Percentiles of the rounds by our rule, for tests that use a fixture of ours or have the marker."""
    samples = {bench.fullname: bench.stats.data for bench in benchmarks}
    for row in output_json["benchmarks"]:
        if row["fullname"] in config.stash[_PERCENTILES]:
            from gkdbench.testing.timed_runs import percentiles_json

            row["extra_info"]["percentiles"] = percentiles_json(tuple(samples[row["fullname"]]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_RATIOS].finish()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_RATIOS].summary():
        terminalreporter.write_line(f"gkdbench: {line}")


@pytest.fixture
def gkd_task(request: pytest.FixtureRequest) -> SplitTask:
    """A built-in task of a fraction of a second: 210 nodes, or what the marker ``gkd_task(setting)`` names."""
    marker = request.node.get_closest_marker("gkd_task")
    setting = marker.args[0] if marker and marker.args else SETTINGS[0]
    if setting not in SETTINGS:
        pytest.fail(f"gkd_task: expected one of {', '.join(SETTINGS)}, got {setting!r}", pytrace=False)
    from gkdbench.testing.problems import small_problem

    return small_problem(setting)


@pytest.fixture
def gkd_ratio(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note a ratio of this test: ``gkd_ratio(ratio, reference, name="", again=None)``.

    ``--gkd-save-ratios`` writes it, ``--gkd-ratios`` fails the test where it is larger than the committed one. `again`
    measures it a second time before that.
    """

    def note(found: Ratio, reference: str, *, name: str = "", again: Callable[[], Ratio] | None = None) -> None:
        from gkdbench.testing.timed_runs import device_words

        full = f"{request.node.nodeid} {name}".strip()
        with _plain_failure():
            request.config.stash[_RATIOS].take(full, found, reference, device_words(), again)

    return note


@pytest.fixture
def gkd_latency(
    request: pytest.FixtureRequest, gkd_task: SplitTask, gkd_ratio: Callable[..., None]
) -> Callable[..., LatencyReport]:
    """Time a call in turns with a reference of the same run: ``gkd_latency(run, ...) -> LatencyReport``.

    Args:
        run: a Predictor, which then answers queries of `query_size` items of `gkd_task` (None: all items at once), or a
            function without arguments.
        reference: of the same kinds, and its `words`; by default an untrained MLP 2x128 that answers the same queries
            (of graphs: a GIN).
        name: of a second time in one test.
        rounds, budget_s: see the marker ``gkd_rounds``.
        single: every sample is one call; False for calls so short that a clock sees them only in bunches.
        device: where functions work; by default a GPU where there is one.
    """

    def time(
        run: Predictor | Callable[[], object],
        reference: Predictor | Callable[[], object] | None = None,
        *,
        words: str = "the reference",
        query_size: int | None = 1,
        name: str = "",
        rounds: int | None = None,
        budget_s: float | None = None,
        single: bool = True,
        device: str | None = None,
    ) -> LatencyReport:
        from functools import partial

        import torch

        from gkdbench.protocol.predictor import Predictor
        from gkdbench.testing import timed_runs as times

        own = times.device_of(run) if isinstance(run, Predictor) else times.fastest_device()
        where = own if device is None else torch.device(device)
        if reference is None:
            words, reference = times.standard_reference(gkd_task, where)
        calls = [
            times.asking(one, gkd_task, query_size) if isinstance(one, Predictor) else one for one in (run, reference)
        ]
        most, longest = _rounds(request, rounds, budget_s)
        turns = partial(
            times.time_in_turns, *calls, words=words, device=where, rounds=most, budget_s=longest, single=single
        )
        report = turns()
        _feed(request, report, name)
        gkd_ratio(report.ratio, words, name=name, again=lambda: turns().ratio)
        return report

    return time


@pytest.fixture
def gkd_kernel(request: pytest.FixtureRequest, gkd_ratio: Callable[..., None]) -> Callable[..., KernelReport]:
    """Compare a kernel with a plain formula: ``gkd_kernel(kernel, reference, inputs, ...) -> KernelReport``.

    Values and gradients are compared with the formula in float64; only then both are timed in turns.

    Args:
        kernel, reference: called as ``kernel(**inputs)``; give one tensor.
        inputs: floating-point tensors by name.
        words: of the reference, for reports.
        direction: ``"fwd+bwd"``, or ``"fwd"`` for a kernel without gradients.
        name, rounds, budget_s: as of `gkd_latency`.
    """

    def compare(
        kernel: Callable[..., Tensor],
        reference: Callable[..., Tensor],
        inputs: Mapping[str, Tensor],
        *,
        words: str = "the plain formula",
        direction: Literal["fwd", "fwd+bwd"] = "fwd+bwd",
        name: str = "",
        rounds: int | None = None,
        budget_s: float | None = None,
    ) -> KernelReport:
        from functools import partial

        from gkdbench.testing.kernel_check import compare_kernel

        most, longest = _rounds(request, rounds, budget_s)
        turns = partial(
            compare_kernel,
            kernel,
            reference,
            inputs,
            words=words,
            direction=direction,
            rounds=most,
            budget_s=longest,
        )
        with _plain_failure():
            report = turns()
        _feed(request, report.latency, name)
        gkd_ratio(report.latency.ratio, words, name=name, again=lambda: turns().latency.ratio)
        return report

    return compare


def _rounds(request: pytest.FixtureRequest, rounds: int | None, budget_s: float | None) -> tuple[int, float]:
    """What the call asks for, or else the marker, or else the default."""
    marker = request.node.get_closest_marker("gkd_rounds")
    given = dict(zip(("rounds", "budget_s"), marker.args, strict=False)) | dict(marker.kwargs) if marker else {}
    unknown = set(given) - {"rounds", "budget_s"}
    if unknown:
        pytest.fail(f"gkd_rounds: expected rounds and budget_s, got {sorted(unknown)}", pytrace=False)
    most = given.get("rounds", ROUNDS) if rounds is None else rounds
    return most, given.get("budget_s", BUDGET_S) if budget_s is None else budget_s


def _feed(request: pytest.FixtureRequest, report: LatencyReport, name: str) -> None:
    """Give a test's first samples to pytest-benchmark, and what all of them say to its JSON."""
    if "benchmark" not in request.fixturenames:
        return
    benchmark = request.getfixturevalue("benchmark")
    told = benchmark.extra_info.setdefault("gkdbench", {})
    if not told:
        _REPLAY.feed(benchmark, report.samples_s)
    told[name or "latency"] = report.as_json()


@contextmanager
def _plain_failure() -> Iterator[None]:
    """What the check says, without the traceback of the check."""
    try:
        yield
    except AssertionError as error:
        pytest.fail(str(error), pytrace=False)
