"""Fine-tuning by workers of a Ray cluster: Ray Train runs the same training on each, which divide its steps.

What a lost worker costs is the steps since the last checkpoint, which is the training's own
(:mod:`erasmo_dagster.method.checkpoints`): Ray Train starts the workers anew, and they go on from there.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, begin_worker
from erasmo_dagster.distributed.interrupts import heeding_interrupts
from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.files import whole_file
from erasmo_dagster.method.adapter import FineTuning, TrainingResult
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.parallel import LostWorkerError, Together
from erasmo_dagster.rows import ClauseRows, save_clause_rows
from erasmo_dagster.settings import AdapterSettings

if TYPE_CHECKING:
    import torch

_LOOK = 1.0  # seconds between two looks at how far the first worker is
_TOLD = "progress.json"


def fine_tune_on_ray(
    rows: Sequence[Sequence[str]],
    base: LocalModel,
    settings: AdapterSettings,
    *,
    seed: int,
    out: Path,
    checkpoints: Path,
    provenance: dict[str, Any],
    attach: Callable[[], AbstractContextManager[Cluster]],
) -> TrainingResult:
    """As :func:`~erasmo_dagster.method.adapter.fine_tune`, by the workers of the cluster that ``attach`` gives.

    The weights are those of a training in one process but for rounding; where ``lora.dropout`` is more than 0, other
    units are dropped. A training that was begun by one way, or by another number of workers, is gone on with by the
    other. ``out``, ``checkpoints`` and the model are seen by every node. Nothing is started where ``out`` has the
    result already.

    Raises ErasmoError as ``fine_tune`` does, for what is wrong in a worker too, and for workers that are lost more
    often than ``execution.max_failures``.
    """
    job = FineTuning.of(rows, base, settings, seed=seed, out=out, checkpoints=checkpoints, provenance=provenance)
    if (found := job.finished()) is not None:
        return found
    job = replace(job, out=out.resolve(), checkpoints=checkpoints.resolve())  # workers have a folder of their own
    with attach() as cluster, _run_folder(job.checkpoints) as folder:
        file = _file_of(rows, folder)
        with _shown(folder / _TOLD):
            _fit(job, file, folder, cluster)
    if (found := job.finished()) is None:
        raise ErasmoError(
            f"Got no fine-tuned model in {out} from the workers of Ray",
            expected="a folder that they share with this machine",
            fix="set ERASMO_HOME to a folder that every machine of the cluster shares",
        )
    return found


@contextmanager
def _run_folder(checkpoints: Path) -> Iterator[Path]:
    """A folder beside the checkpoints for what is only of this run: the rows, Ray Train's notes, the progress."""
    folder = checkpoints.with_name(f"{checkpoints.name}.ray")
    # Ray Train would take what an earlier run has left for its own.
    shutil.rmtree(folder, ignore_errors=True)
    with disk_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _file_of(rows: Sequence[Sequence[str]], folder: Path) -> Path:
    """A file of the rows: theirs, or one in ``folder``."""
    if isinstance(rows, ClauseRows):
        return rows.file.resolve()
    file = folder / "rows.arrow"
    with disk_errors(folder):
        save_clause_rows(file, rows)
    return file


def _fit(job: FineTuning, file: Path, folder: Path, cluster: Cluster) -> None:
    """Have Ray Train run :func:`_train` by every worker until it ends, beginning anew where one is lost."""
    with _own_interrupts(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, on what it does itself
        trainer, workers = _trainer(job, file, folder, cluster)
        from ray.train import TrainingFailedError

        try:
            trainer.fit()
        except TrainingFailedError as error:
            reason = _reason(error, workers)
            if reason is None:
                raise
            raise reason from error


def _trainer(job: FineTuning, file: Path, folder: Path, cluster: Cluster) -> tuple[Any, int]:
    """Ray Train's trainer, and by how many workers."""
    from ray import train
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    class Shares(Backend):  # type: ignore[misc]  # mypy does not look into ray
        share_cuda_visible_devices = True

    class OwnGroup(TorchConfig):  # type: ignore[misc]
        backend_cls = Shares  # which sets up nothing: see _form_group

    # More workers than a step has rows would have nothing to do.
    workers = min(cluster.workers, job.settings.batch_size * job.settings.gradient_accumulation)
    gpus = cluster.worker["num_gpus"] if job.settings.device in ("auto", "cuda") else 0
    backend = "nccl" if gpus >= 1 else "gloo"  # NCCL refuses two workers on one GPU
    resources = {"CPU": cluster.worker["num_cpus"], "GPU": gpus, "memory": cluster.worker.get("memory", 0)}
    losses = cluster.settings.max_failures  # of each kind, over the whole training
    trainer = TorchTrainer(
        partial(_train, job, file, folder / _TOLD, cluster.worker["num_cpus"], backend),
        scaling_config=train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        torch_config=OwnGroup(backend=backend),
        run_config=train.RunConfig(
            name="train",
            storage_path=str(folder),
            failure_config=train.FailureConfig(
                max_failures=losses, controller_failure_limit=losses, max_preemption_failures=losses
            ),
            callbacks=[_stop_at_mistakes()],
            worker_runtime_env={"env_vars": _environment(gpus)},
        ),
    )
    return trainer, workers


def _train(job: FineTuning, file: Path, told: Path, cpus: int, backend: str) -> None:
    """What every worker runs. Where a worker was lost after the first one had saved, nothing is left to do."""
    begin_worker(cpus)
    import torch
    from ray import train

    context = train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    _form_group(backend, rank, size)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    workers = _TrainWorkers(rank, size, device, told)
    if not workers.agreed(int(job.finished() is not None)):
        with ClauseRows(file) as rows:
            job.run(rows, workers)
    # After an error Ray Train ends the process; here it could wait for workers that are no more.
    torch.distributed.destroy_process_group()


def _form_group(backend: str, rank: int, size: int) -> None:
    """Set up torch's process group by a store that listens on the address by which Ray knows the first worker's node.

    Ray Train would have torch make the store, which then listens on every address of the machine.
    """
    import ray
    import torch
    from ray.train.collective import broadcast_from_rank_zero
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # which torch documents

    listening = socket.create_server((ray.util.get_node_ip_address(), 0)) if rank == 0 else None
    host, port = broadcast_from_rank_zero(listening.getsockname()[:2] if listening else None)
    store = TCPStore(host, port, size, is_master=rank == 0, master_listen_fd=listening.detach() if listening else None)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


class _TrainWorkers(Together):
    """The workers of a run of Ray Train; the first writes its progress to the file ``told``."""

    def __init__(self, rank: int, size: int, device: torch.device, told: Path) -> None:
        super().__init__(rank, size, device)
        self._told = told

    def bar(self, description: str, total: int, unit: str, *, done: int) -> Any:
        """A bar that this process does not show; the first worker's is written down."""
        return _Written(self._told, total, done) if self.rank == 0 else super().bar(description, total, unit, done=done)

    def tell(self, figures: Mapping[str, float | None]) -> None:
        """Report to Ray Train, which logs it and counts that all workers came so far."""
        from ray import train

        train.report(dict(figures))


class _Written:
    """As much of a progress bar as a training uses, written to a file now and then."""

    def __init__(self, file: Path, total: int, n: int) -> None:
        self._file, self.total, self.n, self._loss, self._written = file, total, n, "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def set_postfix(self, *, loss: str, refresh: bool) -> None:
        self._loss = loss

    def update(self, n: int) -> None:
        self.n += n
        if time.monotonic() - self._written > _LOOK:
            self._write()

    def _write(self) -> None:
        with whole_file(self._file) as file:
            file.write_text(json.dumps({"total": self.total, "n": self.n, "loss": self._loss}), encoding="ascii")
        self._written = time.monotonic()


@contextmanager
def _shown(told: Path) -> Iterator[None]:
    """Show what the first worker writes to ``told`` while the block runs."""
    over = threading.Event()

    def follow() -> None:
        with progress.bar("fine-tuning on Ray", None, "tokens") as bar:
            ended = False
            while not ended:
                ended = over.wait(_LOOK)
                if told.is_file():
                    now = json.loads(told.read_bytes())
                    bar.total = now["total"]
                    bar.set_postfix(loss=now["loss"], refresh=False)
                    bar.update(now["n"] - bar.n)

    follower = threading.Thread(target=follow, name="progress", daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Let an interrupt be one, after Ray Train has ended its workers: its own handler of SIGINT exits, and stays."""
    with heeding_interrupts():
        try:
            yield
        except SystemExit:
            raise KeyboardInterrupt from None


def _environment(gpus: float) -> dict[str, str]:
    """What the workers have in their environment beside what all on the cluster have."""
    import ray

    own = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}  # torch takes a GPU where it sees one
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback and all(node["NodeManagerAddress"].startswith("127.") for node in ray.nodes()):
        # Where they listen to the other workers.
        own |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return own


def _stop_at_mistakes() -> Any:
    """Have Ray Train give up where a worker raised an ErasmoError: what a user must mend fails again."""
    from ray.train import UserCallback

    class StopAtMistakes(UserCallback):  # type: ignore[misc]  # mypy does not look into ray
        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, ErasmoError):
                    raise error

    return StopAtMistakes()


def _reason(error: Any, workers: int) -> Exception | None:
    """What Ray Train's error is about: a mistake of the user's, or a worker that was lost; None for a fault of ours."""
    from ray.exceptions import RayActorError

    cause = getattr(error, "controller_failure", None)
    failures = list(getattr(error, "worker_failures", {}).values())
    for one in (*failures, cause):
        if isinstance(one, ErasmoError):
            return one
        if isinstance(lost := getattr(one, "health_check_failure", None), Exception):
            return lost
    if "WorkerGroupStartup" in type(cause).__name__:
        return ErasmoError(
            f"Got no room on the Ray cluster for {workers} workers at once",
            expected="resources that nothing else holds",
            fix="lower `execution.workers`, or wait until the cluster is free",
        )
    # Those that are left may say so before Ray knows; of a machine that is being taken away Ray says so itself.
    if (failures and all(map(_is_loss, failures))) or hasattr(error, "preemption_info"):
        gone: Exception = RayActorError(error_msg=str(failures[0] if failures else error))
        return gone
    return None


def _is_loss(failure: Exception) -> bool:
    return isinstance(failure, LostWorkerError) or "HealthCheckTimeout" in type(failure).__name__
