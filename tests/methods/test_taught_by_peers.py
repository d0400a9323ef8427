"""A peer as the teacher of a student: GLNN from GML-R's first peer, through the bank."""

from typing import Any

import pytest
import torch

from gkdbench.errors import UserError
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.view import Teacher
from gkdbench.training.models import load_teacher_model
from gkdbench.training.resolve import resolve

PEERS = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
STUDENT: dict[str, Any] = {"model": {"hidden": 8}, "teacher_method": "gml", "teacher_settings": PEERS}


def test_the_teacher_is_the_first_peer(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Teacher] = []
    read = BankEntry.read

    def noting(self: BankEntry, view: Any) -> Teacher:
        seen.append(read(self, view))
        return seen[-1]

    monkeypatch.setattr(BankEntry, "read", noting)
    student = bench.run("glnn", **STUDENT)
    peers = bench.workshop.run(resolve("gml", PEERS | {"epochs": 5}), bench.problem("tran"))
    assert student.outcome.teachers["teacher"] == peers.outcome.models[0]["weights_sha256"]
    assert (seen[0].method, seen[0].weights_sha256) == ("gml", peers.outcome.models[0]["weights_sha256"])
    assert seen[0].hidden is not None and seen[0].hidden.value.size(1) == 8


def test_another_teacher_makes_another_student(bench: Any) -> None:
    solo = bench.final("glnn", model={"hidden": 8}, teacher="gcn")
    taught = bench.final("glnn", **STUDENT)
    assert not all(torch.equal(solo[name], taught[name]) for name in solo)


def test_a_solo_teacher_leaves_no_trace_in_the_configuration() -> None:
    """Keys of published rows cover `config`, which is as it was before other methods could teach."""
    config = resolve("glnn").config()
    assert not {"teacher_method", "teacher_settings"} & set(config)
    taught = resolve("glnn", STUDENT)
    assert {"teacher_method", "teacher_settings"} <= set(taught.config())
    assert resolve("glnn", taught.config()) == taught


def test_a_solo_teacher_may_have_settings_of_its_own() -> None:
    need = resolve("kd", {"teacher": "gcn", "teacher_settings": {"lr": 0.02}}).requires()["teacher"]
    assert (need.method, dict(need.overrides), need.recipe) == ("teacher", {"backbone": "gcn", "lr": 0.02}, None)
    need = resolve("glnn", {"teacher_recipe": "kipf2017_gcn"}).requires()["teacher"]
    assert (need.method, dict(need.overrides), need.recipe) == ("teacher", {}, "kipf2017_gcn")


def test_a_student_that_runs_its_teacher_again_wants_a_solo_one(bench: Any) -> None:
    peers: Any = type("Teacher", (), {"method": "gml", "config": resolve("gml").config()})
    with pytest.raises(UserError, match=r"expected a solo teacher, .*got one of 'gml'"):
        load_teacher_model(peers, bench.given("tran").view)
