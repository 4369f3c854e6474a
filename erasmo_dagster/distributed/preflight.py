"""Whether every node of a cluster has what its workers need: the same packages, and the shared folder."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erasmo_dagster.errors import ErasmoError

_PACKAGES = ("erasmo_dagster", "ray", "torch")
_SECONDS = 600  # the first task on a node starts a process there, and a machine may be busy


def check_nodes(nodes: Sequence[Mapping[str, Any]], cpus: int, shared: Path) -> None:
    """Raise ErasmoError where a node that workers fit on has other packages, or does not see ``shared``.

    ``nodes`` are Ray's, alive a moment ago; one that is gone meanwhile is passed over. Nothing waits for a core.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    look = ray.remote(num_cpus=0, max_retries=2)(_look())
    shared.mkdir(parents=True, exist_ok=True)
    word, mark = secrets.token_hex(8), shared / f".seen-{secrets.token_hex(4)}"
    mark.write_text(word, encoding="ascii")
    try:
        asked = {
            look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(mark), _PACKAGES): node
            for node in nodes
            if node["Resources"].get("CPU", 0) >= cpus
        }
        found = [(node, said) for ref, node in asked.items() if (said := _answer(ref)) is not None]
    finally:
        mark.unlink(missing_ok=True)
    here = _look()("", _PACKAGES)
    faults = [fault for node, there in found if (fault := _fault(node, there, here, word, shared))]
    if faults:
        raise ErasmoError(
            f"Got {faults[0]}" + (f" (and {len(faults) - 1} more nodes like it)" if len(faults) > 1 else ""),
            expected=f"on every node {_said(here)}, and the folder {shared}",
            fix="install the same there, and share the folder ($ERASMO_HOME) between the machines",
        )


def _look() -> Callable[[str, Sequence[str]], dict[str, str | None]]:
    """What a node is asked. A function within a function: Ray sends its code, so that it runs where nothing is."""

    def look(mark: str, packages: Sequence[str]) -> dict[str, str | None]:
        import importlib.util
        import sys
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:2]))}
        for name in packages:
            try:
                there = importlib.util.find_spec(name) is not None
                # Without what comes after +, which says for which GPUs a package was built.
                found[name] = version(name.replace("_", "-")).partition("+")[0] if there else None
            except PackageNotFoundError:  # a source tree that was never installed
                found[name] = importlib.import_module(name).__version__
        try:
            found["word"] = Path(mark).read_text(encoding="ascii") if mark else None
        except OSError:
            found["word"] = None
        return found

    return look


def _answer(ref: Any) -> dict[str, str | None] | None:
    """What a node said; None where it is gone."""
    import ray
    from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError

    try:
        said: dict[str, str | None] = ray.get(ref, timeout=_SECONDS)
    except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
        return None
    return said


def _fault(
    node: Mapping[str, Any],
    there: Mapping[str, str | None],
    here: Mapping[str, str | None],
    word: str,
    shared: Path,
) -> str | None:
    name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) of Ray"
    for package in ("python", *_PACKAGES):
        if there[package] is None:
            return f"{name} without {package}"
        if there[package] != here[package]:
            return f"{name} with {package} {there[package]}"
    return None if there["word"] == word else f"{name} that does not see {shared}"


def _said(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("python", *_PACKAGES))
