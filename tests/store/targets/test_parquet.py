"""Parquet as a target: in a folder and in an object store, read by what others read Parquet with."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ParquetTarget
from erasmo_dagster.store.targets import TargetError, parquet_tables, send
from erasmo_dagster.store.targets.base import Seen
from erasmo_dagster.store.targets.parquet import ParquetPublisher, _Store
from tests.store.targets.conftest import WithTargets
from tests.store.targets.places import LAKE, opened, own_file
from tests.store.test_publish import prepare, read, release

SIGNED = "https://host/x?signature=hunter2"

# DuckDB's value -> Arrow's type of what is read back, and the value.
VALUES: dict[str, tuple[str, Any]] = {
    "true": ("bool", True),
    "(-128)::TINYINT": ("int32", -128),
    "65535::USMALLINT": ("int32", 65535),
    "4294967295::UINTEGER": ("int64", 4294967295),
    "18446744073709551615::UBIGINT": ("decimal128(20, 0)", 18446744073709551615),
    "1234567890123456789012345678::HUGEINT": ("decimal128(38, 0)", 1234567890123456789012345678),
    "1.5::FLOAT": ("float", 1.5),
    "1.5::DECIMAL(4, 1)": ("decimal128(4, 1)", 1.5),
    "'grüß'": ("string", "grüß"),
    "'small'::ENUM('small', 'large')": ("string", "small"),
    "'\\x00\\xFF'::BLOB": ("binary", b"\x00\xff"),
    "'4ac7a9e9-607c-4c8a-84f3-843f0191e3fd'::UUID": ("string", "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd"),
    "TIME '12:34:56.789'": ("string", "12:34:56.789"),
    "INTERVAL '1 month 2 days'": ("string", "1 month 2 days"),
    "'0110'::BIT": ("string", "0110"),
    "'{\"a\": [1]}'::JSON": ("string", '{"a": [1]}'),
    "['x', 'y']": ("list<element: string>", ["x", "y"]),
    "[1.5, 2]::FLOAT[2]": ("list<element: float>", [1.5, 2.0]),
    "{'a': 1, 'b': ['x']}": ("struct<a: int32, b: list<element: string>>", {"a": 1, "b": ["x"]}),
    "{'a': 1::HUGEINT}": ("string", '{"a":1}'),
    "MAP {'k': 1}": ("map<string, int32 ('c20')>", [("k", 1)]),
}


def latest(folder: Path) -> Any:
    return json.loads((folder / "latest.json").read_text())


def publisher(folder: Path, **settings: Any) -> ParquetPublisher:
    return ParquetPublisher(ParquetTarget.model_validate({**LAKE, **settings}), folder)


def test_readers_find_every_table_by_the_pointer(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    (sent,) = send(project)
    lake = project.root / "lake"
    told = latest(lake)
    names = {name for (name,) in read(project, "select table_name from information_schema.tables")}
    assert set(told["tables"]) == names
    assert told == json.loads((lake / told["folder"] / "release.json").read_text())
    assert sent.rows == sum(table["rows"] for table in told["tables"].values())
    for name, table in told["tables"].items():
        files = [str(lake / file) for file in table["files"]]
        assert duckdb.sql(f"select count(*) from read_parquet({files})").fetchall() == [(table["rows"],)]
        folder = f"{lake}/{told['folder']}/{name}/*.parquet"
        columns = [row[0] for row in duckdb.sql(f"describe from read_parquet('{folder}')").fetchall()]
        assert columns == [column["name"] for column in table["columns"]], "no column from the folder's name"
    by_duckdb = duckdb.sql(f"from read_parquet('{lake}/{told['folder']}/segments/*.parquet')").fetchall()
    assert by_duckdb == read(project, "from segments")
    segments = told["tables"]["segments"]
    assert segments["description"].startswith("One row per entity")
    assert segments["columns"][0] == {"name": "dataset", "type": "string", "description": "Name of the dataset."}


def test_every_type_is_one_that_other_readers_have(tmp_path: Path) -> None:
    columns = ", ".join(f"{value} AS c{i}" for i, value in enumerate(VALUES))
    own_file(tmp_path / "own.duckdb", [f"CREATE TABLE t AS SELECT {columns}", "CREATE TABLE nothing (a INTEGER)"])
    with opened(tmp_path / "own.duckdb", 1) as file:
        publisher(tmp_path).publish(file)
    (part,) = (tmp_path / "lake" / "release-00000001" / "t").iterdir()
    table = pq.ParquetFile(part).read()
    (row,) = table.to_pylist()
    assert {value: (str(table.field(i).type), row[f"c{i}"]) for i, value in enumerate(VALUES)} == VALUES
    assert pl.read_parquet(part).height == 1
    (empty,) = (tmp_path / "lake" / "release-00000001" / "nothing").iterdir()
    assert pl.read_parquet(empty).schema == {"a": pl.Int32}


def test_a_moment_keeps_its_zone_or_has_none(tmp_path: Path) -> None:
    moments = "TIMESTAMP '2024-02-29 01:00:00.5' AS local, TIMESTAMPTZ '2024-02-29 01:00:00+02' AS moment"
    own_file(tmp_path / "own.duckdb", [f"CREATE TABLE t AS SELECT {moments}"])
    with opened(tmp_path / "own.duckdb", 1) as file:
        publisher(tmp_path).publish(file)
    (part,) = (tmp_path / "lake" / "release-00000001" / "t").iterdir()
    kinds = [str(pq.ParquetFile(part).schema.column(i).logical_type) for i in range(2)]
    assert ["isAdjustedToUTC=false" in kinds[0], "isAdjustedToUTC=true" in kinds[1]] == [True, True]
    assert all("timeUnit=microseconds" in kind for kind in kinds)
    assert str(pl.read_parquet(part)["moment"][0]) == "2024-02-28 23:00:00+00:00"


def test_large_tables_are_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_tables, "PART_BYTES", 100_000)
    monkeypatch.setattr(parquet_tables, "_GROUP_ROWS", 20_000)
    own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT i, md5(i::VARCHAR) AS m FROM range(100_000) r(i)"])
    with opened(tmp_path / "own.duckdb", 1) as file:
        publisher(tmp_path).publish(file)
    told = latest(tmp_path / "lake")["tables"]["t"]
    assert len(told["files"]) > 2
    parts = [pq.ParquetFile(tmp_path / "lake" / file) for file in told["files"]]
    assert all(part.metadata.row_group(0).column(0).compression == "ZSTD" for part in parts)
    rows = duckdb.sql(f"select count(*), count(distinct i) from read_parquet('{tmp_path}/lake/*/t/*.parquet')")
    assert rows.fetchall() == [(100_000, 100_000)]


def test_old_releases_go_and_others_files_stay(tmp_path: Path) -> None:
    own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT 1 AS a"])
    lake = tmp_path / "lake"
    (lake / "release-notes").mkdir(parents=True)
    (lake / "mine.txt").write_text("mine")
    for number in range(1, 6):
        with opened(tmp_path / "own.duckdb", number) as file:
            publisher(tmp_path, keep=3).publish(file)
        assert publisher(tmp_path).release() == Seen(number, "")
    assert {path.name for path in lake.iterdir()} == {
        *("release-00000003", "release-00000004", "release-00000005"),
        *("latest.json", "release-notes", "mine.txt"),
    }


def test_what_is_private_now_is_in_no_older_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = tmp_path / "lake"
    for number in (1, 2):
        own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT 1 AS a, 'x' AS email"])
        with opened(tmp_path / "own.duckdb", number) as file:
            publisher(tmp_path, keep=3).publish(file)
    own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT 1 AS a, 2 AS b"])
    with monkeypatch.context() as patch, opened(tmp_path / "own.duckdb", 3) as file:
        remove = _Store.remove

        def fail(store: _Store, name: str) -> None:
            if name != "release-00000002":
                remove(store, name)
            else:
                raise OSError("in use")

        patch.setattr(_Store, "remove", fail)
        notes = publisher(tmp_path, keep=3).publish(file).notes
    assert notes == ("the folder release-00000002 stays for now: it could not be removed",)
    assert {path.name for path in lake.iterdir()} == {"latest.json", "release-00000002", "release-00000003"}
    assert publisher(tmp_path, keep=3).tidy() == ()
    assert {path.name for path in lake.iterdir()} == {"latest.json", "release-00000003"}


def test_a_number_that_no_decimal_holds_is_named(tmp_path: Path) -> None:
    statement = "CREATE TABLE t AS SELECT 1 AS a, {}::HUGEINT AS total"
    own_file(tmp_path / "own.duckdb", [statement.format("9" * 38), f"INSERT INTO t VALUES (2, -{'9' * 38})"])
    with opened(tmp_path / "own.duckdb", 1) as file:
        publisher(tmp_path).publish(file)
    for beyond in ("1" + "0" * 38, "-1" + "0" * 38):
        own_file(tmp_path / "own.duckdb", [statement.format(f"({beyond})")])
        with (
            opened(tmp_path / "own.duckdb", 2) as file,
            pytest.raises(ErasmoError, match=r"more than 38 digits in t\.total"),
        ):
            publisher(tmp_path).publish(file)
    assert latest(tmp_path / "lake")["release"] == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, SIGNED), "OSError where lake was to be written (Input/output error)"),
        (OSError(SIGNED), "OSError where lake was to be written, expected"),
        (PermissionError(SIGNED), "PermissionError where lake was to be written (it may not be written with"),
        (PermissionError(errno.EACCES, "x", SIGNED), "'Permission denied' for lake"),
        (ConnectionResetError(SIGNED), "(it cannot be reached)"),
        (pa.ArrowInvalid(SIGNED), "Got ArrowInvalid where lake was to be written, expected"),
    ],
)
def test_what_a_store_says_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT 1 AS a"])
    monkeypatch.setattr(_Store, "create", lambda *_: (_ for _ in ()).throw(error))
    with opened(tmp_path / "own.duckdb", 1) as file, pytest.raises(ErasmoError) as caught:
        publisher(tmp_path).publish(file)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"release": "x"}', '{"folder": "release-00000001"}'])
def test_a_pointer_that_names_nothing_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "latest.json").write_text(content)
    with pytest.raises(ErasmoError, match=r"Got a latest\.json that names no release"):
        publisher(tmp_path).release()


@pytest.mark.parametrize(
    ("path", "told"),
    [("nowhere://bucket/x", "expected a folder, or an address"), ("gs://bucket/x", "pip install gcsfs")],
)
def test_a_place_that_cannot_be_reached_is_told(tmp_path: Path, path: str, told: str) -> None:
    with pytest.raises(ErasmoError, match=told):
        publisher(tmp_path, path=path).release()


def test_an_address_with_a_key_is_refused_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE", "s3://key:hunter2@bucket")
    with pytest.raises(ErasmoError, match="Got an address with a user in it") as caught:
        publisher(tmp_path, path="${LAKE}/segments").release()
    assert "hunter2" not in f"{caught.value}"


def test_a_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE", str(tmp_path / "elsewhere"))
    own_file(tmp_path / "own.duckdb", ["CREATE TABLE t AS SELECT 1 AS a"])
    with opened(tmp_path / "own.duckdb", 7) as file:
        publisher(tmp_path, path="${LAKE}/segments").publish(file)
    assert latest(tmp_path / "elsewhere" / "segments")["folder"] == "release-00000007"
    assert publisher(tmp_path, path=f"file://{tmp_path}/elsewhere/segments").release() == Seen(7, "")


# --- in an object store ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server that speaks as S3 does, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """The name of an empty bucket, and its file system."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA-OF-THE-TESTS",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    fs = s3fs.S3FileSystem(endpoint_url=s3, skip_instance_cache=True)
    name = f"bucket-{tmp_path.name.replace('_', '-').lower()}"[:60].rstrip("-")
    fs.mkdir(name)
    return name, fs


def test_an_object_store_gets_the_same(
    with_targets: WithTargets, bucket: tuple[str, Any], s3: str, tmp_path: Path
) -> None:
    name, fs = bucket
    project = with_targets({**LAKE, "path": f"s3://{name}/team/segments", "endpoint_url": s3, "keep": 2})
    for rows in (4, 6, 8):
        release(project, "a", prepare(project, "a", rows))
        send(project)
        fs.invalidate_cache()
        told = json.loads(fs.cat_file(f"{name}/team/segments/latest.json"))
        assert told["tables"]["segments"]["rows"] == rows
        there = set(fs.find(f"{name}/team/segments"))
        named = {f"{name}/team/segments/{file}" for table in told["tables"].values() for file in table["files"]}
        assert named <= there
    folders = {path.rpartition("/")[2] for path in fs.ls(f"{name}/team/segments", detail=False)}
    assert folders == {"release-00000002", "release-00000003", "latest.json"}
    # As others read it: DuckDB a copy on the disk, pyarrow and polars from the store.
    fs.get(f"{name}/team/segments/{told['folder']}", str(tmp_path / "copy"), recursive=True)
    query = f"select count(*), max(version) from read_parquet('{tmp_path}/copy/segments/*.parquet')"
    assert duckdb.sql(query).fetchall() == [(8, 3)]
    (file,) = told["tables"]["segments"]["files"]
    held = pq.read_table(f"{name}/team/segments/{file}", filesystem=fs)
    assert isinstance(held, pa.Table)
    assert held.num_rows == 8
    with fs.open(f"{name}/team/segments/{file}", "rb") as opened_file:
        assert pl.read_parquet(opened_file).height == 8
    assert [one.tables for one in send(project)] == [0]


def test_a_folder_in_an_object_store_that_is_not_whole_is_not_pointed_to(
    with_targets: WithTargets, bucket: tuple[str, Any], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, fs = bucket
    project = with_targets({**LAKE, "path": f"s3://{name}/segments", "endpoint_url": s3})
    release(project, "a", prepare(project, "a", 4))
    send(project)
    release(project, "a", prepare(project, "a", 6))
    write = parquet_tables.write_parts
    count = 0

    def stop(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("erasmo_dagster.store.targets.parquet.write_parts", stop)
        with pytest.raises(KeyboardInterrupt):
            send(project)
    fs.invalidate_cache()
    assert json.loads(fs.cat_file(f"{name}/segments/latest.json"))["release"] == 1
    assert len(fs.find(f"{name}/segments/release-00000002")) == 3
    send(project)
    fs.invalidate_cache()
    told = json.loads(fs.cat_file(f"{name}/segments/latest.json"))
    assert (told["release"], told["tables"]["segments"]["rows"]) == (2, 6)


def test_a_bucket_that_is_not_there_is_told_without_the_keys(
    with_targets: WithTargets, bucket: tuple[str, Any], s3: str
) -> None:
    project = with_targets({**LAKE, "path": "s3://no-such-bucket/segments", "endpoint_url": s3})
    release(project, "a", prepare(project, "a", 4))
    with pytest.raises(
        TargetError, match=r"lake: Got \w+ where s3://no-such-bucket/segments was to be written"
    ) as caught:
        send(project)
    assert "of-the-tests" not in str(caught.value).lower()


def test_a_store_that_does_not_answer_is_told(with_targets: WithTargets, bucket: tuple[str, Any]) -> None:
    name, _ = bucket
    project = with_targets({**LAKE, "path": f"s3://{name}/segments", "endpoint_url": "http://127.0.0.1:9"})
    release(project, "a", prepare(project, "a", 4))
    with pytest.raises(TargetError, match="lake: Got EndpointConnectionError where s3://") as caught:
        send(project)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9/hunter2", "htp:/hunter2", "http://127.0.0.1:9?key=hunter2"])
def test_what_the_environment_puts_into_an_address_is_not_told(
    with_targets: WithTargets, bucket: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("LAKE_ENDPOINT", endpoint)
    monkeypatch.setenv("LAKE_BUCKET", "hunter2-bucket")
    project = with_targets({**LAKE, "path": "s3://${LAKE_BUCKET}/segments", "endpoint_url": "${LAKE_ENDPOINT}"})
    release(project, "a", prepare(project, "a", 4))
    with pytest.raises(TargetError, match=r"lake: Got \w+ where s3://\$\{LAKE_BUCKET\}/segments") as caught:
        send(project)
    told = [repr(caught.value.sent), *map(str, read(project, "select targets from publish_log"))]
    error: BaseException | None = caught.value
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    assert not any("hunter2" in text for text in told), told
