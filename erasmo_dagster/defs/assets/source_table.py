"""The raw table."""

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import OWNERS, begin_stage
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.sources import snapshot_source


@dg.asset(
    partitions_def=dataset_partitions, group_name="source", kinds={"duckdb", "parquet"}, owners=OWNERS, code_version="1"
)
def source_table(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per entity of the source, as it was at one moment: a snapshot that the whole run reads."""
    run = begin_stage(context, warehouse)
    path = snapshot_path(run.project, run.dataset, run.version)
    snapshot = snapshot_source(run.dataset, run.settings, run.project, path)
    hashed = run.hash_inputs(snapshot.fingerprint.digest, run.settings.key)
    output = run.reusable(hashed, lambda o: snapshot_path(run.project, run.dataset, o.version).is_file())
    if output is None:
        with warehouse.get_connection() as con:
            details = {
                "rows": snapshot.rows,
                "columns": snapshot.columns,
                "digest": snapshot.fingerprint.digest,
                "fingerprint": snapshot.fingerprint.model_dump(by_alias=True),
                "sensitive": list(run.settings.sensitive),
            }
            output = run.record(con, hashed, details)
    elif output.version != run.version:
        path.unlink()
    return run.result(
        output,
        {
            "dagster/row_count": snapshot.rows,
            "dagster/column_schema": dg.TableSchema(
                columns=[dg.TableColumn(name, kind) for name, kind in snapshot.columns.items()]
            ),
            "fingerprint": snapshot.fingerprint.digest,
            "key": ", ".join(run.settings.key),
        },
    )
