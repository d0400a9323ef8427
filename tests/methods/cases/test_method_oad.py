from typing import ClassVar

from gkdbench.testing import MethodCase


class TestOAD(MethodCase):
    name = "oad"
    overrides: ClassVar = {"peers": ["gcn", "gcn", "gcn"], "models": {"gcn": {"hidden": 8}}}
