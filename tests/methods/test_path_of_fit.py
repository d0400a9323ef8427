"""The docstrings of four methods name the files that their `fit` enters, in order; a trace says whether they are right.

The number of files is a bound too: whoever wants to understand a method reads these, so it must not grow unnoticed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import gkdkernels
import pytest

import gkdbench
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import Workshop, small_method

ROOMS = ("methods", "training", "nn", "gkdkernels")
ROOTS = {str(Path(gkdbench.__file__).parent): "", str(Path(gkdkernels.__file__).parent): "gkdkernels/"}
MOST = {"glnn": 16, "gml": 27, "rbm": 31, "alignahead": 34}
"""Files at most, the method's own included; five of the last three refuse what the operators cannot do: second
derivatives, indices out of range, mixed dtypes under autocast (`gkdkernels/core`, `gkdkernels/kept.py`)."""


def files_entered(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files of methods, training, nn and gkdkernels whose functions a small run's `fit` calls, by first call."""
    found: dict[str, None] = {}

    def enter(frame: FrameType, event: str, arg: Any) -> None:
        file = frame.f_code.co_filename
        if event != "call" or frame.f_code.co_name == "<module>":
            return
        for root, prefix in ROOTS.items():
            if file.startswith(f"{root}/"):
                found.setdefault(prefix + file[len(root) + 1 :])

    method = small_method(name, {}, epochs=3)
    plain = type(method).fit

    def traced(self: Any, view: Any, ctx: Any) -> Any:
        sys.setprofile(enter)
        try:
            return plain(self, view, ctx)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(type(method), "fit", traced)
    run = Workshop(folder).run(method, small_problem("tran"))
    assert run.outcome.status == "ok", run.outcome.traceback
    return [file for file in found if file.split("/")[0] in ROOMS]


def files_named(docstring: str) -> list[str]:
    """What the paragraph "Files that `fit` enters" of a module's docstring lists."""
    found = re.search(r"Files that `fit` enters[^:]*:(.*?)(?:\n\n|\Z)", docstring, re.DOTALL)
    return re.findall(r"[\w/]+\.py", found[1]) if found else []


@pytest.mark.parametrize("name", sorted(MOST))
def test_the_docstring_names_the_files_in_order(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[type(small_method(name, {}, epochs=3)).__module__]
    own = module.__name__.partition(".")[2].replace(".", "/") + ".py"
    entered = files_entered(name, tmp_path, monkeypatch)
    assert own in entered
    assert files_named(str(module.__doc__)) == [file for file in entered if file != own]
    assert len(entered) <= MOST[name]


def test_a_docstring_without_the_paragraph_names_none() -> None:
    assert files_named("A method.\n\nIt reads files.py.") == []
    assert files_named("A method.\n\nFiles that `fit` enters, in order: a/b.py,\nc/d.py.\n\nMore x/y.py.") == [
        "a/b.py",
        "c/d.py",
    ]
