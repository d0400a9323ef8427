from gkdbench.testing import MethodCase


class TestAEKD(MethodCase):
    name = "aekd"
    epochs = 3
