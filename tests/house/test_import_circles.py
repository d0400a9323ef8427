"""No module imports itself through others, and no package imports one of a higher floor."""

from __future__ import annotations

from support.import_graph import circles, graph_of, import_graph

FLOORS = (
    ("gkdkernels",),
    ("errors",),
    ("safe_files", "options", "printable", "meter"),
    ("safe_arrays", "text_files"),
    ("controls", "moved", "registry"),
    ("metrics", "records"),
    ("data", "nn"),
    ("protocol",),
    ("training",),
    ("methods", "measure"),
    ("execute", "report"),
    ("testing",),
    ("verbs",),
    ("cli",),
)
"""From the ground: a package imports packages of lower floors, at the top of a file or inside a function."""

KNOWN = (
    # Task.from_arrays and Task.from_pyg call the checks of user data, which make a Task.
    ["gkdbench.data.build", "gkdbench.data.task", "gkdbench.data.user"],
    # load_suite("smoke") asks for the suite that is made from the registry, which is a Suite.
    ["gkdbench.execute.smoke", "gkdbench.execute.suite"],
)
"""Circles that an import inside a function closes, so that one public name is the entry to both modules."""


def floor(module: str) -> int:
    names = module.split(".")
    package = names[1] if names[0] == "gkdbench" else names[0]
    return next(number for number, packages in enumerate(FLOORS) if package in packages)


def test_no_circles_but_the_known_ones() -> None:
    assert circles(import_graph()) == list(KNOWN)


def test_nothing_is_imported_from_a_higher_floor() -> None:
    upwards = [
        f"{module} -> {target}"
        for module, targets in import_graph().items()
        for target in targets
        if "gkdbench" not in (module, target)  # the root holds the version and names that are loaded on use
        and module.split(".")[:2] != target.split(".")[:2]
        and floor(target) >= floor(module)
        and not module.startswith("gkdkernels")
    ]
    assert upwards == []


def test_a_planted_circle_is_found() -> None:
    sources = {
        "a": "from b import x",
        "b": "def f():\n    import c.d",
        "c.d": "if True:\n    from a import y",
        "e": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import f",
        "f": "import e",
    }
    assert circles(graph_of(sources)) == [["a", "b", "c.d"]]
