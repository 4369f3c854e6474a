"""The published file: whole or as it was, whatever happens; its readers never see half of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project, ProjectSettings
from erasmo_dagster.store import publish as publishing
from erasmo_dagster.store import published_file
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.checks import GATE, CheckResult, write_check
from erasmo_dagster.store.history import commit_history
from erasmo_dagster.store.names import next_segment_id, published_names
from erasmo_dagster.store.publish import Published, publish, retire, rollback
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.versions import (
    FITTED_STATE,
    StageOutput,
    begin_version,
    link_stage,
    publications,
    published_versions,
    record_stage,
)
from erasmo_dagster.store.warehouse import (
    one_row,
    open_warehouse,
    write_candidates,
    write_metrics,
    write_profile,
    write_segments,
)


def settings(**options: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"source": {"path": "x.csv"}, "key": "id", **options})


def described(rows: Sequence[tuple[int, str]]) -> dict[str, pl.DataFrame]:
    """The least profile of rows in segments with names."""
    names, sizes = dict(rows), Counter(segment for segment, _ in rows)
    ids = pl.Series(list(names), dtype=pl.Int32)
    counts = pl.Series([sizes[segment] for segment in names], dtype=pl.Int64)
    descriptions = pl.DataFrame({"segment_id": ids, "segment_name": pl.Series(list(names.values()), dtype=pl.String)})
    descriptions = descriptions.with_columns(
        rows=counts, share=counts / max(1, len(rows)), summary=pl.lit("s"), typical_row=pl.lit("{}")
    ).with_columns(
        central_members=pl.lit([], dtype=pl.List(pl.String)), doubtful_members=pl.lit([], dtype=pl.List(pl.String))
    )
    values = pl.DataFrame({"segment_id": ids}).with_columns(
        column_name=pl.lit("id"), value=pl.lit("1"), value_order=pl.lit(1), rows=counts
    )
    traits = values.select("segment_id", "column_name", "value").with_columns(
        trait_rank=pl.lit(1),
        kind=pl.lit("category"),
        in_segment=pl.lit(1.0),
        in_rest=pl.lit(0.0),
        effect=pl.lit(2.0),
        effect_kind=pl.lit("lift"),
        strength=pl.lit(1.0),
        column_association=pl.lit(1.0),
        description=pl.lit("d"),
    )
    return {"descriptions": descriptions, "traits": traits, "values": values}


PUBLISHED = -1  # a version is compared with what is published as it is made


def prepare(
    project: Project,
    dataset: str,
    rows: int,
    *,
    segmented: int | None = None,
    sensitive: list[str] | None = None,
    segments: Mapping[str, tuple[int, str]] | None = None,
    base: int | None = PUBLISHED,
    checked: bool = True,
) -> int:
    """A version that is ready to be published: of so many rows, or with a segment's id and name for each key."""
    if segments is None:
        segments = {str(i): (i % 2, f"segment {i % 2}") for i in range(rows)}
    keys = list(segments)
    with open_warehouse(project.warehouse) as con:
        if base == PUBLISHED:
            published = publications(con).get(dataset)
            base = published.version if published else None
        (last,) = one_row(con.execute("select coalesce(max(version), 0) from versions where dataset = ?", [dataset]))
        version = begin_version(con, dataset, f"run {last}")
        path = snapshot_path(project, dataset, version)
        path.parent.mkdir(parents=True)
        frame = pl.DataFrame(
            {ENTITY_KEY: keys, "id": range(len(keys)), "secret": ["s3cret"] * len(keys)},
            schema_overrides={ENTITY_KEY: pl.String, "id": pl.Int64, "secret": pl.String},
        )
        frame.write_parquet(path)
        details = {
            "rows": len(keys),
            "digest": f"digest {version}",
            "columns": {"id": "BIGINT", "secret": "VARCHAR"},
            "sensitive": sensitive or [],
        }
        record_stage(con, dataset, version, "source_table", inputs_hash="h", details=details)
        held = keys[:segmented]
        moments = pl.Series([None] * len(held), dtype=pl.Datetime("us"))
        write_segments(
            con,
            dataset,
            version,
            pl.DataFrame(
                {
                    "entity_key": pl.Series(held, dtype=pl.String),
                    "segment_id": pl.Series([segments[key][0] for key in held], dtype=pl.Int32),
                    "confidence": pl.Series([0.5] * len(held), dtype=pl.Float32),
                    "assigned_at": moments,
                }
            ),
        )
        record_stage(con, dataset, version, "segments", inputs_hash="h", details={"base": base})
        figures = {"metric": ["silhouette", "unknown"], "value": [0.1, math.nan], "description": ["d", "d"]}
        write_metrics(con, dataset, version, pl.DataFrame(figures))
        record_stage(con, dataset, version, "segment_metrics", inputs_hash="h", details={})
        write_profile(con, dataset, version, **described([segments[key] for key in held]))
        record_stage(con, dataset, version, "segment_profile", inputs_hash="h", details={})
        for name in GATE if checked else ():
            write_check(con, dataset, version, CheckResult(name, True, True, "well", {}))
    return version


def release(project: Project, dataset: str, version: int) -> Published:
    return publish(project, {}, dataset, version, run_id="r", reason="test")


def read(project: Project, query: str) -> list[Any]:
    with duckdb.connect(project.published, read_only=True) as con:
        rows: list[Any] = con.execute(query).fetchall()
        return rows


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
    sizes = {prepare(project, "a", rows, base=rows - 10 or None): rows for rows in range(10, 22)}
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
    aliases = published_file._aliases(["id", "Version", "source_Version", "segment_id"])
    assert aliases == {
        "id": "id",
        "Version": "source_source_Version",
        "source_Version": "source_Version",
        "segment_id": "source_segment_id",
    }


# --- what may be published -----------------------------------------------------------------------


def holdings(project: Project) -> dict[str, list[Any]]:
    """All that the warehouse holds."""
    with open_warehouse(project.warehouse) as con:
        tables = [name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()]
        # As text, since a figure that is no number does not equal itself.
        return {name: [repr(row) for row in con.execute(f"from {name} order by all").fetchall()] for name in tables}


@pytest.mark.parametrize("absent", GATE)
def test_a_version_without_every_check_of_the_gate_is_not_published(project: Project, absent: str) -> None:
    release(project, "a", prepare(project, "a", 4))
    version = prepare(project, "a", 5)
    with open_warehouse(project.warehouse) as con:
        con.execute("delete from check_results where version = ? and check_name = ?", [version, absent])
    before, file = holdings(project), project.published.read_bytes()
    with pytest.raises(ErasmoError, match=f"without the checks {absent}, expected every check of the gate"):
        release(project, "a", version)
    assert (holdings(project), project.published.read_bytes()) == (before, file)


def test_a_version_that_failed_at_the_gate_is_not_published(project: Project) -> None:
    version = prepare(project, "a", 4)
    with open_warehouse(project.warehouse) as con:
        write_check(con, "a", version, CheckResult(GATE[3], False, True, "too low", {}))
        write_check(con, "a", version, CheckResult("z", False, True, "odd", {}))
    with pytest.raises(ErasmoError, match=rf"failed at the gate \({GATE[3]}: too low; z: odd\)"):
        release(project, "a", version)
    assert not project.published.exists()
    assert holdings(project)["publish_log"] == []


def test_a_check_that_does_not_block_may_fail(project: Project) -> None:
    version = prepare(project, "a", 4)
    with open_warehouse(project.warehouse) as con:
        write_check(con, "a", version, CheckResult("z", False, False, "odd", {}))
    assert release(project, "a", version).version == version


def test_a_version_that_was_compared_with_another_than_the_published_is_refused(project: Project) -> None:
    first, second = prepare(project, "a", 4), prepare(project, "a", 5)
    release(project, "a", first)
    with pytest.raises(ErasmoError, match="compared with version None, expected version 1, which is published by now"):
        release(project, "a", second)
    release(project, "a", first)  # again
    third, fourth = prepare(project, "a", 6), prepare(project, "a", 7)
    release(project, "a", third)
    with pytest.raises(ErasmoError, match="compared with version 1, expected version 3"):
        release(project, "a", fourth)
    with open_warehouse(project.warehouse) as con:
        assert published_versions(con) == {"a": 3}


def test_the_log_has_the_figures_that_are_numbers(project: Project) -> None:
    release(project, "a", prepare(project, "a", 4))
    ((reason, fingerprint, figures),) = read(project, "select reason, fingerprint, figures from publish_log")
    assert (reason, fingerprint, json.loads(figures)) == ("test", "digest 1", {"silhouette": 0.1})


# --- back, away and back again -------------------------------------------------------------------


def test_a_rollback_publishes_an_older_version_and_knows_the_newer_source(project: Project) -> None:
    for rows in (4, 5, 6):
        release(project, "a", prepare(project, "a", rows))
    done = rollback(project, {}, "a", 1, reason="by hand")
    assert (done.version, done.rows) == (1, 4)
    assert read(project, "select version, count(*) from segments group by all") == [(1, 4)]
    assert read(project, "select count(*) from a_segmented") == [(4,)]
    with open_warehouse(project.warehouse) as con:
        known = publications(con)["a"]
    assert (known.version, known.seen_version, known.retired) == (1, 3, False)
    rollback(project, {}, "a", 2, reason="by hand")
    with open_warehouse(project.warehouse) as con:
        assert publications(con)["a"].seen_version == 3
    release(project, "a", prepare(project, "a", 7))
    with open_warehouse(project.warehouse) as con:
        known = publications(con)["a"]
    assert (known.version, known.seen_version) == (4, 4)


def test_a_rollback_needs_a_version_that_was_published_and_is_kept(project: Project) -> None:
    with pytest.raises(ErasmoError, match="of which nothing is published"):
        rollback(project, {}, "a", 1, reason="r")
    release(project, "a", prepare(project, "a", 4))
    prepare(project, "a", 5)
    release(project, "a", prepare(project, "a", 6))
    before, file = holdings(project), project.published.read_bytes()
    for version in (2, 4, 0):
        with pytest.raises(ErasmoError, match="one that was published and is still kept: 1, 3:"):
            rollback(project, {}, "a", version, reason="r")
    assert (holdings(project), project.published.read_bytes()) == (before, file)


def test_a_retired_dataset_is_hidden_and_kept(project: Project) -> None:
    assert not retire(project, {}, "a", reason="gone")
    for dataset in "ab":
        release(project, dataset, prepare(project, dataset, 4))
    assert retire(project, {}, "a", reason="gone")
    assert not retire(project, {}, "a", reason="gone")
    tables = {name for (name,) in read(project, "select table_name from duckdb_tables()")}
    assert "b_segmented" in tables
    assert "a_segmented" not in tables
    for table in ("segments", "segment_sizes", "segment_metrics"):
        assert read(project, f"select distinct dataset from {table}") == [("b",)]
    assert read(project, "select dataset, version, rows, segments, reason from publish_log where publish_id = 3") == [
        ("a", 1, 0, 0, "gone")
    ]
    with open_warehouse(project.warehouse) as con:
        assert published_versions(con) == {"b": 1}
        assert (publications(con)["a"].version, publications(con)["a"].retired) == (1, True)
        assert con.execute("select count(*) from segments where dataset = 'a'").fetchall() == [(4,)]


def test_a_retired_dataset_comes_back_by_a_run_or_a_rollback(project: Project) -> None:
    release(project, "a", prepare(project, "a", 4))
    retire(project, {}, "a", reason="gone")
    rollback(project, {}, "a", 1, reason="back")
    assert read(project, "select version, count(*) from segments group by all") == [(1, 4)]
    retire(project, {}, "a", reason="gone")
    release(project, "a", prepare(project, "a", 5))
    assert read(project, "select version, count(*) from segments group by all") == [(2, 5)]
    with open_warehouse(project.warehouse) as con:
        assert not publications(con)["a"].retired


# --- a publish that fails ------------------------------------------------------------------------


def break_build(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("stop")

    patch.setattr(published_file, "_wide_table", fail)


def break_sync(patch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError("stop")

    patch.setattr(publishing, "sync", fail)


def break_history(patch: pytest.MonkeyPatch) -> None:
    commit = commit_history

    def fail(con: duckdb.DuckDBPyConnection) -> None:
        commit(con)
        raise OSError("stop")

    patch.setattr(publishing, "commit_history", fail)


def break_names(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt("stop")

    patch.setattr(publishing, "register_segments", fail)


@pytest.mark.parametrize(
    ("broken", "move"),
    [
        *product([break_build, break_sync, break_history], ["publish", "rollback", "retire"]),
        *product([break_names], ["publish", "rollback"]),  # a dataset that is hidden registers nothing
    ],
)
def test_a_publish_that_fails_leaves_warehouse_and_file_and_hinders_none_after_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], move: str
) -> None:
    release(project, "b", prepare(project, "b", 3))
    for rows in (4, 5):
        release(project, "a", prepare(project, "a", rows))
    version = prepare(project, "a", 6)
    before, file = holdings(project), project.published.read_bytes()
    moves: dict[str, Callable[[], object]] = {
        "publish": lambda: release(project, "a", version),
        "rollback": lambda: rollback(project, {}, "a", 1, reason="back"),
        "retire": lambda: retire(project, {}, "a", reason="gone"),
    }
    with monkeypatch.context() as patch:
        broken(patch)
        with pytest.raises((OSError, KeyboardInterrupt), match="stop"):
            moves[move]()
    assert (holdings(project), project.published.read_bytes()) == (before, file)
    assert [p.name for p in project.published.parent.iterdir()] == ["segments.duckdb"]
    moves[move]()
    held = {"publish": [("a", 6), ("b", 3)], "rollback": [("a", 4), ("b", 3)], "retire": [("b", 3)]}
    assert read(project, "select dataset, count(*) from segments group by all order by all") == held[move]


def test_an_error_of_the_database_while_the_versions_move_is_told_as_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(project, "a", prepare(project, "a", 4))
    version = prepare(project, "a", 5)
    before, file = holdings(project), project.published.read_bytes()

    def fail(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("insert into publish_log select * from publish_log")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "commit_history", fail)
        with pytest.raises(duckdb.ConstraintException):
            release(project, "a", version)
    assert (holdings(project), project.published.read_bytes()) == (before, file)
    release(project, "a", version)


def test_a_column_that_becomes_sensitive_is_told_of_no_more(project: Project) -> None:
    rows = {"1": (0, "id 1"), "2": (1, "Families")}
    release(project, "a", prepare(project, "a", 0, segments=rows))
    release(project, "b", prepare(project, "b", 2))
    assert read(project, "select count(*) from segment_profile where dataset = 'a'") == [(2,)]
    private = settings(sensitive="id", naming={"names": {1: "Families"}})
    publishing.refresh_marts(project, {"a": private})
    for table in ("segment_profile", "segment_values"):
        assert read(project, f"select distinct dataset from {table}") == [("b",)], table
    told = "select segment_name, summary, rule, typical_row from segment_descriptions where dataset = 'a' order by 1"
    assert read(project, told) == [("Families", "", None, "{}"), ("segment 0", "", None, "{}")]
    for table in ("segments", "segment_sizes", "segment_history"):
        names = f"select distinct segment_name from {table} where dataset = 'a' order by 1"
        assert read(project, names) == [("Families",), ("segment 0",)], table
    # A profile that was made without it is told of whole.
    with open_warehouse(project.warehouse) as con:
        record_stage(con, "a", 1, "segment_profile", inputs_hash="h", details={"private": ["id"]})
    publishing.refresh_marts(project, {"a": private})
    assert read(project, "select distinct segment_name from segments where dataset = 'a' order by 1") == [
        ("Families",),
        ("id 1",),
    ]


def test_going_back_to_segments_without_names_forgets_none(project: Project) -> None:
    for name in ("segment 0", "Families"):
        release(project, "a", prepare(project, "a", 0, segments={"1": (0, name)}))
    rollback(project, {}, "a", 1, reason="back")
    with open_warehouse(project.warehouse) as con:
        assert published_names(con, "a") == {0: "Families"}


def test_a_clock_that_was_ahead_leaves_no_stays_that_overlap(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "now", lambda _: datetime(2099, 1, 1))
        release(project, "a", prepare(project, "a", 0, segments={"1": (0, "x")}))
    release(project, "a", prepare(project, "a", 0, segments={"1": (1, "y")}))
    stays = read(project, "select segment_id, valid_from < coalesce(valid_to, '2100-01-01') from segment_history")
    assert sorted(stays) == [(0, True), (1, True)]


# --- ids -----------------------------------------------------------------------------------------


def test_an_id_that_was_published_is_never_given_again(project: Project) -> None:
    def next_id() -> int:
        with open_warehouse(project.warehouse) as con:
            return next_segment_id(con, "a")

    assert next_id() == 0
    release(project, "a", prepare(project, "a", 0, segments={"1": (0, "segment 0"), "2": (7, "young"), "3": (-1, "-")}))
    assert next_id() == 8
    prepare(project, "a", 0, segments={"1": (50, "never published")})
    assert next_id() == 8
    release(project, "a", prepare(project, "a", 0, segments={"1": (0, "renamed"), "2": (8, "old")}))
    assert next_id() == 9
    rollback(project, {}, "a", 1, reason="back")
    assert next_id() == 9
    for _ in range(8):  # the versions that had them are removed
        release(project, "a", prepare(project, "a", 0, segments={"1": (0, "segment 0")}))
    retire(project, {}, "a", reason="gone")
    assert next_id() == 9
    with open_warehouse(project.warehouse) as con:
        names = published_names(con, "a")
        assert con.execute("select segment_id, first_version from segment_names order by all").fetchall() == [
            (-1, 1),
            (0, 1),
            (7, 1),
            (8, 3),
        ]
        assert con.execute("select count(*) from segments where segment_id = 8").fetchall() == [(0,)]
    assert names == {-1: "-", 0: "renamed", 7: "young", 8: "old"}, "a name is not lost to a version without one"


def test_datasets_have_ids_of_their_own(project: Project) -> None:
    release(project, "a", prepare(project, "a", 0, segments={"1": (7, "x")}))
    with open_warehouse(project.warehouse) as con:
        assert next_segment_id(con, "b") == 0
        assert published_names(con, "b") == {}


def test_the_leaderboard_is_that_of_the_training_whose_segments_are_published(project: Project) -> None:
    query = "select dataset, version, candidate, chosen, rank, bits_saved from segment_leaderboard order by all"
    figures = dict.fromkeys(("separation", "gower_silhouette", "tree_accuracy", "stability"), 0.5)

    def trained(dataset: str, version: int, winner: str) -> None:
        rows = [
            {"candidate": winner, "chosen": True, "rank": 1, "bits_saved": 2.0, "refused": ""},
            {"candidate": "z", "chosen": False, "rank": None, "bits_saved": None, "refused": "no luck"},
        ]
        with open_warehouse(project.warehouse) as con:
            write_candidates(con, dataset, version, [{**row, **figures, "smallest": 0.2, "seconds": 1} for row in rows])
            record_stage(con, dataset, version, FITTED_STATE, inputs_hash="h", details={})

    first = prepare(project, "a", 4)
    trained("a", first, "x")
    release(project, "a", first)
    release(project, "b", prepare(project, "b", 2))  # of a release that wrote down no training
    of_first = [("x", True, 1, 2.0), ("z", False, None, None)]
    assert read(project, query) == [("a", first, *row) for row in of_first]

    second = prepare(project, "a", 5)
    with open_warehouse(project.warehouse) as con:  # which only places rows
        link_stage(con, "a", second, StageOutput(FITTED_STATE, first, "h", {}))
    release(project, "a", second)
    assert read(project, query) == [("a", second, *row) for row in of_first]

    third = prepare(project, "a", 6)
    trained("a", third, "y")
    assert read(project, query) == [("a", second, *row) for row in of_first]  # nothing is published yet
    release(project, "a", third)
    assert read(project, query) == [("a", third, "y", True, 1, 2.0), ("a", third, *of_first[1])]
    rollback(project, {}, "a", second, reason="test")
    assert read(project, query) == [("a", second, *row) for row in of_first]
    retire(project, {}, "a", reason="test")
    assert read(project, query) == []
