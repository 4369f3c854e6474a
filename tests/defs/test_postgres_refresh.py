"""A dataset in PostgreSQL, from the table to the published file, and refreshed when a row changes."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.watching import look_around
from erasmo_dagster.refresh.watching import Memory
from erasmo_dagster.settings import Project
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import Run, published
from tests.postgres_server import PASSWORD, PostgresServer

pytestmark = pytest.mark.postgres


def fill(server: PostgresServer, url: str, frame: pl.DataFrame) -> None:
    from adbc_driver_postgresql import dbapi

    server.execute("CREATE SCHEMA crm", url)
    columns = "id bigint PRIMARY KEY, age bigint, job text, note text, email text, kind text"
    server.execute(f"CREATE TABLE crm.customers ({columns}) PARTITION BY RANGE (id)", url)
    for low in (0, 20, 40):
        bounds = f"FROM ({low}) TO ({low + 20 if low < 40 else 'maxvalue'})"
        server.execute(f"CREATE TABLE crm.customers_{low} PARTITION OF crm.customers FOR VALUES {bounds}", url)
    with dbapi.connect(url) as con, con.cursor() as cursor:
        cursor.adbc_ingest("customers", frame.to_arrow(), mode="append", db_schema_name="crm")
        con.commit()


def test_a_row_that_changes_in_postgresql(
    project: Project,
    write_dataset: DatasetWriter,
    run: Run,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = postgres.new_database()
    fill(postgres, url, customers())
    monkeypatch.setenv("CRM_DATABASE_URL", url)
    file = write_dataset()
    (project.root / "customers.parquet").unlink()
    source = '{format: postgresql, path: "${CRM_DATABASE_URL}", table: crm.customers}'
    file.write_text(file.read_text().replace("{path: customers.parquet}", source))
    first = run()
    assert first["source_table"]["rows_read"] == 60

    def seen(memory: dict[str, Memory]) -> Any:
        with open_instance(project) as instance:
            (one,), _ = look_around(project, instance, memory)
        assert one.fault is None
        return one

    found = seen({})
    assert not found.changed
    memory = {"customers": Memory(sighting=found.sighting)}
    postgres.execute("UPDATE crm.customers SET age = 99 WHERE id = 30", url)
    assert seen(memory).changed
    second = run()
    plan = second["refresh_plan"]
    assert (plan["decision"], plan["rows_new"], plan["rows_changed"], plan["rows_gone"]) == ("refresh", 0, 1, 0)
    assert second["embeddings"]["texts_embedded"] == 1
    assert second["source_table"]["rows_read"] == 20
    assert published(project, "select version, count(*) from segments group by 1") == [(2, 60)]
    assert published(project, "select age, email from customers_segmented where id = 30") == [
        (99, "person29@example.org")
    ]
    # Neither what is kept, nor what is shown, nor what is logged tells of the server.
    said = capfd.readouterr()
    kept = [said.out.encode(), said.err.encode()]
    kept += [path.read_bytes() for path in project.home.rglob("*") if path.is_file()]
    assert any(b"${CRM_DATABASE_URL}" in content for content in [*kept, file.read_bytes()])
    for secret in (PASSWORD, f"127.0.0.1:{postgres.port}", url.rpartition("/")[2]):
        assert not any(secret.encode() in content for content in kept)
