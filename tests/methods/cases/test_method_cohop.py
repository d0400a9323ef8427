from gkdbench.testing import MethodCase
from gkdbench.testing.method_case import identical
from gkdbench.testing.problems import relabelled


class TestCoHOp(MethodCase):
    name = "cohop"
    unread = {
        "mix": "the release searches the mixing weight",
        "held_out": "a fixed mixing weight holds nothing out",
    }

    def test_validation_labels_only_select(self) -> None:
        """The release's mixing weight is chosen on them: that is its defect, shown here; ``corrected`` is clean."""
        for setting, variant in self.cases():
            problem = self.problem(setting)
            changed = relabelled(problem, problem.split.val)
            first = self.again(setting, variant, problem, stop_early=False)
            second = self.again(setting, variant, changed, stop_early=False)
            assert identical(first.final["model"], second.final["model"]) == (variant == "corrected")
