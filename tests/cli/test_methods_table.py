"""``gkdbench list methods``: families, sentences and papers, within 100 columns."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.command import Done

from gkdbench.training.registry import METHODS
from gkdbench.verbs.methods_table import WIDTH, citation, family_of, method_lines, sentence_of

Inside = Callable[..., Done]


@pytest.mark.parametrize(
    ("target", "family"),
    [
        ("gkdbench.methods.gnn_to_mlp.glnn:GLNN", "gnn_to_mlp"),
        ("gkdbench.methods.baselines.mlp:PlainMLP", "baselines"),
        ("gkdbench.methods.glnn:GLNN", ""),
        ("gkdbench_other.methods.mine:Mine", "third party (gkdbench-other)"),
        ("gkdbench.methodsnot.mine:Mine", "third party (gkdbench-other)"),
    ],
)
def test_the_family_is_the_folder_of_the_module(target: str, family: str) -> None:
    assert family_of(target, "gkdbench-other") == family


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        ("ffg2m", "FF-G2M: an MLP that learns.", "An MLP that learns."),
        ("gml", "GML-R: a reconstruction of GML.", "A reconstruction of GML."),
        ("mlp", "The plain MLP: what features can do.", "The plain MLP: what features can do."),
        ("mlp_macs", "Control G2: a distilled MLP.", "Control G2: a distilled MLP."),
        ("glnn", "GLNN without a colon.", "GLNN without a colon."),
        ("kd", "", ""),
    ],
)
def test_the_sentence_leaves_out_the_name_that_stands_beside_it(name: str, line: str, sentence: str) -> None:
    assert sentence_of(name, line) == sentence


@pytest.mark.parametrize(
    ("paper", "year", "cited"),
    [
        ("Zhang, Liu, Sun, Shah, Graph-less Neural Networks: Teaching Old MLPs", 2022, "Zhang et al. 2022"),
        ("Zagoruyko, Komodakis, Paying More Attention to Attention; on graphs", 2017, "Zagoruyko & Komodakis 2017"),
        ("baseline of Rumiantsev, Coates, Graph Knowledge Distillation", 2024, "Rumiantsev & Coates 2024"),
        ("reconstruction (BGNN-R) of Guo, Zhang, Fan, Boosting Graph Networks", 2023, "Guo et al. 2023"),
        ("the MLP baseline of Zhang et al., Graph-less Neural Networks, ICLR 2022", 2022, "Zhang et al. 2022"),
        ("Yang, Tian, Xu, VQGraph", 2024, "Yang et al. 2024"),
        ("Müller, One Title", 2020, "Müller 2020"),
        ("A title alone", 2020, "2020"),
        ("", 2020, "2020"),
        ("control G1: parameter-matched MLP", None, ""),
    ],
)
def test_a_paper_in_short(paper: str, year: int | None, cited: str) -> None:
    assert citation(paper, year) == cited


def row(name: str, family: str, sentence: str = "One that does what it does.") -> dict[str, str]:
    return {"method": name, "family": family, "sentence": sentence, "cited": "Wu et al. 2019"}


def test_methods_stand_below_their_family_strangers_last() -> None:
    rows = [
        row("a", "third party (x)"),
        row("b", "structure"),
        row("c", "baselines"),
        row("d", "structure"),
        row("e", "gnn_to_mlp"),
    ]
    lines = [line.split("  ")[0 if line[:1] != " " else 1] for line in method_lines(rows)]
    assert lines == ["baselines", "c", "", "gnn_to_mlp", "e", "", "structure", "b", "d", "", "third party (x)", "a"]


def test_long_names_and_sentences_take_further_lines_and_lose_no_word() -> None:
    words = " ".join(["spread"] * 40)
    lines = method_lines([row("short", "", words), row("a_name_that_is_longer_than_any_of_ours", "", words)])
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(lines).split().count("spread") == 80
    assert " ".join(lines).split().count("Wu") == 2


def test_every_method_has_a_sentence_within_the_width(inside: Inside) -> None:
    printed = inside("list", "methods").out
    assert max(map(len, printed.splitlines())) <= WIDTH
    assert "``" not in printed  # the formula is in `show`
    rows = {found["method"]: found for found in json.loads(inside("list", "methods", "--json").out)}
    assert set(rows) == set(METHODS.names())
    assert all(found["sentence"] and "family" in found and "what" in found for found in rows.values())
    assert rows["glnn"]["sentence"] == "An MLP that learns a GNN teacher's soft labels."


def test_show_prints_sentence_formula_and_control(inside: Inside) -> None:
    shown = inside("show", "kd").out
    assert "sentence: Hinton's distillation, for nodes and for graphs." in shown
    assert "about: ``(1 - a) CE" in shown
    assert "control: no_transfer, at alpha = 0.0" in shown
