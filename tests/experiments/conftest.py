from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from erasmo_dagster.experiments import steps
from erasmo_dagster.experiments.run import ExperimentReport, run_experiment
from erasmo_dagster.settings import Project
from tests.conftest import customers

Grid = Callable[..., ExperimentReport]
TUNING = {"max_tokens": 200, "batch_size": 4, "eval_every": 5, "device": "cpu"}


def customers_of(folder: Path, rows: int = 60, name: str = "customers") -> dict[str, Any]:
    """A dataset of an experiment's own, whose table lies in ``folder``."""
    customers(rows).write_parquet(folder / f"{name}.parquet")
    path = "${DATA}/" + f"{name}.parquet"
    return {"name": name, "source": {"path": path}, "key": "id", "label": "kind", "drop": ["email"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def write_grid(tmp_path: Path, data: Path) -> Callable[..., Path]:
    """Write an experiment's file; what is not given is a small grid on the customers."""

    def write(name: str = "small", **fields: Any) -> Path:
        file = tmp_path / f"{name}.yaml"
        grid: dict[str, Any] = {
            "description": "Which one?",
            "datasets": fields.get("datasets") or [customers_of(data)],
            "encoders": [{"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 1}}],
            "algorithms": ["kmeans"],
            **fields,
        }
        file.write_text(yaml.safe_dump({k: v for k, v in grid.items() if v is not None}, sort_keys=False))
        return file

    return write


@pytest.fixture
def grid(project: Project, data: Path, write_grid: Callable[..., Path]) -> Grid:
    """Run a grid of these fields in the project; keywords that begin with `run_` are for the run."""

    def run(name: str = "small", **fields: Any) -> ExperimentReport:
        options = {key.removeprefix("run_"): fields.pop(key) for key in list(fields) if key.startswith("run_")}
        report = run_experiment(project, str(write_grid(name, **fields)), data=data, **options)
        if report.unexpected is not None:
            raise report.unexpected
        return report

    return run


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often encoders are fitted, texts embedded and corpora written."""
    counts: Counter[str] = Counter()
    for name in ("fit_encoder", "embed_rows", "write_clauses"):
        real = getattr(steps, name)

        def counted(*args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
            counts[_name] += 1
            return _real(*args, **kwargs)

        monkeypatch.setattr(steps, name, counted)
    return counts
