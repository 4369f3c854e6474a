"""Several targets at once: each on its own, what failed is told and completed by the next, and no secret is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.store.publish import mend, publish, refresh_marts, retire, rollback
from erasmo_dagster.store.releases import number_above, release_in
from erasmo_dagster.store.targets import TargetError, read_standings, send, sending
from erasmo_dagster.store.warehouse import open_warehouse
from tests.postgres_server import PASSWORD
from tests.store.targets.conftest import WithTargets
from tests.store.targets.places import LAKE, TEAM, Database
from tests.store.test_publish import prepare, read, release, settings

ARCHIVE = {"kind": "parquet", "name": "archive", "path": "archive"}


def logged(project: Project) -> dict[int, Any]:
    """What the log says of the targets, by publish; the same in the warehouse and in the published file."""
    query = "select publish_id, targets from publish_log order by 1"
    with open_warehouse(project.warehouse) as con:
        held = con.execute(query).fetchall()
    assert read(project, query) == held
    return {number: json.loads(told) if told else None for number, told in held}


def pointer(project: Project, name: str = "lake") -> Any:
    return json.loads((project.root / name / "latest.json").read_text())


def test_without_other_targets_nothing_is_sent_or_logged(project: Project) -> None:
    release(project, "a", prepare(project, "a", 4))
    before = project.published.read_bytes()
    assert send(project) == ()
    assert read_standings(project) == []
    assert project.published.read_bytes() == before
    assert logged(project) == {1: None}
    assert not (project.home / "targets").exists()


def test_what_is_not_published_yet_is_not_sent(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    assert send(project) == ()
    assert read_standings(project) == []


def test_the_log_says_what_was_published_where(with_targets: WithTargets) -> None:
    project = with_targets(LAKE, ARCHIVE)
    release(project, "a", prepare(project, "a", 4))
    (before,) = {(one.release, one.behind) for one in read_standings(project)}
    assert before == (None, True)
    sent = send(project)
    assert [(one.target, one.release, one.publish_id) for one in sent] == [("lake", 1, 1), ("archive", 1, 1)]
    assert all(one.rows > 4 and one.seconds > 0 for one in sent)
    assert {name: (told["kind"], told["release"]) for name, told in logged(project)[1].items()} == {
        "lake": ("parquet", 1),
        "archive": ("parquet", 1),
    }
    release(project, "a", prepare(project, "a", 6))
    assert logged(project)[2] is None
    send(project)
    assert [told["lake"]["release"] for told in logged(project).values()] == [1, 2]
    assert {(one.release, one.behind, one.error) for one in read_standings(project)} == {(2, False, None)}
    file = project.published.stat().st_ino
    assert [one.tables for one in send(project)] == [0, 0]
    assert project.published.stat().st_ino == file, "nothing new to be written down"


def test_every_way_to_publish_reaches_the_targets(with_targets: WithTargets, sql: Path) -> None:
    project = with_targets(LAKE)

    def shown() -> tuple[Any, int, int]:
        send(project)
        told = pointer(project)
        return told["release"], told["publish_id"], told["tables"]["segments"]["rows"]

    release(project, "a", prepare(project, "a", 4))
    assert shown() == (1, 1, 4)
    release(project, "a", prepare(project, "a", 6))
    assert shown() == (2, 2, 6)
    rollback(project, {}, "a", 1, reason="back")
    assert shown() == (3, 3, 4)
    assert "people" in pointer(project)["tables"]
    refresh_marts(project, {})
    assert shown() == (3, 3, 4), "a file that holds the same is the same release"
    (sql / "marts" / "people.sql").write_text("select 1 as one\n")
    refresh_marts(project, {})
    assert shown() == (4, 3, 4)
    assert [column["name"] for column in pointer(project)["tables"]["people"]["columns"]] == ["one"]
    publish(project, {"a": settings(sensitive="secret")}, "a", 1, run_id="r", reason="private now")
    assert shown()[:2] == (5, 3)
    assert "secret" not in {column["name"] for column in pointer(project)["tables"]["a_segmented"]["columns"]}
    assert [path.name for path in (project.root / "lake").glob("release-*")] == ["release-00000005"]
    project.published.unlink()
    assert mend(project, {"a": settings(sensitive="secret")})
    assert shown()[:2] == (5, 3), "a file that was lost and built anew is the same release"
    retire(project, {}, "a", reason="gone")
    assert shown() == (6, 4, 0)
    assert "a_segmented" not in pointer(project)["tables"]
    assert logged(project)[3]["lake"]["release"] == 5


def test_a_target_that_fails_holds_up_no_other_and_is_completed_by_the_next(with_targets: WithTargets) -> None:
    project = with_targets(LAKE, ARCHIVE)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    lake = project.root / "lake"
    kept = lake.rename(project.root / "kept")
    lake.write_text("a file in the folder's place")
    release(project, "a", prepare(project, "a", 6))
    with pytest.raises(TargetError) as caught:
        send(project)
    message = str(caught.value)
    assert message.startswith("Got targets that were not published to (lake: Got ")
    assert "while duckdb, archive have the newest release" in message
    assert "\n" not in message
    assert [(one.target, one.error is None) for one in caught.value.sent] == [("lake", False), ("archive", True)]
    assert pointer(project, "archive")["release"] == 2
    assert json.loads((kept / "latest.json").read_text())["release"] == 1
    told = logged(project)[2]
    assert told["archive"]["release"] == 2
    assert set(told["lake"]) == {"kind", "place", "error"}
    standing = {one.target: (one.release, one.behind) for one in read_standings(project)}
    assert standing == {"lake": (1, True), "archive": (2, False)}
    lake.unlink()
    kept.rename(lake)
    assert [(one.target, one.release, one.tables > 0) for one in send(project)] == [
        ("lake", 2, True),
        ("archive", 2, False),
    ]
    assert set(logged(project)[2]["lake"]) == {"kind", "place", "release", "published_at"}
    assert not any(one.behind or one.error for one in read_standings(project))


def test_a_fault_of_ours_stays_in_the_chain(with_targets: WithTargets, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_targets(LAKE, ARCHIVE)
    release(project, "a", prepare(project, "a", 4))
    monkeypatch.setattr(
        "erasmo_dagster.store.targets.parquet.select_plain", lambda table: (_ for _ in ()).throw(KeyError("oops"))
    )
    with pytest.raises(TargetError, match="lake: Got an unexpected KeyError; archive") as caught:
        send(project)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_warehouse_that_was_restored_goes_on_above_its_targets(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    for rows in (4, 5, 6):
        release(project, "a", prepare(project, "a", rows))
        send(project)
    (project.home / "warehouse.duckdb").unlink()
    project.published.unlink()
    release(project, "b", prepare(project, "b", 4))
    with pytest.raises(ErasmoError, match="Got release 1 for a target that is at release 3"):
        send(project)
    assert pointer(project)["release"] == 3
    assert pointer(project)["tables"]["segments"]["rows"] == 6
    number_above(project, 3)
    refresh_marts(project, {})
    send(project)
    assert pointer(project)["release"] == 4
    assert pointer(project)["tables"]["segments"]["rows"] == 4
    project.published.unlink()
    (project.home / "warehouse.duckdb").unlink()
    number_above(project, 3)
    release(project, "c", prepare(project, "c", 3))
    with pytest.raises(ErasmoError, match="Got release 4 for a target that is at another release of that number"):
        send(project)
    number_above(project, 2)  # which it is
    refresh_marts(project, {})
    assert release_in(project.published).number == 4


def test_while_one_is_copied_another_may_be_published(
    with_targets: WithTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    copied = sending._copy

    def slow(target: Any, file: Any, given: Any) -> Any:
        if file.release.number == 1:
            release(project, "a", prepare(project, "a", 6))  # the warehouse is free
        return copied(target, file, given)

    monkeypatch.setattr(sending, "_copy", slow)
    (sent,) = send(project)
    assert (sent.release, sent.publish_id) == (1, 1)
    assert pointer(project)["tables"]["segments"]["rows"] == 4, "the file that was open stays what it was"
    assert logged(project)[1]["lake"]["release"] == 1
    assert logged(project)[2] is None
    (sent,) = send(project)
    assert pointer(project)["tables"]["segments"]["rows"] == 6


def test_senders_of_one_project_take_turns(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    errors: list[BaseException] = []
    for rows in (4, 5):
        release(project, "a", prepare(project, "a", rows))

    def work() -> None:
        try:
            send(project)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert pointer(project)["release"] == 2


# --- with PostgreSQL -----------------------------------------------------------------------------


@pytest.mark.postgres
def test_a_server_that_is_away_leaves_the_rest_whole(
    with_targets: WithTargets, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_targets(TEAM, LAKE)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    release(project, "a", prepare(project, "a", 6))
    with monkeypatch.context() as patch:
        patch.setenv("TEAM_DATABASE_URL", f"postgresql://erasmo:{PASSWORD}@127.0.0.1:1/nowhere")
        with pytest.raises(
            TargetError, match=r"team: Got in \$\{TEAM_DATABASE_URL\} a host and port where no server listens"
        ):
            send(project)
    assert pointer(project)["release"] == 2
    assert database.rows("select release from erasmo.release") == [(1,)]
    assert database.rows("select count(*) from erasmo.segments") == [(4,)]
    send(project)
    assert database.rows("select release from erasmo.release") == [(2,)]
    assert database.rows("select count(*) from erasmo.segments") == [(6,)]
    assert database.rows("select targets->'team'->>'release' from erasmo.publish_log order by publish_id") == [
        ("1",),
        (None,),
    ]


@pytest.mark.postgres
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://erasmo:{}@127.0.0.1:{port}/postgres",
        "postgresql://erasmo:{} x@127.0.0.1:{port}/postgres",
        "postgresql://erasmo:{}@[::/postgres",
        "postgresql://erasmo@127.0.0.1:{port}/postgres?password={}&bad=%zz",
        "{}",
        "host=127.0.0.1 port={port} user=erasmo password={} dbname=postgres nonsense",
        "postgresql://erasmo:{}@127.0.0.1:{port}/{}",
        "mysql://erasmo:{}@127.0.0.1/x",
    ],
)
def test_no_secret_is_told(
    url: str,
    with_targets: WithTargets,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "hunter2-very-secret"
    project = with_targets(TEAM)
    release(project, "a", prepare(project, "a", 4))
    monkeypatch.setenv("TEAM_DATABASE_URL", url.replace("{}", secret).replace("{port}", str(database.server.port)))
    with pytest.raises(TargetError) as caught:
        send(project)
    printed = capfd.readouterr()
    told = [str(caught.value), repr(caught.value.sent), printed.out, printed.err, json.dumps(logged(project))]
    error: BaseException | None = caught.value
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    assert not any(secret in text or "127.0.0.1" in text for text in told), told
    assert "Got in ${TEAM_DATABASE_URL} a" in str(caught.value)
    assert secret.encode() not in project.published.read_bytes()
    assert secret.encode() not in project.warehouse.read_bytes()


@pytest.mark.postgres
def test_a_variable_that_is_not_set_is_named(
    with_targets: WithTargets, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_targets(TEAM)
    release(project, "a", prepare(project, "a", 4))
    monkeypatch.delenv("TEAM_DATABASE_URL")
    with pytest.raises(
        TargetError, match=r"Got \$\{TEAM_DATABASE_URL\} for the target 'team' of publish, which is not set"
    ):
        send(project)


KILLED = """
import sys
from pathlib import Path
from erasmo_dagster.settings import open_project
from erasmo_dagster.store.targets import send
send(open_project(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def killed_when(project: Project, seen: Any) -> None:
    """Send in a process of its own, and kill it once ``seen`` says that it is in the middle."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, project.root, project.home], env=dict(os.environ))
    try:
        until = time.monotonic() + 120
        while not seen():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


def with_file(project: Project, *targets: dict[str, Any]) -> None:
    """The targets in erasmo.yaml too, where another process reads them."""
    (project.root / "erasmo.yaml").write_text(json.dumps({"publish": ["duckdb", *targets]}))


@pytest.mark.postgres
def test_a_copy_that_is_killed_leaves_readers_as_they_were(with_targets: WithTargets, database: Database) -> None:
    project = with_targets(TEAM)
    with_file(project, TEAM)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    release(project, "a", prepare(project, "a", 100_000))
    loading = "select count(*) > 0 from pg_stat_progress_copy"
    killed_when(project, lambda: database.rows(loading) == [(True,)])
    assert database.rows("select count(*), min(version) from erasmo.segments") == [(4, 1)]
    assert read_standings(project)[0].behind
    send(project)
    assert database.rows("select count(*), min(version) from erasmo.segments") == [(100_000, 2)]
    assert database.schemas() == {"erasmo", "erasmo_r1", "erasmo_r2"}
    assert not read_standings(project)[0].behind


@pytest.mark.postgres
@pytest.mark.parametrize("moment", ["_let_owners_read", "_hold", "_changes", "_others_have_ended"])
def test_a_move_that_is_ended_anywhere_is_completed_by_the_next(
    moment: str, with_targets: WithTargets, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erasmo_dagster.store.targets.postgres_views import Views

    project = with_targets(TEAM)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    version = prepare(project, "a", 6)
    publish(project, {"a": settings(sensitive="secret")}, "a", version, run_id="r", reason="test")
    with monkeypatch.context() as patch:
        patch.setattr(Views, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            send(project)
    moved = moment == "_others_have_ended"
    shown = [(6, 2, 6)] if moved else [(4, 1, 4)]
    query = "select (select count(*) from erasmo.segments), max(version), count(*) from erasmo.a_segmented"
    assert database.rows(query) == shown
    assert database.rows("select release from erasmo.release") == [(2 if moved else 1,)]
    send(project)
    assert database.rows(query) == [(6, 2, 6)]
    release(project, "a", prepare(project, "a", 8))
    send(project)
    assert database.rows(query) == [(8, 3, 8)]
    assert database.schemas() == {"erasmo", "erasmo_r2", "erasmo_r3"}
    assert database.rows("select count(*) from pg_views where definition like '%UNION%' and schemaname = 'erasmo'") == [
        (0,)
    ]


def test_a_folder_that_is_killed_is_never_pointed_to(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    with_file(project, LAKE)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    release(project, "a", prepare(project, "a", 100_000))
    unfinished = project.root / "lake" / "release-00000002"
    killed_when(project, lambda: len(list(unfinished.glob("*/*.parquet"))) > 2)
    assert unfinished.is_dir()
    assert not (unfinished / "release.json").exists()
    assert pointer(project)["release"] == 1
    stray = unfinished.with_name("release-00000009")  # of a run that was killed long ago
    stray.mkdir()
    send(project)
    told = pointer(project)
    assert told["tables"]["segments"]["rows"] == 100_000
    assert all((project.root / "lake" / file).is_file() for table in told["tables"].values() for file in table["files"])
    assert not stray.exists()


def test_a_file_of_an_earlier_version_is_built_anew(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    with duckdb.connect(project.published) as con:
        con.execute("delete from file_info where name <> 'models_digest'")
    assert send(project) == ()
    assert read_standings(project) == []
    assert mend(project, {})
    assert not mend(project, {})
    assert [one.release for one in send(project)] == [1]
