from typing import ClassVar

from gkdbench.testing import MethodCase


class TestKD(MethodCase):
    name = "kd"
    unread: ClassVar = {"nodes": "as_released distils on the labelled items, as the release does"}
