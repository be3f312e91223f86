"""The pytest plugin. pytest loads it at every start, so it stands outside of the package and imports nothing before a test asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gateway.testing import Runner


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "tidegate(at=…, seed=…): what time it is at first for the fixture `tidegate`, and its randomness")


@pytest.fixture
def tidegate(request: pytest.FixtureRequest) -> Runner:
    """Runs functions in memory, on a clock of its own: `tidegate.run(fulfil_order, …)`."""
    from gateway.testing import Runner

    marker = request.node.get_closest_marker("tidegate")
    return Runner(**marker.kwargs) if marker is not None else Runner()
