"""A warehouse of an earlier release becomes one of this release, or stays what it was."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store import schema
from erasmo_dagster.store.names import next_segment_id, published_names
from erasmo_dagster.store.versions import Publication, publications, stage_output
from erasmo_dagster.store.warehouse import open_warehouse, read_names

MOMENT = datetime(2026, 1, 2, 3, 4, 5)
LATER = datetime(2026, 2, 3, 4, 5, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


def write_version_1(path: Path, *, reuse: bool = False) -> None:
    """A warehouse as the first release left it: ``a`` published at its second of three versions, ``b`` at none.

    With ``reuse`` the second version of ``a`` has the segments of its first.
    """
    with duckdb.connect(path) as con:
        con.execute(schema._SCRIPTS[0])
        con.execute("INSERT INTO meta VALUES (1)")
        for dataset, version in (("a", 1), ("a", 2), ("a", 3), ("b", 1)):
            held = 1 if reuse and dataset == "a" else version
            con.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", [dataset, version, f"run {version}", MOMENT])
            con.execute(
                "INSERT INTO stage_outputs VALUES (?, ?, 'segments', ?, 'h', '{}', ?)",
                [dataset, version, held, MOMENT],
            )
            if held == version:
                con.execute(
                    "INSERT INTO segments SELECT ?, ?, k::VARCHAR, (k + ?) % (? + 1),"
                    " 'segment ' || ((k + ?) % (? + 1)), 0.5, ? FROM range(4) t(k)",
                    [dataset, version, version, version, version, version, MOMENT],
                )
        con.execute("INSERT INTO published_versions VALUES ('a', 2, ?)", [LATER])
        con.execute("INSERT INTO publish_log VALUES (1, 'a', 1, 'run 1', 'd', 4, 2, ?, 'because')", [MOMENT])
        con.execute("INSERT INTO publish_log VALUES (2, 'a', 2, 'run 2', 'd', 4, 3, ?, 'because')", [LATER])


def described(con: duckdb.DuckDBPyConnection) -> list[Any]:
    """Every column of every table, and every constraint."""
    columns = con.execute(
        "SELECT table_name, column_index, column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
        " WHERE NOT internal ORDER BY ALL"
    ).fetchall()
    constraints = con.execute(
        "SELECT table_name, constraint_type, constraint_column_names FROM duckdb_constraints() ORDER BY ALL"
    ).fetchall()
    return [columns, constraints, con.execute("SELECT * FROM meta").fetchall()]


def contents(path: Path) -> dict[str, list[Any]]:
    with duckdb.connect(path) as con:
        tables = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: con.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in tables}


def stays(con: duckdb.DuckDBPyConnection) -> list[Any]:
    rows: list[Any] = con.execute("FROM segment_history ORDER BY ALL").fetchall()
    return rows


def test_an_older_warehouse_gets_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    write_version_1(path)
    with open_warehouse(tmp_path / "fresh.duckdb") as con:
        fresh = described(con)
    assert fresh[2] == [(schema.SCHEMA_VERSION,)]
    for _ in range(2):  # what was migrated is not migrated again
        with open_warehouse(path) as con:
            assert described(con) == fresh


def test_an_older_warehouse_keeps_what_it_holds(path: Path) -> None:
    write_version_1(path)
    before = contents(path)
    with open_warehouse(path):
        pass
    after = contents(path)
    unchanged = ("versions", "corpus", "segment_metrics")
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert after["segments"] == [(*row[:4], *row[5:]) for row in before["segments"]]
    assert [row for row in after["stage_outputs"] if row[2] == "segments"] == before["stage_outputs"]
    assert after["publish_log"] == [(*row, None, None) for row in before["publish_log"]]


def test_the_version_that_is_published_is_the_one_whose_source_is_known(path: Path) -> None:
    write_version_1(path)
    with open_warehouse(path) as con:
        assert con.execute("FROM published_versions").fetchall() == [("a", 2, LATER, 2, None)]
        assert publications(con) == {"a": Publication(2, 2, LATER, retired=False)}


def test_stays_in_the_published_segments_begin_with_their_publish(path: Path) -> None:
    write_version_1(path)
    with open_warehouse(path) as con:
        expected = [("a", str(k), (k + 2) % 3, 2, LATER, None, None) for k in range(4)]
        assert stays(con) == expected
        assert con.execute("FROM segment_transitions").fetchall() == []


def test_stays_are_made_of_segments_that_an_earlier_version_holds(path: Path) -> None:
    write_version_1(path, reuse=True)
    with open_warehouse(path) as con:
        expected = [("a", str(k), (k + 1) % 2, 2, LATER, None, None) for k in range(4)]
        assert stays(con) == expected


def test_ids_that_were_given_before_the_migration_are_not_given_again(path: Path) -> None:
    write_version_1(path)
    with open_warehouse(path) as con:
        assert next_segment_id(con, "a") == 4  # the third version's count, though it was never published
        assert next_segment_id(con, "b") == 2
        assert next_segment_id(con, "c") == 0
        assert published_names(con, "a") == {}, "they were called by their numbers, and get names"
        assert con.execute(
            "SELECT segment_id, first_version FROM segment_names WHERE dataset = 'a' ORDER BY 1"
        ).fetchall() == [(0, 1), (1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("reuse", [False, True])
def test_what_was_published_before_there_were_profiles_can_be_published_again(path: Path, reuse: bool) -> None:
    write_version_1(path, reuse=reuse)
    with open_warehouse(path) as con:
        profile = stage_output(con, "a", 2, "segment_profile")
        assert profile is not None
        assert profile.version == (1 if reuse else 2)
        assert read_names(con, "a", profile.version) == {k: f"segment {k}" for k in range(2 if reuse else 3)}
        shares = con.execute(
            "SELECT dataset, version, sum(rows), sum(share) FROM segment_descriptions GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert all(rows == 4 and abs(share - 1) < 1e-12 for _, _, rows, share in shares)


def test_an_older_warehouse_in_which_nothing_was_done(path: Path) -> None:
    with duckdb.connect(path) as con:
        con.execute(schema._SCRIPTS[0])
        con.execute("INSERT INTO meta VALUES (1)")
    with open_warehouse(path) as con:
        assert publications(con) == {}
        assert stays(con) == []


def test_a_migrated_warehouse_survives_a_death_before_the_next_checkpoint(path: Path) -> None:
    import subprocess
    import sys

    write_version_1(path)
    code = (
        "import os, signal; from pathlib import Path\n"
        "from erasmo_dagster.store.warehouse import open_warehouse\n"
        f"with open_warehouse(Path({str(path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with open_warehouse(path, lock_timeout=5) as con:
        assert con.execute("FROM meta").fetchall() == [(schema.SCHEMA_VERSION,)]
        assert len(stays(con)) == 4


def test_a_warehouse_of_a_later_release_is_refused_and_left_alone(path: Path) -> None:
    with open_warehouse(path) as con:
        con.execute("UPDATE meta SET schema_version = ?", [schema.SCHEMA_VERSION + 1])
    before = contents(path)
    with (
        pytest.raises(ErasmoError, match=f"schema version {schema.SCHEMA_VERSION + 1} in .*expected version"),
        open_warehouse(path),
    ):
        pass
    assert contents(path) == before


@pytest.mark.parametrize("broken", ["CREATE TABLE nowhere (a NO_SUCH_TYPE)", "SELECT error('stop')"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_migration_that_fails_leaves_the_warehouse_as_it_was(
    broken: str, whole: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version_1(path)
    before = contents(path)
    scripts = (schema._SCRIPTS[0], (schema._SCRIPTS[1] if whole else "CREATE TABLE half (a INTEGER);") + broken)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_SCRIPTS", scripts)
        with pytest.raises(duckdb.Error), open_warehouse(path):
            pass
    assert contents(path) == before
    with open_warehouse(path) as con:
        assert con.execute("FROM meta").fetchall() == [(schema.SCHEMA_VERSION,)]
        assert len(stays(con)) == 4
