"""Threads within what a container leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasmo_dagster.method import cores


@pytest.mark.parametrize(
    ("limit", "expected"), [("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 8)]
)
def test_a_container_has_the_cores_of_its_quota(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit, encoding="ascii")
    monkeypatch.setattr(cores, "_QUOTA", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.usable_cores() == expected


def test_torch_gets_no_more_threads_than_cores_and_keeps_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(cores, "usable_cores", lambda: 2)
        cores.use_cores()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        cores.use_cores()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
