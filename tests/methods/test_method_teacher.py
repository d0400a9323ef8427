from gkdbench.testing import MethodCase


class TestTeacher(MethodCase):
    name = "teacher"
    unread = {"fanouts": "graph tasks are small: their neighbours are never sampled"}
