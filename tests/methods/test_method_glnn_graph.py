from typing import ClassVar

from gkdbench.testing import MethodCase


class TestGLNNGraph(MethodCase):
    name = "glnn_graph"
    unread: ClassVar = {"lr": "as_released trains with 0.008, as the release does, whatever is asked for"}
