from gkdbench.testing import MethodCase


class TestKD(MethodCase):
    name = "kd"
    unread = {"nodes": "as_released distils on the labelled items, as the release does"}
