"""Checkpoints belong to the run that began last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.checkpoints import Checkpoints


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    made = torch.optim.AdamW([weight])
    made.step()
    return made


def save(store: Checkpoints, step: int, optimizer: torch.optim.Optimizer) -> None:
    state: dict[str, Any] = {"step": step, "best_step": None}
    store.save(state, {"weight": torch.full((3,), float(step))}, optimizer)


def test_a_run_that_lives_on_changes_nothing_that_the_next_one_reads(
    tmp_path: Path, optimizer: torch.optim.Optimizer
) -> None:
    old = Checkpoints(tmp_path / "training", "key")
    assert old.latest() is None
    save(old, 2, optimizer)
    new = Checkpoints(tmp_path / "training", "key")
    found = new.latest()
    assert found is not None
    assert found["step"] == 2
    with pytest.raises(ErasmoError, match=r"^Got another run that trains with the checkpoints in .*training"):
        save(old, 4, optimizer)
    old.remove()
    assert new.weights(2)["weight"].tolist() == [2.0] * 3
    save(new, 4, optimizer)
    assert [path.name for path in (tmp_path / "training").glob("step-*")] == ["step-4"]
    new.remove()
    assert list(tmp_path.iterdir()) == []
