from gkdbench.testing import MethodCase


class TestGLNN(MethodCase):
    name = "glnn"
