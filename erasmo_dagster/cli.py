"""The ``erasmo`` command. Each command asks the store or drives Dagster, and prints; nothing else happens here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from erasmo_dagster.cli_experiments import app as experiments
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.quiet_exit import quiet_exit

app = typer.Typer(
    help="Segments from tables, by language models, in DuckDB.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experiments, name="experiment")
_INTERRUPTED = 130
out = Console()
err = Console(stderr=True)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to make; it must be empty or absent.")]) -> None:
    """Make a project folder: datasets/, dbt_like_sql/, workspace.yaml."""
    from erasmo_dagster.template import create_project

    root = create_project(folder)
    out.print(f"Made a project in {root}. Next:", highlight=False)
    out.print(f"  cd {root}\n  erasmo add FILE --key COLUMN\n  erasmo run NAME", highlight=False)


@app.command()
def add(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV, Parquet, JSON lines, DuckDB, SQLite or text file; or '${VARIABLE}', which holds the URL of "
            "a PostgreSQL database."
        ),
    ],
    key: Annotated[
        list[str], typer.Option(help="Column that names a row; give it again for a key of several columns.")
    ] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default from the file's name.")] = None,
    table: Annotated[str | None, typer.Option(help="Table in a DuckDB, SQLite or PostgreSQL database.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with known groups, shown to the metrics alone.")] = None,
) -> None:
    """Describe a table in datasets/NAME.yaml, and say what was decided."""
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.settings import find_project, write_schema
    from erasmo_dagster.store.infer import infer_dataset, write_dataset

    project = find_project()
    inferred = infer_dataset(file, key, project, name=name, table=table, label=label)
    path = write_dataset(project, inferred)
    write_schema(project)
    with open_instance(project):
        pass  # opening it gives every dataset its partition
    out.print(f"Wrote {path}:", highlight=False)
    for decision in inferred.decisions:
        out.print(f"  - {decision}", highlight=False, markup=False)
    out.print(f"Next: erasmo run {inferred.name}", highlight=False)


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="Datasets to run.")],
    retrain: Annotated[bool, typer.Option("--retrain", help="Train anew even where nothing changed.")] = False,
) -> None:
    """Take datasets from table to published segments, through Dagster."""
    from erasmo_dagster import progress
    from erasmo_dagster.method.quiet import quiet_libraries
    from erasmo_dagster.settings import find_project, load_dataset

    quiet_libraries()
    project = find_project()
    for name in names:
        load_dataset(project, name)  # a fault in any YAML shows before anything runs
    from erasmo_dagster.defs.instance import open_instance, run_dataset
    from erasmo_dagster.show import print_run

    with progress.on_terminal(), open_instance(project) as instance:
        for name in names:
            print_run(out, project, name, run_dataset(instance, project, name, retrain=retrain))


@app.command()
def status() -> None:
    """Say how every dataset is; exits with status 1 where one is stale, failing or blocked."""
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.defs.runs import end_dead_runs
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show import print_status

    project = find_project()
    with open_instance(project) as instance:
        end_dead_runs(instance)
        wrong = print_status(out, project, instance)
    if wrong:
        err.print("; ".join(wrong), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def versions(name: Annotated[str, typer.Argument(help="Dataset.")]) -> None:
    """List a dataset's versions: what was decided and why, their figures, and what the gate said."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_versions import print_versions

    print_versions(out, find_project(), name)


@app.command()
def diff(
    name: Annotated[str, typer.Argument(help="Dataset.")],
    first: Annotated[int, typer.Argument(help="The earlier version.")],
    second: Annotated[int, typer.Argument(help="The later version.")],
) -> None:
    """Compare two versions: rows, who moved between segments, figures."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_versions import print_diff

    print_diff(out, find_project(), name, first, second)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Dataset.")],
    to: Annotated[int, typer.Option("--to", help="Version to publish again; `erasmo versions NAME` lists them.")],
) -> None:
    """Publish an earlier version again; it stays until the source changes or the dataset is run."""
    from erasmo_dagster.settings import find_project, readable_datasets
    from erasmo_dagster.store.publish import rollback as publish_again
    from erasmo_dagster.store.targets import send

    project = find_project()
    done = publish_again(project, readable_datasets(project), name, to, reason="erasmo rollback")
    out.print(
        f"Published version {done.version} of {name}: {done.rows} rows, {done.segments} segments.", highlight=False
    )
    for sent in send(project):
        out.print(f"Target {sent.target} has release {sent.release}.", highlight=False)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Dataset.")]) -> None:
    """Take a dataset out of the published file at once; what the warehouse keeps of it goes with `erasmo gc`."""
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.defs.upkeep import remove_dataset
    from erasmo_dagster.settings import find_project

    project = find_project()
    with open_instance(project) as instance:
        for line in remove_dataset(project, instance, name):
            out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def gc() -> None:
    """Delete old versions, datasets that were removed, and what killed runs have left."""
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.defs.upkeep import collect_garbage
    from erasmo_dagster.settings import find_project

    project = find_project()
    with open_instance(project) as instance:
        for line in collect_garbage(project, instance):
            out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")]) -> None:
    """Copy the warehouse and the files of its versions; runs may go on meanwhile."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.store.backup import back_up

    done = back_up(find_project(), folder)
    versions = sum(map(len, done.versions.values()))
    out.print(f"Wrote {folder}: {versions} versions of {len(done.versions)} datasets.", highlight=False)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `erasmo backup` has made.")],
    replace: Annotated[bool, typer.Option("--replace", help="Set aside what is there.")] = False,
) -> None:
    """Bring a backup back, and publish what it says."""
    from erasmo_dagster.defs.backups import restore_project
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.settings import find_project

    project = find_project()
    with open_instance(project) as instance:
        for line in restore_project(project, instance, folder, replace=replace):
            out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def services(
    folder: Annotated[Path, typer.Argument(help="Folder to write to, such as ./services.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI on 127.0.0.1.")] = 3000,
    code_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the code location on 127.0.0.1.")] = 4266,
) -> None:
    """Write units by which systemd runs Dagster's webserver, daemon and code location."""
    from erasmo_dagster.defs.services import write_services
    from erasmo_dagster.settings import find_project

    for path in write_services(find_project(), folder, port=port, code_port=code_port):
        out.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    out.print("What to do with them: docs/deploy.md", highlight=False)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Dataset.")]) -> None:
    """Show a dataset's published segments and figures, and how to read them."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show import print_dataset

    print_dataset(out, find_project(), name)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="One DuckDB query over the published tables.")] = None,
    file: Annotated[Path | None, typer.Option(help="File that holds the query.")] = None,
    format: Annotated[str, typer.Option(help="table, csv or json.")] = "table",
    limit: Annotated[int, typer.Option(min=1, help="Rows that a table shows at most.")] = 100,
) -> None:
    """Query the published file, read-only."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show import print_query

    if (query is None) == (file is None):
        raise ErasmoError("Got a query and a file, or neither", expected="one of them", fix='erasmo sql "select ..."')
    if file is not None and not file.is_file():
        raise ErasmoError(f"Got no file {file}", expected="a file with a query")
    print_query(out, find_project(), query or file.read_text(), format=format, limit=limit)  # type: ignore[union-attr]


@app.command()
def build(
    above: Annotated[
        int | None, typer.Option(min=1, help="Number the release above this one: after a warehouse was restored.")
    ] = None,
) -> None:
    """Build the marts of dbt_like_sql/ into the published file, and run their tests; exits with 1 where one fails."""
    from erasmo_dagster.defs.instance import open_instance, run_marts
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_marts import print_marts
    from erasmo_dagster.store.releases import number_above

    project = find_project()
    if above is not None:
        number_above(project, above)
    with open_instance(project) as instance:
        run_marts(instance, project)
    if failed := print_marts(out, project):
        err.print("; ".join(failed), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Dataset.")],
    output: Annotated[
        Path | None, typer.Option("--out", help="File to write; by default NAME.html in this folder.")
    ] = None,
) -> None:
    """Write one HTML file on a dataset's segments, to read, to print and to send: it needs no network."""
    from erasmo_dagster.report import write_report
    from erasmo_dagster.settings import find_project

    path = write_report(find_project(), name, output or Path(f"{name}.html"))
    out.print(f"Wrote {path} ({path.stat().st_size / 1e3:.0f} kB).", highlight=False, soft_wrap=True)


@app.command()
def models() -> None:
    """List the base models that are on this machine."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show import print_models

    print_models(out, find_project())


@app.command()
def schema() -> None:
    """Print the JSON Schema of datasets/*.yaml, by which editors complete it."""
    from erasmo_dagster.settings import dataset_schema

    sys.stdout.write(dataset_schema())


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000) -> None:
    """Open Dagster's webserver and daemon on 127.0.0.1, until Ctrl-C."""
    from erasmo_dagster.defs.servers import serve
    from erasmo_dagster.settings import find_project

    raise typer.Exit(serve(find_project(), port))


@app.command()
def demo() -> None:
    """Run the two demo datasets from table to published segments, and show what came out."""
    from erasmo_dagster.demo import run_demo
    from erasmo_dagster.settings import find_project

    run_demo(out, find_project())


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry of the command: a fault that the user can mend is one line and status 1."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    quiet_exit()
    # Whoever ends the process otherwise than by Ctrl-C is answered alike; Dagster does the same while a step runs.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except ErasmoError as error:
        err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # as typer answers Ctrl-C
            err.print("interrupted; run the same command again and it goes on from what is done", highlight=False)
        raise


if __name__ == "__main__":
    main()
