"""Dagster's entry: the definitions of the project that the process works in."""

import dagster as dg

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.quiet_exit import quiet_exit
from erasmo_dagster.settings import find_project


@dg.definitions
def defs() -> dg.Definitions:
    """What ``dagster dev -w workspace.yaml`` and the project's own commands load."""
    quiet_exit()
    return build_definitions(find_project())
