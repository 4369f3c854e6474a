from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray_cluster import RayNodes, ray_nodes


@pytest.fixture(scope="session")
def nodes() -> Iterator[RayNodes]:
    """A head and two workers for all tests of the folder; what kills a node starts one of its own."""
    with ray_nodes() as started:
        yield started
