"""A training by several processes is the training of one: in its weights, its decisions and what it leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasmo_dagster.method.adapter import FineTuning, TrainingResult, fine_tune
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import dropout_seed
from erasmo_dagster.method.checkpoints import Checkpoints
from erasmo_dagster.method.parallel import LostWorkerError, Together, divided
from erasmo_dagster.settings import AdapterSettings, EmbeddingSettings

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [
    [
        f"age is {20 + i % 50}",
        f"job is {('technician', 'retired', 'student')[i % 3]}",
        "note is " + "la " * (i * 7 % 40),
    ]
    for i in range(30)
]
FAST: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 4,
    "learning_rate": 3e-3,
    "eval_every": 2,
    "max_steps": 6,
    "patience": 50,
    "lora": {"rank": 4, "alpha": 8},
}
STOP = 5  # steps after which the interrupted trainings are


@dataclass(frozen=True)
class Case:
    rows: int = len(ROWS)
    settings: tuple[tuple[str, Any], ...] = ()
    interrupted: bool = False

    def job(self, base: LocalModel, folder: Path) -> tuple[list[list[str]], FineTuning]:
        rows = ROWS[: self.rows]
        settings = AdapterSettings(**{**FAST, **dict(self.settings)})
        places: dict[str, Any] = {"out": folder / "adapter", "checkpoints": folder / "checkpoints", "provenance": {}}
        return rows, FineTuning.of(rows, base, settings, seed=0, **places)


CASES = {
    "lora": Case(),
    "full": Case(settings=(("method", "full"), ("learning_rate", 1e-3))),
    "split": Case(settings=(("forward_tokens", 40), ("batch_size", 3), ("gradient_accumulation", 2))),
    # One sequence a step and one held out: always one of the workers has nothing to do.
    "few": Case(rows=3, settings=(("batch_size", 1), ("eval_fraction", 0.4))),
    "stops early": Case(
        settings=(("max_steps", None), ("epochs", 20), ("patience", 1), ("learning_rate", 3e-2), ("eval_every", 1))
    ),
    "resumed": Case(interrupted=True),
}


class Recorded(Together):
    """Keeps the weights as they were before the last step, and stops as a killed process would, but on all at once."""

    left: int | None = None
    seen: list[Any]

    def add_gradients(self, weights: Any) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        super().add_gradients(weights)
        self.left = None if self.left is None else self.left - 1
        self.seen = [weight.detach().clone() for weight in weights]


def begin(rank: int, size: int, folder: Path) -> None:
    """Be one of ``size`` processes."""
    import torch

    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=size)


def work(rank: int, size: int, base: LocalModel, folder: Path, names: list[str]) -> None:
    """One of ``size`` processes: it runs every case, and says how each ended for it."""
    import torch

    begin(rank, size, folder)
    for name in names:
        rows, job = CASES[name].job(base, folder / name)
        if CASES[name].interrupted:
            stopped = Recorded(rank, size, torch.device("cpu"))
            stopped.left = STOP
            with pytest.raises(KeyboardInterrupt):
                job.run(rows, stopped)
        workers = Recorded(rank, size, torch.device("cpu"))
        result = job.run(rows, workers)
        told = {"result": result.model_dump(), "weights": [float(w.double().sum()) for w in workers.seen]}
        (folder / name / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


def in_processes(target: Callable[..., None], size: int, *args: Any) -> None:
    """Run ``target(rank, size, *args)`` in ``size`` processes; all end well."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=target, args=(rank, size, *args), daemon=True) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(900)
    assert [process.exitcode for process in processes] == [0] * size


@pytest.fixture(scope="module")
def folder(models: dict[str, LocalModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have run all cases."""
    folder = tmp_path_factory.mktemp("two")
    in_processes(work, 2, models["llama"], folder, list(CASES))
    return folder


def told(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the first and the second process say of a case."""
    return [json.loads((folder / name / f"{rank}.json").read_text()) for rank in (0, 1)]


def vectors(base: LocalModel, adapter: Path | None) -> np.ndarray:
    from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder

    encoder = CausalLMEncoder(base, adapter, EmbeddingSettings(), device="cpu")
    return encoder.encode([", ".join(row) for row in ROWS])


@pytest.mark.parametrize("name", list(CASES))
def test_two_workers_are_as_one(name: str, base: LocalModel, folder: Path, tmp_path: Path) -> None:
    rows, job = CASES[name].job(base, tmp_path)
    alone = job.run(rows)
    first, second = (TrainingResult.model_validate(one["result"]) for one in told(folder, name))
    for result in (first, second):
        decided = ("steps", "epochs", "tokens", "rows", "eval_rows", "best_step", "stopped_by", "truncated_rows")
        assert [getattr(result, field) for field in decided] == [getattr(alone, field) for field in decided]
        assert [point.step for point in result.loss_curve] == [point.step for point in alone.loss_curve]
    curves = [[loss for p in one.loss_curve for loss in (p.train_loss, p.eval_loss) if loss] for one in (first, alone)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    there, here = vectors(base, folder / name / "adapter"), vectors(base, tmp_path / "adapter")
    assert np.abs(here - vectors(base, None)).max() > 1e-2
    assert np.abs(there - here).max() < 1e-4


@pytest.mark.parametrize("name", list(CASES))
def test_all_workers_have_the_same_weights_and_losses(name: str, folder: Path) -> None:
    first, second = told(folder, name)
    assert first["weights"] == second["weights"]
    curves = [one["result"]["loss_curve"] for one in (first, second)]
    assert curves[0] == curves[1]


def test_an_interrupted_training_ends_as_one_that_was_not(folder: Path) -> None:
    whole, parts = (folder / name / "adapter" / "adapter_model.safetensors" for name in ("lora", "resumed"))
    assert parts.read_bytes() == whole.read_bytes()
    results = [one["result"] for one in told(folder, "resumed")]
    assert [result["resumed_from"] for result in results] == [4, 4]


def test_only_the_result_is_left(folder: Path) -> None:
    for name in CASES:
        assert sorted(path.name for path in (folder / name).iterdir()) == ["0.json", "1.json", "adapter"]


def half(rank: int, size: int, base: LocalModel, folder: Path) -> None:
    """Two workers begin a training and are stopped."""
    import torch

    begin(rank, size, folder)
    rows, job = CASES["lora"].job(base, folder)
    workers = Recorded(rank, size, torch.device("cpu"))
    workers.left = STOP
    with pytest.raises(KeyboardInterrupt):
        job.run(rows, workers)
    torch.distributed.destroy_process_group()


def test_what_two_began_one_can_end(base: LocalModel, folder: Path, tmp_path: Path) -> None:
    in_processes(half, 2, base, tmp_path)
    rows, job = CASES["lora"].job(base, tmp_path)
    result = fine_tune(
        rows, base, job.settings, seed=0, out=job.out, checkpoints=job.checkpoints, provenance=job.provenance
    )
    assert result.resumed_from == 4
    assert np.abs(vectors(base, folder / "lora" / "adapter") - vectors(base, job.out)).max() < 1e-4


def late(rank: int, size: int, folder: Path) -> None:
    """The last of the processes comes late, and then is lost."""
    import torch

    begin(rank, size, folder)
    workers = Together(rank, size, torch.device("cpu"))
    assert workers.agreed(7 + rank) == 7
    if rank == size - 1:
        time.sleep(2)
        (folder / "checkpoints" / "step-3").rename(folder / "read")  # it reads what the first is about to remove
    Checkpoints(folder / "checkpoints", "key", workers).remove()
    if rank == size - 1:
        os._exit(0)
    with pytest.raises(LostWorkerError):
        workers.total(1.0)


def test_no_worker_goes_on_before_all_have_come(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)
    in_processes(late, 4, tmp_path)  # of three, the first of a broadcast waits for both others
    assert (tmp_path / "read").is_dir()
    assert not (tmp_path / "checkpoints").exists()


def test_a_step_is_divided_by_tokens() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(2, 200, size=64)]
    parts = divided(lengths, 3)
    assert sorted(position for part in parts for position in part) == list(range(64))
    sums = [sum(lengths[i] for i in part) for part in parts]
    assert max(sums) - min(sums) < min(lengths) + 5
    assert all(early < late for part in parts for early, late in pairwise(part))
    assert divided([7], 3) == [[0], [], []]
    assert divided([], 2) == [[], []]


def test_each_worker_drops_other_units() -> None:
    assert dropout_seed(1, 3, 0) == dropout_seed(1, 3)
    assert len({dropout_seed(1, step, worker) for step in range(3) for worker in range(3)}) == 9
