"""Attaching to a cluster, starting one, and what its nodes must have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.defs.execution import computed_on
from erasmo_dagster.distributed import cluster, preflight
from erasmo_dagster.distributed.cluster import Cluster, attached
from erasmo_dagster.distributed.embedding import computes_on_gpu
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, ExecutionSettings
from tests.ray_cluster import RayNodes

pytestmark = pytest.mark.ray
HERE = {"python": "3.11", "erasmo_dagster": "1.0", "ray": "2.60.0", "torch": "2.13.0", "word": "w", "model": "/m"}
GPU_NODE = {"Resources": {"CPU": 8.0, "GPU": 1.0, "memory": 2**34}}
PLAIN_NODE = {"Resources": {"CPU": 4.0, "memory": 2**34}}
NODE = {"NodeManagerHostname": "box", "NodeManagerAddress": "10.0.0.2"}


def test_a_cluster_is_attached_to_and_left_running(nodes: RayNodes, tmp_path: Path) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    with attached(nodes.settings(workers=1, cpus_per_worker=1), tmp_path) as here:
        assert here == Cluster(3, 1, {"num_cpus": 1, "num_gpus": 0}, False, None, here.settings)
        assert "attached to, with 3 nodes: 1 worker of 1 CPU" in here.sentence
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
        with attached(nodes.settings(address=f"localhost:{nodes.port}"), tmp_path) as inner:  # the same by another name
            assert inner.nodes == 3
        for other in ("127.0.0.1:1", None):
            with (
                pytest.raises(ErasmoError, match="a process that is attached to another Ray cluster already"),
                attached(nodes.settings(address=other), tmp_path),
            ):
                raise AssertionError
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_auto_is_the_cluster_that_ray_address_names(
    nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    with attached(nodes.settings(address="auto"), tmp_path) as here:
        assert (here.nodes, here.started) == (3, False)
        with attached(nodes.settings(address="auto"), tmp_path) as inner:
            assert inner.nodes == 3


@pytest.mark.parametrize("value", ["local", "ray://10.1.2.3:10001", "10.1.2.3", ""])
def test_a_variable_without_an_address_starts_nothing_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    import ray

    for name, address in {"OWN_CLUSTER": "${OWN_CLUSTER}", "RAY_ADDRESS": "auto"}.items():
        if name == "RAY_ADDRESS" and not value:
            continue  # as if it were not set
        monkeypatch.setenv(name, value)
        settings = ExecutionSettings(engine="ray", address=address)
        with pytest.raises(ErasmoError, match=f"no address of a Ray cluster in .*{name}") as caught:
            cluster.connect(settings, tmp_path)
        assert "10.1.2.3" not in str(caught.value)
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
    with pytest.raises(ErasmoError, match=r"no connection to Ray at \$\{NO_CLUSTER\} ") as caught:
        cluster.connect(settings, tmp_path)
    assert "127.0.0.1:1" not in str(caught.value)
    unset = ExecutionSettings(engine="ray", address="${NOT_SET_ANYWHERE}")
    with pytest.raises(ErasmoError, match="NOT_SET_ANYWHERE"):
        cluster.connect(unset, tmp_path)


_STARTED = """
import json, os, sys, urllib.error, urllib.request
from pathlib import Path
import psutil
from erasmo_dagster.distributed.cluster import attached
from erasmo_dagster.settings import ExecutionSettings

def status(url, **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120).status
    except urllib.error.HTTPError as error:
        return error.code

before = dict(os.environ)
with attached(ExecutionSettings(engine="ray", object_store_mb=100), Path(sys.argv[1])) as cluster:
    import ray
    children = psutil.Process().children(recursive=True)
    token = (Path.home() / ".ray" / "auth_token").read_text()
    connections = [each for process in children for each in process.net_connections("tcp")]
    found = {
        "started": cluster.started, "nodes": cluster.nodes, "sentence": cluster.sentence, "url": cluster.dashboard,
        "store": ray.cluster_resources()["object_store_memory"],
        "listening": sorted({each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}),
        "page": status(cluster.dashboard),
        "jobs": status(cluster.dashboard + "/api/jobs/"),
        "jobs_with_token": status(cluster.dashboard + "/api/jobs/", Authorization=f"Bearer {token}"),
        "rights": [oct(file.stat().st_mode & 0o777) for file in (Path.home() / ".ray", Path.home() / ".ray/auth_token")],
    }
_, alive = psutil.wait_procs(children, timeout=120)
found |= {"children": len(children), "alive": len(alive)}
found["environment"] = sorted(name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name))
print(json.dumps(found))
"""


def test_ray_is_started_for_this_user_alone_and_ended(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", _STARTED, str(tmp_path / "shared")],
        env=environment | {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["started"], found["nodes"]) == (True, 1)
    assert found["store"] <= 100 * 2**20
    assert set(found["listening"]) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert found["listening"]
    # Its dashboard can run code: it is shown to whoever has the token, which Ray keeps where this user alone reads it.
    assert found["url"].startswith("http://127.0.0.1:")
    assert found["sentence"].endswith(f"; dashboard {found['url']}")
    assert (found["page"], found["jobs"], found["jobs_with_token"]) == (200, 401, 200)
    assert found["rights"] == ["0o700", "0o600"]
    assert found["environment"] == []
    assert found["children"] > 0
    assert found["alive"] == 0


def test_the_dashboard_of_a_cluster_that_stays_is_in_the_metadata() -> None:
    settings = ExecutionSettings(engine="ray", address="head:6379")
    stays = Cluster(2, 4, {"num_cpus": 1}, False, "http://10.0.0.1:8265", settings)
    told = computed_on(stays)
    assert told["ray_dashboard"].value == "http://10.0.0.1:8265"
    assert "2 nodes" in told["computed_on"]
    assert "ray_dashboard" not in computed_on(replace(stays, started=True))
    assert "ray_dashboard" not in computed_on(replace(stays, dashboard=None))


@pytest.mark.parametrize(
    ("how", "gpus"),
    [
        ({"encoder": "tfidf"}, 0),
        ({"encoder": "causal-lm"}, 1),
        ({"encoder": {"name": "sentence-transformer", "device": "cpu"}}, 0),
        ({"encoder": "erasmo"}, 1),
        ({"encoder": "erasmo", "adapter": {"device": "cpu"}}, 0),
    ],
)
def test_only_what_computes_on_a_gpu_takes_one(how: dict[str, Any], gpus: int) -> None:
    settings = DatasetSettings.model_validate({"source": {"path": "t.csv"}, "key": "id", **how})
    own, others = ExecutionSettings(engine="ray"), ExecutionSettings(engine="ray", gpus_per_worker=1)
    gpu = computes_on_gpu(settings.encoder, settings)
    assert cluster._worker(own, [GPU_NODE, PLAIN_NODE], gpu)["num_gpus"] == gpus
    assert cluster._worker(others, [GPU_NODE, PLAIN_NODE], gpu)["num_gpus"] == gpus
    assert cluster._worker(own, [PLAIN_NODE], gpu)["num_gpus"] == 0


def test_nodes_are_looked_at_where_a_worker_would_fit() -> None:
    nodes = [GPU_NODE, PLAIN_NODE, {"Resources": {"memory": 2**40}}]
    worker = {"num_cpus": 2, "num_gpus": 1}
    assert cluster._candidates(nodes, worker, gpu=True) == [GPU_NODE]
    assert cluster._candidates(nodes, worker, gpu=None) == [GPU_NODE, PLAIN_NODE]  # some of the work takes no GPU
    assert cluster._candidates(nodes, {**worker, "num_gpus": 0}, gpu=False) == [GPU_NODE, PLAIN_NODE]
    assert cluster._candidates(nodes, {**worker, "memory": 2**40}, gpu=None) == []


def test_a_node_where_nothing_begins_is_named(nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> Callable[..., None]:
        def look(*_: object) -> None:
            raise ImportError("libcuda.so is damaged")

        return look

    settings = nodes.settings()
    with pytest.raises(
        ErasmoError, match=r"node .* \(127.0.0.1\) of Ray that does not see the model /nowhere \(and 1 more"
    ):
        cluster.connect(settings, tmp_path, model="/nowhere")
    with monkeypatch.context() as patched, pytest.raises(ErasmoError, match=r"no answer from node .* \(127.0.0.1\)"):
        patched.setattr(preflight, "_NODE_ANSWERS", 0.0)
        cluster.connect(settings, tmp_path)
    with monkeypatch.context() as patched, pytest.raises(ErasmoError, match=r"node .* begin \(.*libcuda.so is damaged"):
        patched.setattr(preflight, "_look", damaged)
        cluster.connect(settings, tmp_path)


@pytest.mark.parametrize(
    ("there", "fault"),
    [
        (HERE, None),
        ({**HERE, "torch": None}, "node box (10.0.0.2) of Ray without torch"),
        ({**HERE, "ray": "2.61.0"}, "node box (10.0.0.2) of Ray with ray 2.61.0"),
        ({**HERE, "word": None}, "node box (10.0.0.2) of Ray that does not see /shared"),
        ({**HERE, "word": "another folder of that name"}, "node box (10.0.0.2) of Ray that does not see /shared"),
        ({**HERE, "model": None}, "node box (10.0.0.2) of Ray that does not see the model /m"),
    ],
)
def test_what_a_node_lacks_is_named(there: dict[str, str | None], fault: str | None) -> None:
    assert preflight._fault(NODE, there, HERE, "w", Path("/shared"), "/m") == fault
