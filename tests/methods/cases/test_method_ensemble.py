from gkdbench.testing import MethodCase


class TestEnsemble(MethodCase):
    name = "ensemble"
