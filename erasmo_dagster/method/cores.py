"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores of this machine that the process may run on, within the share of time that a container leaves it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return cores


def use_cores() -> None:
    """Keep torch from starting more threads than there are cores, where they would wait for each other.

    Fewer that somebody has set stay as they are.
    """
    import torch

    if torch.get_num_threads() > (usable := usable_cores()):
        torch.set_num_threads(usable)
