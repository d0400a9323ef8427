from typing import ClassVar

from gkdbench.testing import MethodCase


class TestAlignahead(MethodCase):
    name = "alignahead"
    epochs = 3
    unread: ClassVar = {
        **dict.fromkeys(("kernel", "sigma", "init", "update", "clip"), "the release has one of each"),
        "b": "the feature transfer belongs to deep supervision, which is off",
    }
