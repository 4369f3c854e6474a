"""The raw table."""

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.parts import remove_snapshot
from erasmo_dagster.store.sources import Fingerprint, Snapshot, is_unchanged, snapshot_source
from erasmo_dagster.store.versions import StageOutput, publications, stage_output


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="source",
    kinds={"duckdb", "parquet"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["source_table"],
)
def source_table(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per entity of the source, as it was at one moment: a snapshot that the whole run reads."""
    run = begin_stage(context, warehouse)
    path = snapshot_path(run.project, run.dataset, run.version)
    snapshot = snapshot_source(run.dataset, run.settings, run.project, path, in_parts=True)
    hashed = run.hash_inputs(snapshot.fingerprint.digest, run.settings.key, run.settings.sensitive)
    output = run.reusable(hashed, lambda o: snapshot_path(run.project, run.dataset, o.version).exists())
    details = {
        "rows": snapshot.rows,
        "columns": snapshot.columns,
        "digest": snapshot.fingerprint.digest,
        "fingerprint": snapshot.fingerprint.model_dump(by_alias=True),
        "sensitive": list(run.settings.sensitive),
        "key": list(run.settings.key),
    }
    if output is None and (same := _same_rows(run, snapshot)) is not None:
        output = run.link(StageOutput(run.stage, same.version, same.inputs_hash, details))
    if output is None:
        with warehouse.get_connection() as con:
            output = run.record(con, hashed, details)
    elif output.version != run.version:
        remove_snapshot(path)
    return run.result(
        output,
        {
            "dagster/row_count": snapshot.rows,
            "dagster/column_schema": dg.TableSchema(
                columns=[dg.TableColumn(name, kind) for name, kind in snapshot.columns.items()]
            ),
            "fingerprint": snapshot.fingerprint.digest,
            "rows_read": snapshot.rows_read,
            "key": ", ".join(run.settings.key),
        },
    )


def _same_rows(run: StageRun, snapshot: Snapshot) -> StageOutput | None:
    """The published version's source, where another release of DuckDB hashes the same rows otherwise."""
    with run.warehouse.get_connection() as con:
        published = publications(con).get(run.dataset)
        output = stage_output(con, run.dataset, published.version, run.stage) if published else None
    if output is None:
        return None
    stored = Fingerprint.model_validate(output.details["fingerprint"])
    roles = (list(run.settings.key), list(run.settings.sensitive))
    if snapshot.fingerprint.same_scheme(stored) or roles != (output.details.get("key"), output.details["sensitive"]):
        return None
    path = snapshot_path(run.project, run.dataset, output.version)
    return output if is_unchanged(snapshot.fingerprint, stored, path) else None
