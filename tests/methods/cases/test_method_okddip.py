from typing import ClassVar

from gkdbench.testing import MethodCase


class TestOKDDip(MethodCase):
    name = "okddip"
    overrides: ClassVar = {"peers": ["gcn", "gcn", "gcn"], "models": {"gcn": {"hidden": 8}}}
    unread: ClassVar = {"ramp_share": "the release's ramp is 80 epochs, whatever their number"}
