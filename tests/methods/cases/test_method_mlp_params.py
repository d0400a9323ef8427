from gkdbench.testing import MethodCase


class TestParameterMatchedMLP(MethodCase):
    name = "mlp_params"
