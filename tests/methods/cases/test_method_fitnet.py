from typing import ClassVar

from gkdbench.testing import MethodCase


class TestFitNet(MethodCase):
    name = "fitnet"
    epochs = 3
    unread: ClassVar = {
        "nodes": "graph tasks compare the graphs of the batch, the release the labelled nodes",
        "project": "the release projects both sides",
        "projection": "the width of both sides' projections, and the student alone is projected",
    }
