"""The 81 released configurations: of RbM, of the plain mixture, and of the MLP, which is GLNN's."""

from __future__ import annotations

import importlib.resources
from typing import Any

import pytest

from gkdbench.errors import UserError
from gkdbench.training.resolve import recipes, resolve

PUBLISHED = {
    "cora_tran": (512, 3, 0.3, 4, 3, 0.0, 0.01, 0.01, False, 0.01, 5e-4, 12, 0.2, 1.29, (50, 5, 5, 1, 64), 0.04),
    "cora_ind": (256, 3, 0.4, 4, 3, 0.1, 0.01, 0.05, True, 0.01, 1e-4, 12, 0.2, 0.6, (50, 5, 5, 1, 64), 0.04),
    "citeseer_ind": (512, 2, 0.6, 4, 3, 1e-6, 0.05, 0.05, False, 0.005, 1e-3, 25, 0.1, 0.55, (50, 5, 5, 3, 16), 0.045),
    "pubmed_tran": (256, 2, 0.5, 7, 2, 0.01, 1e-7, 0.025, True, 0.005, 5e-4, 10, 0.0, 1.0, (50, 1, 5, 3, 16), 0.005),
    "amazon-photo_tran": (1024, 2, 0, 5, 3, 0.05, 0.05, 0.05, True, 0.01, 5e-4, 3, 0.4, 0.5, (30, 1, 5, 1, 64), 0.1),
    "coauthor-cs_ind": (128, 2, 0.5, 6, 3, 0.1, 1e-7, 0.05, False, 0.001, 1e-4, 3, 0.3, 0.65, (70, 1, 5, 1, 64), 0.07),
    "coauthor-physics_tran": (64, 2, 0.6, 5, 2, 0.05, 0, 0, True, 0.01, 1e-4, 6, 0.1, 1.2, (70, 1, 5, 1, 64), 0.05),
    "ogbn-arxiv_tran": (1024, 3, 0.2, 5, 3, 0.05, 0.01, 1e-7, False, 0.005, 0, 4, 0.2, 1.0, (50, 5, 5, 1, 128), 0.02),
}
"""Rows of the published table with a GraphSAGE teacher: width, layers, dropout, E, k, vq, sim, lb, gate, lr, decay,
pre-training epochs, lambda, tau, walks, eps."""


@pytest.mark.parametrize("cell", PUBLISHED)
def test_published_settings(cell: str) -> None:
    m: Any = resolve("rbm", recipe=f"rumiantsev2024_rbm_{cell}_sage")
    size = (m.model["hidden"], m.model["layers"], m.model["dropout"], m.model["experts"], m.model["k"])
    losses = (m.commitment, m.spread, m.balance, m.model["gate"])
    training = (m.lr, m.weight_decay, m.pretrain, m.label_weight, m.tau)
    walks = (m.walk_length, m.num_walks, m.window, m.iterations, m.dim)
    assert (*size, *losses, *training, walks, m.adv_eps) == PUBLISHED[cell]
    assert m.model["norm"] == ("batch" if "ogbn" in cell else "none")
    assert m.model["decay"] == 0.9
    assert (m.epochs, m.patience, m.batch_size) == (500, 50, 4096)
    examples = {"cora": (True, 0.05), "pubmed": (True, 0.0)}  # the release's commands
    assert (m.reliable, m.adv_weight) == examples.get(cell.partition("_")[0], (False, 0.0))
    assert (m.encodings, m.similarity, m.label_propagation) == (False, 0.0, False)


@pytest.mark.parametrize("student", ["rbm", "moe", "mlp"])
def test_every_released_configuration_has_its_recipe_and_teacher(student: str) -> None:
    method = "glnn" if student == "mlp" else student
    named = [name for name in recipes(method) if name.startswith(f"rumiantsev2024_{student}_")]
    assert len(named) == 9 * 3
    assert {name.rpartition("_")[0].rpartition("_")[2] + name.rpartition("_")[2] for name in named} == {
        "trangcn",
        "transage",
        "indsage",
    }
    for name in named:
        student_of: Any = resolve(method, recipe=name)
        (need,) = student_of.requires().values()
        teacher: Any = resolve(need.method, need.overrides, recipe=need.recipe)
        assert teacher.backbone == name.rpartition("_")[2]
        assert (teacher.lr, teacher.fanouts, teacher.batch_size) == (0.01, (), None)
        if "products" not in name:
            assert teacher.model["hidden"] == student_of.model["hidden"]
            assert teacher.model["layers"] == student_of.model["layers"]


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_released_settings_are_the_default_with_the_teacher_of_the_others(setting: str) -> None:
    split = "cpf-lcc-20-30" + ("-ind20" if setting == "ind" else "")
    name = f"rumiantsev2024_rbm_pubmed_{setting}_sage"
    default: Any = resolve("rbm", dataset="pubmed", split=split)
    asked: Any = resolve("rbm", dataset="pubmed", split=split, recipe=name)
    assert default.recipe == asked.recipe == name
    assert (default.teacher_recipe, asked.teacher_recipe) == (None, name)
    assert {**default.config(), "teacher_recipe": name} == asked.config()
    elsewhere: Any = resolve("rbm", dataset="pubmed", split=split, overrides={"teacher": "gat"})
    assert elsewhere.recipe is None
    scaled: Any = resolve("rbm", dataset="pubmed", split="planetoid-public", overrides={"variant": "as_released"})
    asked = resolve("rbm", dataset="pubmed", split="planetoid-public", recipe=scaled.recipe)
    assert (scaled.weight_decay, asked.weight_decay) == (5e-5, 5e-4)


MLPS = {
    "cora_tran_sage": (512, 3, 0.6, "none", 0.01, 5e-4, 0.2, 1.29),
    "pubmed_ind_sage": (256, 2, 0.4, "none", 0.01, 5e-4, 0.0, 1.0),
    "coauthor-cs_tran_gcn": (1024, 2, 0.6, "none", 0.01, 1e-3, 0.3, 1.1),
    "ogbn-arxiv_ind_sage": (512, 3, 0.1, "batch", 0.005, 5e-4, 0.2, 0.9),
}
"""Width, layers, dropout, norm, lr, decay, lambda, tau."""


@pytest.mark.parametrize("cell", MLPS)
def test_published_settings_of_the_plain_mlp(cell: str) -> None:
    m: Any = resolve("glnn", recipe=f"rumiantsev2024_mlp_{cell}")
    size = tuple(m.model[name] for name in ("hidden", "layers", "dropout", "norm"))
    assert (*size, m.lr, m.weight_decay, m.label_weight, m.tau) == MLPS[cell]
    assert (m.epochs, m.patience, m.batch_size) == (500, 50, 4096)


STOPS = (
    *("citeseer_ind", "pubmed_tran", "amazon-computers_tran", "amazon-computers_ind", "amazon-photo_ind"),
    *("coauthor-cs_ind", "ogbn-arxiv_tran", "ogbn-arxiv_ind"),
)
"""With a GraphSAGE teacher: the release reads a coefficient of these as a string."""


def test_configurations_that_stop_the_release_are_marked_and_run_here() -> None:
    """protocol trap 26: what is a number is a number, and a string for one is refused by name before anything runs."""
    text = (importlib.resources.files("gkdbench.methods.mixture") / "configs" / "rbm.toml").read_text(encoding="utf-8")
    blocks = text.split("\n\n")
    marked = {b.split("[recipe.")[1].split("]")[0] for b in blocks if "stops with a TypeError here" in b}
    assert marked == {f"rumiantsev2024_rbm_{cell}_sage" for cell in STOPS}
    for name in marked:
        method: Any = resolve("rbm", recipe=name, overrides={"variant": "as_released"})
        assert all(type(value) is float for value in (method.commitment, method.spread, method.balance))
    with pytest.raises(UserError, match=r"spread: expected .*, got '1e-7'"):
        resolve("rbm", {"spread": "1e-7"})


def test_what_the_sampler_has_of_its_own_in_a_configuration() -> None:
    found: Any = resolve("moe", recipe="rumiantsev2024_moe_cora_tran_gcn")
    assert (found.update_from, found.momentum, found.bins, found.power, found.reliable) == (10, 0.99, 50, 1.0, False)
    for student in ("rbm", "moe"):
        large: Any = resolve(student, recipe=f"rumiantsev2024_{student}_ogbn-arxiv_ind_sage")
        assert (large.update_from, large.momentum) == (50, 0.9)
