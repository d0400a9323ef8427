from typing import ClassVar

from gkdbench.testing import MethodCase


class TestKDCL(MethodCase):
    name = "kdcl"
    overrides: ClassVar = {"models": {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}}
    unread: ClassVar = {"holdout": "only the target `general` sets items aside"}
