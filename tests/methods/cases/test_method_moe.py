from collections.abc import Mapping
from typing import Any, ClassVar

from gkdbench.testing import MethodCase


class TestMoE(MethodCase):
    name = "moe"
    epochs = 3
    overrides: ClassVar[Mapping[str, Any]] = {"model": {"hidden": 16}}
    unread: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("walk_length", "num_walks", "window", "iterations", "dim"), "encodings are off"),
        **dict.fromkeys(("adv_eps", "adv_steps"), "attacks are off"),
        **dict.fromkeys(("power", "momentum", "bins", "update_from"), "reliable sampling is off"),
        "steps": "the release knows one kind",
    }
    excused: ClassVar[Mapping[str, str]] = {
        "test_node_order_only_permutes": "the release trains by slices of positions; both forms: test_moe_method"
    }
