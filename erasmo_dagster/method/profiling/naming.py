"""Names of segments from their profiles: short, unique, the same for the same profile."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from erasmo_dagster.method.profiling.phrases import phrase, says_the_same
from erasmo_dagster.method.profiling.results import NOISE, SegmentProfile, TableProfile, Trait
from erasmo_dagster.method.profiling.shown import clean
from erasmo_dagster.settings.naming import NAME_LENGTH, NOISE_NAME

# A second trait is said where it is at least this share as strong as the first.
_WORTH_SAYING = 0.4
_MOST_PARTS = 8  # traits that names are tried with


def is_usable(name: str) -> str | None:
    """Why a proposed name cannot be used, None where it can."""
    if not name.strip():
        return "it is empty"
    if len(name.splitlines()) > 1 or "\n" in name or "\r" in name:
        return "it has more than one line"
    if len(name) > NAME_LENGTH:
        return f"it has {len(name)} characters, of {NAME_LENGTH} at most"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        return "it has control characters"
    return None


def propose_names(profile: TableProfile, taken: Mapping[int, str]) -> dict[int, str]:
    """Id -> name of every segment: at most ``NAME_LENGTH`` characters, one line, no two alike whatever their case.

    Segments in ``taken`` keep those names exactly, and no other segment gets one of them, whether or not its segment
    is still there. -1 is ``noise``. The others are named after their strongest traits: one or two, of different
    columns; a third, other traits, and in the end a number only where the name would not be their own.
    """
    used = {_key(name) for name in taken.values()} | {_key(NOISE_NAME)}
    names: dict[int, str] = {}
    for segment in profile.segments:
        if segment.segment_id == NOISE:
            names[NOISE] = NOISE_NAME
        elif segment.segment_id in taken:
            names[segment.segment_id] = taken[segment.segment_id]
        else:
            name = _first_free(segment, used)
            used.add(_key(name))
            names[segment.segment_id] = name
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _first_free(segment: SegmentProfile, used: set[str]) -> str:
    first = None
    for name in _candidates(segment):
        if _key(name) not in used and is_usable(name) is None:
            return name
        first = first or name
    plain = f"segment {segment.segment_id}"
    base = first if first and is_usable(first) is None else plain
    number = 1
    while True:
        number += 1
        mark = f" ({number})"
        name = clean(base, NAME_LENGTH - len(mark)) + mark
        if _key(name) not in used:
            return name


def _candidates(segment: SegmentProfile) -> Iterator[str]:
    """Names from the one to be preferred on."""
    if not segment.traits:
        yield f"segment {segment.segment_id}"
        return
    parts = _columns_once(segment.traits)
    strongest = parts[0]
    seconds = parts[1:]
    if seconds and abs(seconds[0].strength) >= _WORTH_SAYING * abs(strongest.strength):
        yield _joined([strongest, seconds[0]])
    else:
        yield _joined([strongest])
    if seconds:
        yield _joined([strongest, seconds[0]])
    for third in seconds[1:]:
        yield _joined([strongest, seconds[0], third])
    for second in seconds[1:]:
        yield _joined([strongest, second])
    # Further values of the same columns.
    for trait in segment.traits:
        if trait not in parts:
            yield _joined([strongest, trait])


def _columns_once(traits: tuple[Trait, ...]) -> list[Trait]:
    """The strongest trait of each column, without those that repeat a word."""
    kept: list[Trait] = []
    for trait in traits:
        if not any(trait.column == other.column or says_the_same(trait, other) for other in kept):
            kept.append(trait)
    return kept[:_MOST_PARTS]


def _joined(traits: list[Trait]) -> str:
    """Phrases in one line that has room for all of them; two missing columns share a word."""
    room = (NAME_LENGTH - 2 * (len(traits) - 1)) // len(traits)
    if len(traits) == 2 and all(trait.kind == "missing" and trait.strength > 0 for trait in traits):
        half = (NAME_LENGTH - len("missing  and ")) // 2
        return f"missing {clean(traits[0].label, half)} and {clean(traits[1].label, half)}"
    whole = [phrase(trait, NAME_LENGTH) for trait in traits]
    if len(joined := ", ".join(whole)) <= NAME_LENGTH:
        return joined
    return ", ".join(phrase(trait, room) for trait in traits)
