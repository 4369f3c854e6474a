"""Attaching to a cluster, starting one, and what its nodes must have."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from erasmo_dagster.distributed import preflight
from erasmo_dagster.distributed.cluster import Cluster, attached
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ExecutionSettings
from tests.ray_cluster import RayNodes

pytestmark = pytest.mark.ray
HERE = {"python": "3.11", "erasmo_dagster": "1.0", "ray": "2.60.0", "torch": "2.13.0", "word": "w"}
NODE = {"NodeManagerHostname": "box", "NodeManagerAddress": "10.0.0.2"}


def test_a_cluster_is_attached_to_and_left_running(nodes: RayNodes, tmp_path: Path) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    with attached(nodes.settings(workers=1, cpus_per_worker=1), tmp_path) as cluster:
        assert cluster == Cluster(3, 1, {"num_cpus": 1, "num_gpus": 0}, False, None, cluster.settings)
        assert "attached to, with 3 nodes: 1 worker of 1 CPU" in cluster.sentence
        assert signal.getsignal(signal.SIGTERM) is handler  # Dagster's, and not Ray's
        found = ray.get(ray.remote(_environment).remote())
    assert not ray.is_initialized()
    assert (found["OMP_NUM_THREADS"], found["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert list(tmp_path.iterdir()) == []  # the mark that nodes look for is gone
    with attached(nodes.settings(), tmp_path) as again:
        assert again.workers == 2


def _environment() -> dict[str, str]:
    return dict(os.environ)


def test_a_process_that_is_attached_already_stays_so(nodes: RayNodes, tmp_path: Path) -> None:
    import ray

    with attached(nodes.settings(), tmp_path):
        with attached(nodes.settings(workers=1), tmp_path) as inner:
            assert inner.workers == 1
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_a_worker_that_fits_nowhere_is_told_of(nodes: RayNodes, tmp_path: Path) -> None:
    with (
        pytest.raises(ErasmoError, match=r"no node of Ray with room for a worker of 2 CPU, 1 GPU \(nodes have .*0 CPU"),
        attached(nodes.settings(cpus_per_worker=2, gpus_per_worker=1), tmp_path),
    ):
        raise AssertionError
    with (
        pytest.raises(ErasmoError, match=r"room for a worker of 1 CPU, 100,000,000 MiB"),
        attached(nodes.settings(memory_mb=100_000_000), tmp_path),
    ):
        raise AssertionError


def test_a_cluster_that_is_not_there_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_CLUSTER", "127.0.0.1:1")
    settings = ExecutionSettings(engine="ray", address="${NO_CLUSTER}")
    with pytest.raises(ErasmoError, match=r"no connection to Ray at \$\{NO_CLUSTER\} "), attached(settings, tmp_path):
        raise AssertionError
    unset = ExecutionSettings(engine="ray", address="${NOT_SET_ANYWHERE}")
    with pytest.raises(ErasmoError, match="NOT_SET_ANYWHERE"), attached(unset, tmp_path):
        raise AssertionError


def test_ray_is_started_on_loopback_within_its_store_and_ended(nodes: RayNodes, tmp_path: Path) -> None:
    import ray

    before = _children()
    with attached(ExecutionSettings(engine="ray", object_store_mb=100, dashboard=False), tmp_path) as cluster:
        assert (cluster.started, cluster.nodes, cluster.dashboard) == (True, 1, None)
        assert ray.cluster_resources()["object_store_memory"] <= 100 * 2**20
        started = {pid: process for pid, process in _children().items() if pid not in before}
        assert started
        listening = {
            connection.laddr.ip
            for process in started.values()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening
        assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    _, alive = psutil.wait_procs(list(started.values()), timeout=120)
    assert alive == []


def _children() -> dict[int, psutil.Process]:
    return {process.pid: process for process in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("there", "fault"),
    [
        (HERE, None),
        ({**HERE, "torch": None}, "node box (10.0.0.2) of Ray without torch"),
        ({**HERE, "ray": "2.61.0"}, "node box (10.0.0.2) of Ray with ray 2.61.0"),
        ({**HERE, "word": None}, "node box (10.0.0.2) of Ray that does not see /shared"),
        ({**HERE, "word": "another folder of that name"}, "node box (10.0.0.2) of Ray that does not see /shared"),
    ],
)
def test_what_a_node_lacks_is_named(there: dict[str, str | None], fault: str | None) -> None:
    assert preflight._fault(NODE, there, HERE, "w", Path("/shared")) == fault
