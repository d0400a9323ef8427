from gkdbench.testing import MethodCase


class TestMLPEncodings(MethodCase):
    name = "mlp_encodings"
    overrides = {"walk_length": 10}
    excused = {
        "test_node_order_only_permutes": "walks and noise are drawn by node number: other numbers, other encodings"
    }
