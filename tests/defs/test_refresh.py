"""What a change of the source costs, what stays as it was, and what is fit to publish."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import polars as pl
import pytest

from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.watching import look_around
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, load_dataset, readable_datasets
from erasmo_dagster.store.publish import publish, retire, rollback
from erasmo_dagster.store.versions import FITTED_STATE
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import Run, published, warehouse

# A row whose text is as it was keeps all of this to the last bit, but for the version.
ROWS = """
select c.entity_key, c.text_hash, e.vector, s.segment_id, s.confidence, s.assigned_at
from stage_outputs o
join corpus c on c.dataset = o.dataset and c.version = o.version
join stage_outputs oe on oe.dataset = o.dataset and oe.version = o.version and oe.stage = 'embeddings'
join embeddings_32 e on e.dataset = o.dataset and e.version = oe.output_version and e.entity_key = c.entity_key
join segments s on s.dataset = o.dataset and s.version = o.version and s.entity_key = c.entity_key
where o.stage = 'segments' and o.version = {} order by 1"""


def rows_of(project: Project, version: int) -> dict[str, Any]:
    return {key: rest for key, *rest in warehouse(project, ROWS.format(version))}


def edited(frame: pl.DataFrame, ids: list[int], **values: Any) -> pl.DataFrame:
    change = [pl.when(pl.col("id").is_in(ids)).then(pl.lit(v)).otherwise(pl.col(k)).alias(k) for k, v in values.items()]
    return frame.with_columns(change)


def small_change() -> pl.DataFrame:
    """Of 60 customers 3 are new, 2 changed and 1 gone; one of the new reads like one that was there."""
    frame = edited(customers(), [4, 5], age=31)
    new = customers(63)[60:]
    new = new.with_columns(age=pl.when(pl.col("id") == 61).then(customers()["age"][0]).otherwise(pl.col("age") + 40))
    new = new.with_columns(note=pl.when(pl.col("id") == 61).then(pl.lit(customers()["note"][0])).otherwise("note"))
    return pl.concat([frame.filter(pl.col("id") != 7), new])


def test_a_small_change_refreshes_and_unchanged_rows_stay_to_the_last_bit(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    first = run()
    assert first["refresh_plan"]["decision"] == "retrain"
    before = rows_of(project, 1)
    write_dataset(frame=small_change())
    metadata = run()
    plan = metadata["refresh_plan"]
    assert plan["decision"] == "refresh"
    assert (plan["rows_new"], plan["rows_changed"], plan["rows_gone"]) == (3, 2, 1)
    # Customer 61 reads like customer 1, so that 4 texts are new at most.
    assert 0 < plan["texts_embedded"] <= 4
    assert metadata["embeddings"]["texts_embedded"] == plan["texts_embedded"]
    assert "version 1" in metadata["adapter"]["made_by"]
    assert "version 1" in metadata["text_corpus"]["text_fitted"]
    after = rows_of(project, 2)
    changed = {"4", "5", "61", "62", "63"}
    assert set(after) == (set(before) - {"7"}) | changed
    unchanged = set(after) - changed
    assert len(unchanged) == 57
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}
    assert after["61"][:4] == before["1"][:4]
    assert {after[key][2] for key in after} <= {before[key][2] for key in before}
    assert published(project, "select count(*), count(distinct entity_key), min(version) from segments") == [
        (62, 62, 2)
    ]
    (reason,) = published(project, "select reason from publish_log where version = 2")[0]
    assert "3 new, 2 changed and 1 gone rows" in reason
    assert "refreshed with the training of version 1" in reason
    # Rows go, and the others are as they were trained with: nothing is read and nothing is placed.
    write_dataset(frame=customers(57))
    plan = run()["refresh_plan"]
    assert (plan["decision"], plan["texts_embedded"], plan["rows_gone"]) == ("refresh", 0, 6)
    assert rows_of(project, 3)["4"][:4] == before["4"][:4]


@pytest.mark.slow
def test_history_and_transitions_say_who_was_where_when(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    write_dataset(frame=small_change())
    run()
    write_dataset(frame=customers())
    # What comes back was read before: no text is embedded again, and it is where it was to the last bit.
    assert run()["refresh_plan"]["texts_embedded"] == 0
    first, third = ({key: rest[:4] for key, rest in rows_of(project, version).items()} for version in (1, 3))
    assert first == third
    # The open stays are the published segments.
    open_stays = "select entity_key, segment_id, segment_name from segment_history where valid_to is null order by all"
    assert published(project, open_stays) == published(
        project, "select entity_key, segment_id, segment_name from segments order by all"
    )
    stays = published(
        project, "select from_version, to_version from segment_history where entity_key = '7' order by from_version"
    )
    assert stays == [(1, 2), (3, None)]
    assert published(project, "select from_version, to_version from segment_history where entity_key = '62'") == [
        (2, 3)
    ]
    overlapping = """select count(*) from segment_history a join segment_history b on a.dataset = b.dataset
        and a.entity_key = b.entity_key and a.valid_from < b.valid_from and coalesce(a.valid_to, 'infinity') > b.valid_from"""
    assert published(project, overlapping) == [(0,)]
    # Every publish moves all rows that were and all that are, once each.
    counts = """select publish_id, sum(rows) filter (from_segment_id is not null), sum(rows) filter (to_segment_id is not null)
        from segment_transitions group by all order by all"""
    assert published(project, counts) == [(1, None, 60), (2, 60, 62), (3, 62, 60)]
    figures = json.loads(published(project, "select figures from publish_log where version = 3")[0][0])
    assert set(figures) >= {"silhouette", "gower_silhouette", "ari"}


@pytest.mark.slow
def test_edits_add_up_over_refreshes_until_they_retrain(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    frame = edited(customers(), list(range(1, 8)), note="called twice in winter")
    write_dataset(frame=frame)
    assert run()["refresh_plan"]["decision"] == "refresh"  # 7 of 60 rows
    frame = edited(frame, list(range(8, 13)), note="called once in winter")
    write_dataset(frame=frame)
    plan = run()["refresh_plan"]  # 5 of 60 more: 12 since the training
    assert plan["decision"] == "retrain"
    assert "20.0% of rows are new or changed since the last training" in plan["reasons"]
    # The count begins anew.
    write_dataset(frame=edited(frame, [20], age=33))
    assert run()["refresh_plan"]["rows_since_training"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.with_columns(city=pl.lit("Rome")), "column added: city (VARCHAR)"),
        (lambda f: f.drop("note"), "column dropped: note (VARCHAR)"),
        (lambda f: f.with_columns(pl.col("age").cast(pl.Float64)), "column retyped: age (BIGINT to DOUBLE)"),
    ],
)
def test_a_schema_change_of_a_used_column_retrains(
    project: Project, write_dataset: DatasetWriter, run: Run, change: Any, reason: str
) -> None:
    write_dataset()
    run()
    write_dataset(frame=change(customers()))
    plan = run()["refresh_plan"]
    assert plan["decision"] == "retrain"
    assert reason in plan["reasons"]


@pytest.mark.slow
def test_a_schema_change_of_a_column_that_is_not_used_does_not(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    write_dataset(frame=customers().with_columns(email=pl.lit(1)))
    plan = run()["refresh_plan"]
    assert (plan["decision"], plan["rows_changed"], plan["texts_embedded"]) == ("refresh", 0, 0)
    assert published(project, "select distinct email from customers_segmented") == [(1,)]


@pytest.mark.slow
def test_segments_that_shift_in_size_retrain(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    policy = "refresh: {changed_share: 1.0, beyond_rows: 1000}\n"
    write_dataset(extra=policy)
    run()
    # Most students leave: no row is new, and the sizes are another.
    frame = customers().filter((pl.col("kind") != "S") | (pl.col("id") < 8))
    write_dataset(frame=frame, extra=policy)
    plan = run()["refresh_plan"]
    assert plan["decision"] == "retrain"
    assert "population stability index" in plan["reasons"]
    assert plan["psi"] > 0.2
    assert (plan["rows_new"], plan["rows_changed"]) == (0, 0)


@pytest.mark.slow
def test_new_rows_beyond_their_segments_retrain(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    policy = "refresh: {{changed_share: 1.0, psi: 100, beyond_rows: {}}}\n"
    write_dataset(extra=policy.format(9))
    run()
    strange = customers(69)[60:].with_columns(note=pl.format("{} ΩΩΩ 0x7f {}", "id", "id"), job=pl.lit("%%%"))
    write_dataset(frame=pl.concat([customers(), strange]), extra=policy.format(10))
    assert run()["refresh_plan"]["decision"] == "refresh"  # 9 new rows are too few to tell
    write_dataset(frame=pl.concat([customers(), strange]), extra=policy.format(9))
    plan = run()["refresh_plan"]
    assert plan["decision"] == "retrain"
    assert "of 9 new rows lie beyond their segment" in plan["reasons"]


@pytest.mark.slow
def test_the_policy_and_the_command_come_before_drift(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset(extra="refresh: {retrain: never}\n")
    assert run()["refresh_plan"]["decision"] == "retrain"  # there is nothing to refresh
    half = edited(customers(), list(range(1, 31)), age=50)
    write_dataset(frame=half, extra="refresh: {retrain: never}\n")
    assert run()["refresh_plan"]["decision"] == "refresh"
    assert run(retrain=True)["refresh_plan"]["decision"] == "retrain"
    write_dataset(frame=half, extra="refresh: {retrain: always}\n")
    assert run()["refresh_plan"]["decision"] == "refresh"  # nothing changed
    write_dataset(frame=edited(half, [1], age=51), extra="refresh: {retrain: always}\n")
    assert run()["refresh_plan"]["decision"] == "retrain"


@pytest.mark.slow
def test_rows_are_read_as_those_that_stand_whatever_the_settings_say(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    never = "refresh: {retrain: never}\n"
    write_dataset(extra=never)
    run()
    before = published(project, "select entity_key, segment_id, confidence from segments order by all")
    # New rows that read like old ones, but for their key.
    twins = customers()[:6].with_columns(id=pl.col("id") + 1000, age=pl.col("age") + 1)
    write_dataset(frame=pl.concat([customers(), twins]), extra=never + "embedding: {pooling: last, layer: 0}\n")
    metadata = run()
    assert metadata["refresh_plan"]["decision"] == "refresh"
    assert "settings of embedding changed, but refresh.retrain is never" in metadata["refresh_plan"]["reasons"]
    after = published(project, "select entity_key, segment_id, confidence from segments order by all")
    assert set(before) <= set(after)
    known = {key: segment for key, segment, _ in before}
    assert all(segment == known[str(int(key) - 1000)] for key, segment, _ in after if int(key) > 1000)


@pytest.mark.slow
def test_changed_settings_retrain_with_what_they_leave_standing(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    file = write_dataset()
    run()
    file.write_text(file.read_text().replace("k: 3", "k: 4"))
    metadata = run()
    assert metadata["refresh_plan"]["decision"] == "retrain"
    assert "settings of clustering changed" in metadata["refresh_plan"]["reasons"]
    # The same rows and settings of the model: it is not trained again.
    assert "version 1" in metadata["adapter"]["made_by"]
    assert "version 1" in metadata["embeddings"]["made_by"]
    assert published(project, "select count(distinct segment_id) from segments") == [(4,)]


@pytest.mark.slow
def test_ids_mean_the_same_and_are_never_used_again(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    file = write_dataset(extra="gate: {max_drop: 2}\n")  # two or six segments are worse than three, and shall pass
    run()
    names = "select entity_key, segment_id, segment_name from segments order by all"
    before = published(project, names)
    # The same rows trained anew: the segments are the same, whatever number k-means gave them.
    file.write_text(file.read_text() + "seed: 9\n")
    run(retrain=True)
    now = {k: i for k, i, _ in published(project, names)}
    was = {k: i for k, i, _ in before}
    assert sum(now[k] == was[k] for k in was) > 50
    ids = set(now.values())
    # More segments, then fewer, then more: what comes later never takes the number of what was.
    seen = set(was.values()) | ids
    for k in (6, 2, 6):
        file.write_text(file.read_text().replace(f"k: {k_of(file)}", f"k: {k}"))
        run()
        current = {i for (i,) in published(project, "select distinct segment_id from segments")}
        kept = published(
            project,
            "select count(*) from segment_transitions where from_segment_id = to_segment_id"
            " and publish_id = (select max(publish_id) from publish_log)",
        )
        assert kept[0][0] >= 1
        fresh = current - ids
        assert not fresh & seen
        seen |= current
        ids = current


def k_of(file: Any) -> int:
    return int(file.read_text().split("k: ")[1].split("}")[0])


def test_a_failed_gate_leaves_the_published_version(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset()
    run()
    bytes_before = project.published.read_bytes()
    write_dataset(frame=small_change(), extra="gate: {min_segment_size: 30}\n")
    with pytest.raises(
        ErasmoError, match=r"version 2 of 'customers'.*segments_are_large_enough.*gate.min_segment_size 30"
    ):
        run()
    assert project.published.read_bytes() == bytes_before
    results = dict(warehouse(project, "select check_name, passed from check_results where version = 2"))
    assert results.pop("segments_are_large_enough") is False
    assert all(results.values())
    with pytest.raises(ErasmoError, match="failed at the gate"):
        settings = {"customers": load_dataset(project, "customers")}
        publish(project, settings, "customers", 2, run_id="x", reason="by hand")
    assert project.published.read_bytes() == bytes_before
    write_dataset(frame=small_change())
    run()
    assert published(project, "select distinct version from segments") == [(3,)]


@pytest.mark.slow
def test_floors_and_missing_checks_block(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset(
        extra="gate: {floors: {ari: 1.01, davies_bouldin: 0.0, tree_accuracy: 1.01, separation: 0, separation_p: 0}}\n"
    )
    with pytest.raises(
        ErasmoError, match=r"floors_hold.*ari is .* at least 1.01.*davies_bouldin is .* at most 0"
    ) as bad:
        run()
    assert "tree_accuracy is 1 (gate.floors at least 1.01)" in str(bad.value)
    assert "separation_p is 0.005 (gate.floors at most 0)" in str(bad.value)
    assert "separation is" not in str(bad.value)
    assert not project.published.exists()
    write_dataset()
    run()
    with warehouse_open(project) as con:
        con.execute("DELETE FROM check_results WHERE version = 2 AND check_name = 'floors_hold'")
    with pytest.raises(ErasmoError, match="without the checks floors_hold"):
        publish(project, readable_datasets(project), "customers", 2, run_id="x", reason="by hand")


def warehouse_open(project: Project) -> Any:
    from erasmo_dagster.store.warehouse import open_warehouse

    return open_warehouse(project.warehouse)


@pytest.mark.slow
def test_segments_that_are_worse_on_the_same_rows_are_blocked(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    file = write_dataset()
    run()
    # Vectors of the last token alone know nothing of the groups.
    file.write_text(file.read_text() + "embedding: {pooling: last, layer: 0}\n")
    with pytest.raises(ErasmoError, match="no_worse_than_published: silhouette under Gower distance"):
        run()
    assert published(project, "select distinct version from segments") == [(1,)]
    file.write_text(file.read_text() + "gate: {max_drop: 2}\n")
    run()
    assert published(project, "select distinct version from segments") == [(3,)]


@pytest.mark.slow
def test_a_rollback_publishes_what_was_and_what_follows_builds_on_it(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    first = published(project, "select entity_key, segment_id, confidence from segments order by all")
    write_dataset(frame=small_change())
    run()
    settings = readable_datasets(project)
    with pytest.raises(ErasmoError, match="expected one that was published and is still kept: 1, 2"):
        rollback(project, settings, "customers", 9, reason="test")
    rollback(project, settings, "customers", 1, reason="test")
    assert published(project, "select entity_key, segment_id, confidence from segments order by all") == first
    assert published(project, "select version, reason from publish_log order by publish_id desc limit 1") == [
        (1, "test")
    ]
    assert warehouse(project, "select version, seen_version from published_versions") == [(1, 2)]
    run()
    assert published(project, "select distinct version from segments") == [(3,)]
    assert warehouse(
        project, f"select output_version from stage_outputs where version = 3 and stage = '{FITTED_STATE}'"
    ) == [(1,)]


@pytest.mark.slow
def test_a_version_that_was_compared_with_another_is_not_published(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    write_dataset(frame=small_change())
    run()
    write_dataset(frame=customers())
    run()
    settings = readable_datasets(project)
    rollback(project, settings, "customers", 1, reason="test")
    with pytest.raises(ErasmoError, match=r"version 3 .* compared with version 2, expected version 1"):
        publish(project, settings, "customers", 3, run_id="x", reason="late")


@pytest.mark.slow
def test_a_retired_dataset_is_hidden_and_comes_back_with_its_ids(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    write_dataset("other", customers(30))
    run()
    run("other")
    before = published(project, "select entity_key, segment_id from segments where dataset = 'customers' order by all")
    assert retire(project, readable_datasets(project), "customers", reason="its YAML is gone")
    assert not retire(project, readable_datasets(project), "customers", reason="again")
    assert published(project, "select distinct dataset from segments") == [("other",)]
    assert "customers_segmented" not in str(published(project, "show tables"))
    assert warehouse(project, "select count(*) from segments where dataset = 'customers'") == [(60,)]
    assert published(
        project, "select count(*) from segment_history where dataset = 'customers' and valid_to is null"
    ) == [(0,)]
    assert "refresh" in run()["refresh_plan"]["decision"]
    after = published(project, "select entity_key, segment_id from segments where dataset = 'customers' order by all")
    assert after == before


@pytest.mark.slow
def test_another_release_of_duckdb_is_no_change(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    write_dataset()
    run()
    with warehouse_open(project) as con:
        ((details,),) = con.execute("SELECT details FROM stage_outputs WHERE stage = 'source_table'").fetchall()
        older = json.loads(details)
        older["fingerprint"] |= {"duckdb": "1.0.0", "hash": "1"}
        con.execute(
            "UPDATE stage_outputs SET details = ?, inputs_hash = 'h' WHERE stage = 'source_table'", [json.dumps(older)]
        )
    with open_instance(project) as instance:
        ((seen,), _) = look_around(project, instance, {})
    assert not seen.changed
    metadata = run()
    assert metadata["source_table"]["made_by"] == "version 1, reused"
    assert "the source is as it was" in metadata["refresh_plan"]["reasons"]
    # From now on it is known by today's hash.
    stored = json.loads(
        warehouse(project, "select details from stage_outputs where version = 2 and stage = 'source_table'")[0][0]
    )
    assert stored["fingerprint"]["duckdb"] == duckdb.__version__
    write_dataset(frame=customers(61))
    with open_instance(project) as instance:
        ((seen,), _) = look_around(project, instance, {})
    assert seen.changed
