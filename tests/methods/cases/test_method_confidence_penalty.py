from gkdbench.testing import MethodCase


class TestConfidencePenalty(MethodCase):
    name = "confidence_penalty"
