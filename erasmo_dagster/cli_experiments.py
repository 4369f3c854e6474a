"""``erasmo experiment``: grids of encoders, algorithms and tables, from one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Run grids of encoders, algorithms and tables, and compare what came out.", no_args_is_help=True)
out = Console()


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="YAML file, or the name of a ready-made experiment.")],
    full: Annotated[bool, typer.Option("--full", help="Whole tables, and what the file says under `full`.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder that ${DATA} in the file stands for.")] = None,
    only: Annotated[list[str], typer.Option(help="Only this dataset, encoder or algorithm; may be given again.")] = [],  # noqa: B006
    report: Annotated[Path | None, typer.Option("--out", help="HTML file to write on the results.")] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray, in place of the file's execution.engine.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, in place of the file's execution.address.")] = None,
    workers: Annotated[int | None, typer.Option(help="Cells at once on Ray, in place of execution.workers.")] = None,
) -> None:
    """Run the cells that are not done yet, publish the results and show them; Ctrl-C loses no finished cell."""
    from erasmo_dagster.experiments.run import run_experiment
    from erasmo_dagster.method.quiet import quiet_libraries
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_experiments import print_results, print_run, write_html

    quiet_libraries()
    project = find_project()
    execution = {"engine": engine, "address": address, "workers": workers}
    done = run_experiment(project, experiment, full=full, data=data, only=only, execution=execution)
    print_results(out, project, done.name)
    print_run(out, done)
    if report is not None:
        write_html(out, project, done.name, report, settings=done.settings, command=_command(experiment, full, data))
    if done.unexpected is not None:
        raise done.unexpected
    if done.nothing_done:
        raise typer.Exit(1)


@app.command("list")
def list_() -> None:
    """List the experiments that come with the package, and those with results."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_experiments import print_experiments

    print_experiments(out, find_project())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Experiment; whole runs end in -full.")],
    report: Annotated[Path | None, typer.Option("--out", help="HTML file to write on the results.")] = None,
) -> None:
    """Show an experiment's leaderboard."""
    from erasmo_dagster.settings import find_project
    from erasmo_dagster.show_experiments import print_results, write_html

    project = find_project()
    print_results(out, project, name)
    if report is not None:
        write_html(out, project, name, report)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Experiment; whole runs end in -full.")]) -> None:
    """Delete an experiment's results, and with the last of them what experiments keep of tables, texts and vectors."""
    from erasmo_dagster.experiments.run import remove_experiment
    from erasmo_dagster.settings import find_project

    cells = remove_experiment(find_project(), name)
    out.print(f"Removed {cells} cells of {name}.", highlight=False, markup=False)


def _command(experiment: str, full: bool, data: Path | None) -> str:
    return f"erasmo experiment run {experiment}" + (f" --data {data}" if data else "") + (" --full" if full else "")
