from typing import ClassVar

from gkdbench.testing import MethodCase


class TestLowerCE(MethodCase):
    name = "lower_ce"
    overrides: ClassVar = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
