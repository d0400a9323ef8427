from typing import ClassVar

from gkdbench.testing import MethodCase


class TestTeacher(MethodCase):
    name = "teacher"
    unread: ClassVar = {"fanouts": "graph tasks are small: their neighbours are never sampled"}
