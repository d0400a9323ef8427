from typing import ClassVar

from gkdbench.testing import MethodCase


class TestGSP(MethodCase):
    name = "gsp"
    epochs = 3
    unread: ClassVar = {
        "nodes": "graph tasks compare the graphs of the batch, the release the labelled nodes",
    }
