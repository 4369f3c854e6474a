"""Arms that differ in pooling and layer alone are read from one pass of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasmo_dagster.experiments.readings import Late
from erasmo_dagster.experiments.run import load_results
from erasmo_dagster.method.encoders import CausalLMEncoder
from erasmo_dagster.settings import Project
from tests.experiments.conftest import Grid


@pytest.mark.slow
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


def test_a_layer_that_the_model_lacks_fails_alone(project: Project, grid: Grid, tiny_model: Path) -> None:
    untuned = {"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}
    ways: dict[str, Any] = {"mean": {}, "too deep": {"embedding": {"layer": 99}}, "last": {"embedding": {"layer": 1}}}
    report = grid(encoders=[{"name": name, "encoder": untuned, **way} for name, way in ways.items()])
    frame = load_results(project, "small").sort("encoder")
    assert (report.done, report.failed) == (2, 1)
    assert frame["status"].to_list() == ["done", "done", "failed"]
    assert "embedding.layer 99" in frame["error"][2]
    assert frame["embed_tokens"][:2].null_count() == 0


def test_an_encoder_that_gives_lists() -> None:
    class Lengths:
        def encode(self, texts: Any) -> list[list[float]]:
            return [[len(text)] for text in texts]

    encoder = Late(Lengths)  # type: ignore[arg-type]
    assert encoder.encode(["a", "bcd"]).tolist() == [[1.0], [3.0]]
    ((_, vectors),) = encoder.batches(["a"])
    assert vectors.dtype == np.float32
