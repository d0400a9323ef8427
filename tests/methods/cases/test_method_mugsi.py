from typing import ClassVar

from gkdbench.testing import MethodCase


class TestMuGSI(MethodCase):
    name = "mugsi"
    excused: ClassVar = {
        "test_node_order_only_permutes": "walks and the basis of equal eigenvalues depend on the numbers of nodes; "
        "without them see test_mugsi.py"
    }
    overrides: ClassVar = {"encoding": 3}
    epochs = 3
    unread: ClassVar = {"lr": "as_released trains with 0.008, as the release does, whatever is asked for"}
