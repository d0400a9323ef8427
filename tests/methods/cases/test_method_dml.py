from typing import ClassVar

from gkdbench.testing import MethodCase


class TestDML(MethodCase):
    name = "dml"
    overrides: ClassVar = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
