"""Every set at hand against the published sizes (docs/protocol.md, section 1 and the catalogue)."""

from pathlib import Path

import pytest

from gkdbench.data import catalogue
from gkdbench.data.datasets import dataset_info, load_task
from gkdbench.data.splits import prepare_named

AT_HAND = [
    name
    for name in catalogue.names()
    if catalogue.info(name).status != "unregistered" and catalogue.info(name).reader != "smiles"
]

PROTOCOL = {  # name: nodes, undirected edges without loops, features, classes
    "cora": (2708, 5278, 1433, 7),
    "citeseer": (3327, 4552, 3703, 6),
    "citeseer-cpf": (3312, 4536, 3703, 6),
    "pubmed": (19717, 44324, 500, 3),
    "amazon-computers": (13752, 245861, 767, 10),
    "amazon-photo": (7650, 119081, 745, 8),
    "coauthor-cs": (18333, 81894, 6805, 15),
    "coauthor-physics": (34493, 247962, 8415, 5),
}
LARGEST_COMPONENT = {  # name: nodes, undirected edges
    "cora": (2485, 5069),
    "citeseer": (2110, 3668),
    "pubmed": (19717, 44324),
    "amazon-computers": (13381, 245778),
    "amazon-photo": (7487, 119043),
    "coauthor-cs": (18333, 81894),
    "coauthor-physics": (34493, 247962),
}


@pytest.mark.parametrize("name", AT_HAND)
def test_sizes_are_the_published_ones(name: str, real_data: Path) -> None:
    task, info = load_task(name, data=real_data), dataset_info(name)
    sizes = {
        "nodes": task.num_nodes,
        "edges": task.graph.num_edges,
        "features": task.num_features,
        "classes": task.num_classes,
        "graphs": task.num_items,
    }
    assert info.stats
    assert {key: sizes[key] for key in info.stats} == dict(info.stats)
    assert task.kind == info.kind
    assert task.content_hash == info.content_hash


@pytest.mark.parametrize("name", PROTOCOL)
def test_protocol_section_1(name: str, real_data: Path) -> None:
    nodes, edges, features, classes = PROTOCOL[name]
    task = load_task(name, data=real_data)
    assert (task.num_nodes, task.num_features, task.num_classes) == (nodes, features, classes)
    assert bool((task.graph.index != task.graph.row).all())
    assert task.graph.num_edges == 2 * edges


@pytest.mark.parametrize("name", LARGEST_COMPONENT)
def test_largest_component(name: str, real_data: Path) -> None:
    nodes, edges = LARGEST_COMPONENT[name]
    task = prepare_named(name, "cpf-lcc-20-30", data=real_data).task
    assert task.num_nodes == nodes
    assert task.graph.num_edges == 2 * edges + nodes  # one loop at every node


def test_citeseer_has_48_isolated_nodes_of_which_15_are_unlabelled(real_data: Path) -> None:
    task = load_task("citeseer", data=real_data)
    assert int((task.graph.degree == 0).sum()) == 48
    assert int((task.labels == -1).sum()) == 15


def test_molecule_labels_keep_their_holes(real_data: Path) -> None:
    labels = load_task("ogbg-moltox21", data=real_data).labels
    assert int(labels.isnan().sum()) == 16026
    assert int((labels == 1).sum()) == 5862
