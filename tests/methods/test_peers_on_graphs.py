"""Peers on batches of graphs: without transfer each is alone, bit for bit; with it, it is not."""

from typing import Any

import pytest

from gkdbench.testing.method_case import identical

SMALL = {"hidden": 8, "layers": 2, "dropout": 0.5}
PAIR: dict[str, Any] = {"peers": ["gin", "gcn"], "models": {"gin": SMALL, "gcn": SMALL | {"readout": "mean"}}}
FOUR: dict[str, Any] = {"peers": ["gin"] * 3, "models": {"gin": SMALL}}
SHARED: dict[str, Any] = {"lr": 0.01, "weight_decay": 5e-4, "batch_size": 16, "patience": None}


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_the_first_of_two_peers_is_the_solo_run(bench: Any, variant: str) -> None:
    peers = bench.run("dml", "graph", lam=0.0, variant=variant, **PAIR, **SHARED).final
    alone = bench.final("teacher", "graph", backbone="gin", model=SMALL, fanouts=(), **SHARED)
    assert identical(peers["peer0"], alone)


@pytest.mark.parametrize(
    ("name", "off", "on", "peers"),
    [
        ("gml", {"lam": 0.0, "beta": 0.0}, {}, PAIR),
        ("kdcl", {"lam": 0.0}, {}, PAIR),
        ("kdcl", {"lam": 0.0, "target": "general"}, {"target": "general"}, PAIR),
        ("lower_ce", {"lam": 0.0}, {}, PAIR),
        ("okddip", {"lam": 0.0}, {}, FOUR),
        ("oad", {"kd_weight": 0.0, "gan_weight": 0.0}, {"warmup": 0}, FOUR),
    ],
)
def test_without_transfer_nobody_teaches(
    bench: Any, name: str, off: dict[str, Any], on: dict[str, Any], peers: dict[str, Any]
) -> None:
    alone = bench.run("dml", "graph", lam=0.0, **peers, **SHARED).final
    without = bench.run(name, "graph", **off, **peers, **SHARED).final
    taught = bench.run(name, "graph", **on, **peers, **SHARED).final
    for model, state in without.items():
        own = "peer0" if model == "leader" else model
        assert identical(state, alone[own])
        assert not identical(taught[model], state)
