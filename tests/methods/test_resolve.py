"""From a name and overrides to a method: what wins, what is refused, and the papers' values (protocol.md, trap 26)."""

import dataclasses
import json
from typing import Any

import pytest

from gkdbench.errors import UnknownName, UserError
from gkdbench.training.method import Requirement
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import recipes, resolve, resolve_stored

BACKBONES = ["mlp", "gcn", "sage", "gat", "appnp", "gin"]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("glnm", {}, "unknown method 'glnm'; did you mean 'glnn'"),
        ("glnn", {"epoch": 5}, "unknown setting of method 'glnn' 'epoch'; did you mean 'epochs'"),
        ("glnn", {"model": {"hiden": 5}}, "unknown setting of backbone 'mlp' 'hiden'; did you mean 'hidden'"),
        ("teacher", {"backbone": "gnc"}, "unknown backbone 'gnc'; did you mean"),
        ("glnn", {"recipe": "kipf"}, "unknown recipe of method 'glnn' 'kipf'"),
        ("teacher", {"recipe": "kipf2017"}, "did you mean 'kipf2017_gcn'"),
        ("mlp", {"variant": "released"}, "'mlp': variant: expected one of corrected, as_released, got 'released'"),
        ("sgc", {"variant": "as_released"}, "'sgc': variant: expected one of corrected, got 'as_released'"),
        ("glnn", {"lr": "0.01"}, "lr: expected a valid number, got '0.01'"),
        ("glnn", {"lr": 0}, "lr: expected a value greater than 0, got 0.0"),
        ("glnn", {"lr": float("nan")}, "lr: expected a finite number, got nan"),
        ("glnn", {"epochs": 0}, "epochs: expected a value greater than or equal to 1, got 0"),
        ("glnn", {"epochs": 5.0}, "epochs: expected a valid integer, got 5.0"),
        ("glnn", {"epochs": True}, "epochs: expected a valid integer, got True"),
        ("glnn", {"label_weight": 1.5}, "label_weight: expected a value less than or equal to 1, got 1.5"),
        ("glnn", {"backbone": "gcn"}, "backbone: expected 'mlp', got 'gcn'"),
        ("glnn", {"backbone": 3}, "backbone: expected 'mlp', got 3"),
        ("kd", {"backbone": ["gcn"]}, "backbone: expected a valid string, got "),
        ("glnn", {"model": 3}, "model: expected a valid dictionary, got 3"),
        ("glnn", {"model": [1]}, "model: expected a valid dictionary, got [1]"),
        ("glnn", {"model": None}, "model: expected a valid dictionary, got None"),
        ("glnn", {"model": {"hidden": "64"}}, "hidden: expected a valid integer, got '64'"),
        ("glnn", {"model": {"dropout": 1.5}}, "mlp.dropout: expected a value in [0, 1], got 1.5"),
        ("kd", {"nodes": "labelled"}, "nodes: expected 'all' or 'train', got 'labelled'"),
        ("teacher", {"fanouts": [5, 0]}, "fanouts: expected a value greater than or equal to 1, got (5, 0)"),
        ("teacher", {"fanouts": 5}, "fanouts: expected a valid tuple, got 5"),
        ("label_smoothing", {"smoothing": 1.0}, "smoothing: expected a value less than 1, got 1.0"),
    ],
)
def test_bad_settings_are_refused_by_name(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(name, overrides)
    assert message in str(caught.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"lr: expected .*; epochs: expected .*|epochs: expected .*; lr: expected .*"):
        resolve("glnn", {"lr": -1.0, "epochs": 0})


def test_integers_stand_for_floats_and_lists_for_tuples() -> None:
    method: Any = resolve("teacher", {"lr": 1, "fanouts": [3, 4]})
    assert (method.lr, method.fanouts) == (1.0, (3, 4))
    assert isinstance(method.lr, float)


def test_the_callers_word_wins_key_by_key() -> None:
    method: Any = resolve("glnn", {"model": {"hidden": 7}}, dataset="citeseer")
    assert method.model["hidden"] == 7
    assert method.model["dropout"] == 0.1
    assert method.weight_decay == 1e-3


def test_a_method_has_every_setting_of_its_backbone() -> None:
    for name in METHODS.names():
        fields = {field.name for field in dataclasses.fields(METHODS.get(name))}
        if {"backbone", "model"} <= fields:
            method: Any = resolve(name)
            again: Any = resolve(name, method.config())
            assert method.model == again.model
            assert len(method.model) > 0


# docs/methods/gnn_to_mlp.md#glnn: rows "lr", "wd", "dropout" of GLNN's configuration file.
STUDENTS = {
    "cora": (0.01, 5e-3, 0.6),
    "citeseer": (0.01, 1e-3, 0.1),
    "pubmed": (0.005, 0.0, 0.4),
    "amazon-computers": (0.001, 2e-3, 0.3),
    "amazon-photo": (0.005, 2e-3, 0.3),
    "ogbn-arxiv": (0.01, 0.0, 0.2),
    "ogbn-products": (0.01, 5e-4, 0.5),
}


@pytest.mark.parametrize("name", ["mlp", "glnn"])
@pytest.mark.parametrize("dataset", STUDENTS)
def test_students_have_the_published_settings(name: str, dataset: str) -> None:
    method: Any = resolve(name, dataset=dataset)
    assert (method.lr, method.weight_decay, method.model["dropout"]) == STUDENTS[dataset]
    ogb = dataset.startswith("ogbn")
    assert (method.model["hidden"], method.model["layers"], method.model["norm"]) == (
        (256, 3, "batch") if ogb else (128, 2, "none")
    )
    assert method.batch_size == (4096 if dataset == "ogbn-products" else 512)
    assert (method.epochs, method.patience) == (500, 50)


# docs/methods/baselines.md#teacher and B12.
TEACHERS: dict[str, dict[str, Any]] = {
    "gcn": {"lr": 0.01, "weight_decay": 1e-3, "hidden": 64, "layers": 2, "dropout": 0.8},
    "sage": {"lr": 0.01, "weight_decay": 5e-4, "hidden": 128, "layers": 2, "dropout": 0.0, "aggregator": "gcn"}
    | {"fanouts": (5, 5)},
    "gat": {"lr": 0.01, "weight_decay": 0.01, "heads": 8, "head_width": 16, "layers": 2, "dropout": 0.6}
    | {"attention_dropout": 0.3},
    "appnp": {
        "lr": 0.01,
        "weight_decay": 0.01,
        "hidden": 128,
        "dropout": 0.5,
        "edge_dropout": 0.5,
        "alpha": 0.1,
        "k": 10,
    },
    "gin": {"hidden": 64, "layers": 5, "train_eps": True},
}


@pytest.mark.parametrize("backbone", TEACHERS)
def test_standard_teachers_have_the_published_settings(backbone: str) -> None:
    method: Any = resolve("teacher", {"backbone": backbone}, dataset="cora", split="cpf-lcc-20-30")
    for key, value in TEACHERS[backbone].items():
        assert (method.model[key] if key in method.model else getattr(method, key)) == value, key
    if backbone != "gin":
        assert (method.epochs, method.patience) == (500, 50)


@pytest.mark.parametrize(
    ("recipe", "dataset", "wanted"),
    [
        ("kipf2017_gcn", "cora", {"lr": 0.01, "weight_decay": 5e-4, "decay": "first_layer", "epochs": 200, "hidden": 16}
         | {"dropout": 0.5, "input_dropout": True, "layers": 2}),
        ("velickovic2018_gat", "cora", {"lr": 0.005, "weight_decay": 5e-4, "heads": 8, "head_width": 8, "out_heads": 1}
         | {"dropout": 0.6, "attention_dropout": 0.6}),
        ("velickovic2018_gat", "pubmed", {"lr": 0.01, "weight_decay": 1e-3, "out_heads": 8, "heads": 8}),
    ],
)  # fmt: skip
def test_recipes_are_those_of_their_papers(recipe: str, dataset: str, wanted: dict[str, Any]) -> None:
    method: Any = resolve("teacher", {"recipe": recipe}, dataset=dataset, split="planetoid-public")
    assert method.recipe == recipe
    assert recipe in recipes("teacher")
    for key, value in wanted.items():
        assert (method.model[key] if key in method.model else getattr(method, key)) == value, key


@pytest.mark.parametrize(
    ("dataset", "decay", "epochs"), [("cora", 1.3e-5, 100), ("citeseer", 2.35e-5, 150), ("pubmed", 7.4e-5, 100)]
)
def test_sgc_has_the_released_settings(dataset: str, decay: float, epochs: int) -> None:
    method: Any = resolve("sgc", dataset=dataset)
    assert (method.lr, method.weight_decay, method.epochs, method.patience) == (0.2, decay, epochs, None)
    assert method.model == {"hops": 2}


def test_kd_has_the_references_weight_and_temperature() -> None:
    method: Any = resolve("kd")
    assert (method.alpha, method.tau, method.backbone, method.model["hidden"]) == (0.9, 4.0, "gcn", 64)
    graphs: Any = resolve("kd", {"backbone": "gin"})
    assert (graphs.lr, graphs.batch_size, graphs.epochs, graphs.teacher) == (1e-3, 32, 100, "gin")


@pytest.mark.parametrize("name", ["kd", "glnn", "mlp_params", "mlp_macs"])
def test_students_require_the_standard_teacher_or_a_recipe(name: str) -> None:
    assert resolve(name, {"teacher": "gcn"}).requires() == {"teacher": Requirement("teacher", {"backbone": "gcn"})}
    assert resolve(name, {"teacher_recipe": "kipf2017_gcn"}).requires() == {
        "teacher": Requirement("teacher", {}, "kipf2017_gcn")
    }


@pytest.mark.parametrize("name", ["mlp", "sgc", "teacher", "label_smoothing", "confidence_penalty"])
def test_solo_methods_require_nothing(name: str) -> None:
    assert resolve(name).requires() == {}


def test_every_requirement_can_be_resolved() -> None:
    for name in METHODS.names():
        for need in resolve(name).requires().values():
            assert resolve(need.method, need.overrides, recipe=need.recipe)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_recipe_stands_in_for_the_tables_before_it(backbone: str) -> None:
    """Settings of another backbone never slip into a recipe."""
    if backbone in ("gcn", "gat"):
        recipe = {"gcn": "kipf2017_gcn", "gat": "velickovic2018_gat"}[backbone]
        assert resolve("teacher", {"recipe": recipe}).config()["fanouts"] == ()
    else:
        method: Any = resolve("teacher", {"backbone": backbone})
        assert method.recipe is None


def test_unknown_names_carry_what_is_known() -> None:
    with pytest.raises(UnknownName) as caught:
        resolve("teacher", {"recipe": "nobody1999"})
    assert caught.value.known == recipes("teacher")


def test_a_neutral_setting_is_no_part_of_the_key_at_its_default() -> None:
    plain = resolve("teacher", {"backbone": "gat"}).config()["model"]
    dropped = resolve("teacher", {"backbone": "gat", "model": {"head_dropout": True}}).config()["model"]
    assert "head_dropout" not in plain
    assert dropped == plain | {"head_dropout": True}
    again = resolve("teacher", {"backbone": "gat", "model": plain | {"head_dropout": False}})
    assert again.config()["model"] == plain


@pytest.mark.parametrize(
    ("name", "overrides", "field"),
    [
        ("rbm", {"recipe": "rumiantsev2024_rbm_cora_tran_sage", "reliable": False}, "reliable"),
        ("lsp", {"recipe": "yang2020_lsp_ppi", "graphs_per_step": None}, "graphs_per_step"),
        ("moe", {"recipe": "rumiantsev2024_moe_cora_tran_gcn", "update_from": 50}, "update_from"),
        ("teacher", {"recipe": "xu2019_gin", "schedule": "constant"}, "schedule"),
    ],
)
def test_a_default_that_a_recipe_changes_survives_storage(name: str, overrides: dict[str, Any], field: str) -> None:
    """A stored configuration leaves such fields out at their default: the recipe in it must not undo that."""
    method = resolve(name, overrides)
    stored = json.loads(json.dumps(method.config()))
    assert field not in stored, "else nothing is shown here"
    assert getattr(resolve(name, stored), field) != overrides[field], "read as overrides, it would be another method"
    assert getattr(resolve_stored(name, stored), field) == overrides[field]
    assert resolve_stored(name, stored).config() == method.config()


def test_so_does_a_default_of_the_model() -> None:
    method: Any = resolve("alignahead", {"recipe": "guo2022_alignahead", "model": {"skips": "linear"}})
    stored = json.loads(json.dumps(method.config()))
    assert "skips" not in stored["model"], "else nothing is shown here"
    again: Any = resolve_stored("alignahead", stored)
    assert again == method and again.config() == method.config()
