"""Test cases for methods, ready to inherit: a method's own test is three lines.

    from gkdbench.testing import MethodCase

    class TestMyMethod(MethodCase):
        name = "my_method"

No test framework is imported: the cases are plain classes that pytest collects.
"""

from gkdbench.testing.method_case import MethodCase

__all__ = ["MethodCase"]
