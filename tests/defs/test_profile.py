"""Names and profiles of a whole run: in SQL, in the UI, in a report; and nothing in them of a sensitive column."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.report import make_report, write_report
from erasmo_dagster.settings import Project
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import Run, published, warehouse

SECRETS = ("spring", "autumn", "letters", "short calls", "never answers")  # of the column `note`
TABLES = ("segment_profile", "segment_descriptions", "segment_values")
NAMES = "select segment_id, segment_name from segment_sizes order by 1"


def everything(project: Project) -> str:
    """All that is published of the profiles, as text."""
    return json.dumps([published(project, f"from {table}") for table in TABLES], default=str)


def test_segments_are_named_and_profiled_from_the_tables_own_columns(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset(extra="sensitive: note\n")
    metadata = run()["segment_profile"]
    assert metadata["heat_map"].startswith("![")
    assert metadata["distributions"].startswith("![")
    told = everything(project)
    assert "technician" in told
    assert not any(secret in told or secret in str(metadata) for secret in SECRETS)
    assert "email" not in published(project, "select list(distinct column_name) from segment_profile")[0][0], "dropped"
    counted = published(project, "select list(distinct column_name order by column_name) from segment_values")[0][0]
    assert counted == ["age", "job", "kind"], "every column but the key, the sensitive one and the one of addresses"
    # What is said is so.
    assert published(project, "select sum(rows), round(sum(share), 9) from segment_descriptions") == [(60, 1.0)]
    assert published(project, "select distinct sum(rows) over (partition by column_name) from segment_values") == [
        (60,)
    ]
    shares = published(
        project,
        "select p.in_segment, avg((c.job = p.value)::int) from segment_profile p"
        " join customers_segmented c using (segment_id) where p.column_name = 'job' group by all",
    )
    assert shares
    assert all(abs(said - counted) < 1e-9 for said, counted in shares)
    members = published(project, "select segment_id, unnest(central_members) from segment_descriptions")
    placed = dict(published(project, "select entity_key, segment_id from segments"))
    assert members
    assert all(placed[key] == segment for segment, key in members)
    least = published(project, "select min(confidence) from segments")[0][0]
    doubtful = published(
        project,
        "select min(s.confidence) from segments s join (select unnest(doubtful_members) as entity_key"
        " from segment_descriptions) d using (entity_key)",
    )
    assert doubtful == [(least,)]
    names = dict(published(project, NAMES))
    assert len(set(names.values())) == len(names) == 3
    assert all(0 < len(name) <= 60 for name in names.values())

    html = make_report(project, "customers")
    assert all(name in html for name in names.values())
    assert not any(secret in html for secret in SECRETS)
    assert str(project.root) not in html
    assert str(project.home) not in html
    assert make_report(project, "customers") == html


@pytest.mark.slow
def test_a_name_stays_with_its_segment_and_can_be_given(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    first = dict(published(project, NAMES))
    write_dataset(
        frame=customers(66), extra="refresh: {changed_share: 0.9}\nnaming: {names: {0: Big spenders, 77: X}}\n"
    )
    metadata = run()
    assert "77" in metadata["segment_profile"]["remarks"]
    assert dict(published(project, NAMES)) == {**first, 0: "Big spenders"}
    for table in ("segments", "segment_history", "segment_profile", "segment_values"):
        names = f"select distinct segment_name from {table} where segment_id = 0"
        assert published(project, names) == [("Big spenders",)], table
    assert published(project, "select count(*) from segment_history where valid_to is not null") == [(0,)]
    # A name that is given is nobody else's, and a model that does not answer is no failure.
    write_dataset(
        frame=customers(66),
        extra="naming: {names: {1: Big spenders}, by: endpoint, url: 'http://127.0.0.1:9/v1', model: m}\n",
    )
    metadata = run()
    names = dict(published(project, NAMES))
    assert names[1] == "Big spenders"
    assert names[0] != "Big spenders"
    assert names[2] == first[2]
    assert "named by the profile" in metadata["segment_profile"]["remarks"]
    assert warehouse(project, "select segment_name from segment_names where segment_id = 1") == [("Big spenders",)]


@pytest.mark.slow
def test_names_that_tell_of_a_column_which_is_sensitive_by_now_are_given_anew(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset(extra="naming: {names: {2: Big spenders}}\n")
    run()
    assert "technician" in everything(project) + str(published(project, NAMES))
    write_dataset(extra="naming: {names: {2: Big spenders}}\nsensitive: job\n")
    run()
    told = everything(project) + str(published(project, "from segment_history")) + str(published(project, NAMES))
    assert not any(job in told for job in ("technician", "retired", "student"))
    assert not any(job in make_report(project, "customers") for job in ("technician", "retired", "student"))
    names = dict(published(project, NAMES))
    assert names[2] == "Big spenders"
    assert len(set(names.values())) == 3


@pytest.mark.slow
def test_a_key_that_is_sensitive_names_no_member(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    frame = customers(30).with_columns(id=pl.format("person-{}", "id"))
    write_dataset(frame=frame, extra="sensitive: id\n")
    metadata = run()["segment_profile"]
    assert "person-" not in everything(project)
    assert "person-" not in str(metadata)
    assert "person-" not in make_report(project, "customers")


def test_a_report_of_nothing_and_to_nowhere(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="no published file"):
        write_report(project, "customers", tmp_path / "a.html")
    project.published.parent.mkdir(parents=True)
    duckdb.connect(project.published).close()
    with pytest.raises((ErasmoError, duckdb.Error)):
        write_report(project, "customers", tmp_path / "a.html")
    assert list(tmp_path.glob("*.html*")) == []
