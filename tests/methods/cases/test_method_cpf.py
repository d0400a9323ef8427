from gkdbench.testing import MethodCase


class TestCPF(MethodCase):
    name = "cpf"
    excused = {"test_node_order_only_permutes": "weights of its own belong to every node: see test_cpf.py"}
