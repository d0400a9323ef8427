"""The method case notices what it is there for: each bad method fails its test, the honest one fails none."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import bad_methods as badmethods
from support.bad_methods import Leak

from gkdbench.registry import Entry
from gkdbench.testing import MethodCase
from gkdbench.testing.runs import Workshop
from gkdbench.training.registry import METHODS

TESTS = [name for name, _ in inspect.getmembers(MethodCase, inspect.isfunction) if name.startswith("test_")]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad methods, registered for the length of a test."""
    own = {cls.name: Entry(cls.name, f"support.{badmethods.HERE}:{cls.__name__}", "tests") for cls in badmethods.ALL}
    monkeypatch.setattr(METHODS, "_entries", {**METHODS.entries(), **own})
    monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))


@pytest.fixture
def failures() -> Iterator[Callable[..., dict[str, str]]]:
    """failures(method): test -> message, of the tests of the case that it fails."""
    cases: list[Any] = []

    def of(method: str, **attributes: Any) -> dict[str, str]:
        case = type("Case", (MethodCase,), {"name": method, **attributes})
        case.setup_class()
        cases.append(case)
        failed = {}
        for name in TESTS:
            try:
                one = case()
                one.setup_method(getattr(one, name))
                getattr(one, name)()
            except unittest.SkipTest:
                continue
            except AssertionError as error:
                failed[name] = str(error)
        return failed

    yield of
    for case in cases:
        case.teardown_class()


def test_an_honest_method_passes_every_test(failures: Callable[..., dict[str, str]]) -> None:
    assert failures("honest") == {}


@pytest.mark.parametrize(
    ("method", "test", "message"),
    [
        ("unread", "test_every_setting_is_read", "never read momentum"),
        ("global_draws", "test_global_random_state_is_untouched", "generators of torch, numpy, random"),
        ("outside_draws", "test_same_seed_same_run", "selected epochs and weights"),
        ("validation_learner", "test_validation_labels_only_select", "they reach the training"),
        ("index_reader", "test_node_order_only_permutes", "nodes in another order"),
        ("bare", "test_declares_what_tables_need", "`paper` is empty"),
        ("seed_blind", "test_other_seed_other_weights", "must derive from ctx.seed"),
    ],
)
def test_a_bad_method_fails_its_test(
    failures: Callable[..., dict[str, str]], method: str, test: str, message: str
) -> None:
    found = failures(method)
    assert message in found.pop(test)
    if method == "validation_learner":  # it reads them by position, and positions are drawn anew for other orders
        found.pop("test_node_order_only_permutes")
    if method != "outside_draws":  # two of its runs are never alike: it fails wherever two runs are compared
        assert found == {}


@pytest.mark.parametrize(
    ("what", "test"), [("labels", "test_ignores_test_labels"), ("features", "test_ignores_unseen_nodes")]
)
def test_a_broken_harness_fails_the_leak_tests(
    failures: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, what: str, test: str
) -> None:
    """Labels, or features of unseen nodes, that leak past the bundle change the weights, and that is noticed."""
    plain = Workshop.run

    def leaky(self: Workshop, method: Any, problem: Any, **options: Any) -> Any:
        setattr(Leak, what, getattr(problem.task, what))
        try:
            return plain(self, method, problem, **options)
        finally:
            setattr(Leak, what, None)

    monkeypatch.setattr(Workshop, "run", leaky)
    assert "selected epochs and weights" in failures("leak_reader")[test]


def test_excuses_skip_but_never_the_leak_tests(failures: Callable[..., dict[str, str]]) -> None:
    assert failures("seed_blind", excused={"test_other_seed_other_weights": "a toy"}) == {}
    assert (
        "cannot be excused"
        in failures("honest", excused={"test_ignores_test_labels": "please"})["test_excuses_are_no_leaks"]
    )
    assert "do not exist" in failures("honest", excused={"test_everything": "please"})["test_excuses_are_no_leaks"]


def test_reasons_for_unread_fields_must_be_needed(failures: Callable[..., dict[str, str]]) -> None:
    assert failures("unread", unread={"momentum": "a toy"}) == {}
    assert "that every run reads" in failures("honest", unread={"lr": "a toy"})["test_every_setting_is_read"]
