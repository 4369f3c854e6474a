"""The whole lineage through Dagster, with a tiny random-weight model and a real warehouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from tests.conftest import DatasetWriter, customers, make_project
from tests.defs.lineage import Run, published, warehouse


def test_a_table_becomes_published_segments(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset(extra="sensitive: age\ndescription: People.\n")
    metadata = run()
    assert list(metadata) == [
        "source_table",
        "refresh_plan",
        "text_corpus",
        "adapter",
        "embeddings",
        "segments",
        "segment_metrics",
        "segment_profile",
        "published_segments",
    ]
    assert metadata["embeddings"]["engine"] == "shared prefixes"
    assert 0 < metadata["embeddings"]["tokens_computed"] < metadata["embeddings"]["tokens"]
    assert published(project, "select count(*), count(distinct entity_key), min(version) from segments") == [
        (60, 60, 1)
    ]
    assert published(project, "select sum(rows), round(sum(share), 6) from segment_sizes") == [(60, 1.0)]
    names = {name for (name,) in published(project, "select metric from segment_metrics")}
    assert {"silhouette", "calinski_harabasz", "davies_bouldin", "ari", "nmi", "accuracy"} <= names
    assert {"gower_silhouette", "separation", "separation_p", "tree_accuracy", "tree_baseline"} <= names
    # Neither the label, the key and what was dropped, nor the column that is sensitive.
    shares = {row.data["column"]: row.data["share explained"] for row in metadata["segment_metrics"]["columns"].records}
    assert set(shares) == {"job", "note"}
    assert all(0 < share <= 1 for share in shares.values())
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    rules = [row.data["rule"] for row in metadata["segment_metrics"]["rules"].records]
    assert len(rules) >= 3
    assert all(rule.startswith("segment ") and "age" not in rule for rule in rules)
    assert published(project, "select dataset, version, rows, segments from publish_log") == [("customers", 1, 60, 3)]
    columns = [row[0] for row in published(project, "describe customers_segmented")]
    own = ["id", "job", "note", "email", "kind"]
    assert columns == [*own, "entity_key", "segment_id", "segment_name", "confidence", "version", "assigned_at"]
    assert not list(project.published.parent.glob("*.tmp*"))
    comments = dict(
        published(project, "select column_name, comment from duckdb_columns() where table_name = 'segments'")
    )
    assert "not a probability" in comments["confidence"]


def test_metadata_shows_pictures_and_no_sensitive_value(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset(extra="sensitive: note\n")
    metadata = run()
    assert metadata["adapter"]["loss"].startswith("![")
    assert "data:image/png;base64" in metadata["segments"]["projection"]
    assert "job is" in metadata["text_corpus"]["sample"]
    for value in ("spring", "letters", "person1@"):
        assert value not in str(metadata)


@pytest.mark.slow
def test_a_rerun_reuses_the_model_and_leaves_no_duplicates(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    before = published(project, "select entity_key, segment_id, confidence from segments order by all")
    metadata = run()
    reused = {stage for stage, shown in metadata.items() if "reused" in shown.get("made_by", "")}
    assert {"source_table", "adapter", "embeddings"} <= reused
    assert published(project, "select entity_key, segment_id, confidence from segments order by all") == before
    assert published(project, "select distinct version from segments") == [(2,)]
    for table in ("segments", "corpus"):
        query = f"select count(*) from {table} group by dataset, version, entity_key having count(*) > 1"
        assert warehouse(project, query) == []
    retrained = run(retrain=True)
    assert "reused" not in retrained["adapter"]["made_by"]
    assert "reused" not in retrained["embeddings"]["made_by"]


@pytest.mark.slow
def test_two_datasets_never_touch_each_others_rows(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset("one")
    write_dataset("two", customers(30), extra="seed: 5\n")
    run("one")
    before = published(project, "select * from one_segmented order by all")
    rows = warehouse(project, "select * from segments where dataset = 'one' order by all")
    run("two")
    assert published(project, "select dataset, count(*) from segments group by all order by all") == [
        ("one", 60),
        ("two", 30),
    ]
    assert published(project, "select * from one_segmented order by all") == before
    assert warehouse(project, "select * from segments where dataset = 'one' order by all") == rows


def test_the_label_reaches_no_segment(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    frame = customers()
    write_dataset("plain", frame)
    write_dataset("permuted", frame.with_columns(pl.col("kind").shuffle(seed=1)))
    run("plain")
    run("permuted")
    segments = "select entity_key, segment_id, confidence from segments where dataset = '{}' order by all"
    assert published(project, segments.format("plain")) == published(project, segments.format("permuted"))
    agreement = dict(published(project, "select dataset, value from segment_metrics where metric = 'ari'"))
    assert agreement["plain"] != agreement["permuted"]


@pytest.mark.slow
def test_the_order_of_the_sources_rows_and_columns_changes_nothing(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    frame = customers()
    write_dataset("plain", frame)
    write_dataset("mixed", frame.sample(fraction=1, shuffle=True, seed=3).select(reversed(frame.columns)))
    run("plain")
    run("mixed")
    segments = "select entity_key, segment_id, confidence from segments where dataset = '{}' order by all"
    assert published(project, segments.format("plain")) == published(project, segments.format("mixed"))


@pytest.mark.slow
def test_one_stage_alone_takes_the_newest_of_what_it_needs(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    file = write_dataset()
    run()
    file.write_text(file.read_text().replace("k: 3", "k: 4"))
    definitions = build_definitions(project)
    with open_instance(project) as instance:
        chosen = ["segments", "segment_metrics", "segment_profile", "published_segments"]
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            partition_key="customers", instance=instance, asset_selection=[dg.AssetKey(name) for name in chosen]
        )
    assert result.success
    assert published(project, "select max(version), count(distinct segment_id), count(*) from segments") == [(2, 4, 60)]
    assert published(project, "select distinct version from segment_metrics") == [(2,)]


def test_a_new_row_in_the_source_is_segmented_at_the_next_run(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset(frame=customers(40))
    run()
    write_dataset(frame=customers(41))
    metadata = run()
    assert metadata["adapter"]["made_by"] == "version 1, reused"
    assert metadata["embeddings"]["texts_embedded"] <= 1
    assert published(project, "select count(*) from customers_segmented") == [(41,)]


@pytest.mark.slow
def test_old_versions_go_and_their_files_with_them(project: Project, write_dataset: DatasetWriter) -> None:
    (project.root / "erasmo.yaml").write_text("keep_versions: 2\n")
    for number in range(4):
        write_dataset(frame=customers(30 + number))
        with open_instance(project) as instance:
            run_dataset(instance, project, "customers")
    # The first holds the training that stands; of the others the newest two are kept.
    assert [v for (v,) in warehouse(project, "select version from versions order by 1")] == [1, 3, 4]
    assert sorted(p.name for p in (project.artifacts / "customers").iterdir() if p.name.isdigit()) == ["1", "3", "4"]
    assert warehouse(project, "select distinct version from corpus order by 1") == [(1,), (3,), (4,)]


def hostile_frame() -> pl.DataFrame:
    frame = customers(24)
    names = ['a "quoted" name', "select", "with space", "emoji 🐧", "x" * 200, "it's"]
    return frame.with_columns(
        *(pl.Series(name, [f"v{i % (n + 2)}" for i in range(24)]) for n, name in enumerate(names))
    )


@pytest.mark.slow
def test_odd_column_names_and_long_cells_go_through(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    long = pl.Series("long", ["word " * 20_000 if i == 3 else f"short {i % 2}" for i in range(24)])
    taken = pl.Series("Segment_ID", list(range(24)))
    write_dataset(frame=hostile_frame().with_columns(long, taken))
    metadata = run()
    assert metadata["embeddings"]["truncated_rows"] == 1
    columns = [row[0] for row in published(project, "describe customers_segmented")]
    assert 'a "quoted" name' in columns
    assert "source_Segment_ID" in columns
    assert columns.count("segment_id") == 1


BAD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, str]] = {
    "empty table": (lambda f: f.head(0), "", "no row"),
    "one row": (lambda f: f.head(1), "", "one row"),
    "fewer rows than k": (lambda f: f.head(4), "", "clustering.k"),
    "key absent": (lambda f: f.drop("id"), "", "id"),
    "key with nulls": (lambda f: f.with_columns(pl.when(pl.col("id") > 2).then("id")), "", "without a value"),
    "key with duplicates": (lambda f: f.with_columns(pl.col("id") // 2), "", "id"),
    "nothing to write": (lambda f: f.select("id", "kind", "email"), "", "column"),
    "all constant": (lambda f: f.select("id", "kind", "email", c=pl.lit("x")), "", "column"),
    "unknown column named": (lambda f: f, "columns: {nme: {name: Name}}\n", "nme"),
    "unknown key": (lambda f: f, "cluster: {}\n", "cluster"),
}


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> DatasetWriter:
    """A project with one published dataset, shared by the cases that must not change it."""
    folder = tmp_path_factory.mktemp("segmented")
    write_dataset = DatasetWriter(make_project(folder), tiny_model)
    write_dataset(frame=customers(12))
    with open_instance(write_dataset.project) as instance:
        run_dataset(instance, write_dataset.project, "customers")
    return write_dataset


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_the_published_file(segmented: DatasetWriter, case: str) -> None:
    project = segmented.project
    before = project.published.read_bytes()
    change, extra, word = BAD[case]
    file = segmented(frame=change(customers(12)), extra=extra)
    if case == "fewer rows than k":
        file.write_text(file.read_text().replace("k: 3", "k: 6"))
    with open_instance(project) as instance, pytest.raises(ErasmoError) as error:
        run_dataset(instance, project, "customers")
    assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert project.published.read_bytes() == before
    assert sorted(p.name for p in project.published.parent.iterdir()) == ["segments.duckdb"]
