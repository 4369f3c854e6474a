"""What an experiment ran on: processor, memory, system and the libraries that its figures depend on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    *("erasmo-dagster", "numpy", "polars", "scikit-learn", "scipy", "torch", "transformers", "peft"),
    *("sentence-transformers", "scikit-fuzzy", "openai"),
)


def machine() -> dict[str, str]:
    """This machine, a name and a text a line; nothing that tells whose it is."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "Processor": f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "System": f"{platform.system()}, Python {platform.python_version()}",
        "Software": ", ".join(f"{name} {number}" for name in _PACKAGES if (number := _version(name))),
    }


def _processor() -> str:
    """The processor's name, as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return next(filter(None, named), platform.processor() or platform.machine() or "unknown")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
