"""Memory of a training, as the operating system tells it, in a process of its own: ten times the parameters show."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, torch
from gkdbench.measure.cost.process_memory import ProcessMemory
from gkdbench.nn.random import Randomness
from gkdbench.training.models import backbone_config
from gkdbench.training.steps import adam, descend

def trained(hidden):
    memory = ProcessMemory()  # before the model is made, as before `fit`
    memory.reset()
    model = backbone_config("mlp", {"hidden": hidden}).build(16, 3, Randomness(0))
    descend(model, adam(model, lr=0.01, weight_decay=0.0), lambda: model(torch.ones(8, 16)).square().sum())
    return {"peak": memory.peak(), "bytes": 4 * sum(p.numel() for p in model.parameters())}

trained(10)  # imports what an optimiser needs
print(json.dumps([trained(hidden) for hidden in (50_000, 500_000)]))
"""


@pytest.mark.full
def test_ten_times_the_parameters_show_in_the_memory_of_training() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    small, large = json.loads(done.stdout)
    if large["peak"] is None:
        pytest.skip("this system does not tell a process's highest memory")
    assert large["bytes"] > 9 * small["bytes"]
    assert large["peak"] >= 4 * large["bytes"]  # weights, gradients and Adam's two moments
    assert small["peak"] < large["peak"] / 4
