from gkdbench.testing import MethodCase


class TestNOSMOG(MethodCase):
    name = "nosmog"
    overrides = {"walk_length": 10}
    excused = {
        "test_node_order_only_permutes": "walks and attacks are drawn by position; tests without them: test_nosmog"
    }
