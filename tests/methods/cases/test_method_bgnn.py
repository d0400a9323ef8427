from typing import ClassVar

from gkdbench.testing import MethodCase


class TestBGNN(MethodCase):
    name = "bgnn"
    overrides: ClassVar = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
