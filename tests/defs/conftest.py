from __future__ import annotations

from typing import Any

import pytest

from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.settings import Project
from tests.defs.lineage import Run


@pytest.fixture
def run(project: Project) -> Run:
    """Run one dataset as the command line does; the metadata of every stage."""

    def run(name: str = "customers", **options: Any) -> dict[str, dict[str, Any]]:
        with open_instance(project) as instance:
            return run_dataset(instance, project, name, **options).metadata

    return run
