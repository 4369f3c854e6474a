"""What segments are, by the source's own columns: traits, a rule, the typical row, a name. Pure functions."""

from erasmo_dagster.method.profiling.counts import count_values
from erasmo_dagster.method.profiling.naming import is_usable, propose_names
from erasmo_dagster.method.profiling.profile import profile_segments
from erasmo_dagster.method.profiling.results import Rule, SegmentProfile, TableProfile, Trait
from erasmo_dagster.settings.naming import NAME_LENGTH

__all__ = [
    "NAME_LENGTH",
    "Rule",
    "SegmentProfile",
    "TableProfile",
    "Trait",
    "count_values",
    "is_usable",
    "profile_segments",
    "propose_names",
]
