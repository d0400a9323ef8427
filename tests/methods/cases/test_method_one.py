from typing import ClassVar

from gkdbench.testing import MethodCase


class TestONE(MethodCase):
    name = "one"
    overrides: ClassVar = {"model": {"hidden": 8}}
    unread: ClassVar = {"ramp_share": "the release's ramp is 80 epochs, whatever their number"}
