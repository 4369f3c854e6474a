"""Fine-tuning by Ray Train on a real cluster: the weights of one process, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.partitions import register_datasets
from erasmo_dagster.distributed import training
from erasmo_dagster.distributed.cluster import attached
from erasmo_dagster.distributed.training import fine_tune_on_ray
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import adapter
from erasmo_dagster.method.adapter import TrainingResult, fine_tune
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder
from erasmo_dagster.method.parallel import LostWorkerError
from erasmo_dagster.rows import ClauseRows, save_clause_rows
from erasmo_dagster.settings import AdapterSettings, EmbeddingSettings, Project
from tests.conftest import DatasetWriter, customers
from tests.ray_cluster import RayNodes
from tests.servers import erasmo
from tests.tiny_models import tiny_causal_lm

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_thread")]
_SIGINT = signal.getsignal(signal.SIGINT)  # the test process's own, which may ignore it

ROWS = [
    [
        f"age is {20 + i % 50}",
        f"job is {('technician', 'retired', 'student')[i % 3]}",
        "note is " + "la " * (i * 7 % 40),
    ]
    for i in range(40)
]
STEPS = 10
_EACH = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
FAST: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 4,
    "learning_rate": 3e-3,
    "eval_every": 2,
    "max_steps": STEPS,
    "patience": 50,
    "lora": {"rank": 4, "alpha": 8},
}


@pytest.fixture(scope="module", autouse=True)
def quick_reports() -> Iterator[None]:
    """Each evaluation is reported to Ray Train, which takes a report every two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_EACH, "0.1")
        yield


@pytest.fixture
def slow_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there is time to kill a worker."""
    monkeypatch.setenv(_EACH, "2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    folder = tmp_path_factory.mktemp("model")
    return resolve(f"path:{tiny_causal_lm(folder / 'tiny')}", folder)


def call(base: LocalModel, folder: Path, **settings: Any) -> dict[str, Any]:
    places: dict[str, Any] = {"out": folder / "adapter", "checkpoints": folder / "checkpoints"}
    return {
        "base": base,
        "settings": AdapterSettings(**{**FAST, **settings}),
        "seed": 0,
        **places,
        "provenance": {"dataset": "people"},
    }


def on_ray(
    nodes: RayNodes, base: LocalModel, folder: Path, failures: int = 3, workers: int = 2, **settings: Any
) -> TrainingResult:
    asked = nodes.settings(max_failures=failures, workers=workers)
    return fine_tune_on_ray(ROWS, **call(base, folder, **settings), attach=lambda: attached(asked, folder))


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def vectors(base: LocalModel, folder: Path) -> np.ndarray:
    encoder = CausalLMEncoder(base, folder / "adapter", EmbeddingSettings(), device="cpu")
    return encoder.encode([", ".join(row) for row in ROWS])


@pytest.fixture(scope="module")
def here(base: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, np.ndarray]:
    """The same training by the local engine, and its vectors."""
    folder = tmp_path_factory.mktemp("here")
    return fine_tune(ROWS, **call(base, folder)), vectors(base, folder)


@pytest.fixture(scope="module")
def undisturbed(nodes: RayNodes, base: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two workers have trained."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = on_ray(nodes, base, folder)
    assert result.resumed_from is None
    return folder


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do ``work`` in a thread while the block runs; what it raises is raised."""
    faults: list[BaseException] = []

    def caught() -> None:
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=caught)
    thread.start()
    try:
        yield
    finally:
        thread.join(600)
        assert faults == []


def until(condition: Callable[[], Any], seconds: float = 600) -> Any:
    over = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < over, "it did not come to that"
        time.sleep(0.05)
    return found


def trainers(nodes: RayNodes) -> list[int]:
    """Processes of Ray Train's workers."""
    found = []
    for process in nodes.processes():
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:  # it has ended
            continue
    return sorted(found)


def kill_one(nodes: RayNodes, folder: Path) -> None:
    """SIGKILL for one of the workers once there is a checkpoint of step 2."""
    until((folder / "checkpoints" / "step-2").is_dir)
    pids = trainers(nodes)
    assert len(pids) == 2
    heard = [c.laddr.ip for pid in pids for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert {address.removeprefix("::ffff:") for address in heard} == {"127.0.0.1"}
    os.kill(pids[0], signal.SIGKILL)


def kill_node(nodes: RayNodes, folder: Path) -> None:
    """The end of a machine that one of the workers is on, once there is a checkpoint of step 2."""
    until((folder / "checkpoints" / "step-2").is_dir)
    nodes.kill_worker(nodes.workers[0])


def test_two_workers_train_as_one_process_does(
    undisturbed: Path, base: LocalModel, here: tuple[TrainingResult, np.ndarray]
) -> None:
    result = TrainingResult.model_validate_json((undisturbed / "adapter" / "training.json").read_bytes())
    alone, expected = here
    assert (result.steps, result.tokens, result.best_step) == (alone.steps, alone.tokens, alone.best_step)
    assert result.eval_loss == pytest.approx(alone.eval_loss, rel=1e-4)
    np.testing.assert_allclose(vectors(base, undisturbed), expected, atol=1e-4)
    assert [path.name for path in undisturbed.iterdir()] == ["adapter"]  # neither checkpoints nor Ray's own notes


@pytest.mark.usefixtures("slow_reports")
def test_a_worker_that_is_killed_costs_no_more_than_steps(
    nodes: RayNodes, base: LocalModel, undisturbed: Path, tmp_path: Path
) -> None:
    with meanwhile(lambda: kill_one(nodes, tmp_path)):
        result = on_ray(nodes, base, tmp_path)
    assert result.resumed_from is not None
    assert result.resumed_from >= 2
    assert weights(tmp_path) == weights(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.usefixtures("slow_reports")
def test_a_node_too_many_is_one_line_and_the_local_engine_goes_on_from_there(
    nodes: RayNodes, base: LocalModel, tmp_path: Path, here: tuple[TrainingResult, np.ndarray]
) -> None:
    with (
        meanwhile(lambda: kill_node(nodes, tmp_path)),
        pytest.raises(ErasmoError, match=r"^Got a worker of Ray lost") as fault,
    ):
        on_ray(nodes, base, tmp_path, failures=0)
    nodes.add_worker()
    assert "\n" not in str(fault.value)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "checkpoints.run"}
    result = fine_tune(ROWS, **call(base, tmp_path))
    assert result.resumed_from is not None
    assert result.resumed_from >= 2
    np.testing.assert_allclose(vectors(base, tmp_path), here[1], atol=1e-4)


def test_what_a_user_must_mend_is_told_at_once(nodes: RayNodes, base: LocalModel, tmp_path: Path) -> None:
    # Were it tried again as a lost worker is, the test would not end.
    with pytest.raises(ErasmoError, match=r"^Got adapter\.lora\.targets \['c_attn'\].*q_proj") as fault:
        on_ray(nodes, base, tmp_path, failures=1000, workers=1, lora={"targets": ["c_attn"]})
    assert "\n" not in str(fault.value)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_result_that_is_there_starts_nothing(base: LocalModel, undisturbed: Path) -> None:
    def attach() -> Any:
        raise AssertionError

    before = weights(undisturbed)
    assert fine_tune_on_ray(ROWS, **call(base, undisturbed), attach=attach).steps == STEPS
    assert weights(undisturbed) == before
    with pytest.raises(ErasmoError, match="no rows"):
        fine_tune_on_ray([], **call(base, undisturbed), attach=attach)


def test_interrupts_are_this_process_own_again(undisturbed: Path) -> None:
    assert signal.getsignal(signal.SIGINT) == _SIGINT


def test_an_exit_at_an_interrupt_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), training._own_interrupts():
        raise SystemExit(0)


def test_progress_of_the_first_worker_is_shown_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "progress.json"
    with training._shown(told), training._Written(told, 2000, 500) as bar:
        bar.set_postfix(loss="1.234", refresh=False)
        bar.update(1000)
    shown = capfd.readouterr().err
    assert "fine-tuning on Ray: 100%" in shown  # what ends before its budget is whole
    assert "1.50k" in shown
    assert "loss=1.234" in shown


@pytest.mark.parametrize("count", [1, 256, 700])
def test_rows_come_out_of_a_file_as_they_went_in(count: int, tmp_path: Path) -> None:
    rows = [[f"a is {i}", *["é, ü is 1"] * (i % 3)] for i in range(count)]
    save_clause_rows(tmp_path / "rows.arrow", rows)
    with ClauseRows(tmp_path / "rows.arrow") as found:
        assert len(found) == count
        assert list(found) == rows
        assert found[-1] == rows[-1]
        assert training._file_of(found, tmp_path / "elsewhere") == tmp_path / "rows.arrow"


def test_the_asset_takes_the_engine_from_its_config(
    nodes: RayNodes, project: Project, write_dataset: DatasetWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset()
    monkeypatch.setattr(adapter.FineTuning, "run", None)  # nothing is trained in this process
    with open_instance(project) as instance:
        register_datasets(instance, project)
        job = build_definitions(project).resolve_job_def("segment_dataset")
        done = job.execute_in_process(
            partition_key="customers",
            instance=instance,
            run_config={"ops": {"adapter": {"config": {"engine": "ray", "address": nodes.address, "workers": 1}}}},
        )
    assert done.success
    (told,) = done.asset_materializations_for_node("adapter")
    assert "attached to, with 3 nodes: 1 worker of 1 CPU" in str(told.metadata["computed_on"].value)
    (told,) = done.asset_materializations_for_node("embeddings")
    assert "computed_on" not in told.metadata
    assert not list((project.artifacts / "customers" / "training").glob("*"))


def test_a_stopped_run_ends_its_workers_and_keeps_its_checkpoint(
    nodes: RayNodes, project: Project, tiny_model: Path
) -> None:
    customers().write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\ndrop: email\n"
        f"adapter: {{base_model: 'path:{tiny_model}', max_tokens: null, epochs: 100000, patience: 100000, eval_every: 5}}\n"
        f"execution: {{engine: ray, address: '{nodes.address}', gpus_per_worker: 0}}\n"
    )
    folder = project.artifacts / "customers" / "training"
    with erasmo(project, "run", "customers") as running:
        until(lambda: list(folder.glob("*/step-*")) or running.poll() is not None)
        running.send_signal(signal.SIGTERM)  # which is answered by what answers SIGINT
        out, err = running.communicate(timeout=300)
    assert running.returncode == 130, out + err
    assert err.splitlines()[-1] == "interrupted; run the same command again and it goes on from what is done"
    assert "Traceback" not in err
    until(lambda: not trainers(nodes))
    assert list(folder.glob("*/step-*"))
    assert not list(folder.glob("*.ray"))


def test_what_ray_train_tells_of_a_loss_is_one() -> None:
    from ray.exceptions import RayActorError
    from ray.train import WorkerGroupError

    def told(*failures: Exception) -> Exception | None:
        return training._reason(WorkerGroupError("", dict(enumerate(failures))), 2)

    # Ray itself may still wait for an answer of the one that is gone.
    assert isinstance(told(LostWorkerError("Connection closed by peer")), RayActorError)
    assert told(LostWorkerError("Connection closed by peer"), ZeroDivisionError()) is None
    mistake = ErasmoError("Got nothing")
    assert told(LostWorkerError("Connection closed by peer"), mistake) is mistake
