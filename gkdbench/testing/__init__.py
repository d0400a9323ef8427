"""Test cases for methods, ready to inherit: a method's own test is three lines.

    from gkdbench.testing import MethodCase

    class TestMyMethod(MethodCase):
        name = "my_method"

No test framework is imported: the cases are plain classes that pytest collects. `small_run` gives a view and a context
to try a `fit` in an interactive session.
"""

from gkdbench.testing.method_case import MethodCase
from gkdbench.testing.small_run import small_run

__all__ = ["MethodCase", "small_run"]
