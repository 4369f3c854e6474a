"""Snapshots in parts: the same rows and fingerprint as when all is read, and only what changed is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store import parquet_parts, staging
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.parts import remove_snapshot, snapshot_files
from erasmo_dagster.store.sources import ENTITY_KEY, Snapshot, fingerprint_of, is_unchanged, snapshot_source
from erasmo_dagster.store.watch import Sighting, look

DAY = 86400.0


class Table:
    """A table in Parquet files below ``parts``, and the snapshots of its versions."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.settings: dict[str, Any] = {"source": {"path": "parts/month=*/*.parquet"}, "key": "id"}
        self.version = 0
        self.last: Sighting | None = None

    def write(self, name: str, ids: range | list[int], *, age: float = 3600.0, **columns: Any) -> Path:
        """A file with these ids, written so long ago that its time can be trusted."""
        path = self.project.root / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"x": [f"row {i}" for i in ids], **columns}
        pl.DataFrame({"id": list(ids), **columns}).write_parquet(path)
        os.utime(path, (time.time() - age,) * 2)
        return path

    @property
    def dataset(self) -> DatasetSettings:
        return DatasetSettings.model_validate(self.settings)

    def snapshot(self) -> Snapshot:
        """What a run of the next version takes."""
        self.version += 1
        out = snapshot_path(self.project, "customers", self.version)
        taken = snapshot_source("customers", self.dataset, self.project, out, in_parts=True)
        # Whatever was taken over, it is what a reading of everything finds.
        whole = snapshot_source("customers", self.dataset, self.project, self.project.home / "whole.parquet")
        assert taken.fingerprint == whole.fingerprint == fingerprint_of(out)
        assert taken.columns == whole.columns
        assert_frame_equal(frame(out).sort(ENTITY_KEY), frame(whole.path).sort(ENTITY_KEY))
        assert list(out.parent.glob(".reading-*")) == []
        return taken

    def look(self, later: float = 0.0) -> Sighting:
        self.last = look("customers", self.dataset, self.project, self.last, now=time.time() + later)
        return self.last


def frame(snapshot: Path) -> pl.DataFrame:
    return pl.scan_parquet(snapshot, glob=False).collect()


@pytest.fixture
def table(project: Project) -> Table:
    return Table(project)


def three_months(table: Table) -> None:
    for month in range(3):
        table.write(f"month={month}/rows.parquet", range(10 * month, 10 * month + 10))


def test_a_changed_file_alone_is_read(table: Table) -> None:
    three_months(table)
    assert table.snapshot().rows_read == 30
    assert table.snapshot().rows_read == 0
    table.write("month=1/rows.parquet", range(10, 19), age=60)
    third = table.snapshot()
    assert (third.rows, third.rows_read) == (29, 9)
    table.write("month=3/rows.parquet", [40], age=60)
    (table.project.root / "parts" / "month=0" / "rows.parquet").unlink()
    fourth = table.snapshot()
    assert (fourth.rows, fourth.rows_read) == (20, 1)


def test_files_that_were_taken_over_are_not_copied_and_outlive_the_version_they_are_from(table: Table) -> None:
    three_months(table)
    first = table.snapshot().path
    table.write("month=1/rows.parquet", range(10, 20), x=["other"] * 10, age=60)
    second = table.snapshot().path
    shared = {file.stat().st_ino for file in first.iterdir()} & {file.stat().st_ino for file in second.iterdir()}
    assert len(shared) == 2
    remove_snapshot(first)
    assert not first.exists()
    assert fingerprint_of(second).rows == 30
    assert table.snapshot().rows_read == 0


def test_a_look_reads_what_changed_since_the_last_snapshot(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    three_months(table)
    table.look()
    snapshot = table.snapshot()
    read: list[int] = []
    copied = parts_copied(monkeypatch, read.append)
    table.write("month=2/rows.parquet", range(20, 29), age=60)
    seen = table.look(later=30)
    assert seen.fingerprint.rows == 29
    assert read == [9]
    assert copied() == 1
    assert not is_unchanged(seen.fingerprint, snapshot.fingerprint, snapshot.path)
    # Once in `refresh.verify`, all of them.
    assert table.look(later=DAY + 60).fingerprint == seen.fingerprint
    assert copied() == 4


def parts_copied(monkeypatch: pytest.MonkeyPatch, tell: Callable[[int], object]) -> Callable[[], int]:
    """Tell the rows of every part that is read from now on; the number of such parts."""
    from erasmo_dagster.store import parts

    count, hashed = [0], parts.hashed

    def told(*given: Any) -> Any:
        found = hashed(*given)
        count[0] += 1
        tell(found.rows)
        return found

    monkeypatch.setattr(parts, "hashed", told)
    return lambda: count[0]


def test_the_order_of_rows_and_files_changes_nothing(table: Table) -> None:
    three_months(table)
    first = table.snapshot().fingerprint
    before = frame(snapshot_path(table.project, "customers", 1)).sort(ENTITY_KEY)
    for path in (table.project.root / "parts").rglob("*.parquet"):
        pl.read_parquet(path, hive_partitioning=False).reverse().write_parquet(path)
        os.utime(path, (time.time() - 60,) * 2)
        path.rename(path.with_name(f"{9 - int(path.parent.name[-1])}.parquet"))
    second = table.snapshot()
    assert second.fingerprint == first
    assert_frame_equal(frame(second.path).sort(ENTITY_KEY), before)


def test_rows_that_move_from_file_to_file_are_the_same_rows(table: Table) -> None:
    table.settings["source"] = {"path": "parts/*.parquet"}
    table.write("a.parquet", range(10))
    table.write("b.parquet", range(10, 20))
    first = table.snapshot().fingerprint
    table.write("a.parquet", range(5), age=60)
    table.write("b.parquet", range(5, 20), age=60)
    assert table.snapshot().fingerprint == first


def test_a_key_in_two_files_is_refused_though_one_was_taken_over(table: Table) -> None:
    three_months(table)
    table.snapshot()
    table.write("month=2/rows.parquet", [20, 3], age=60)
    with pytest.raises(ErasmoError, match=r"Got 1 value \('3'\) of key 'id' in more than one row"):
        table.snapshot()
    assert not snapshot_path(table.project, "customers", 2).exists()
    table.write("month=2/rows.parquet", [20], age=60)
    assert table.snapshot().rows_read == 1


@pytest.mark.parametrize("replaced", ["in place", "by another file"])
def test_a_file_of_the_same_size_and_time_is_noticed(table: Table, replaced: str) -> None:
    three_months(table)
    table.snapshot()
    path = table.project.root / "parts" / "month=1" / "rows.parquet"
    stat = path.stat()
    at = path if replaced == "in place" else path.with_suffix(".new")
    pl.DataFrame({"id": range(10, 20), "x": [f"ROW {i}" for i in range(10, 20)]}).write_parquet(at)
    os.utime(at, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    at.replace(path)
    assert path.stat().st_size == stat.st_size
    assert table.snapshot().rows_read == 10


def test_a_file_written_just_now_is_read_again(table: Table) -> None:
    three_months(table)
    table.write("month=1/rows.parquet", range(10, 20), age=0.0)
    table.snapshot()
    assert table.snapshot().rows_read == 10


def test_what_verifying_finds_is_taken_from_nowhere(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    three_months(table)
    # A disk that tells of no change at all.
    stats = parquet_parts._stats
    monkeypatch.setattr(parquet_parts, "_stats", lambda files: [(*one[:1], 0, 0, 0, 0) for one in stats(files)])
    first = table.snapshot().fingerprint
    assert table.look().fingerprint == first
    table.write("month=1/rows.parquet", range(10, 20), x=["other"] * 10)
    assert snapshot_source(
        "customers", table.dataset, table.project, snapshot_path(table.project, "customers", 2), in_parts=True
    ).rows_read == 0  # fmt: skip
    table.version = 2
    assert table.look(later=DAY + 60).fingerprint != first
    assert table.snapshot().rows_read == 30


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.settings.update(key=["id", "x"]),
        lambda t: t.write("month=2/rows.parquet", range(20, 30), age=60, late=[1.5] * 10),
        lambda t: t.write("month=other/rows.parquet", [40], age=60),
    ],
    ids=["key", "a new column", "a month that is no number"],
)
def test_what_reads_rows_otherwise_reads_all(table: Table, change: Callable[[Table], object]) -> None:
    three_months(table)
    table.snapshot()
    change(table)
    taken = table.snapshot()
    assert taken.rows_read == taken.rows


def test_a_query_and_a_single_file_are_read_whole(table: Table) -> None:
    three_months(table)
    table.settings["source"]["query"] = "select id, x from source where id < 15"
    for _ in range(2):
        assert table.snapshot().rows_read == 15
    assert snapshot_path(table.project, "customers", 2).is_file()
    table.settings["source"] = {"path": "parts/month=0/*.parquet"}
    for _ in range(2):
        assert table.snapshot().rows_read == 10
    table.settings["source"] = {"path": "parts/month=*/*.parquet"}  # over a file that a run of this version has left
    table.version -= 1
    assert table.snapshot().rows == 30
    assert snapshot_path(table.project, "customers", 4).is_dir()


def test_nested_values_that_differ_between_files(table: Table) -> None:
    table.settings["source"] = {"path": "parts/*.parquet"}
    table.write("a.parquet", range(5), n=[{"p": 1}] * 5)
    table.write("b.parquet", range(5, 9), n=[{"q": "x"}] * 4)
    assert table.snapshot().rows_read == 9
    assert table.snapshot().rows_read == 9
    table.write("b.parquet", range(5, 9), n=[{"p": 2}] * 4, age=60)
    table.snapshot()
    assert table.snapshot().rows_read == 0


def test_many_files_share_parts_and_stay_in_them(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.settings["source"] = {"path": "parts/*.parquet"}
    monkeypatch.setattr(staging, "_MOST_PARTS", 4)
    for i in range(12):
        table.write(f"{i}.parquet", [2 * i, 2 * i + 1])
    first = table.snapshot()
    assert len(snapshot_files(first.path)) <= 4
    table.write("12.parquet", [24, 25], age=60)
    second = table.snapshot()
    assert second.rows == 26
    assert 2 <= second.rows_read < 26


def test_a_record_without_its_files_is_no_harm(table: Table) -> None:
    three_months(table)
    first = table.snapshot().path
    record = first.with_suffix(".parts.json")
    assert set(json.loads(record.read_text())) == {"made_as", "parts"}
    snapshot_files(first)[1].unlink()
    assert table.snapshot().rows_read == 10
    record = snapshot_path(table.project, "customers", 2).with_suffix(".parts.json")
    record.write_text("{half")
    assert table.snapshot().rows_read == 10  # from the version before
    assert "row 1" not in record.with_name(record.name).read_text()


def test_a_run_that_is_killed_while_it_writes_leaves_the_snapshot(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_months(table)
    first = table.snapshot()
    content = fingerprint_of(first.path)
    table.write("month=1/rows.parquet", range(10, 15), age=60)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    table.version = 0  # the same version again
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            table.snapshot()
    assert fingerprint_of(first.path) == content
    table.version = 0
    assert table.snapshot().rows == 25


@pytest.mark.parametrize("before", ["nothing", "a file", "parts"])
@pytest.mark.parametrize("killed_at", ["source.parquet", "snapshot.parquet"])
def test_a_run_that_is_killed_between_the_record_and_the_snapshot_holds_up_no_other(
    table: Table, monkeypatch: pytest.MonkeyPatch, before: str, killed_at: str
) -> None:
    three_months(table)
    table.snapshot()
    if before != "nothing":
        out, in_parts = snapshot_path(table.project, "customers", 2), before == "parts"
        snapshot_source("customers", table.dataset, table.project, out, in_parts=in_parts)
    table.write("month=1/rows.parquet", range(10, 15), age=60)
    rename = Path.rename

    def killed(path: Path, to: Path) -> Path:
        if path.name == killed_at:  # what is there is to give way, or is gone and the new one to take its place
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            table.snapshot()
    assert snapshot_path(table.project, "customers", 2).with_suffix(".parts.json").is_file()
    assert table.look().fingerprint.rows == 25
    table.version = 1
    assert table.snapshot().rows == 25
    assert table.snapshot().rows_read == 0


CELLS = st.none() | st.integers(-5, 5) | st.sampled_from(["a", "", "07", "1.5"])
FILES = st.lists(
    st.tuples(st.sampled_from(["1", "02", "x", "2024-01-01"]), st.lists(CELLS, max_size=4)), min_size=2, max_size=4
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, whole=st.booleans())
def test_parts_are_the_whole_whatever_the_files_hold(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, list[Any]]], whole: bool
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "datasets").mkdir()
    table = Table(Project(root=root, home=root / "home"))
    table.settings["source"] = {"path": "parts/k=*/*.parquet"} if whole else {"path": "parts/**/*.parquet"}
    table.write("k=1/first.parquet", [-1, -2], odd=["1", "2"])
    for number, (value, cells) in enumerate(files):
        ids = [10 * number + i for i in range(len(cells))]
        kind = pl.Int64 if all(c is None or isinstance(c, int) for c in cells) else pl.String
        odd = (
            pl.Series(cells, dtype=kind)
            if kind == pl.Int64
            else pl.Series([None if c is None else str(c) for c in cells])
        )
        table.write(f"k={value}/{number}.parquet", ids, odd=odd)
    table.snapshot()
    assert table.snapshot().rows_read == 0
