"""Segments with noise, and segments with memberships, from the table to the published file and through a refresh."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster import template
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import state_dir
from tests.conftest import customers
from tests.defs.lineage import Run, published, warehouse


def write(project: Project, frame: pl.DataFrame, clustering: str) -> Path:
    """A dataset whose texts are read by their words, so that no model is needed."""
    frame.write_parquet(project.root / "customers.parquet")
    file = project.datasets_dir / "customers.yaml"
    file.write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\ndrop: email\n"
        "encoder: {name: tfidf, min_df: 1}\n"
        "refresh: {changed_share: 1.0, psi: 100, beyond_rows: 1000}\n"
        f"gate: {{min_segment_size: 2}}\nclustering: {clustering}\n"
    )
    return file


def strangers(first: int, number: int = 4) -> pl.DataFrame:
    """Rows that have no word in common with each other or anybody else."""
    ids = range(first, first + number)
    return pl.DataFrame(
        {
            "id": list(ids),
            "age": [40] * number,
            "job": [f"trade{i}" for i in ids],
            "note": [f"alpha{i} beta{i} gamma{i} delta{i} epsilon{i}" for i in ids],
            "email": [f"person{i}@example.org" for i in ids],
            "kind": ["X"] * number,
        }
    )


def marts_of(project: Project) -> tuple[int, int]:
    """Rows of noise in the overview, and tests of the marts that fail, of some that were made."""
    assert published(project, "select count(*) > 10 from mart_tests") == [(True,)]
    rows = published(project, "select rows from segment_overview where segment_id = -1")[0][0]
    return rows, published(project, "select count(*) from mart_tests where not passed")[0][0]


@pytest.mark.slow
def test_noise_goes_all_the_way_and_through_a_refresh(project: Project, run: Run) -> None:
    shutil.copytree(Path(template.__file__).parent / "dbt_like_sql", project.sql_dir)
    frame = pl.concat([customers(), strangers(61)])
    write(project, frame, "{method: hdbscan, min_cluster_size: 8, min_samples: 2}")
    metadata = run()
    noise = {key for (key,) in published(project, "select entity_key from segments where segment_id = -1")}
    assert {"61", "62", "63", "64"} <= noise
    segments = published(project, "select count(distinct segment_id) from segments where segment_id >= 0")[0][0]
    assert segments >= 2
    assert metadata["segments"]["noise"] == len(noise)
    assert metadata["segments"]["segments"] == segments
    assert published(project, "select distinct segment_name, confidence from segments where segment_id = -1") == [
        ("noise", 0.0)
    ]
    assert published(project, "select rows, segments from publish_log") == [(64, segments)]
    figures = dict(published(project, "select metric, value from segment_metrics"))
    assert (figures["rows"], figures["segments"]) == (64 - len(noise), segments)
    told = published(project, "select segment_id, rows, central_members from segment_descriptions order by 1")
    assert told[0] == (-1, len(noise), [])
    assert all(central for _, _, central in told[1:])
    assert marts_of(project) == (len(noise), 0)
    fitted = FittedState.load(state_dir(project, "customers", 1)).clustering
    assert fitted is not None
    assert fitted.rows_by_id == dict(published(project, "select segment_id, rows from segment_sizes"))

    # One row that is like others, one that is like nobody, and one stranger less.
    alike = customers()[:1].with_columns(id=pl.lit(70, pl.Int64), note=pl.lit("likes short calls in spring"))
    write(
        project,
        pl.concat([frame.filter(pl.col("id") != 64), alike, strangers(90, 1)]),
        "{method: hdbscan, min_cluster_size: 8, min_samples: 2}",
    )
    before = dict(published(project, "select entity_key, segment_id from segments"))
    plan = run()["refresh_plan"]
    assert plan["decision"] == "refresh"
    after = dict(published(project, "select entity_key, segment_id from segments"))
    assert after.pop("90") == -1
    assert after.pop("70") == before["1"] >= 0
    assert before.pop("64") == -1
    assert after == before
    assert published(project, "select from_version, to_version from segment_history where entity_key = '64'") == [
        (1, 2)
    ]
    open_stays = "select entity_key, segment_id, segment_name from segment_history where valid_to is null order by all"
    assert published(project, open_stays) == published(
        project, "select entity_key, segment_id, segment_name from segments order by all"
    )
    assert published(project, "select count(*) from segment_memberships") == [(0,)]
    assert marts_of(project) == (len(noise), 0)  # one less, one more


@pytest.mark.slow
@pytest.mark.parametrize(
    "clustering",
    [
        "{method: fuzzy_cmeans, k: 3, m: 1.5}",
        pytest.param("{method: gaussian_mixture, k: 3}", marks=pytest.mark.slow),
    ],
)
def test_memberships_are_published_and_kept_by_rows_that_stay(project: Project, run: Run, clustering: str) -> None:
    write(project, customers(), clustering)
    run()
    memberships = "select entity_key, segment_id, membership from segment_memberships order by all"
    first = published(project, memberships)
    assert len(first) == 60 * 3
    sums = (
        "select min(s), max(s), count(*) from (select sum(membership) s from segment_memberships group by entity_key)"
    )
    least, most, entities = published(project, sums)[0]
    assert least == pytest.approx(1, abs=1e-5)
    assert most == pytest.approx(1, abs=1e-5)
    assert entities == 60
    largest = """select count(*) from segments s join (
        select entity_key, arg_max(segment_id, membership) segment_id, max(membership) membership
        from segment_memberships group by all) m using (entity_key, segment_id) where m.membership = s.confidence"""
    assert published(project, largest) == [(60,)]
    named = "select distinct segment_id, segment_name from {} order by 1"
    assert published(project, named.format("segment_memberships")) == published(project, named.format("segments"))

    # Customer 1 goes, 61 reads like it, 62 is new.
    new = customers(62)[60:].with_columns(
        age=pl.Series([customers()["age"][0], 44]),
        job=pl.Series([customers()["job"][0], "poet"]),
        note=pl.Series([customers()["note"][0], "writes letters at sea"]),
    )
    write(project, pl.concat([customers().filter(pl.col("id") != 1), new]), clustering)
    assert run()["refresh_plan"]["decision"] == "refresh"
    second = published(project, memberships)
    kept = [row for row in first if row[0] != "1"]
    assert [row for row in second if row[0] not in ("61", "62")] == kept
    assert [row[1:] for row in second if row[0] == "61"] == [row[1:] for row in first if row[0] == "1"]
    assert sum(row[2] for row in second if row[0] == "62") == pytest.approx(1, abs=1e-5)
    assert published(project, largest) == [(61,)]
    assert published(project, "select distinct version from segment_memberships") == [(2,)]

    # The row that went comes back where it was.
    write(project, customers(), clustering)
    run()
    assert published(project, memberships) == first
    write(project, customers(), "{method: kmeans, k: 3}")
    run()
    assert published(project, memberships) == []
    held = warehouse(project, "select version, count(*) from segment_memberships group by all order by all")
    assert held == [(1, 180), (2, 183), (3, 180)]


@pytest.mark.slow
def test_a_method_that_finds_nothing_leaves_what_is_published(project: Project, run: Run) -> None:
    write(project, customers(), "{method: kmeans++, k: 3}")
    run()
    before = project.published.read_bytes()
    write(project, customers(), "{method: hdbscan, min_cluster_size: 31}")
    with (
        open_instance(project) as instance,
        pytest.raises(ErasmoError, match=r"Got 60 rows for clustering\.min_cluster"),
    ):
        run_dataset(instance, project, "customers")
    assert project.published.read_bytes() == before
