from typing import ClassVar

from gkdbench.testing import MethodCase


class TestKRD(MethodCase):
    name = "krd"
    excused: ClassVar = {
        "test_node_order_only_permutes": "noise and pairs are drawn by position; a test without draws: test_krd"
    }
