"""What runs before a commit, and for a pull request, is what `make` runs; the files of both can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from support.checkout import ROOT

WORKFLOW = ROOT / ".github/workflows/ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
YAML = sorted([HOOKS, *(ROOT / ".github").rglob("*.yml")])


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile, with its default environment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in block.splitlines()]


def test_hooks_are_the_commands_of_make_check() -> None:
    text = HOOKS.read_text(encoding="utf-8")
    assert re.findall(r"^ +entry: (.+)$", text, re.MULTILINE) == recipe("check")
    assert len(recipe("check")) == 3


def test_hooks_fetch_nothing() -> None:
    text = HOOKS.read_text(encoding="utf-8")
    assert re.findall(r"repo: (.+)", text) == ["local"]
    assert set(re.findall(r"language: (.+)", text)) == {"system"}
    assert "http" not in text and "additional_dependencies" not in text


def test_the_workflow_runs_make_test_on_every_supported_python() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert re.findall(r"- run: (.+)", text) == ["make test"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = [words.rpartition(" :: ")[2] for words in project["classifiers"]]
    versions = [version for version in known if re.fullmatch(r"3\.\d+", version)]
    (listed,) = re.findall(r"python: \[(.+)\]", text)
    assert listed.replace('"', "").split(", ") == versions


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_it_is_plain_yaml(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "\t" in line or line != line.rstrip()] == []
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip() and not line.startswith("#")]
    assert indents[0] == 0 and all(indent % 2 == 0 for indent in indents)


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_a_parser_reads_it(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("form", ["bug", "method"])
def test_forms_have_what_a_form_needs(form: str) -> None:
    text = (ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text(encoding="utf-8")
    for key in ("name", "description", "body"):
        assert re.search(rf"^{key}:", text, re.MULTILINE)
    ids = re.findall(r"^    id: (\w+)$", text, re.MULTILINE)
    assert len(ids) == len(set(ids)) == text.count("  - type: ")
