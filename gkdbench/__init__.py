"""gkdbench: graph knowledge distillation under one leak-proof protocol.

What the command line does, as functions; importing this imports no torch.

    import gkdbench
    summary = gkdbench.run("smoke")
    summary = gkdbench.run(methods=["glnn"], dataset="cora", seeds="0:3")
    frame = gkdbench.records_frame(summary.records)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkdbench.moved import install as _let_old_module_paths_import

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gkdbench.data.datasets import load_task
    from gkdbench.data.task import Task
    from gkdbench.execute.api import plan_suite as plan
    from gkdbench.execute.api import run_suite as run
    from gkdbench.execute.evaluate import evaluate
    from gkdbench.execute.kept_models import load_model
    from gkdbench.records.frame import records_frame

__all__ = ["Task", "evaluate", "load_model", "load_task", "plan", "records_frame", "run"]

_HOME = {
    "Task": ("gkdbench.data.task", "Task"),
    "evaluate": ("gkdbench.execute.evaluate", "evaluate"),
    "load_model": ("gkdbench.execute.kept_models", "load_model"),
    "load_task": ("gkdbench.data.datasets", "load_task"),
    "plan": ("gkdbench.execute.api", "plan_suite"),
    "records_frame": ("gkdbench.records.frame", "records_frame"),
    "run": ("gkdbench.execute.api", "run_suite"),
}


_let_old_module_paths_import()


def __getattr__(name: str) -> Any:
    """Load on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'gkdbench' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOME[name]
    return getattr(import_module(module), attribute)
