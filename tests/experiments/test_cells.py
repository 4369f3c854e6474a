"""A cell's id, and those of its steps, name what the result depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from erasmo_dagster.experiments.cells import Cell, plan_cells, read_tables
from erasmo_dagster.experiments.settings import load_experiment
from erasmo_dagster.settings import Project
from tests.experiments.conftest import TUNING, customers_of

Planned = Callable[..., list[Cell]]


@pytest.fixture
def planned(project: Project, data: Path, write_grid: Callable[..., Path]) -> Planned:
    def plan(**fields: Any) -> list[Cell]:
        file = write_grid(**fields)
        settings = load_experiment(file, data=data)[1]
        return plan_cells(settings, read_tables(settings, project, data, file), project)

    return plan


def test_what_is_learnt_is_named_by_the_settings_of_its_training(
    project: Project, data: Path, tiny_model: Path, planned: Planned
) -> None:
    def learnt(rate_of_one: float, rate_of_two: float) -> set[str | None]:
        for name, rate in (("one", rate_of_one), ("two", rate_of_two)):
            own = {field: value for field, value in customers_of(data, name=name).items() if field != "name"}
            own["source"] = {"path": str(data / f"{name}.parquet")}
            own["adapter"] = {**TUNING, "base_model": f"path:{tiny_model}", "learning_rate": rate}
            (project.datasets_dir / f"{name}.yaml").write_text(yaml.safe_dump(own))
        arms = [{"name": "from two", "encoder": "erasmo", "trained_on": "two"}]
        return {cell.embedding.learnt for cell in planned(datasets=["one", "two"], encoders=arms)}

    before = learnt(1e-3, 1e-3)
    assert len(before) == 1
    assert learnt(1e-4, 1e-3) == before  # nothing is learnt on dataset one
    assert not learnt(1e-4, 1e-4) & before


@pytest.mark.parametrize(
    ("reduce", "cells"), [(None, 1), ({"method": "truncate", "dimensions": 4}, 1), ({"method": "pca"}, 2)]
)
def test_one_seed_stands_for_all_where_none_is_drawn(
    planned: Planned, reduce: dict[str, Any] | None, cells: int
) -> None:
    algorithm = {"name": "ward", "method": "agglomerative", **({"reduce": reduce} if reduce else {})}
    assert len(planned(algorithms=[algorithm], seeds=[0, 1])) == cells
