from gkdbench.testing import MethodCase


class TestSGC(MethodCase):
    name = "sgc"
