"""The published file: whole or as it was, whatever happens; its readers never see half of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project, ProjectSettings
from erasmo_dagster.store import publish as publishing
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.publish import publish
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.versions import begin_version, published_versions, record_stage
from erasmo_dagster.store.warehouse import open_warehouse, write_metrics, write_segments


def settings(**options: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"source": {"path": "x.csv"}, "key": "id", **options})


def prepare(
    project: Project, dataset: str, rows: int, *, segmented: int | None = None, sensitive: list[str] | None = None
) -> int:
    """A version that is ready to be published."""
    keys = [str(i) for i in range(rows)]
    with open_warehouse(project.warehouse) as con:
        (count,) = con.execute("select count(*) from versions where dataset = ?", [dataset]).fetchone() or (0,)
        version = begin_version(con, dataset, f"run {count}")
        path = snapshot_path(project, dataset, version)
        path.parent.mkdir(parents=True)
        frame = pl.DataFrame({ENTITY_KEY: keys, "id": range(rows), "secret": ["s3cret"] * rows})
        frame.write_parquet(path)
        details = {
            "rows": rows,
            "digest": "d",
            "columns": {"id": "BIGINT", "secret": "VARCHAR"},
            "sensitive": sensitive or [],
        }
        record_stage(con, dataset, version, "source_table", inputs_hash="h", details=details)
        held = keys[:segmented]
        segments = pl.DataFrame(
            {"entity_key": held, "segment_id": [int(k) % 2 for k in held], "segment_name": "s", "confidence": 0.5}
        )
        write_segments(con, dataset, version, segments)
        record_stage(con, dataset, version, "segments", inputs_hash="h", details={})
        write_metrics(
            con, dataset, version, pl.DataFrame({"metric": ["silhouette"], "value": [0.1], "description": ["d"]})
        )
        record_stage(con, dataset, version, "segment_metrics", inputs_hash="h", details={})
    return version


def read(project: Project, query: str) -> list[Any]:
    with duckdb.connect(project.published, read_only=True) as con:
        return con.execute(query).fetchall()


def test_each_dataset_is_at_its_published_version(project: Project) -> None:
    first = prepare(project, "a", 4)
    publish(project, {"a": settings()}, "a", first, run_id="r", reason="test")
    prepare(project, "a", 6)  # not published
    done = publish(project, {"a": settings()}, "b", prepare(project, "b", 2), run_id="r", reason="test")
    assert done.datasets == ("a", "b")
    assert read(project, "select dataset, version, count(*) from segments group by all order by all") == [
        ("a", 1, 4),
        ("b", 1, 2),
    ]
    assert read(project, "select dataset, sum(rows) from segment_sizes group by all order by all") == [
        ("a", 4),
        ("b", 2),
    ]
    assert read(project, "select publish_id, dataset, rows from publish_log order by all") == [(1, "a", 4), (2, "b", 2)]


def test_a_version_that_misses_rows_is_not_published(project: Project) -> None:
    publish(project, {}, "a", prepare(project, "a", 4), run_id="r", reason="test")
    before = project.published.read_bytes()
    with pytest.raises(ErasmoError, match="Got 3 segmented rows"):
        publish(project, {}, "a", prepare(project, "a", 4, segmented=3), run_id="r", reason="test")
    assert project.published.read_bytes() == before


def test_sensitive_columns_stay_out_unless_asked_for(project: Project) -> None:
    version = prepare(project, "a", 4, sensitive=["secret"])
    publish(project, {}, "a", version, run_id="r", reason="the YAML is gone or broken")
    assert b"s3cret" not in project.published.read_bytes()
    publish(project, {"a": settings(sensitive="secret")}, "a", version, run_id="r", reason="test")
    assert "secret" not in {row[0] for row in read(project, "describe a_segmented")}
    shown = settings(sensitive="secret", publish={"sensitive": True})
    publish(project, {"a": shown}, "a", version, run_id="r", reason="test")
    assert "secret" in {row[0] for row in read(project, "describe a_segmented")}


def test_a_death_between_log_and_rename_is_made_good_by_the_next(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(project, {}, "a", prepare(project, "a", 4), run_id="r", reason="test")
    before = project.published.read_bytes()
    second = prepare(project, "a", 5)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(project, {}, "a", second, run_id="r", reason="test")
    assert project.published.read_bytes() == before
    with open_warehouse(project.warehouse) as con:
        assert published_versions(con) == {"a": 2}
    publish(project, {}, "b", prepare(project, "b", 2), run_id="r", reason="test")
    assert read(project, "select dataset, version, count(*) from segments group by all order by all") == [
        ("a", 2, 5),
        ("b", 1, 2),
    ]


def test_a_build_that_fails_changes_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(project, {}, "a", prepare(project, "a", 4), run_id="r", reason="test")
    before = project.published.read_bytes()
    second = prepare(project, "a", 5)
    snapshot_path(project, "a", second).unlink()
    with pytest.raises(duckdb.IOException):
        publish(project, {}, "a", second, run_id="r", reason="test")
    assert project.published.read_bytes() == before
    assert [p.name for p in project.published.parent.iterdir()] == ["segments.duckdb"]
    with open_warehouse(project.warehouse) as con:
        assert published_versions(con) == {"a": 1}


def test_a_full_disk_is_one_line_and_changes_nothing(project: Project) -> None:
    publish(project, {}, "a", prepare(project, "a", 4), run_id="r", reason="test")
    before = project.published.read_bytes()
    version = prepare(project, "a", 200_000)
    code = f"""
import resource, signal
from pathlib import Path
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import open_project
from erasmo_dagster.store.publish import publish
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    publish(open_project(Path({str(project.root)!r}), Path({str(project.home)!r})), {{}}, "a", {version}, run_id="r", reason="t")
except ErasmoError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("Got no space left"), done.stdout + done.stderr
    assert project.published.read_bytes() == before
    assert [p.name for p in project.published.parent.iterdir()] == ["segments.duckdb"]


def test_readers_see_one_whole_version_each_time(project: Project) -> None:
    project = project.model_copy(update={"settings": ProjectSettings(keep_versions=50)})
    sizes = {prepare(project, "a", rows): rows for rows in range(10, 22)}
    publish(project, {}, "a", 1, run_id="r", reason="test")
    seen: list[tuple[int, int, int]] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    code = (
        "import duckdb, sys\n"
        "while sys.stdin.readline():\n"
        f"    with duckdb.connect({str(project.published)!r}, read_only=True) as con:\n"
        "        print(*con.execute('select min(version), max(version), count(*) from segments').fetchone(), flush=True)\n"
    )

    def reader() -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while not stop.is_set():
                process.stdin.write("\n")
                process.stdin.flush()
                low, high, rows = map(int, process.stdout.readline().split())
                seen.append((low, high, rows))
        except BaseException as error:
            errors.append(error)
        finally:
            process.stdin.close()
            process.wait(timeout=10)
            process.stdout.close()

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for version in sizes:
            publish(project, {}, "a", version, run_id="r", reason="test")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(seen) > len(sizes)
    assert all(low == high and rows == sizes[low] for low, high, rows in seen)


def test_wide_tables_rename_what_collides() -> None:
    aliases = publishing._aliases(["id", "Version", "source_Version", "segment_id"])
    assert aliases == {
        "id": "id",
        "Version": "source_source_Version",
        "source_Version": "source_Version",
        "segment_id": "source_segment_id",
    }
