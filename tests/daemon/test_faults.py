"""Runs that are killed, full disks and sources that go away lose nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.daemon
def test_no_kill_loses_a_row(tmp_path: Path) -> None:
    report = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--kills", "12", "--seed", "1", "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("kill ")]) == 12
    kinds = [case["kind"] for case in json.loads(report.read_text())["cases"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {"kill": 12, "full": 4, "source": 12}
