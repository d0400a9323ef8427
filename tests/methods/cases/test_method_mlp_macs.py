from gkdbench.testing import MethodCase


class TestMacMatchedMLP(MethodCase):
    name = "mlp_macs"
