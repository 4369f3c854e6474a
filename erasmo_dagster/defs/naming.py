"""What the segments of a version are called: names of the YAML, names that they had, and new ones."""

from __future__ import annotations

from collections.abc import Sequence

from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.profiling import SegmentProfile, TableProfile, propose_names
from erasmo_dagster.method.proposals import ask_base_model, ask_endpoint, to_name, usable_names
from erasmo_dagster.settings import CausalLMOptions
from erasmo_dagster.store.names import published_names


def name_segments(run: StageRun, profile: TableProfile, *, forget: bool) -> tuple[dict[int, str], list[str]]:
    """Id -> name of every segment, and remarks for whoever looks at the run.

    A name in the YAML comes first; then the one that the segment was published with, which nobody else gets, its own
    segment gone or not, unless it is to ``forget`` them. A model that does not answer is a remark and no failure: the
    profile names the segment.
    """
    given = run.settings.naming.names
    wanted = {name.casefold() for name in given.values()}
    with run.warehouse.get_connection() as con:
        known = {} if forget else published_names(con, run.dataset)
    taken = {i: name for i, name in known.items() if name.casefold() not in wanted} | given
    remarks = []
    if unknown := sorted(set(given) - {segment.segment_id for segment in profile.segments} - set(known)):
        remarks.append(f"naming.names has segments that never were: {', '.join(map(str, unknown))}")
    fresh = to_name(profile, taken)
    if fresh and run.settings.naming.by != "profile":
        try:
            names, unused = usable_names(_ask(run, fresh), taken)
            taken |= names
            remarks += unused
        except ErasmoError as error:
            remarks.append(f"named by the profile: {error}")
    return propose_names(profile, taken), remarks


def _ask(run: StageRun, segments: Sequence[SegmentProfile]) -> dict[int, str]:
    settings = run.settings
    if settings.naming.by == "endpoint":
        return ask_endpoint(segments, settings.naming)
    encoder = settings.encoder
    reads = encoder if isinstance(encoder, CausalLMOptions) else None
    base = resolve(reads.model if reads else settings.adapter.base_model, run.project.models)
    try:
        return ask_base_model(segments, base, device=reads.device if reads else settings.adapter.device)
    finally:
        release_memory()
