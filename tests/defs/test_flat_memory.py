"""Memory that does not grow with the rows, and the benchmarks that measure it and the lineage."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.speed import lineage, memory
from erasmo_dagster.defs import encoding
from erasmo_dagster.method.encoders.base import Batch
from erasmo_dagster.settings import Project, open_project

GROWTH = 200  # MiB: what DuckDB may hold more of a larger file, and no more


class Checksums:
    """Vectors of 32 numbers, made of a text's checksum: what is measured is all that is around the model."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        for start in range(0, len(texts), 1024):
            sums = np.array([zlib.crc32(text.encode()) for text in texts[start : start + 1024]])
            bits = sums[:, None] >> np.arange(32) & 1
            yield np.arange(start, start + len(sums)), bits.astype(np.float32)


def peaks(folder: Path, rows: int) -> dict[str, float]:
    """MiB of each stage up to the vectors."""
    encoding.open_encoder = lambda *_: Checksums()  # type: ignore[attr-defined]
    project = memory.tiny_project(folder)
    memory.write_table(project.root / f"{memory.DATASET}.parquet", rows, 0)
    return {stage: memory.run_stage(project.root, project.home, stage)["peak_mb"] for stage in memory.STAGES[:5]}


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory_up_to_their_vectors(tmp_path: Path) -> None:
    found = []
    for rows in (20_000, 200_000):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(peaks, tmp_path / str(rows), rows).result())
    grown = {stage: found[1][stage] - found[0][stage] for stage in found[0]}
    assert {stage: mb for stage, mb in grown.items() if mb > GROWTH} == {}, found


@pytest.mark.slow
def test_memory_is_measured_in_a_first_run_and_in_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_here(project: Project, stage: str, *, begins: bool = False) -> dict[str, float]:
        return memory.run_stage(project.root, project.home, stage, begins=begins)

    monkeypatch.setattr(memory, "run_alone", run_here)
    found = memory.measured_stages(300, 0)
    assert list(found) == [*memory.STAGES, *(f"refresh: {stage}" for stage in memory.STAGES)]
    assert min(told["peak_mb"] for told in found.values()) > 50


@pytest.mark.slow
def test_the_lineage_is_timed_from_the_first_step_to_published_and_refreshed(tmp_path: Path, tiny_model: Path) -> None:
    project = memory.tiny_project(tmp_path)
    adapter = f'adapter: {{base_model: "path:{tiny_model}", max_tokens: 300, device: cpu}}\n'
    settings = f"source: {{path: bank.parquet}}\nkey: row\n{adapter}clustering: {{method: kmeans, k: 3}}\n"
    (project.datasets_dir / "bank.yaml").write_text(settings)
    rng = np.random.default_rng(0)
    jobs = np.array(["cook", "clerk", "judge"])[rng.integers(0, 3, 200)]
    table = pl.DataFrame({"row": range(200), "job": jobs, "balance": rng.integers(0, 900, 200)})
    found = lineage.measure_table(open_project(project.root, project.home), table, 0)
    assert (found["decision"], found["texts_embedded"]) == ("refresh", 2)
    assert found["ratio"] == round(found["refresh_s"] / found["first_s"], 4)
    assert {"refresh_plan", "embeddings", "segments"} <= set(found["stages"])
    assert 0 < found["stages"]["embeddings"]["refresh_s"] < found["refresh_s"]
