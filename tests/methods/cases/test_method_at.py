from typing import ClassVar

from gkdbench.testing import MethodCase


class TestAT(MethodCase):
    name = "at"
    epochs = 3
    unread: ClassVar = {
        "nodes": "graph tasks compare the graphs of the batch, the release the labelled nodes",
    }
