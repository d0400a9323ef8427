from gkdbench.testing import MethodCase


class TestFFG2M(MethodCase):
    name = "ffg2m"
