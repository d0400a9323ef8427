from gkdbench.testing import MethodCase


class TestLabelSmoothing(MethodCase):
    name = "label_smoothing"
