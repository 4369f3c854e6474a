"""Where the heavy stages compute: what a YAML and a run config may say of it, and that nothing kept depends on it."""

from __future__ import annotations

import sys

import dagster as dg
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.execution import ExecutionConfig, ray_cluster, with_execution
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import StageRun, reading, settings_digests
from erasmo_dagster.distributed import cluster
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, ExecutionSettings, Project, load_dataset

RAY = "execution: {engine: ray, address: '10.0.0.1:6379', workers: 4, gpus_per_worker: 1}\n"
CLUSTER = {"engine": "ray", "address": "10.0.0.1:6379", "workers": 4, "gpus_per_worker": 1}


def dataset(project: Project, extra: str = "") -> DatasetSettings:
    (project.datasets_dir / "a.yaml").write_text(f"source: {{path: a.csv}}\nkey: id\n{extra}")
    return load_dataset(project, "a")


def stage(project: Project, settings: DatasetSettings) -> StageRun:
    warehouse = WarehouseResource(database="", project_root=str(project.root), erasmo_home=str(project.home))
    return StageRun("embeddings", "a", 1, settings, project, warehouse, "1", {})


def test_a_dataset_computes_in_the_runs_own_process_unless_it_says_otherwise(project: Project) -> None:
    assert dataset(project).execution == ExecutionSettings(engine="local")
    assert dataset(project, RAY).execution == ExecutionSettings.model_validate(CLUSTER)


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ("{address: auto}", "`execution.address` is read by the engine ray alone, and `engine` is local"),
        ("{engine: local, workers: 2}", "`execution.workers` is read by the engine ray alone"),
        ("{engine: spark}", "execution.engine"),
        ("{engine: ray, adress: auto}", "unknown key `execution.adress`"),
        ("{engine: ray, address: 'http://10.0.0.1'}", "expected auto or host:port"),
        ("{engine: ray, address: 'ray://10.0.0.1:10001'}", "Ray's client cannot do what the stages need"),
        ("{engine: ray, workers: 0}", "execution.workers"),
        ("{engine: ray, object_store_mb: 10}", "execution.object_store_mb"),
    ],
)
def test_what_cannot_be_is_told_of_in_one_line(project: Project, execution: str, message: str) -> None:
    with pytest.raises(ErasmoError) as caught:
        dataset(project, f"execution: {execution}\n")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray-head.internal:6379", "[fd00::2]:6379", "${HEAD}"])
def test_addresses_of_clusters(address: str) -> None:
    assert ExecutionSettings(engine="ray", address=address).address == address


def test_nothing_fitted_depends_on_where_it_was_computed(project: Project) -> None:
    here, there = dataset(project), dataset(project, RAY)
    assert settings_digests(here) == settings_digests(there)
    assert reading(here) == reading(there)


def test_the_run_config_comes_before_the_yaml(project: Project) -> None:
    run = stage(project, dataset(project, RAY))
    assert with_execution(run, ExecutionConfig()) is run
    more = with_execution(run, ExecutionConfig(workers=8)).settings.execution
    assert more == ExecutionSettings.model_validate({**CLUSTER, "workers": 8})
    assert with_execution(run, ExecutionConfig(engine="local")).settings.execution == ExecutionSettings()
    here = stage(project, dataset(project))
    assert with_execution(here, ExecutionConfig(engine="ray", address="auto")).settings.execution.address == "auto"
    with pytest.raises(ErasmoError, match=r"execution.workers in the run config: .*greater than or equal to 1"):
        with_execution(run, ExecutionConfig(workers=0))
    with pytest.raises(ErasmoError, match=r"`execution.workers` is read by the engine ray alone"):
        with_execution(here, ExecutionConfig(workers=2))


def test_the_run_config_is_checked_by_dagster(project: Project) -> None:
    job = build_definitions(project).resolve_job_def("segment_dataset")
    dg.validate_run_config(job, {"ops": {"embeddings": {"config": {"engine": "ray", "gpus_per_worker": 0.5}}}})
    with pytest.raises(dg.DagsterInvalidConfigError, match="adress"):
        dg.validate_run_config(job, {"ops": {"embeddings": {"config": {"adress": "auto"}}}})


def test_the_configs_fields_are_those_of_the_settings() -> None:
    assert list(ExecutionConfig.model_fields) == list(ExecutionSettings.model_fields)


@pytest.mark.parametrize("package", ["ray", "dagster_ray"])
def test_a_package_that_is_not_installed_is_told_of(
    project: Project, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    run = stage(project, dataset(project, RAY))
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "erasmo_dagster.defs.clusters", raising=False)
    with pytest.raises(ErasmoError, match=rf"{package} is not installed.*pip install 'erasmo-dagster\[ray\]'"):
        if package == "ray":
            cluster.connect(run.settings.execution, project.home)
        else:
            ray_cluster(run, {"encoder": "tfidf", "options": {}})
