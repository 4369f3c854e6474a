"""Arms that differ in pooling and layer alone are read from one pass of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.experiments.run import load_results
from erasmo_dagster.method.encoders import CausalLMEncoder
from erasmo_dagster.settings import Project
from tests.experiments.conftest import Grid


def test_one_pass_serves_every_pooling(
    project: Project, grid: Grid, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untuned = {"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}
    pooled = {"mean": {}, "last": {"pooling": "last"}, "first": {"layer": 1}, "all": {"pooling": "mean_layers"}}
    arms: list[dict[str, Any]] = [
        {"name": name, "encoder": untuned, **({"embedding": way} if way else {})} for name, way in pooled.items()
    ]
    read: list[int] = []
    real = CausalLMEncoder.batches_of_ways

    def counted(self: CausalLMEncoder, texts: Any, ways: Any) -> Any:
        read.append(len(ways))
        return real(self, texts, ways)

    monkeypatch.setattr(CausalLMEncoder, "batches_of_ways", counted)
    alone = {}
    for arm in arms:
        grid(arm["name"], encoders=[arm])
        alone[arm["name"]] = load_results(project, arm["name"])
    assert read == [1, 1, 1, 1]
    read.clear()
    # Another seed in the table, so that nothing of the above is there.
    variants = [{"name": "as it was", "rows": 59}]
    grid("together", encoders=arms, variants=variants)
    assert read == [4]
    together = load_results(project, "together")
    assert together["embed_tokens"].n_unique() == 1
    for arm in arms:
        grid(f"again_{arm['name']}", encoders=[{**arm, "name": "other"}], variants=variants)
    assert read == [4], "they are in the cache"
    assert all(frame["status"].to_list() == ["done"] for frame in alone.values())
    assert together["silhouette"].n_unique() == 4
