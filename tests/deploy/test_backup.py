"""What is lost with a disk comes back from a backup, as it was when that was made."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster.defs.backups import restore_project
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.backup import MANIFEST, back_up, restore
from erasmo_dagster.store.schema import SCHEMA_VERSION
from tests.conftest import DatasetWriter, customers
from tests.defs.conftest import run  # noqa: F401
from tests.defs.lineage import Run, published, warehouse

SEGMENTS = "select entity_key, segment_id, segment_name, confidence, version from segments order by all"


def restored(project: Project, folder: Path, *, replace: bool = False) -> list[str]:
    with open_instance(project) as instance:
        return list(restore_project(project, instance, folder, replace=replace))


def test_a_lost_home_comes_back(project: Project, write_dataset: DatasetWriter, run: Run, tmp_path: Path) -> None:  # noqa: F811
    write_dataset()
    run()
    before, vectors = published(project, SEGMENTS), warehouse(project, "select count(*) from embeddings_32")
    done = back_up(project, tmp_path / "backup")
    assert (done.versions, done.published) == ({"customers": [1]}, {"customers": 1})
    shutil.rmtree(project.home)
    assert restored(project, tmp_path / "backup")[0] == "customers: version 1"
    assert published(project, SEGMENTS) == before
    assert warehouse(project, "select count(*) from embeddings_32") == vectors
    # What was learnt is there too: a refresh embeds the changed row alone.
    frame = customers().with_columns(age=pl.when(pl.col("id") == 1).then(26).otherwise("age"))
    write_dataset(frame=frame)
    metadata = run()
    assert metadata["embeddings"]["texts_embedded"] == 1
    assert metadata["adapter"]["made_by"] == "version 1, reused"


def test_an_older_state_replaces_a_newer_one(
    project: Project, write_dataset: DatasetWriter, run: Run, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    write_dataset()
    run()
    before = published(project, SEGMENTS)
    back_up(project, tmp_path / "backup")
    write_dataset(frame=customers(66))
    run()
    assert len(published(project, SEGMENTS)) == 66
    with pytest.raises(ErasmoError, match="--replace"):
        restored(project, tmp_path / "backup")
    assert len(published(project, SEGMENTS)) == 66
    aside, *_ = restored(project, tmp_path / "backup", replace=True)
    assert published(project, SEGMENTS) == before
    (old,) = project.home.glob("before-restore-*")
    assert str(old) in aside
    assert {path.name for path in old.iterdir()} == {"warehouse.duckdb", "artifacts"}
    # The next run sees that the table has moved on.
    assert "6 new rows" in run()["published_segments"]["reason"]
    assert len(published(project, SEGMENTS)) == 66


def test_a_backup_is_whole_or_absent(
    project: Project, write_dataset: DatasetWriter, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    write_dataset()
    run()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", full)
        with pytest.raises(ErasmoError, match="disk"):
            back_up(project, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))
    assert not list(project.home.glob(".backup-*"))
    back_up(project, tmp_path / "backup")
    with pytest.raises(ErasmoError, match="which exists"):
        back_up(project, tmp_path / "backup")


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_backup_touches_nothing(
    project: Project, write_dataset: DatasetWriter, run: Run, tmp_path: Path, damage: str  # noqa: F811
) -> None:  # fmt: skip
    write_dataset()
    run()
    done = back_up(project, tmp_path / "backup")
    name = next(name for name in done.files if name.endswith("source.parquet"))
    file = tmp_path / "backup" / name
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    before = published(project, SEGMENTS)
    with pytest.raises(ErasmoError, match="missing or damaged"):
        restored(project, tmp_path / "backup", replace=True)
    assert published(project, SEGMENTS) == before
    assert not list(project.home.glob("before-restore-*"))


def test_no_backup_of_a_later_release_or_of_nothing(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="no warehouse"):
        back_up(project, tmp_path / "backup")
    with pytest.raises(ErasmoError, match="no backup"):
        restore(project, tmp_path)
    later = {
        "made_at": "2030-01-01T00:00:00Z",
        "schema_version": SCHEMA_VERSION + 1,
        "versions": {},
        "published": {},
        "software": {"erasmo-dagster": "9.9"},
        "files": {},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(later))
    with pytest.raises(ErasmoError, match=r"9\.9"):
        restore(project, tmp_path)


def test_a_backup_within_what_it_saves_is_refused(
    project: Project, write_dataset: DatasetWriter, run: Run  # noqa: F811
) -> None:  # fmt: skip
    write_dataset()
    run()
    with pytest.raises(ErasmoError, match="not lost with"):
        back_up(project, project.home / "backup")


def test_the_commands(
    project: Project, write_dataset: DatasetWriter, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from erasmo_dagster.cli import app

    write_dataset()
    run()
    monkeypatch.setenv("ERASMO_PROJECT", str(project.root))
    monkeypatch.setenv("ERASMO_HOME", str(project.home))
    app(["backup", str(tmp_path / "backup")], standalone_mode=False)
    assert "1 versions of 1 datasets" in capsys.readouterr().out.replace("\n", " ")
    other = open_project(project.root, tmp_path / "other")
    monkeypatch.setenv("ERASMO_HOME", str(other.home))
    app(["restore", str(tmp_path / "backup")], standalone_mode=False)
    assert published(other, SEGMENTS) == published(project, SEGMENTS)
    assert "restored from" in capsys.readouterr().out
    assert sys.exc_info() == (None, None, None)
