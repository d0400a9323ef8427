from typing import ClassVar

from gkdbench.testing import MethodCase


class TestMuGSI(MethodCase):
    name = "mugsi"
    overrides: ClassVar = {"encoding": 3}
    epochs = 3
    unread: ClassVar = {"lr": "as_released trains with 0.008, as the release does, whatever is asked for"}
