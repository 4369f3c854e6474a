from __future__ import annotations

import pytest

from erasmo_dagster.settings import Project
from tests.store.reader import Reader


@pytest.fixture
def read(project: Project) -> Reader:
    return Reader(project)
