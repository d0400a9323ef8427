from typing import ClassVar

from gkdbench.testing import MethodCase


class TestGML(MethodCase):
    name = "gml"
    overrides: ClassVar = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
