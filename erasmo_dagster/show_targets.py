"""What the command line prints of the targets beside the DuckDB file, as its log knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasmo_dagster.settings import Project
from erasmo_dagster.show_tables import legible, print_table
from erasmo_dagster.store.targets import read_standings

if TYPE_CHECKING:
    from rich.console import Console


def print_targets(out: Console, project: Project) -> list[str]:
    """A line a target: what its readers have, and why that is not the newest. Returns what is wrong, one entry each."""
    standings = read_standings(project)
    if not standings:
        return []
    lines = [
        (
            one.target,
            one.kind,
            "behind" if one.behind else "ok",
            "-" if one.release is None else one.release,
            (one.published_at or "-").replace("T", " "),
        )
        for one in standings
    ]
    print_table(out, ["target", "kind", "state", "release", "published (UTC)"], lines)
    for one in standings:
        if one.error:
            out.print(f"{one.target}: {legible(one.error)}", highlight=False, markup=False, soft_wrap=True)
    return [f"target {one.target} is behind" for one in standings if one.behind]
