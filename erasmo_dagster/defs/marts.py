"""The marts of ``dbt_like_sql`` as Dagster sees them: one asset a model, one check a test, and the published tables.

Publishing builds them into the file that it swaps in, so they are materialized by every publish. The job
``build_marts`` builds them anew from what is published, after their SQL has changed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from erasmo_dagster.defs.resources import WarehouseResource, project_resources
from erasmo_dagster.defs.stages import OWNERS
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, readable_datasets
from erasmo_dagster.store.marts import read_test_results
from erasmo_dagster.store.publish import refresh_marts
from erasmo_dagster.store.sql_models import Build, BuiltModel, Model, SqlProject, Test, TestResult, load_sql_project
from erasmo_dagster.store.targets import send

JOB = "build_marts"
SOURCE = "erasmo"


def load_marts(project: Project) -> tuple[SqlProject | None, ErasmoError | None]:
    """The folder's models, and what is wrong with it: a fault in it hides the marts and nothing else."""
    try:
        return load_sql_project(project.sql_dir), None
    except ErasmoError as error:
        return None, error


@dataclass(frozen=True)
class MartDefinitions:
    """What the folder adds to the definitions."""

    assets: list[dg.AssetSpec | dg.AssetsDefinition]
    checks: list[dg.AssetChecksDefinition]
    job: Any  # of assets, or of an op where there are no marts


def mart_definitions(project: Project) -> MartDefinitions:
    """Assets, checks and the job of the folder; where it has a fault, the job alone, which fails with the reason."""
    sql, fault = load_marts(project)
    if sql is None or not sql.models:
        return MartDefinitions([], [], _job_without_marts(project, fault))
    marts, checks = _marts_asset(sql), _test_checks(sql)
    selection: dg.AssetSelection = dg.AssetSelection.assets(marts)
    if checks is not None:
        selection = selection | dg.AssetSelection.checks(checks)
    job = dg.define_asset_job(
        JOB, selection=selection, description="The published file anew, with the marts as their SQL is now."
    )
    return MartDefinitions([*_published_tables(sql), marts], [] if checks is None else [checks], job)


def report_marts(context: dg.AssetExecutionContext, project: Project, build: Build) -> None:
    """Say in Dagster that a publish has built the marts and run their tests."""
    sql, _ = load_marts(project)
    if sql is None:
        return
    models = {model.name: model for model in sql.models}
    for source in sql.sources:
        context.log_event(dg.AssetMaterialization(asset_key=dg.AssetKey([SOURCE, source.name])))
    for built in build.models:
        if built.name in models:
            key, metadata = model_key(models[built.name]), _metadata(sql, models[built.name], built)
            context.log_event(dg.AssetMaterialization(asset_key=key, metadata=metadata))
    _report_tests(context, sql, build)


def report_tests(context: dg.AssetExecutionContext, project: Project, build: Build) -> None:
    """Say in Dagster how the tests of the marts came out."""
    sql, _ = load_marts(project)
    if sql is not None:
        _report_tests(context, sql, build)


def _report_tests(context: dg.AssetExecutionContext, sql: SqlProject, build: Build) -> None:
    tests = {test.name: test for test in sql.tests}
    for result in build.tests:
        if result.name in tests:
            context.instance.report_runless_asset_event(_evaluation(sql, tests[result.name], result))


def model_key(model: Model) -> dg.AssetKey:
    """``staging/stg_segments``, ``marts/segment_overview``."""
    return dg.AssetKey([model.folder, model.name])


def _published_tables(sql: SqlProject) -> list[dg.AssetSpec]:
    """The tables that models may read, as publish writes them."""
    return [
        dg.AssetSpec(
            dg.AssetKey([SOURCE, source.name]),
            deps=[dg.AssetKey("published_segments")],
            description=source.description,
            group_name="published",
            kinds={"duckdb", "table"},
            owners=OWNERS,
            metadata={
                "dagster/table_name": source.name,
                "dagster/column_schema": dg.TableSchema(
                    columns=[
                        dg.TableColumn(c.name, c.data_type or "string", description=c.description)
                        for c in source.columns
                    ]
                ),
            },
        )
        for source in sql.sources
    ]


def _marts_asset(sql: SqlProject) -> dg.AssetsDefinition:
    by_name = {model.name: model for model in sql.models}

    @dg.multi_asset(name="marts", specs=[_spec(model, by_name) for model in sql.models])
    def marts(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
        """Every model of dbt_like_sql, built into the published file in one step."""
        project = warehouse.project
        build = refresh_marts(project, readable_datasets(project))
        for built in build.models:
            if built.name in by_name:
                model = by_name[built.name]
                yield dg.MaterializeResult(asset_key=model_key(model), metadata=_metadata(sql, model, built))
            else:
                context.log.info(f"{built.name} is new: reload the definitions to see it as an asset")
        # Last, so that the marts, which are in place, are told of whatever becomes of the copies.
        send(project)

    return marts


def _spec(model: Model, by_name: Mapping[str, Model]) -> dg.AssetSpec:
    deps = [model_key(by_name[name]) for name in model.refs] + [dg.AssetKey([SOURCE, name]) for name in model.sources]
    return dg.AssetSpec(
        model_key(model),
        deps=deps,
        description=f"{model.description}\n\n```sql\n{model.path.read_text().strip()}\n```",
        group_name=model.folder,
        kinds={"duckdb", "sql", model.materialized},
        owners=OWNERS,
        code_version=hashlib.sha256(model.sql.encode()).hexdigest()[:12],
        metadata={
            "dagster/table_name": model.name,
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(c.name, c.data_type or "string", description=c.description) for c in model.columns
                ]
            ),
        },
    )


def _metadata(sql: SqlProject, model: Model, built: BuiltModel) -> dict[str, Any]:
    described = {column.name: column.description for column in model.columns}
    folders = {other.name: model_key(other) for other in sql.models}
    lineage = {
        column: [
            dg.TableColumnDep(folders[table] if kind == "model" else dg.AssetKey([SOURCE, table]), name)
            for kind, table, name in found
            if kind == "source" or table in folders
        ]
        for column, found in built.lineage.items()
    }
    return {
        "dagster/row_count": built.rows,
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, kind, description=described.get(name) or None)
                for name, kind in built.columns.items()
            ]
        ),
        "dagster/column_lineage": dg.TableColumnLineage({c: deps for c, deps in lineage.items() if deps}),
        "seconds": round(built.seconds, 3),
    }


def _tested_asset(sql: SqlProject, test: Test) -> dg.AssetKey:
    models = {model.name: model for model in sql.models}
    if test.model in models:
        return model_key(models[test.model])
    for name in test.sources:
        return dg.AssetKey([SOURCE, name])
    return model_key(sql.models[-1])


def _test_checks(sql: SqlProject) -> dg.AssetChecksDefinition | None:
    """The results as the published file has them; the tests themselves run where the file is built."""
    if not sql.tests:
        return None
    specs = [
        dg.AssetCheckSpec(test.name, asset=_tested_asset(sql, test), description=test.description or None)
        for test in sql.tests
    ]
    tests = {test.name: test for test in sql.tests}

    @dg.multi_asset_check(name="mart_tests", specs=specs, can_subset=True)
    def mart_tests(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        """Every test of dbt_like_sql, as it came out when the published file was built."""
        project = warehouse.project
        if not project.published.is_file():
            raise ErasmoError(f"Got no published file {project.published}", fix="run a dataset first")
        results = {result.name: result for result in read_test_results(project.published)}
        for key in context.selected_asset_check_keys:
            result = results.get(key.name)
            if result is None:
                yield dg.AssetCheckResult(
                    passed=False,
                    asset_key=key.asset_key,
                    check_name=key.name,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="the published file was built before this test was written: run the job build_marts",
                )
                continue
            severity = _severity(tests[key.name])
            yield dg.AssetCheckResult(
                passed=result.passed,
                asset_key=key.asset_key,
                check_name=key.name,
                severity=severity,
                description=result.message,
                metadata=_figures(result),
            )

    return mart_tests


def _severity(test: Test) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if test.severity == "error" else dg.AssetCheckSeverity.WARN


def _figures(result: TestResult) -> dict[str, Any]:
    return {"failing_rows": result.failures, **({"datasets": ", ".join(result.datasets)} if result.datasets else {})}


def _evaluation(sql: SqlProject, test: Test, result: TestResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=_tested_asset(sql, test),
        check_name=test.name,
        passed=result.passed,
        severity=_severity(test),
        description=result.message,
        metadata=_figures(result),
        blocking=False,
    )


def _job_without_marts(project: Project, fault: ErasmoError | None) -> dg.JobDefinition:
    """``build_marts`` where there are no models: it builds the file without them, or says what is wrong with them."""

    @dg.op(name="build_file")
    def build_file(warehouse: WarehouseResource) -> None:
        refresh_marts(warehouse.project, readable_datasets(warehouse.project))
        send(warehouse.project)

    @dg.graph(name="build_file_without_marts")
    def graph() -> None:
        build_file()

    return graph.to_job(
        name=JOB,
        description=f"The marts cannot be built: {fault}" if fault else "The published file anew; there are no marts.",
        resource_defs=project_resources(project),
    )
