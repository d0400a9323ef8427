from typing import ClassVar

from gkdbench.testing import MethodCase


class TestROD(MethodCase):
    name = "rod"
    overrides: ClassVar = {"hidden": 8, "hops": 3, "heads": 3, "dropout": 0.0, "pairs": 4000}
