"""Whole Dagster runs on a cluster: what an analyst sees is as without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from erasmo_dagster.defs import encoding
from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.show import open_published
from erasmo_dagster.store.vectors import read_embeddings
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import DatasetWriter, customers, make_project
from tests.defs.lineage import published, warehouse
from tests.distributed.encoders import Gate, install_encoders
from tests.ray_cluster import RayNodes
from tests.servers import erasmo, interrupt, wait_for

pytestmark = pytest.mark.ray
# What an analyst sees of segments, and by what their rows are told apart.
PUBLISHED = {
    "segments": "entity_key",
    "segment_sizes": "segment_id",
    "segment_metrics": "metric",
    "segment_descriptions": "segment_id",
    "segment_profile": "segment_id, trait_rank",
}


def on(nodes: RayNodes) -> str:
    return f"execution: {{engine: ray, address: '{nodes.address}'}}\n"


def run(project: Project) -> dict[str, dict[str, Any]]:
    with open_instance(project) as instance:
        return run_dataset(instance, project, "customers").metadata


def log_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What the run's log says, each line with its level, beside Dagster's own events."""
    entries = instance.all_logs(run_id)
    return [f"{logging.getLevelName(entry.level)} {entry.user_message}" for entry in entries if not entry.dagster_event]


def tables(project: Project) -> dict[str, pl.DataFrame]:
    found = {}
    with open_published(project) as con:
        for name, keys in PUBLISHED.items():
            cursor = con.execute(f"from {name} order by {keys}")
            columns = [column[0] for column in cursor.description]
            found[name] = pl.DataFrame(cursor.fetchall(), columns, orient="row", infer_schema_length=None)
    return {name: frame.drop("version", "assigned_at", strict=False) for name, frame in found.items()}


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
    by_ray = tables(distributed)
    for name, frame in tables(local).items():
        assert_frame_equal(by_ray[name], frame, abs_tol=1e-3, rel_tol=1e-3)
    assert not list((distributed.artifacts / "customers" / "vectors").glob("*"))

    # And back: every vector and what was fitted is taken over, and nothing changes that an analyst sees.
    monkeypatch.setattr(encoding, "open_encoder", None)  # no text is read in this process from here on
    DatasetWriter(distributed, tiny_model)()
    again = run(distributed)
    assert again["refresh_plan"]["decision"] == "refresh"
    assert [again[stage]["made_by"] for stage in ("adapter", "embeddings")] == ["version 1, reused"] * 2
    for name, frame in tables(distributed).items():
        assert_frame_equal(by_ray[name], frame)
    # To Ray it is the same, and nothing is attached to.
    DatasetWriter(local, tiny_model)(extra=on(nodes))
    again = run(local)
    assert [again[stage]["made_by"] for stage in ("adapter", "embeddings")] == ["version 1, reused"] * 2
    assert "computed_on" not in again["embeddings"]

    # The run config comes before a YAML that says nothing.
    more = customers().with_columns(id=pl.col("id") + 60, note=pl.lit("sings in winter"))[:4]
    DatasetWriter(distributed, tiny_model)(frame=pl.concat([customers(), more]))
    cluster = {"engine": "ray", "address": nodes.address, "workers": 1}
    with open_instance(distributed) as instance:
        job = build_definitions(distributed).resolve_job_def("segment_dataset")
        done = job.execute_in_process(
            partition_key="customers",
            instance=instance,
            run_config={"ops": {"embeddings": {"config": cluster}, "refresh_plan": {"config": {"retrain": True}}}},
        )
        log = log_of(instance, done.run_id)
    assert done.success
    figures = {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in done.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert "1 worker of 1 CPU" in str(figures["embeddings"]["computed_on"])
    assert published(distributed, "select count(*) from segments") == [(64,)]
    assert [line for line in log if "Ray" in line] == [f"INFO {figures['embeddings']['computed_on']}"]


def test_a_wrong_address_is_one_line_in_the_log_too(project: Project) -> None:
    customers().write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\ndrop: [email, kind]\nencoder: {name: tfidf, min_df: 1}\n"
        "execution: {engine: ray, address: '127.0.0.1:1'}\n"
    )
    with open_instance(project) as instance:
        with pytest.raises(ErasmoError, match=r"^Got no connection to Ray at 127.0.0.1:1 .*refused"):
            run_dataset(instance, project, "customers")
        (failed,) = instance.get_runs()
        assert [line for line in log_of(instance, failed.run_id) if "Ray" in line or "ERROR" in line] == []


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
