from typing import ClassVar

from gkdbench.testing import MethodCase


class TestGNNSD(MethodCase):
    name = "gnnsd"
    overrides: ClassVar = {"model": {"hidden": 8, "layers": 3}}
