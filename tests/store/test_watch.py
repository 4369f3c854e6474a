"""What a look at a source costs, and that no change of its rows goes unseen."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store import sources, watch
from erasmo_dagster.store.sources import Fingerprint, fingerprint_of, snapshot_source
from erasmo_dagster.store.watch import Sighting, is_unchanged, look, schema_changes
from tests.store.reader import SECRET, sqlite_file

HOUR, DAY = 3600.0, 86400.0
ROWS = "id,x\n1,a\n2,b\n"
STAMPED = pl.DataFrame({"id": [1, 2], "x": ["a", "b"], "at": ["2024-01-01 00:00:00", "2024-01-02 00:00:00"]})


class Watcher:
    """Looks at one source, each time with what it saw last. ``hashed`` tells which looks hashed the rows."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.monkeypatch = project, monkeypatch
        self.settings: dict[str, Any] = {"source": {"path": "t.csv"}, "key": "id"}
        self.last: Sighting | None = None

    @property
    def dataset(self) -> DatasetSettings:
        return DatasetSettings.model_validate(self.settings)

    @property
    def path(self) -> Path:
        return self.project.root / self.settings["source"]["path"]

    def write(self, content: str) -> None:
        """New content, written an hour ago: long enough for its time to be trusted."""
        self.path.write_text(content)
        settle(self.path)

    def __call__(self, later: float = 0.0) -> Sighting:
        self.last = look("customers", self.dataset, self.project, self.last, now=time.time() + later)
        return self.last

    @contextmanager
    def nothing_hashed(self, *, nothing_read: bool = False) -> Iterator[None]:
        def refuse(*_: Any) -> Any:
            raise AssertionError("the rows were read")

        with self.monkeypatch.context() as patched:
            patched.setattr(sources, "_fingerprint", refuse)
            if nothing_read:
                patched.setattr(sources, "open_source", refuse)
            yield

    def hashes(self, later: float = 0.0) -> bool:
        """Whether a look now would hash the rows; it is not taken."""
        with self.nothing_hashed():
            try:
                look("customers", self.dataset, self.project, self.last, now=time.time() + later)
            except AssertionError:
                return True
        return False


@pytest.fixture
def watcher(project: Project, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    return Watcher(project, monkeypatch)


def settle(*paths: Path, age: float = HOUR) -> None:
    for path in paths:
        os.utime(path, (time.time() - age,) * 2)


def test_a_look_gives_the_fingerprint_of_a_snapshot_and_leaves_nothing(watcher: Watcher, tmp_path: Path) -> None:
    watcher.write(ROWS)
    seen = watcher()
    assert seen.fingerprint == snapshot_source("x", watcher.dataset, watcher.project, tmp_path / "s").fingerprint
    assert list((watcher.project.artifacts / "customers").iterdir()) == []
    stat = watcher.path.stat()
    assert [file[1:] for file in seen.files] == [(stat.st_size, stat.st_mtime_ns)]
    assert abs(seen.hashed_at - time.time()) < 60


def test_what_did_not_change_is_not_read(watcher: Watcher) -> None:
    watcher.write(ROWS)
    first = watcher()
    with watcher.nothing_hashed(nothing_read=True):
        assert watcher(later=30) is first
        assert watcher(later=DAY - 60) is first
    assert watcher.hashes(later=DAY + 60)


@pytest.mark.parametrize("verify", ["0s", "1h"])
def test_verify_reads_the_rows_whatever_the_files_say(watcher: Watcher, verify: str) -> None:
    watcher.settings["refresh"] = {"verify": verify}
    watcher.write(ROWS)
    first = watcher()
    stat = watcher.path.stat()
    watcher.path.write_text(ROWS.replace("b", "B"))
    os.utime(watcher.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if verify == "1h":
        assert watcher(later=30) is first  # what size and time cannot tell
    second = watcher(later=HOUR + 1)
    assert second.files == first.files
    assert second.fingerprint.hash != first.fingerprint.hash
    assert second.hashed_at > first.hashed_at + HOUR - 60


def test_a_clock_that_was_set_back_does_not_put_verifying_off(watcher: Watcher) -> None:
    watcher.write(ROWS)
    watcher()
    assert watcher.hashes(later=-60)


def test_a_file_written_just_before_its_hashing_is_hashed_again(watcher: Watcher) -> None:
    watcher.path.write_text(ROWS)
    first = watcher()
    stat = watcher.path.stat()
    watcher.path.write_text(ROWS.replace("b", "B"))
    os.utime(watcher.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # within the granularity of its time
    second = watcher(later=30)
    assert second.files == first.files
    assert second.fingerprint.hash != first.fingerprint.hash
    with watcher.nothing_hashed():  # hashed 30 s after the last write, so settled
        assert watcher(later=60) is second


def test_a_file_that_changes_while_it_is_read_is_hashed_again(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.write(ROWS)
    hash_rows = sources._fingerprint

    def meanwhile(*given: Any) -> Fingerprint:
        watcher.write(ROWS + "3,c\n")
        return hash_rows(*given)

    with monkeypatch.context() as patched:
        patched.setattr(sources, "_fingerprint", meanwhile)
        first = watcher()
    assert first.hashed_at == 0.0
    assert first.fingerprint.rows == 2
    assert watcher(later=30).fingerprint.rows == 3


def test_a_rewritten_file_with_the_same_rows_has_the_same_fingerprint(watcher: Watcher) -> None:
    watcher.write(ROWS)
    first = watcher()
    watcher.path.write_text("id,x\n2,b\n1,a\n")
    settle(watcher.path, age=60)
    second = watcher(later=30)
    assert second.files != first.files
    assert second.fingerprint == first.fingerprint
    assert second.hashed_at > first.hashed_at


def test_repeated_rows_count(tmp_path: Path) -> None:
    # A row twice more: an even number, which a xor would not see. A source's key forbids it, a file does not.
    seen = []
    for values in (["a", "b"], ["a", "b", "a", "a"]):
        pl.DataFrame({sources.ENTITY_KEY: list(map(str, range(len(values)))), "x": values}).write_parquet(
            tmp_path / "s"
        )
        seen.append(fingerprint_of(tmp_path / "s"))
    assert [each.rows for each in seen] == [2, 4]
    assert seen[0].hash != seen[1].hash


def test_there_and_back_again(watcher: Watcher) -> None:
    seen = []
    for age, content in ((300, ROWS), (200, ROWS + "3,c\n"), (100, ROWS)):
        watcher.path.write_text(content)
        settle(watcher.path, age=age)
        seen.append(watcher(later=-age / 10).fingerprint)
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize("changed", [{"source": {"path": "t.csv", "null_values": "a"}}, {"key": "x"}])
def test_settings_that_read_the_rows_otherwise(watcher: Watcher, changed: dict[str, Any]) -> None:
    watcher.write(ROWS)
    watcher()
    watcher.settings["clustering"] = {"k": 3}
    assert not watcher.hashes(later=30)
    watcher.settings |= changed
    assert watcher.hashes(later=30)


def test_a_fingerprint_of_another_duckdb_is_not_handed_on(watcher: Watcher) -> None:
    watcher.write(ROWS)
    first = watcher()
    watcher.last = first.model_copy(update={"fingerprint": first.fingerprint.model_copy(update={"duckdb": "1.0.0"})})
    assert watcher(later=30).fingerprint == first.fingerprint


def test_a_writer_of_sqlite_that_commits_into_its_log_is_noticed(watcher: Watcher) -> None:
    watcher.settings["source"]["path"] = "t.sqlite"
    with sqlite_file(watcher.path) as con:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a' AS x UNION ALL SELECT 2, 'b'")
    settle(watcher.path)
    first = watcher()
    with watcher.nothing_hashed():  # what our own reading left is no change
        assert watcher(later=30) is first
    with closing(sqlite3.connect(watcher.path)) as writer:
        writer.execute("INSERT INTO t VALUES (3, 'c')")
        writer.commit()
        settle(watcher.path)
        second = watcher(later=60)
        assert len(second.files) == 2
        assert second.fingerprint.rows == 3
        third = watcher(later=90)  # the log is racy at most once
        with watcher.nothing_hashed():
            assert watcher(later=120) is third
        writer.execute("UPDATE t SET x = 'z' WHERE id = 3")
        writer.commit()
        assert watcher(later=150).fingerprint.hash != third.fingerprint.hash


def test_a_commit_in_a_duckdb_log_is_noticed(watcher: Watcher) -> None:
    watcher.settings["source"]["path"] = "t.duckdb"
    with duckdb.connect(watcher.path) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a' AS x UNION ALL SELECT 2, 'b'")
    settle(watcher.path)
    first = watcher()
    stat = watcher.path.stat()
    killed = "con.execute(\"INSERT INTO t VALUES (3, 'c')\"); os._exit(1)"
    code = f"import duckdb, os; con = duckdb.connect({str(watcher.path)!r}); {killed}"
    subprocess.run([sys.executable, "-c", code], check=False)
    os.utime(watcher.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = watcher(later=30)
    assert len(second.files) == 2
    assert first.files[0] in second.files
    assert second.fingerprint.rows == 3


@pytest.mark.parametrize("refresh", [{}, {"updated_at": "id"}])
def test_a_duckdb_file_that_another_process_writes(watcher: Watcher, refresh: dict[str, str]) -> None:
    watcher.settings |= {"source": {"path": "t.duckdb"}, "refresh": refresh}
    hold = (
        f"import duckdb, sys; con = duckdb.connect({str(watcher.path)!r});"
        "con.execute('CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2'); con.execute('CHECKPOINT');"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(ErasmoError, match="another process"):
            watcher()
        other.communicate()
    assert watcher().fingerprint.rows == 2


def test_a_missing_and_a_broken_file(watcher: Watcher) -> None:
    watcher.write(ROWS)
    watcher()
    watcher.path.unlink()
    with pytest.raises(ErasmoError, match=r"Got no file .*t\.csv"):
        watcher(later=30)
    watcher.write("id,x\n1,a\n1,b\n")
    with pytest.raises(ErasmoError, match="in more than one row"):
        watcher(later=60)


def test_a_file_that_joins_a_glob(watcher: Watcher) -> None:
    root = watcher.project.root
    watcher.settings["source"] = {"path": "part-*.parquet"}
    pl.DataFrame({"id": [1, 2]}).write_parquet(root / "part-1.parquet")
    settle(root / "part-1.parquet")
    first = watcher()
    assert not watcher.hashes(later=30)
    pl.DataFrame({"id": [3]}).write_parquet(root / "part-2.parquet")
    settle(root / "part-2.parquet", age=DAY)  # older than what is known
    second = watcher(later=30)
    assert (first.fingerprint.rows, second.fingerprint.rows) == (2, 3)
    (root / "part-1.parquet").rename(root / "part-3.parquet")
    assert watcher(later=60).fingerprint == second.fingerprint


def test_every_table_of_a_query_is_watched(watcher: Watcher) -> None:
    watcher.write(ROWS)
    other = watcher.project.root / "other.csv"
    other.write_text("id,y\n1,c\n2,d\n")
    settle(other)
    watcher.settings["source"] |= {
        "tables": {"other": {"path": "other.csv"}},
        "query": "from source join other using (id)",
    }
    first = watcher()
    assert len(first.files) == 2
    other.write_text("id,y\n1,c\n2,e\n")
    settle(other, age=60)
    assert watcher(later=30).fingerprint.hash != first.fingerprint.hash


def _write_duckdb(frame: pl.DataFrame, path: Path) -> None:
    with duckdb.connect(path) as con:
        con.register("frame", frame.to_arrow())
        con.execute("CREATE OR REPLACE TABLE t AS FROM frame")


def _write_sqlite(frame: pl.DataFrame, path: Path) -> None:
    with sqlite_file(path) as con:
        con.execute("DROP TABLE IF EXISTS t")
        con.execute("CREATE TABLE t (id INTEGER, x TEXT, at DATETIME)")
        con.executemany("INSERT INTO t VALUES (?, ?, ?)", frame.rows())


FORMS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "duckdb": _write_duckdb,
    "sqlite": _write_sqlite,
    "parquet": lambda frame, path: frame.write_parquet(path),
    "csv": lambda frame, path: frame.write_csv(path),
    "jsonl": lambda frame, path: frame.write_ndjson(path),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("query", [None, "select * from source"])
def test_a_column_that_grows_spares_the_hashing(watcher: Watcher, form: str, query: str | None) -> None:
    watcher.settings |= {"source": {"path": f"t.{form}", "query": query}, "refresh": {"updated_at": "at"}}

    def write(frame: pl.DataFrame, age: float) -> None:
        FORMS[form](frame, watcher.path)
        settle(watcher.path, age=age)

    write(STAMPED, 300)
    first = watcher()
    assert json.loads(first.probe or "") == [2, "2024-01-02 00:00:00"]
    with watcher.nothing_hashed(nothing_read=True):
        assert watcher(later=30) is first

    # An edit that leaves the column alone waits for the next verifying.
    edited = STAMPED.with_columns(x=pl.Series(["a", "edited"]))
    write(edited, 200)
    with watcher.nothing_hashed(nothing_read=query is None and form in ("duckdb", "sqlite")):
        second = watcher(later=30)
    assert second.files != first.files
    assert (second.fingerprint, second.hashed_at, second.probe) == (first.fingerprint, first.hashed_at, first.probe)
    with watcher.nothing_hashed(nothing_read=True):
        assert watcher(later=60) is second
    third = watcher(later=DAY + 60)
    assert third.fingerprint.hash != first.fingerprint.hash
    assert third.probe == first.probe

    write(edited.with_columns(at=pl.Series(["2024-01-01 00:00:00", "2024-01-03 00:00:00"])), 100)
    fourth = watcher(later=DAY + 90)
    assert fourth.fingerprint.hash != third.fingerprint.hash
    assert json.loads(fourth.probe or "") == [2, "2024-01-03 00:00:00"]
    write(edited.vstack(edited.with_columns(id=pl.Series([3, 4]))), 50)
    assert watcher(later=DAY + 120).fingerprint.rows == 4


def test_a_racy_file_is_probed_until_it_is_settled(watcher: Watcher) -> None:
    watcher.settings["refresh"] = {"updated_at": "id"}
    watcher.path.write_text(ROWS)
    first = watcher()
    with watcher.nothing_hashed():
        second = watcher(later=30)
    assert second == first.model_copy(update={"probed_at": second.probed_at})
    with watcher.nothing_hashed(nothing_read=True):
        assert watcher(later=60) is second


def test_parquet_is_probed_in_place(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher.settings |= {"source": {"path": "t.parquet"}, "refresh": {"updated_at": "at"}}
    STAMPED.write_parquet(watcher.path)
    watcher()

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the table was copied")

    monkeypatch.setattr(sources, "copy_to_parquet", refuse)
    monkeypatch.setattr("erasmo_dagster.store.readers.copy_to_parquet", refuse)
    watcher(later=30)


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_is_not_there(watcher: Watcher, form: str) -> None:
    watcher.settings |= {"source": {"path": f"t.{form}"}, "refresh": {"updated_at": "At"}}
    FORMS[form](STAMPED, watcher.path)
    with pytest.raises(ErasmoError) as caught:
        watcher()
    assert str(caught.value) == (
        f"Got `refresh.updated_at` 'At', which t.{form} does not have (did you mean 'at'?), expected one of: id, x, at: "
        "mend `refresh.updated_at` in datasets/customers.yaml."
    )


def test_a_column_with_any_name_and_no_value(watcher: Watcher) -> None:
    name = 'a"; drop table t; --'
    for form, write in FORMS.items():
        if form != "sqlite":
            watcher.settings |= {"source": {"path": f"t.{form}"}, "refresh": {"updated_at": name}}
            write(pl.DataFrame({"id": [1, 2], name: pl.Series([None, None], dtype=pl.String)}), watcher.path)
            assert watcher().probe == "[2, null]"


def test_sqlite_times_are_not_rounded(watcher: Watcher) -> None:
    watcher.settings |= {"source": {"path": "t.sqlite"}, "refresh": {"updated_at": "at"}}
    with sqlite_file(watcher.path) as con:
        con.execute("CREATE TABLE t (id INTEGER, at REAL)")
        con.executemany("INSERT INTO t VALUES (?, ?)", [(1, 0.0), (2, 1700000000.123456)])
    assert watcher().probe == "[2, 1700000000.123456]"


def test_a_sensitive_value_is_not_kept_in_a_sighting(watcher: Watcher) -> None:
    watcher.settings |= {"refresh": {"updated_at": "x"}, "sensitive": "x"}
    watcher.write(f"id,x\n1,1\n2,{SECRET}\n")
    assert SECRET not in watcher().model_dump_json()
    watcher.write(f"id,x\n1,1\n2,{SECRET}0\n")
    assert watcher.hashes(later=30)


def test_a_sighting_goes_through_json(watcher: Watcher) -> None:
    watcher.settings["refresh"] = {"updated_at": "x"}
    watcher.write(ROWS)
    seen = watcher()
    text = seen.model_dump_json()
    assert json.loads(text)["fingerprint"]["schema"] == {"id": "BIGINT", "x": "VARCHAR"}
    watcher.last = Sighting.model_validate_json(text)
    assert watcher.last == seen
    with watcher.nothing_hashed(nothing_read=True):
        assert watcher(later=30) == seen


def test_only_fingerprints_made_alike_compare() -> None:
    one = Fingerprint(scheme=1, duckdb="2.0.0", schema_={"id": "BIGINT"}, rows=2, hash="7")
    assert one.same_scheme(one)
    assert one.same_content(one.model_copy())
    for update in ({"rows": 3}, {"hash": "8"}, {"schema_": {"id": "INTEGER"}}):
        assert not one.same_content(one.model_copy(update=update))
    for update in ({"scheme": 2}, {"duckdb": "2.0.1"}):
        other = one.model_copy(update=update)
        assert not one.same_scheme(other)
        with pytest.raises(ValueError, match="do not compare"):
            one.same_content(other)


@pytest.mark.parametrize("update", [{}, {"duckdb": "1.9.0", "hash": "5"}, {"scheme": 0, "hash": "5"}])
def test_what_another_duckdb_stored_is_computed_anew(
    watcher: Watcher, tmp_path: Path, update: dict[str, object]
) -> None:
    watcher.write(ROWS)
    file = tmp_path / "stored" / "source.parquet"
    snapshot = snapshot_source("customers", watcher.dataset, watcher.project, file)
    assert fingerprint_of(file) == snapshot.fingerprint
    stored = snapshot.fingerprint.model_copy(update=update)
    same = watcher().fingerprint
    watcher.write(ROWS.replace("b", "B"))
    other = watcher(later=DAY + 60).fingerprint
    assert is_unchanged(same, stored, file)
    assert not is_unchanged(other, stored, file)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    shutil.move(file, tmp_path / "gone")
    assert is_unchanged(same, stored, file) is (not update)  # where the schemes agree the file is not needed
    if update:
        file.write_text("cut off")
        with pytest.raises(ErasmoError, match="cannot be read"):
            is_unchanged(same, stored, file)


def test_schema_changes_are_told_in_sentences() -> None:
    before = {"id": "BIGINT", "y": "VARCHAR", "z": "BIGINT", "b": "DATE"}
    assert schema_changes(before, {"z": "DOUBLE", "x": "BIGINT", "a": "DATE", "id": "BIGINT", "b": "DATE"}) == [
        "column added: a (DATE)",
        "column added: x (BIGINT)",
        "column dropped: y (VARCHAR)",
        "column retyped: z (BIGINT to DOUBLE)",
    ]
    assert schema_changes(before, dict(reversed(before.items()))) == []
    assert watch.schema_changes is sources.schema_changes
