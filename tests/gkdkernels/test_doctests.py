"""The examples in the docstrings of the main operators run, and print what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

EXAMPLES = {
    "conversions": ("from_pyg", "from_torch_sparse", "with_self_loops"),
    "graph": ("CSRGraph.edge_order", "CSRGraph.from_edge_index"),
    "core.dispatch": ("explain",),
    "core.dropout": ("keyed_dropout",),
    "experts.op": ("expert_linear",),
    "experts.routing": ("route_by_memory",),
    "gat.attention": ("gat_attention",),
    "gat.op": ("gat_aggregate",),
    "mutual_kl.op": ("mutual_kl",),
    "segment.edge_softmax": ("edge_softmax",),
    "segment.op": ("segment_max", "segment_mean", "segment_softmax", "segment_sum"),
    "soft_kl.op": ("soft_kl",),
    "spmm.edge_dot": ("edge_dot",),
    "spmm.op": ("gcn_norm", "spmm"),
    "structure_kl.edge_log_probs": ("edge_log_probs",),
    "structure_kl.op": ("structure_kl",),
}
CASES = [(module, name) for module, names in EXAMPLES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), CASES, ids=[name for _, name in CASES])
def test_the_example_prints_what_it_shows(module: str, name: str) -> None:
    home = importlib.import_module(f"gkdkernels.{module}")
    found = {test.name.removeprefix(f"{home.__name__}."): test for test in doctest.DocTestFinder().find(home)}
    assert found[name].examples, f"{name} has no example in its docstring"
    printed: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(found[name], out=printed.append)
    assert failed == 0, "".join(printed)
