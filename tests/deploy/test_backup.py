"""What is lost with a disk comes back from a backup, as it was when that was made."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster.defs.backups import restore_project
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import checksums, copy_linked
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store import backup
from erasmo_dagster.store.artifacts import version_dir
from erasmo_dagster.store.backup import MANIFEST, back_up, restore, working_folders
from erasmo_dagster.store.publish import refresh_marts
from erasmo_dagster.store.releases import number_above
from erasmo_dagster.store.schema import SCHEMA_VERSION
from erasmo_dagster.store.targets import TargetError, send
from erasmo_dagster.store.upkeep import collect
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import DatasetWriter, customers
from tests.defs.conftest import run  # noqa: F401
from tests.defs.lineage import Run, published, warehouse
from tests.store.targets.conftest import WithTargets, with_targets  # noqa: F401
from tests.store.targets.places import LAKE
from tests.store.test_publish import prepare, release

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


@pytest.mark.parametrize("copying", ["copyfile", "copy2"])  # the warehouse's file, and those of its versions
def test_a_backup_is_whole_or_absent(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: str
) -> None:
    release(project, "a", prepare(project, "a", 4))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, copying, full)
        with pytest.raises(ErasmoError, match=f"no space left on the disk of {tmp_path}[:/, ]"):
            back_up(project, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))
    assert not list(project.home.glob(".backup-*"))
    back_up(project, tmp_path / "backup")
    with pytest.raises(ErasmoError, match="which exists"):
        back_up(project, tmp_path / "backup")


def shown(project: Project) -> list[tuple[str, int]]:
    return published(project, "select dataset, count(*) from segments group by 1")


def test_another_publish_of_the_same_number_gives_way(project: Project, tmp_path: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    back_up(project, tmp_path / "first")
    release(project, "a", prepare(project, "a", 6))
    back_up(project, tmp_path / "second")
    restored(project, tmp_path / "first", replace=True)
    assert shown(project) == [("a", 4)]
    release(project, "a", prepare(project, "a", 5))
    assert published(project, "select max(publish_id) from publish_log") == [(2,)]
    restored(project, tmp_path / "second", replace=True)
    assert published(project, "select max(publish_id) from publish_log") == [(2,)]
    assert shown(project) == [("a", 6)]


def test_a_target_with_a_later_release_is_told_of(with_targets: WithTargets, tmp_path: Path) -> None:  # noqa: F811
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    back_up(project, tmp_path / "backup")
    assert restored(project, tmp_path / "backup", replace=True)[-1] == "target lake has release 1"
    release(project, "a", prepare(project, "a", 6))
    send(project)
    lines = []
    with open_instance(project) as instance, pytest.raises(TargetError, match="erasmo build --above 2"):
        lines += restore_project(project, instance, tmp_path / "backup", replace=True)
    assert shown(project) == [("a", 4)], "all but the target is restored"
    number_above(project, 2)
    refresh_marts(project, {})
    assert [(sent.target, sent.release, sent.tables > 0) for sent in send(project)] == [("lake", 3, True)]


def test_a_restore_that_fails_leaves_all_as_it_was(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(project, "a", prepare(project, "a", 4))
    back_up(project, tmp_path / "backup")
    release(project, "a", prepare(project, "a", 6))
    before = [project.warehouse.read_bytes(), *checksums(project.artifacts).items()]
    replace = Path.replace

    def failing(path: Path, to: Path) -> Path:
        if to == project.warehouse and path.parent.name.startswith(".restore-"):
            raise OSError(5, "Input/output error")
        return replace(path, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            restore(project, tmp_path / "backup", replace=True)
    assert [project.warehouse.read_bytes(), *checksums(project.artifacts).items()] == before
    assert not [path for path in project.home.iterdir() if "restore" in path.name]
    restored(project, tmp_path / "backup", replace=True)
    assert shown(project) == [("a", 4)]


def test_runs_go_on_during_a_backup(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (4, 6):
        release(project, "a", prepare(project, "a", rows))
    held = checksums(project.artifacts)
    writing = threading.Event()

    def stage() -> None:
        with open_warehouse(project.warehouse) as con:
            writing.set()
            time.sleep(0.3)  # a backup begins meanwhile, and waits
            con.execute("UPDATE versions SET run_id = 'written'")

    def copy(*given: Path) -> None:
        with open_warehouse(project.warehouse, lock_timeout=1) as con:
            con.execute("UPDATE versions SET run_id = 'later'")
        shutil.rmtree(project.artifacts)
        copy_linked(*given)

    monkeypatch.setattr(backup, "copy_linked", copy)
    with ThreadPoolExecutor(1) as pool:
        staged = pool.submit(stage)
        assert writing.wait(30)
        back_up(project, tmp_path / "backup")
        staged.result()
    monkeypatch.undo()
    other = open_project(project.root, tmp_path / "other")
    restore(other, tmp_path / "backup")
    assert checksums(other.artifacts) == held
    assert set(warehouse(other, "select run_id from versions")) == {("written",)}


def test_what_versions_share_is_copied_once(project: Project, tmp_path: Path) -> None:
    for rows in (4, 6):
        release(project, "a", prepare(project, "a", rows))
    first, second = (version_dir(project, "a", version) for version in (1, 2))
    (second / "shared").hardlink_to(first / "source.parquet")
    back_up(project, tmp_path / "backup")
    other = open_project(project.root, tmp_path / "other")
    restore(other, tmp_path / "backup")
    for folder in (tmp_path / "backup" / "artifacts", other.artifacts):
        assert (folder / "a" / "1" / "source.parquet").samefile(folder / "a" / "2" / "shared")
        assert not (folder / "a" / "2" / "source.parquet").samefile(first / "source.parquet")


def test_a_disk_without_links_is_copied_from(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    release(project, "a", prepare(project, "a", 4))
    done = back_up(project, tmp_path / "backup")
    assert "artifacts/a/1/source.parquet" in done.files


def test_what_a_killed_backup_has_left_harms_none_and_is_swept_up(project: Project, tmp_path: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    old, new = project.home / f".backup-{os.getpid()}", project.home / ".restore-abc"
    for left in (old, new):
        (left / "a" / "9").mkdir(parents=True)
        (left / "a" / "9" / "stale.parquet").touch()
    os.utime(old, (time.time() - 48 * 3600,) * 2)
    assert not [name for name in back_up(project, tmp_path / "backup").files if "stale" in name]
    collect(project, present={"a"}, busy=set())
    assert list(working_folders(project)) == [new], "perhaps at work still"


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_backup_touches_nothing(project: Project, tmp_path: Path, damage: str) -> None:
    release(project, "a", prepare(project, "a", 4))
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


def test_a_backup_within_what_it_saves_is_refused(project: Project) -> None:
    release(project, "a", prepare(project, "a", 4))
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
    assert "1 versions of 1 datasets" in " ".join(capsys.readouterr().out.split())
    other = open_project(project.root, tmp_path / "other")
    monkeypatch.setenv("ERASMO_HOME", str(other.home))
    app(["restore", str(tmp_path / "backup")], standalone_mode=False)
    assert published(other, SEGMENTS) == published(project, SEGMENTS)
    assert "restored from" in capsys.readouterr().out
