"""The order in which models are built."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from erasmo_dagster.errors import ErasmoError


def build_order(refs: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> list[str]:
    """Models so that each comes after those it refers to, ties by name. Raises ErasmoError that names a ring."""
    waiting = {name: len(set(needed)) for name, needed in refs.items()}
    needed_by: dict[str, list[str]] = {name: [] for name in refs}
    for name, needed in refs.items():
        for other in set(needed):
            needed_by[other].append(name)
    ready = [name for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = heapq.heappop(ready)
        order.append(name)
        for other in needed_by[name]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, other)
    if len(order) < len(refs):
        ring = _ring(refs, set(refs) - set(order))
        held = ", ".join(files[name] for name in ring[1:])
        raise ErasmoError(
            f"Got models that refer to each other in a ring: {' -> '.join(ring)} ({held})",
            expected="models that refer to those before them",
            fix="take one of these references out",
        )
    return order


def _ring(refs: Mapping[str, Sequence[str]], stuck: set[str]) -> list[str]:
    """A ring among models that each refer to another one of them."""
    path = [min(stuck)]
    while True:
        following = min(name for name in refs[path[-1]] if name in stuck)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
