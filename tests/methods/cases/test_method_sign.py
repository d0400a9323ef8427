from gkdbench.testing import MethodCase


class TestSIGN(MethodCase):
    name = "sign"
    unread = {
        "teacher": "cross-entropy alone asks no teacher",
        "teacher_recipe": "cross-entropy alone asks no teacher",
        "teacher_method": "cross-entropy alone asks no teacher",
        "teacher_settings": "cross-entropy alone asks no teacher",
    }
