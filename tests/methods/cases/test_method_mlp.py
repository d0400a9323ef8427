from gkdbench.testing import MethodCase


class TestPlainMLP(MethodCase):
    name = "mlp"
