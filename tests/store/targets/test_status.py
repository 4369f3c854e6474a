"""`erasmo status` tells of targets that are behind."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from erasmo_dagster.settings import Project
from erasmo_dagster.show_targets import print_targets
from erasmo_dagster.store.targets import TargetError, send
from tests.store.targets.conftest import WithTargets
from tests.store.targets.places import LAKE
from tests.store.test_publish import prepare, release


def shown(project: Project) -> tuple[str, list[str]]:
    out = Console(file=io.StringIO(), width=200)
    wrong = print_targets(out, project)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue(), wrong


def test_without_targets_nothing_is_printed(project: Project) -> None:
    release(project, "a", prepare(project, "a", 4))
    assert shown(project) == ("", [])


def test_a_target_is_ok_or_behind(with_targets: WithTargets) -> None:
    project = with_targets(LAKE)
    assert shown(project) == ("", [])
    release(project, "a", prepare(project, "a", 4))
    text, wrong = shown(project)
    assert wrong == ["target lake is behind"]
    assert text.splitlines()[1].split() == ["lake", "parquet", "behind", "-", "-"]
    send(project)
    text, wrong = shown(project)
    assert wrong == []
    assert text.splitlines()[1].split()[:4] == ["lake", "parquet", "ok", "1"]
    (project.root / "lake" / "latest.json").write_text("{")
    release(project, "a", prepare(project, "a", 6))
    with pytest.raises(TargetError):
        send(project)
    text, wrong = shown(project)
    assert wrong == ["target lake is behind"]
    assert text.splitlines()[1].split()[:4] == ["lake", "parquet", "behind", "1"]
    assert text.splitlines()[2].startswith("lake: Got a latest.json that names no release")
