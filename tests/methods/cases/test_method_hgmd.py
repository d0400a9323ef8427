from typing import ClassVar

from gkdbench.testing import MethodCase


class TestHGMD(MethodCase):
    name = "hgmd"
    excused: ClassVar = {
        "test_node_order_only_permutes": "pairs and shares are drawn by position; their sums are tested in test_hgmd"
    }
