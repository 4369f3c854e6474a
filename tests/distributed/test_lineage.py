"""Whole Dagster runs on a cluster: what an analyst sees is as without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.defs import encoding
from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.settings import Project
from erasmo_dagster.store.vectors import read_embeddings
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import DatasetWriter, customers, make_project
from tests.defs.lineage import published, warehouse
from tests.distributed.encoders import Gate, install_encoders
from tests.ray_cluster import RayNodes
from tests.servers import erasmo, interrupt, wait_for

pytestmark = pytest.mark.ray
RUN = "select entity_key, segment_id, segment_name, confidence from segments order by entity_key"


def on(nodes: RayNodes) -> str:
    return f"execution: {{engine: ray, address: '{nodes.address}'}}\n"


def run(project: Project) -> dict[str, dict[str, Any]]:
    with open_instance(project) as instance:
        return run_dataset(instance, project, "customers").metadata


def vectors(project: Project, version: int = 1) -> np.ndarray:
    with open_warehouse(project.warehouse) as con:
        return read_embeddings(con, "customers", version, 32)[1]


def test_a_dataset_on_ray_gives_what_it_gives_without(
    nodes: RayNodes, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, distributed = make_project(tmp_path / "local"), make_project(tmp_path / "ray")
    DatasetWriter(local, tiny_model)()
    DatasetWriter(distributed, tiny_model)(extra=on(nodes))
    here, there = run(local)["embeddings"], run(distributed)["embeddings"]
    assert "attached to, with 3 nodes: 2 workers of 1 CPU" in str(there["computed_on"])
    assert "computed_on" not in here
    assert [there[name] for name in ("texts_embedded", "tokens", "engine", "made_by")] == [
        here[name] for name in ("texts_embedded", "tokens", "engine", "made_by")
    ]
    np.testing.assert_allclose(vectors(distributed), vectors(local), atol=1e-4)
    for (key, *one), (other_key, *other) in zip(published(local, RUN), published(distributed, RUN), strict=True):
        assert (key, *one[:2]) == (other_key, *other[:2])
        assert one[2] == pytest.approx(other[2], abs=1e-3)
    assert not list((distributed.artifacts / "customers" / "vectors").glob("*"))

    # From local to Ray and back: every vector and what was fitted is taken over.
    DatasetWriter(local, tiny_model)(extra=on(nodes))
    again = run(local)
    assert again["refresh_plan"]["decision"] == "refresh"
    assert [again[stage]["made_by"] for stage in ("adapter", "embeddings")] == ["version 1, reused"] * 2

    # The run config comes before a YAML that says nothing.
    more = customers().with_columns(id=pl.col("id") + 60, note=pl.lit("sings in winter"))[:4]
    DatasetWriter(distributed, tiny_model)(frame=pl.concat([customers(), more]))
    cluster = {"engine": "ray", "address": nodes.address, "workers": 1}
    monkeypatch.setattr(encoding, "open_encoder", None)  # no text is read in this process
    with open_instance(distributed) as instance:
        job = build_definitions(distributed).resolve_job_def("segment_dataset")
        done = job.execute_in_process(
            partition_key="customers",
            instance=instance,
            run_config={"ops": {"embeddings": {"config": cluster}, "refresh_plan": {"config": {"retrain": True}}}},
        )
    assert done.success
    figures = {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in done.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert "1 worker of 1 CPU" in str(figures["embeddings"]["computed_on"])
    assert published(distributed, "select count(*) from segments") == [(64,)]


@pytest.fixture
def gated(nodes: RayNodes, project: Project, tmp_path: Path) -> Iterator[Gate]:
    install_encoders(nodes)
    gate = Gate(tmp_path / "gate")
    note = pl.format("{} {}", pl.when(pl.col("id") == 40).then(pl.lit("wait")).otherwise("note"), "id")
    customers().with_columns(note=note).write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\ndrop: email\nclustering: {method: kmeans++, k: 3}\n"
        f"gate: {{min_segment_size: 1}}\nencoder: {{name: gated, gate: {gate.folder}}}\n{on(nodes)}"
    )
    yield gate
    gate.open()


def test_a_run_whose_process_was_killed_goes_on_from_what_its_workers_had_read(
    nodes: RayNodes, project: Project, gated: Gate
) -> None:
    kept = project.artifacts / "customers" / "vectors"
    with erasmo(project, "run", "customers") as process:
        waits = gated.waiting()
        assert process.poll() is None
        files = wait_for("all parts but one", lambda: _all_but_one(kept), seconds=900)
        process.kill()
    done = {text for file in files for text in pl.read_parquet(file)["text_hash"]}
    assert len(done) >= 50
    wait_for("the end of the killed run's workers", lambda: waits not in {p.pid for p in nodes.processes()}, 900)
    gated.open()
    before = len(gated.read())
    assert run(project)["embeddings"]["texts_embedded"] == 60
    assert len(gated.read()) - before == 60 - len(done)
    assert len(gated.read()) == len(set(gated.read()))
    assert warehouse(project, "select count(*) from embeddings_8") == [(60,)]


def _all_but_one(kept: Path) -> list[Path] | None:
    files, parts = list(kept.glob("*/read/*.parquet")), list(kept.glob("*/parts/*.parquet"))
    return files if len(files) == len(parts) - 1 > 0 else None


def test_ctrl_c_ends_the_work_on_the_cluster(nodes: RayNodes, project: Project, gated: Gate) -> None:
    with erasmo(project, "run", "customers") as process:
        waits = gated.waiting()
        interrupt(process)
    wait_for("the end of the run's workers", lambda: waits not in {p.pid for p in nodes.processes()}, 900)
    assert not list((project.artifacts / "customers" / "vectors").glob("*/parts"))
