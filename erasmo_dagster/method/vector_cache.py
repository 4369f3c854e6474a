"""Vectors kept as they come, so that an interrupted embedding goes on where it stopped."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file

_DIGEST = 16  # bytes of a text's hash
_SUFFIX = ".safetensors"
_log = logging.getLogger(__name__)


class VectorCache:
    """The vectors of texts that one encoder has read, in a folder of parts; use it as a context manager.

    A part is a safetensors file with ``digests`` (BLAKE2b of the texts, uint8 [m, 16]), ``vectors`` (float32 [m, d])
    and ``truncated`` (uint8 [m], 1 where the text was cut), and appears whole. What is kept is written every
    ``every_seconds``, or as soon as it is ``every_vectors``, and when the block ends, in whatever way. Damaged parts,
    and ones of other dimensions than the first, are removed.

    The folder is one encoder's, with its options and all that it learnt: texts alone tell the vectors apart. One
    writer at a time. Of a text 16 bytes are held in memory.
    """

    def __init__(self, folder: Path, *, every_seconds: float = 30.0, every_vectors: int = 4096) -> None:
        self.folder = folder
        self.dimensions: int | None = None
        self._every_seconds, self._every_vectors = every_seconds, every_vectors
        self._buffer: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._written = time.monotonic()
        self._held: dict[Path, _Part] = {}
        for stale in folder.glob("*.tmp"):
            stale.unlink(missing_ok=True)
        for part in self._parts():
            self._open(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except ErasmoError as unwritten:
            if error is None:
                raise
            # What ended the block is what the user must hear of first.
            _log.warning("The last vectors are lost: %s", unwritten)

    def __len__(self) -> int:
        """Texts whose vectors are written."""
        digests = [part.digests for part in self._held.values()]
        return len(np.unique(np.concatenate(digests))) if digests else 0

    def known(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions intp[m] in ``texts`` of those known, their vectors float32[m, d], and bool[m], whether cut.

        d is 0 where none is known. What is kept so far is written first.
        """
        self.flush()
        wanted, back = np.unique(_digests(texts), return_inverse=True)
        holder = np.full(len(wanted), -1, dtype=np.intp)
        row_of = np.zeros(len(wanted), dtype=np.intp)
        files = list(self._held)
        for number, part in enumerate(self._held.values() if len(wanted) else ()):
            at = np.searchsorted(wanted, part.digests)
            here = np.flatnonzero(wanted[np.minimum(at, len(wanted) - 1)] == part.digests)
            part.asked[here] = True
            first = here[holder[at[here]] < 0]  # a text that an earlier part has as well is read there
            holder[at[first]], row_of[at[first]] = number, first
        places, vectors, cut = [_NOWHERE], [np.zeros((0, self.dimensions or 0), np.float32)], [_NONE]
        order = np.argsort(holder[back], kind="stable")
        numbers = holder[back][order]
        for number in np.unique(numbers[numbers >= 0]).tolist():
            if (read := _read(files[number])) is None:
                self._drop(files[number])
                continue
            positions = order[slice(*np.searchsorted(numbers, [number, number + 1]))]
            places.append(positions)
            vectors.append(read["vectors"][row_of[back[positions]]])
            cut.append(read["truncated"][row_of[back[positions]]].astype(bool))
        return np.concatenate(places), np.concatenate(vectors), np.concatenate(cut)

    def keep(self, texts: Sequence[str], vectors: np.ndarray, truncated: np.ndarray | None = None) -> None:
        """Keep the vectors float32[m, d] of ``texts``, and whether they were cut.

        Raises ErasmoError for other dimensions than those kept before, which stay as they are, and where the disk is
        full.
        """
        if len(texts) == 0:
            return
        width = vectors.shape[1]
        if self.dimensions not in (None, width):
            raise ErasmoError(
                f"Got vectors of {width} dimensions from the encoder",
                expected=f"{self.dimensions}, as those of the same texts' embedding that are kept in {self.folder}",
                fix="see which model the encoder reads with, or delete that folder to embed all texts anew",
            )
        self.dimensions = width
        digests = _digests(texts).view(np.uint8).reshape(-1, _DIGEST)
        cut = np.zeros(len(texts), dtype=np.uint8) if truncated is None else truncated.astype(np.uint8)
        self._buffer.append((digests, np.array(vectors, dtype=np.float32), cut))
        waiting = sum(len(part) for part, _, _ in self._buffer)
        if waiting >= self._every_vectors or time.monotonic() - self._written >= self._every_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was kept since the last time. Raises ErasmoError where the disk is full."""
        from safetensors.numpy import save_file

        self._written = time.monotonic()
        if not self._buffer:
            return
        digests, vectors, cut = (np.concatenate(parts) for parts in zip(*self._buffer, strict=True))
        tensors = {"digests": digests, "vectors": vectors, "truncated": cut}
        last = max((int(part.stem) for part in self._parts()), default=0)
        part = self.folder / f"{last + 1:06}{_SUFFIX}"
        with whole_file(part) as written:
            save_file(tensors, written, metadata={"checksum": _checksum(tensors)})
        self._buffer.clear()
        self._held[part] = _Part(_keys(digests), np.ones(len(digests), dtype=bool))

    def forget(self) -> None:
        """Delete the parts of which every text was kept or asked for since this was opened or last forgot.

        For those whose vectors are by now written elsewhere, while others are still to come.
        """
        self.flush()
        for file, part in list(self._held.items()):
            if part.asked.all():
                file.unlink(missing_ok=True)
                del self._held[file]
            part.asked[:] = False

    def remove(self) -> None:
        """Delete the folder, once its vectors are where they belong."""
        self._buffer.clear()
        self._held.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _parts(self) -> list[Path]:
        return sorted(part for part in self.folder.glob(f"*{_SUFFIX}") if part.stem.isdecimal())

    def _open(self, part: Path) -> None:
        """Learn which texts a part has; its vectors are read when they are asked for."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(part, framework="numpy") as file:
                width = file.get_slice("vectors").get_shape()[1]
                digests = file.get_tensor("digests")
        except (SafetensorError, OSError, LookupError, ValueError):
            self._drop(part)
            return
        if self.dimensions not in (None, width) or digests.shape[1:] != (_DIGEST,):
            self._drop(part)
            return
        self.dimensions = width
        self._held[part] = _Part(_keys(digests), np.zeros(len(digests), dtype=bool))

    def _drop(self, part: Path) -> None:
        _log.warning("Removed %s, which is damaged or of another encoder; its texts are embedded again.", part)
        part.unlink(missing_ok=True)
        self._held.pop(part, None)
        if not self._held:
            self.dimensions = None


_NOWHERE, _NONE = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=bool)


@dataclass(eq=False)
class _Part:
    digests: np.ndarray  # S16 [m], as the part has them
    asked: np.ndarray  # bool [m]: kept or looked for since the cache last forgot


def _digests(texts: Sequence[str]) -> np.ndarray:
    """S16 [n]. Numpy pads such bytes with zeros where it compares them, so that all 16 count."""
    blake2b = hashlib.blake2b
    return np.frombuffer(
        b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest() for text in texts),
        dtype=f"S{_DIGEST}",
    )


def _keys(digests: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(digests).view(f"S{_DIGEST}").reshape(-1)


def _checksum(tensors: dict[str, np.ndarray]) -> str:
    """Hash over the arrays of a part, in the order of their names."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _read(part: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a part; None where they are not as they were written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(part, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum = (file.metadata() or {}).get("checksum")
    except (SafetensorError, OSError):
        return None
    return tensors if checksum == _checksum(tensors) else None
