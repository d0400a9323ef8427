"""The scene as a fixture."""

from __future__ import annotations

import pytest
from support.small_graph import Scene, make_scene


@pytest.fixture
def scene() -> Scene:
    """One small graph with dense, sparse and mixed features."""
    return make_scene()
