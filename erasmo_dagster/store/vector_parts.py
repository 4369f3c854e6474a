"""Vectors of an unfinished embedding, a file a chunk of texts, until one transaction takes them all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file

_SUFFIX = ".parquet"
_log = logging.getLogger(__name__)


class VectorParts:
    """Parquet files in ``folder`` of one encoder's vectors: text_hash, vector (float32 [d]) and truncated.

    A file appears whole. Damaged ones, and ones of other dimensions than the first, are removed on opening; ``files``
    are the others, ``texts`` how many vectors they hold, and ``width`` is d, None where there are none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.width: int | None = None
        self.texts = 0
        for stale in folder.glob("*.tmp"):
            stale.unlink(missing_ok=True)
        for file in sorted(file for file in folder.glob(f"*{_SUFFIX}") if file.stem.isdecimal()):
            self._open(file)

    def add(self, text_hashes: Sequence[str], vectors: npt.NDArray[np.float32], cut: npt.NDArray[np.bool_]) -> None:
        """Write the vectors float32[m, d] of m texts, and whether they were cut.

        Raises ErasmoError for other dimensions than those of the files, which stay, and for a full disk.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.width not in (None, vectors.shape[1]):
            raise ErasmoError(
                f"Got vectors of {vectors.shape[1]} dimensions from the encoder",
                expected=f"{self.width}, as those of the same corpus that are kept in {self.folder}",
                fix="see which model the encoder reads with, or delete that folder to embed all texts anew",
            )
        values = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        table = pa.table(
            {
                "text_hash": pa.array(text_hashes, pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
                "truncated": pa.array(cut),
            }
        )
        file = self.folder / f"{max((int(held.stem) for held in self.files), default=0) + 1:06}{_SUFFIX}"
        with whole_file(file) as temporary:
            # No encoding makes such numbers smaller.
            pq.write_table(
                table, temporary, compression="none", use_dictionary=False, write_page_checksum=True,
                write_statistics=False, row_group_size=4096,
            )  # fmt: skip
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        self._hold(file, vectors.shape[1], len(text_hashes))

    def remove(self) -> None:
        """Delete the folder, once its vectors are where they belong."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.files, self.texts, self.width = [], 0, None

    def _open(self, file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as held:
                width = next((len(batch.column("vector")[0]) for batch in held.iter_batches(1)), 0)
                rows = sum(batch.num_rows for batch in held.iter_batches(4096))  # read through: checksums
                whole = {"text_hash", "truncated"} <= set(held.schema_arrow.names)
        except (pa.ArrowException, OSError, KeyError):
            width, rows, whole = 0, 0, False
        if not whole or not rows or self.width not in (None, width):
            _log.warning("Removed %s, which is damaged or of another encoder; its texts are embedded again.", file)
            file.unlink(missing_ok=True)
            return
        self._hold(file, width, rows)

    def _hold(self, file: Path, width: int, rows: int) -> None:
        self.files.append(file)
        self.width, self.texts = width, self.texts + rows
