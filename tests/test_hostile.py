"""Hostile queries, names and cells reach nothing, and what is private is told nowhere."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import yaml
from dagster import DagsterEventType
from rich.console import Console

from erasmo_dagster import cli, show
from erasmo_dagster.defs import servers
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.defs.watching import write_memory
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.watching import Memory
from erasmo_dagster.settings import Project, check_name, load_dataset, readable_datasets, scan_datasets
from erasmo_dagster.settings.dataset import DatasetSettings
from erasmo_dagster.show import print_dataset, print_query
from erasmo_dagster.store.published_file import WIDE_COLUMNS
from erasmo_dagster.store.sources import snapshot_source
from erasmo_dagster.store.watch import look
from tests.conftest import make_project
from tests.defs.lineage import published, warehouse

CANARY = "CANARY-7f3a"  # lies in files beside the project
PRIVATE = "PRIVATE-91c2"  # lies in a sensitive column
TOKEN = "TOKEN-5d0e"  # lies in an environment variable
NAME = "hostile"

VALUES = [
    "'); DROP TABLE segments; --",
    'a"b',
    "a'b",
    "<script>alert(1)</script>",
    "[link](javascript:alert(1))",
    "${HOME}",
    "{{7*7}}",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "[bold red]x[/]",
    "'||(SELECT 1)||'",
    "=cmd|' /C calc'!A0",
    "two\nlines",
    "\N{PENGUIN}\u202eevil",
    "\\",
    "/* -- ;",
]
COLUMNS = [
    'x"; DROP TABLE segments; --',
    "'); DROP TABLE versions; --",
    "a'b",
    "select",
    "[link](javascript:alert(1))",
    "<script>alert(1)</script>",
    "two\nlines \N{PENGUIN}",
    "${HOME}",
    "{{7*7}}",
    "\x1b[31mred",
    "[bold]markup[/bold]",
    "`tick`",
    "../../etc/passwd",
    "%s {0} \\",
]
KEY = 'k"; DROP TABLE segments; --'
ROWS = 48


def hostile_frame() -> pl.DataFrame:
    """A key of hostile texts, a private column, and a column of hostile values under every hostile name."""
    return pl.DataFrame(
        {
            KEY: [f"{VALUES[i % len(VALUES)]} {i}" for i in range(ROWS)],
            "salary": [f"{PRIVATE}-{i % 5}" for i in range(ROWS)],
            "age": [20 + 25 * (i % 3) + i % 4 for i in range(ROWS)],
            **{name: [VALUES[(i % (n + 2) + n) % len(VALUES)] for i in range(ROWS)] for n, name in enumerate(COLUMNS)},
        }
    )


@dataclass(frozen=True)
class Place:
    """A project with one published dataset, in a folder with files that nothing is to reach."""

    folder: Path
    project: Project
    run_id: str
    metadata: dict[str, dict[str, Any]]
    printed: str
    events: str

    def secret(self, name: str) -> Path:
        return self.folder / "outside" / name

    def fill(self, query: str, port: int = 9) -> str:
        """The query with the names of this place in it."""
        names = {
            "out": self.folder / "outside" / "stolen",
            "published": self.project.published,
            "warehouse": self.project.warehouse,
            "port": port,
            **{f.stem: f for f in self.secret("").iterdir()},
        }
        return re.sub(r"<(\w+)>", lambda match: str(names[match[1]]), query)

    def files(self) -> dict[Path, bytes]:
        """Every file here and what is in it; Dagster's own and locks aside."""
        return {
            file: file.read_bytes()
            for file in sorted(self.folder.rglob("*"))
            if file.is_file() and self.project.dagster_home not in file.parents and file.suffix != ".lock"
        }


def write_settings(project: Project, name: str, **settings: Any) -> None:
    (project.datasets_dir / f"{name}.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))


def all_events(instance: Any) -> str:
    """The event log of every run, as it is stored and as it is shown, exceptions with their causes included."""
    entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    assert entries
    return "\n".join(f"{entry.to_json()}\n{entry.user_message}\n{entry}" for entry in entries)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    folder = tmp_path_factory.mktemp("hostile")
    project = make_project(folder)
    for name in ("outside", "user", f"data-{TOKEN}"):
        (folder / name).mkdir()
    outside = folder / "outside"
    (outside / "secret.txt").write_text(f"{CANARY}\n")
    (outside / "table.csv").write_text(f"x\n{CANARY}\n")
    (outside / "lines.json").write_text(json.dumps({"x": CANARY}) + "\n")
    pl.DataFrame({"x": [CANARY]}).write_parquet(outside / "rows.parquet")
    with duckdb.connect(outside / "other.duckdb") as con:
        con.execute("CREATE TABLE t AS SELECT ? AS x", [CANARY])
    hostile_frame().write_parquet(folder / f"data-{TOKEN}" / "table.parquet")
    write_settings(
        project,
        NAME,
        source={"path": "${HOSTILE_DATA}/table.parquet"},
        key=KEY,
        sensitive="salary",
        description="[bold]\x1b[31mrows[/bold] <script>alert(1)</script>",
        adapter={"base_model": f"path:{tiny_model}", "max_tokens": 300, "batch_size": 4, "device": "cpu"},
        clustering={"method": "kmeans++", "k": 3},
    )
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, open_instance(project) as instance:
        patch.setenv("HOSTILE_DATA", str(folder / f"data-{TOKEN}"))
        with redirect_stdout(printed), redirect_stderr(printed):
            report = run_dataset(instance, project, NAME)
        events = all_events(instance)
    return Place(folder, project, report.run_id, report.metadata, printed.getvalue(), events)


@pytest.fixture(autouse=True)
def _surroundings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_DATA", str(place.folder / f"data-{TOKEN}"))
    monkeypatch.setenv("HOME", str(place.folder / "user"))
    monkeypatch.setenv("ERASMO_HOME", str(place.project.home))
    monkeypatch.setenv("ERASMO_PROJECT", str(place.project.root))
    monkeypatch.chdir(place.project.root)


@pytest.fixture
def untouched(place: Place) -> Iterator[None]:
    """Whatever the test does, every file is as it was; if not, it fails, and is so again for the next test."""
    before = place.files()
    yield
    after = place.files()
    for file in after.keys() - before.keys():
        file.unlink()
    for file, content in before.items():
        if after.get(file) != content:
            file.write_bytes(content)
    assert sorted(after.keys() - before.keys()) == []
    assert sorted(file for file in before if after.get(file) != before[file]) == []


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which nobody is to call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def refusal(place: Place, query: str, format: str = "json") -> str:
    """The one line that a query is refused with."""
    with pytest.raises(ErasmoError) as caught:
        print_query(Console(file=io.StringIO()), place.project, query, format=format, limit=100)
    message = str(caught.value)
    assert message.startswith("Got ")
    assert len(message.splitlines()) == 1
    assert CANARY not in message
    return message


REFUSED = [
    # reads
    "SELECT * FROM read_csv('<table>')",
    "SELECT * FROM read_text('<secret>')",
    "SELECT * FROM read_blob('<secret>')",
    "SELECT * FROM read_parquet('<rows>')",
    "SELECT * FROM read_json('<lines>')",
    "SELECT * FROM sniff_csv('<table>')",
    "SELECT * FROM parquet_metadata('<rows>')",
    "SELECT * FROM glob('<secret>')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '<table>'",
    "SELECT * FROM '<rows>'",
    "SELECT * FROM '<other>'",
    "FROM '/etc/passwd'",
    "SELECT * FROM '../outside/table.csv'",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_text('<published>.tmp/../../../outside/secret.txt')",
    "SELECT * FROM query('FROM read_text(''<secret>'')')",
    "SELECT * FROM query_table('<table>')",
    "SELECT * FROM canary_frame",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    # writes
    "COPY segments TO '<out>'",
    "COPY (SELECT 1) TO '<out>.parquet' (FORMAT parquet)",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY segments TO '<published>' (USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '<published>.wal'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '<published>.wal'",
    "COPY segments TO '<warehouse>' (USE_TMP_FILE false)",
    "COPY segments FROM '<table>'",
    "WITH x AS (COPY segments TO '<published>' (USE_TMP_FILE false)) SELECT 1",
    "WITH x AS (COPY segments TO '<out>') FROM x",
    "WITH x AS (DELETE FROM segments RETURNING *) FROM x",
    "SELECT * FROM (WITH x AS (COPY segments TO '<published>.wal' (USE_TMP_FILE false)) FROM x)",
    "EXPORT DATABASE '<out>'",
    "IMPORT DATABASE '<out>'",
    # other databases, the network, extensions, secrets
    "ATTACH '<warehouse>' AS w",
    "ATTACH '<warehouse>' AS w (READ_ONLY)",
    "ATTACH '<other>' AS o (READ_ONLY); FROM o.t",
    "ATTACH '<out>.duckdb' AS o",
    "ATTACH ':memory:' AS m",
    "INSTALL httpfs",
    "INSTALL httpfs FROM 'http://127.0.0.1:<port>'",
    "INSTALL hostfs FROM community",
    "LOAD httpfs",
    "LOAD '<secret>'",
    "SELECT * FROM 'http://127.0.0.1:<port>/x.csv'",
    "SELECT * FROM read_parquet('s3://127.0.0.1:<port>/x.parquet')",
    "CREATE SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    # what is published
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE TABLE segments AS SELECT 1",
    "DROP TABLE segments",
    "DELETE FROM segments",
    "TRUNCATE segments",
    "UPDATE segments SET segment_id = 0",
    "INSERT INTO segment_sizes SELECT * FROM segment_sizes",
    "ALTER TABLE segments RENAME TO s",
    "COMMENT ON TABLE segments IS 'x'",
    "BEGIN; DROP TABLE segments; COMMIT",
    # settings
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "SET lock_configuration = false",
    "SET allowed_paths = ['<secret>']",
    "SET temp_directory = '<out>'",
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA profiling_output = '<out>'",
    "CALL enable_logging(storage = 'file', storage_path = '<out>')",
    # several statements
    "SELECT 1; COPY (SELECT 1) TO '<out>'",
    "SELECT 1; DROP TABLE segments",
    "SELECT 1; FROM read_text('<secret>')",
    # not a query, or one that fails on a row
    "nonsense",
    "SELECT error('row')",
    "SELECT if(range < 90000, 1, error('row')) FROM range(100000)",
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("query", REFUSED)
def test_a_query_is_refused_in_one_line(
    place: Place,
    query: str,
    port: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # DuckDB looks for tables among the variables of the function that calls it.
    monkeypatch.setattr(show, "canary_frame", pl.DataFrame({"x": [CANARY]}), raising=False)
    refusal(place, place.fill(query, port))
    assert CANARY not in "".join(capfd.readouterr())


HARMLESS = [
    "SELECT 1; SELECT 2",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE TEMP TABLE segments AS SELECT 1; DROP TABLE segments",
    "CREATE TEMP MACRO m() AS TABLE FROM segments; FROM m()",
    "SET VARIABLE x = 1",
    "PRAGMA database_list",
    "PRAGMA version",
    "CALL pragma_version()",
    "LOAD parquet",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "USE temp",
    "ATTACH '<published>' AS again; DROP TABLE again.segments",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_logs()",
    "SELECT current_setting('home_directory')",
    "SELECT write_log('x')",
    "",
    ";",
    "-- nothing",
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("query", HARMLESS)
def test_a_query_that_may_be_answered_reaches_nothing(
    place: Place, query: str, capfd: pytest.CaptureFixture[str]
) -> None:
    count = published(place.project, "SELECT count(*) FROM segments")
    with suppress(ErasmoError):
        print_query(Console(file=io.StringIO()), place.project, place.fill(query), format="json", limit=100)
    assert published(place.project, "SELECT count(*) FROM segments") == count
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM segments",
        "FROM segments SELECT count(*) AS n",
        "WITH s AS (FROM segments) SELECT count(*) AS n FROM s",
        "SELECT sum(rows)::INT AS n FROM segment_sizes;",
        f"SELECT count(*) AS n FROM {NAME}_segmented -- all",
    ],
)
def test_a_query_over_the_published_tables_is_answered(
    place: Place, query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_query(Console(file=io.StringIO()), place.project, query, format="json", limit=100)
    assert json.loads(capsys.readouterr().out) == {"n": ROWS}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("arguments", [("--format", "xml", "SELECT 1"), ("--file", "absent.sql"), ()])
def test_the_command_refuses_in_one_line(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert erasmo(monkeypatch, "sql", *arguments) == 1
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines()), err[:7]) == ("", 1, "error: ")


def erasmo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["erasmo", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS id, * FROM read_csv('<table>')",
        "SELECT 1 AS id, * FROM read_text('<secret>')",
        "SELECT 1 AS id, * FROM '<rows>'",
        "SELECT 1 AS id, * FROM '../outside/table.csv'",
        "SELECT 1 AS id, * FROM glob('<secret>')",
        "SELECT 1 AS id, * FROM read_text('/proc/self/environ')",
        "SELECT 1 AS id, * FROM 'http://127.0.0.1:<port>/x.csv'",
        "SELECT 1 AS id, * FROM query('FROM read_text(''<secret>'')')",
        "SELECT 1 AS id, * FROM canary_frame",
        "SELECT 1 AS id, * FROM project",
        "SELECT id, getenv('HOME') AS home FROM source",
        "SELECT id, x FROM source WHERE x = getvariable('x') AND getenv('HOME') <> ''",
        "COPY source TO '<out>'",
        "COPY source TO '<published>' (USE_TMP_FILE false)",
        "WITH x AS (COPY source TO '<out>') SELECT 1 AS id",
        "EXPORT DATABASE '<out>'",
        "ATTACH '<warehouse>' AS w",
        "ATTACH '<out>.duckdb' AS o",
        "INSTALL httpfs FROM 'http://127.0.0.1:<port>'",
        "LOAD httpfs",
        "CREATE TABLE t AS FROM source",
        "CREATE SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "DROP VIEW source",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "EXPLAIN ANALYZE COPY source TO '<out>'",
        "FROM source; FROM read_text('<secret>')",
        "FROM source; COPY source TO '<out>'",
        "FROM source) TO '<out>'; COPY (FROM source",
        "FROM source) TO '<out>' --",
    ],
)
def test_a_query_of_a_dataset_reaches_its_tables_alone(
    place: Place, query: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erasmo_dagster.store import tables

    monkeypatch.setattr(tables, "canary_frame", pl.DataFrame({"x": [CANARY]}), raising=False)
    rows = place.folder / "user" / "source.csv"
    rows.write_text("id,x\n1,a\n2,b\n")
    out = place.folder / "user" / "snapshot.parquet"
    settings = DatasetSettings.model_validate(
        {"source": {"path": str(rows), "query": place.fill(query, port)}, "key": "id"}
    )
    try:
        with pytest.raises(ErasmoError) as caught:
            snapshot_source("customers", settings, place.project, out)
        assert not out.exists()
    finally:
        rows.unlink()
        out.unlink(missing_ok=True)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert CANARY not in message
    assert caught.value.__cause__ is None


BAD_NAMES = [
    "",
    " ",
    "../x",
    "..",
    "/etc/passwd",
    "a/b",
    "a;drop table segments",
    'a"b',
    "a'b",
    "a`b`",
    "$(id)",
    "${HOME}",
    "a\nb",
    "a\n",
    "a\0b",
    "a" * 49,
    "a" * 300,
    "\u0430bc",  # Cyrillic a
    "ａbc",
    "a\u0301",
    "a\u202eb",
    "a\N{ZERO WIDTH SPACE}b",
    "²a",
    "a²",
    "a٣",  # a digit, though not one of ASCII
    "A",
    "1a",
    "_a",
    "--help-me",
    "*",
    "a.b",
    "a b",
    "%s",
    "\x1b[31ma",
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_everywhere(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for refuse in (check_name, lambda name: load_dataset(place.project, name)):
        with pytest.raises(ErasmoError) as caught:
            refuse(name)
        message = str(caught.value)
        assert message.startswith("Got dataset name")
        assert message.isprintable()
    before = warehouse(place.project, "SELECT count(*) FROM versions")
    for command in ("run", "show", "versions", "remove"):
        assert erasmo(monkeypatch, command, "--", name) == 1, command
        out, err = capfd.readouterr()
        assert (out, len(err.splitlines()), err[:7]) == ("", 1, "error: "), command
        assert "\x1b" not in err
    assert warehouse(place.project, "SELECT count(*) FROM versions") == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["con", "nul", "segments", "main", "select", "sqlite_master", "hostile_segmented"])
def test_a_name_without_a_file_makes_nothing(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert erasmo(monkeypatch, "run", name) == 1
    with open_instance(place.project) as instance:
        assert instance.get_dynamic_partitions("dataset") == [NAME]


def test_files_with_such_names_are_faults_of_their_own(place: Place) -> None:
    names = [name for name in BAD_NAMES if name.strip(". ") and "/" not in name and "\0" not in name and len(name) < 99]
    files = [place.project.datasets_dir / f"{name}.yaml" for name in names]
    try:
        for file in files:
            file.write_text("source: {path: x.csv}\nkey: id\n")
        scan = scan_datasets(place.project)
        assert set(scan.files) == set(readable_datasets(place.project)) == {NAME}
        assert len(scan.faults) == len(files)
        assert all(str(fault).isprintable() for fault in scan.faults.values())
        with open_instance(place.project) as instance:
            assert instance.get_dynamic_partitions("dataset") == [NAME]
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def test_hostile_columns_and_cells_go_through_as_they_are(place: Place) -> None:
    wide = [row[0] for row in published(place.project, f"DESCRIBE {NAME}_segmented")]
    assert wide == [KEY, "age", *COLUMNS, *WIDE_COLUMNS]
    frame = hostile_frame()
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in [KEY, "age", *COLUMNS])
    rows = published(place.project, f"SELECT {quoted} FROM {NAME}_segmented")
    assert sorted(rows) == sorted(frame.drop("salary").rows())
    keys = published(place.project, f"SELECT entity_key FROM {NAME}_segmented")
    assert sorted(key for (key,) in keys) == sorted(frame[KEY])


def test_every_table_is_there_with_every_row(place: Place) -> None:
    shown = {name for (name,) in published(place.project, "SELECT table_name FROM duckdb_tables() WHERE NOT internal")}
    assert shown == {
        "segments",
        "segment_sizes",
        "segment_metrics",
        "segment_profile",
        "segment_descriptions",
        "segment_values",
        "segment_memberships",
        "segment_leaderboard",
        "experiments",
        "mart_tests",
        "file_info",
        "segment_history",
        "segment_transitions",
        "publish_log",
        f"{NAME}_segmented",
    }
    kept = {name for (name,) in warehouse(place.project, "SELECT table_name FROM duckdb_tables() WHERE NOT internal")}
    assert {"segments", "corpus", "versions", "segment_metrics", "publish_log"} <= kept
    for table in ("segments", f"{NAME}_segmented", "segment_history"):
        assert published(place.project, f"SELECT count(*) FROM {table}") == [(ROWS,)]
    for table in ("segments", "corpus"):
        query = f"SELECT count(*), count(DISTINCT entity_key) FROM {table}"
        assert warehouse(place.project, query) == [(ROWS, ROWS)]
    assert published(place.project, "SELECT sum(rows), count(*) FROM segment_sizes") == [(ROWS, 3)]


def test_cells_are_printed_exactly_as_json_and_csv(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    frame = hostile_frame().drop("salary").sort(KEY)
    wanted = frame.rows(named=True)
    query = f"SELECT * EXCLUDE ({', '.join(WIDE_COLUMNS)}) FROM {NAME}_segmented ORDER BY ALL"
    print_query(Console(file=io.StringIO()), place.project, query, format="json", limit=5)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == wanted
    print_query(Console(file=io.StringIO()), place.project, query, format="csv", limit=5)
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert read == [{name: str(value) for name, value in row.items()} for row in wanted]


def test_cells_neither_command_a_terminal_nor_are_taken_for_markup(place: Place) -> None:
    page = Console(file=io.StringIO(), width=5000)
    query = f"SELECT * FROM {NAME}_segmented"
    print_query(page, place.project, query, format="table", limit=100)
    print_dataset(page, place.project, NAME)
    assert isinstance(page.file, io.StringIO)
    text = page.file.getvalue()
    assert "[bold red]x[/]" in text
    assert "[bold]markup[/bold]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_run_tells_nothing_private(place: Place) -> None:
    assert place.run_id in place.events
    for told in (str(place.metadata), place.events, place.printed):
        assert PRIVATE not in told
        assert TOKEN not in told
    assert private_files(place.project.dagster_home) == []
    for word in (PRIVATE, TOKEN):
        assert word.encode() not in place.project.published.read_bytes()
    texts = published(place.project, "SELECT run_id, reason, figures FROM publish_log")
    assert TOKEN not in str(texts)


def private_files(folder: Path) -> list[str]:
    """Files of Dagster's instance that hold a private word."""
    words = (PRIVATE.encode(), TOKEN.encode())
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [str(file.relative_to(folder)) for file in files if any(word in file.read_bytes() for word in words)]


def test_the_memory_of_the_sensor_tells_nothing_private(place: Place) -> None:
    """The cursor is shown in Dagster's UI."""
    settings = load_dataset(place.project, NAME)
    refresh = settings.refresh.model_copy(update={"updated_at": "salary", "verify": timedelta(days=1)})
    settings = settings.model_copy(update={"refresh": refresh})
    sighting = look(NAME, settings, place.project, None)
    cursor = write_memory({NAME: Memory(sighting=sighting)})
    content = zlib.decompress(base64.b64decode(cursor)).decode()
    assert json.loads(content)[NAME]["sighting"]["fingerprint"]["rows"] == ROWS
    assert PRIVATE not in content
    assert TOKEN not in content


@pytest.fixture(scope="module")
def _broken_sources(place: Place) -> None:
    """Files that cannot be read, or not as the settings say, with private words in them."""
    folder = place.folder / f"data-{TOKEN}"
    rows = "\n".join(f"{i},{PRIVATE}-{i},{i if i % 150 else PRIVATE}" for i in range(1, 301))
    (folder / "cells.csv").write_text(f"id,salary,amount\n{rows}\n")
    (folder / "twice.csv").write_text(f"id,salary\n{PRIVATE},1\n{PRIVATE},2\n")
    (folder / "ragged.csv").write_text(f"id,salary\n1,2\n2,{PRIVATE},{PRIVATE},{PRIVATE}\n")
    (folder / "latin.csv").write_bytes(f"id,salary\n1,{PRIVATE} \xe9\n2,b\n".encode("latin-1"))
    (folder / "cut.parquet").write_bytes(b"PAR1" + PRIVATE.encode())
    (folder / "bad.jsonl").write_text(f'{{"id": 1, "salary": "{PRIVATE}"}}\n{{"id": 2, "salary": {PRIVATE}}}\n')
    (folder / "bad.db").write_bytes(b"SQLite format 3\0" + PRIVATE.encode() * 100)
    (folder / "empty.csv").write_bytes(b"")
    (folder / "odd.xyz").write_text(PRIVATE)


CELLS = "${HOSTILE_DATA}/cells.csv"
BROKEN: dict[str, dict[str, Any]] = {
    "no file": {"source": {"path": "${HOSTILE_DATA}/absent.csv"}},
    "no match": {"source": {"path": "${HOSTILE_DATA}/absent*.parquet"}},
    "a folder": {"source": {"path": "${HOSTILE_DATA}"}},
    "empty": {"source": {"path": "${HOSTILE_DATA}/empty.csv"}},
    "unknown ending": {"source": {"path": "${HOSTILE_DATA}/odd.xyz"}},
    "unset variable": {"source": {"path": "${HOSTILE_DATA}/${HOSTILE_ABSENT}.csv"}},
    "variable in the middle": {"source": {"path": "absent-${HOSTILE_TOKEN}.csv"}},
    "cut parquet": {"source": {"path": "${HOSTILE_DATA}/cut.parquet"}},
    "bad json": {"source": {"path": "${HOSTILE_DATA}/bad.jsonl"}},
    "bad sqlite": {"source": {"path": "${HOSTILE_DATA}/bad.db"}},
    "not utf-8": {"source": {"path": "${HOSTILE_DATA}/latin.csv"}},
    "ragged": {"source": {"path": "${HOSTILE_DATA}/ragged.csv"}},
    "no such table": {"source": {"path": CELLS, "table": "t"}},
    "no such column": {"source": {"path": CELLS}, "key": "absent"},
    "repeated sensitive key": {"source": {"path": "${HOSTILE_DATA}/twice.csv"}, "sensitive": ["id"]},
    "values that are no numbers": {"source": {"path": CELLS}, "sensitive": ["salary", "amount"]},
    "query that fails on a row": {"source": {"path": CELLS, "query": "SELECT id, salary::INT AS salary FROM source"}},
    "query that tells a row": {"source": {"path": CELLS, "query": "SELECT id, error(salary) AS salary FROM source"}},
}


@pytest.mark.usefixtures("_broken_sources")
@pytest.mark.parametrize("case", BROKEN)
def test_a_run_that_fails_tells_nothing_private(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOSTILE_TOKEN", TOKEN)
    monkeypatch.delenv("ERASMO_HOME")
    monkeypatch.delenv("ERASMO_PROJECT")
    project = make_project(tmp_path)
    adapter = {"base_model": "path:absent"}
    write_settings(project, "broken", **{"key": "id", "sensitive": ["salary"], "adapter": adapter, **BROKEN[case]})
    with open_instance(project) as instance:
        with pytest.raises(ErasmoError) as caught:
            run_dataset(instance, project, "broken")
        events = all_events(instance)
        (run,) = instance.get_runs()
        (run,) = instance.get_runs()
        failed = [entry.step_key for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE)]
    assert failed == ["source_table"]
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for told in (message, events, "".join(capfd.readouterr()), caplog.text):
        assert PRIVATE not in told
        assert TOKEN not in told
    assert private_files(project.dagster_home) == []


def test_the_webserver_listens_on_loopback_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Servers:
        pid = 2**30  # beyond the highest there can be, so that nothing is ended

        def __init__(self, command: list[str], **options: Any) -> None:
            assert not options.get("shell")
            started.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Servers)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert servers.serve(place.project, port) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    (command,) = started
    assert command[command.index("-h") + 1] == "127.0.0.1"
    assert command[command.index("-p") + 1] == str(port)
    assert not {"0.0.0.0", "::", "localhost"} & set(command)
    assert not any(word in os.environ for word in ("DAGSTER_WEBSERVER_HOST",))
