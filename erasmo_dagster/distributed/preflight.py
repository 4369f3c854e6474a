"""Whether every node of a cluster has what its workers need: the same packages, and the shared folder."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erasmo_dagster.errors import ErasmoError

_PACKAGES = ("erasmo_dagster", "ray", "torch")
_NODE_ANSWERS = 600.0  # seconds: the first task on a node starts a process there, and a machine may be busy


def check_nodes(nodes: Sequence[Mapping[str, Any]], shared: Path, model: str | None = None) -> None:
    """Raise ErasmoError where a node has other packages, or does not see the folder ``shared`` or the path ``model``.

    ``nodes`` are Ray's, alive a moment ago, that workers fit on; one that is gone meanwhile is passed over. Nothing
    waits for a core.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    look = ray.remote(num_cpus=0, max_retries=2)(_look())
    shared.mkdir(parents=True, exist_ok=True)
    word, mark = secrets.token_hex(8), shared / f".seen-{secrets.token_hex(4)}"
    mark.write_text(word, encoding="ascii")
    try:
        asked = {
            look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(mark), _PACKAGES, model): node
            for node in nodes
        }
        until = time.monotonic() + _NODE_ANSWERS
        found = [(node, said) for ref, node in asked.items() if (said := _answer(ref, node, until)) is not None]
    finally:
        mark.unlink(missing_ok=True)
    here = _look()("", _PACKAGES, None)
    faults = [fault for node, there in found if (fault := _fault(node, there, here, word, shared, model))]
    if faults:
        raise ErasmoError(
            f"Got {faults[0]}" + (f" (and {len(faults) - 1} more nodes like it)" if len(faults) > 1 else ""),
            expected=f"on every node {_said(here)}, and {shared}{f' and {model}' if model else ''}",
            fix="install the same there, and share $ERASMO_HOME"
            f"{' and the model' if model else ''} between the machines",
        )


def _look() -> Callable[[str, Sequence[str], str | None], dict[str, str | None]]:
    """What a node is asked. A function within a function: Ray sends its code, so that it runs where nothing is."""

    def look(mark: str, packages: Sequence[str], model: str | None) -> dict[str, str | None]:
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
        found["model"] = model if model is not None and Path(model).expanduser().exists() else None
        return found

    return look


def _answer(ref: Any, node: Mapping[str, Any], until: float) -> dict[str, str | None] | None:
    """What a node said; None where it is gone. Raises ErasmoError where it says nothing ``until`` then, or fails."""
    import ray
    from ray import exceptions

    try:
        said: dict[str, str | None] = ray.get(ref, timeout=max(0.0, until - time.monotonic()))
    except (exceptions.NodeDiedError, exceptions.TaskUnschedulableError, exceptions.WorkerCrashedError):
        return None
    except exceptions.GetTimeoutError as error:
        raise ErasmoError(
            f"Got no answer from {_named(node)} in {_NODE_ANSWERS:.0f} s",
            expected="a node that begins to work",
            fix="see Ray's logs on that machine, or take it out of the cluster",
        ) from error
    except (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError) as error:
        cause = getattr(error, "cause", None) or error
        raise ErasmoError(
            f"Got {_named(node)} where no worker can begin ({first_line(cause)})",
            expected="a node that begins to work",
            fix="see Ray's logs on that machine, and whether the same packages are installed there",
        ) from error
    return said


def _fault(
    node: Mapping[str, Any],
    there: Mapping[str, str | None],
    here: Mapping[str, str | None],
    word: str,
    shared: Path,
    model: str | None = None,
) -> str | None:
    for package in ("python", *_PACKAGES):
        if there[package] is None:
            return f"{_named(node)} without {package}"
        if there[package] != here[package]:
            return f"{_named(node)} with {package} {there[package]}"
    if there["word"] != word:
        return f"{_named(node)} that does not see {shared}"
    return None if there["model"] == model else f"{_named(node)} that does not see the model {model}"


def _named(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) of Ray"


def first_line(error: BaseException) -> str:
    """What an error says first, for a message of one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _said(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("python", *_PACKAGES))
