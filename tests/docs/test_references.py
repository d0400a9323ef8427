"""What documents, docstrings and comments refer to is there: links, sections, names, commands, abbreviations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.checkout import ROOT
from support.code_names import code_names, python_files
from support.document_blocks import blocks
from support.document_references import (
    abbreviations,
    absent_documents,
    absent_numbers,
    bad_command,
    broken_links,
    commands,
    docstrings,
    explained,
    flowing,
    names_with,
    slugs,
    spans,
    unknown_names,
    without_code,
)

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").glob("*.md")])
GENERATED = ("docs/claims/", "docs/results.md", "docs/reproduction.md")  # from records and TOML
GLOSSARY = ROOT / "docs/glossary.md"

ALLOWED = {
    "ind20": "a part of split ids, explained in the glossary",
    "tol": "a symbol of the formula above it",
    "RandomState": "numpy's",
    "autograd.Function": "torch's",
    "_ms": "a suffix of names",
    "_s": "a suffix of names",
    "_j": "a suffix of names",
    "cpf-lcc-20-30/seed0": "a split id, not a path",
    "X.Y.Z": "stands for a version",
    "gkdbench.backbones": "a group of entry points",
    "gkdbench/methods/gnn_to_mlp/soft_mlp.py": "written by the walk of CONTRIBUTING",
    "gkdbench/methods/gnn_to_mlp/configs/soft_mlp.toml": "written by the walk of CONTRIBUTING",
}
ALLOWED_IN_DOCSTRINGS = {
    "Tensor.bernoulli_": "torch's",
    "bernoulli_": "torch's",
    "custom_op": "torch's",
    "embedding_bag": "torch's",
    "sampled_addmm": "torch's",
    "topk": "torch's",
    "HeteroData": "of torch_geometric",
    "ToSparseTensor": "of torch_geometric",
    "adj_t": "of torch_geometric",
    "cuobjdump": "a program of CUDA",
    "monkeypatch": "of pytest",
    "ru_maxrss": "of Python's resource module",
}
NO_ABBREVIATIONS = {
    "AMD": "a company",
    "EPYC": "a processor",
    "METHOD": "stands for a name",
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_and_anchors_resolve(document: Path) -> None:
    assert broken_links(document.read_text(encoding="utf-8"), document.parent, slugs(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_sections_traps_decisions_and_controls_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert absent_documents(text, document.parent) + absent_numbers(text) == []


def test_sources_refer_to_documents_that_exist() -> None:
    sources = [*python_files(), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.toml")]
    sources += [path for folder in ("gkdbench", "suites", "docs", "tests") for path in (ROOT / folder).rglob("*.toml")]
    bad = {}
    for path in set(sources) - {Path(__file__)}:
        text = flowing(path)
        found = [name for name in absent_documents(text, path.parent) + absent_numbers(text) if name != "NAME.md"]
        if found:  # NAME.md stands for the name of a page
            bad[relative(path)] = found
    assert bad == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_names_and_commands_of_documents_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    names = names_with(block.code for block in blocks(document) if block.language == "python")
    assert unknown_names(spans(text), document.parent, names, frozenset(ALLOWED)) == []
    assert [command for command in commands(text) if bad_command(command)] == []


def test_names_in_docstrings_exist() -> None:
    bad = {}
    for path in python_files():
        texts = (re.sub(r"``[^`]*``", "", text) for text in docstrings(path))  # double backticks: formulas, literals
        found = [span for text in texts for span in spans(text)]
        if unknown := unknown_names(found, path.parent, code_names(), frozenset(ALLOWED | ALLOWED_IN_DOCSTRINGS)):
            bad[relative(path)] = unknown
    assert bad == {}


def test_no_exception_is_left_over() -> None:
    documents = {span for path in DOCUMENTS for span in spans(path.read_text(encoding="utf-8"))}
    assert sorted(ALLOWED.keys() - documents) == []
    sources = " ".join(text for path in python_files() for text in docstrings(path))
    assert [name for name in ALLOWED_IN_DOCSTRINGS if f"`{name}`" not in sources] == []
    prose = set().union(*(abbreviations(path.read_text(encoding="utf-8")) for path in DOCUMENTS))
    assert sorted(NO_ABBREVIATIONS.keys() - prose) == []


def test_abbreviations_are_explained() -> None:
    known = explained(GLOSSARY.read_text(encoding="utf-8")) | set(NO_ABBREVIATIONS)
    bad = {}
    for document in (ROOT / "docs").rglob("*.md"):
        text = document.read_text(encoding="utf-8")
        if not relative(document).startswith(GENERATED) and (found := abbreviations(text) - explained(text) - known):
            bad[relative(document)] = sorted(found)
    assert bad == {}


def test_the_map_of_the_design_names_folders_that_exist() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    drawn = text.split("## The house")[1].split("## ")[0]
    names = re.findall(r"^ {4,}((?:[\w.]+/? ?)+?)(?: {2}|$)", drawn, re.MULTILINE)
    found = [name for line in names for name in line.split() if "/" in name or name.endswith(".py")]
    assert len(found) > 30
    known = {path.name for folder in ("gkdbench", "kernels", "docs", "tests", "suites", "results")
             for path in [ROOT / folder, *(ROOT / folder).rglob("*")]}  # fmt: skip
    assert [name for name in found if Path(name).name not in known] == []


def test_planted_links_and_references_are_found() -> None:
    text = "[a](protocol.md#5-statistics) [b](protocol.md#55-x) [c](gone.md) ![d](no.svg) [e](#here) [f](#there)"
    assert broken_links(text, ROOT / "docs", frozenset({"here"})) == ["protocol.md#55-x", "gone.md", "no.svg", "#there"]
    assert broken_links("```\n[c](gone.md)\n```\n", ROOT) == []
    assert absent_documents("see docs/protocol.md and methods.md", ROOT / "docs") == ["methods.md"]
    right = "docs/protocol.md, section 4.1, protocol traps 1, 2 and 34, design decision 15, control G10, H1"
    assert absent_numbers(right) == []
    wrong = "protocol section 44, docs/design.md, decision\n99; trap 3, 77; controls G1 and G11; H9; methods.md A1"
    found = ["protocol section 44", "trap 77", "decision 99", "control 11", "case 9", "mark A1"]
    assert sorted(absent_numbers(wrong)) == sorted(found)


@pytest.mark.parametrize(
    ("span", "known"),
    [
        ("gkdbench.training.distil", True),
        ("gkdbench.training.distill", False),
        ("gkdbench.nn.rbm.RbMModel.folded", True),
        ("Backbone.hops", True),
        ("Backbone.depth_of_all", False),
        ("train_solo", True),
        ("train_everything", False),
        ("TrainView", True),
        ("PeerForward", False),
        ("gkdbench/nn/gcn.py", True),
        ("gkdbench/nn/gcm.py", False),
        ("gkdbench/training/method.py::Method", True),
        ("gkdbench/training/method.py::Recipe", False),
        ("gkdbench run smoke --rerun", True),
        ("gkdbench run smoke --again", False),
        ("gkdbench train smoke", False),
        ("gkdbench run mutual@1", True),
        ("gkdbench run mutual@99", False),
        ("x + y", True),
    ],
)
def test_planted_names_are_found(span: str, known: bool) -> None:
    text = f"A sentence with `{span}` in it.\n```\n`not_this_one_in_a_block`\n```\n"
    assert unknown_names(spans(text), ROOT, code_names(), frozenset()) == ([] if known else [span])


def test_planted_abbreviations_are_found() -> None:
    text = "An XYZ and a multi-layer perceptron (MLP); KLD (divergence of two things) and `ABC`.\n\n    QRS = 1\n"
    assert abbreviations(text) - explained(text) == {"XYZ"}
    assert without_code("a\n```\nb\n```\nc").split() == ["a", "c"]


def test_comments_and_docstrings_are_read(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text('"""One."""\nX = 1  # see trap\n# 77\n"""Four."""\n\n\ndef f():\n    """Five."""\n')
    assert sorted(docstrings(source)) == ["Five.", "Four.", "One."]
    assert absent_numbers(flowing(source)) == ["trap 77"]
