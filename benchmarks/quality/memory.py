"""The most memory that this process has held while something ran."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from erasmo_dagster.peak_memory import PeakMemory

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_MIB = 2**20
_SECONDS = 0.05  # between two looks where the system does not keep the peak
_reset = False  # whether the system's peak is of this block alone


class Peak:
    """The peak of resident memory in MiB while the context is open, what was there before included.

    The system's own peak where it can be set back (Linux, ``clear_refs``), else that of samples.
    """

    def __init__(self) -> None:
        self._sampled: PeakMemory | None = None
        self._mb = 0.0

    def __enter__(self) -> Peak:
        global _reset
        _reset = set_back()
        if not _reset:
            self._sampled = PeakMemory(_SECONDS)
            self._sampled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampled is None:
            self._mb = system_peak() or resident()
        else:
            self._sampled.__exit__()
            self._mb = self._sampled.bytes / _MIB

    @property
    def mb(self) -> float:
        """MiB, once the context has ended."""
        return self._mb


def so_far() -> float:
    """MiB of the peak since the open :class:`Peak` began; of now where the system does not keep it."""
    return (system_peak() if _reset else None) or resident()


def set_back() -> bool:
    """Set the system's peak back to what is held now; whether that is permitted."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return system_peak() is not None


def system_peak() -> float | None:
    """MiB of the system's own peak (VmHWM), None where it keeps none."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def resident() -> float:
    """MiB held now."""
    return float(psutil.Process().memory_info().rss / _MIB)
