from typing import ClassVar

from gkdbench.testing import MethodCase


class TestLSP(MethodCase):
    name = "lsp"
    unread: ClassVar = {
        "kernel": "the release has one kernel",
        "sigma": "the release has one width",
    }
