"""What the log says of targets: also after it was stopped, and of a target whose place has changed."""

from __future__ import annotations

import errno
import os

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.targets import read_standings, send
from tests.store.targets.conftest import WithTargets
from tests.store.targets.places import LAKE
from tests.store.targets.test_send import logged, pointer
from tests.store.test_publish import prepare, release


def test_a_log_that_was_stopped_halfway_is_made_up_for(
    with_targets: WithTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    before = project.published.read_bytes()
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr("erasmo_dagster.store.targets.log.shutil.copyfile", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(ErasmoError, match="Got no space left on the disk"):
            send(project)
    assert pointer(project)["release"] == 1
    assert project.published.read_bytes() == before
    assert [one.behind for one in read_standings(project)] == [True]
    assert [one.tables for one in send(project)] == [0], "the target has it; the file is told of it"
    assert [one.behind for one in read_standings(project)] == [False]
    assert logged(project)[1]["lake"]["release"] == 1


def test_a_target_that_has_moved_is_behind(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    release(project, "a", prepare(project, "a", 4))
    send(project)
    moved = with_targets({**LAKE, "path": "elsewhere"})
    assert [(one.release, one.behind) for one in read_standings(moved)] == [(None, True)]
    send(moved)
    assert pointer(project, "elsewhere")["release"] == 1
    assert [(one.release, one.behind) for one in read_standings(moved)] == [(1, False)]
    assert [(one.release, one.behind) for one in read_standings(project)] == [(None, True)]
    assert [one.tables for one in send(project)] == [0]
    assert [(one.release, one.behind) for one in read_standings(project)] == [(1, False)]
