"""The clauses of rows in a file, which are read when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256  # rows of clauses that are read and held together
_HELD = 16  # such batches held


class ClauseRows(Sequence[list[str]]):
    """The clauses of every row, read from a file when they are asked for; use it as a context manager.

    A few batches of rows are held, whatever their number: one row after the other is fast, as is one of a few
    thousand at random. A slice is a list.
    """

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self.file = file
        # Not mapped into memory: the pages of a file that was read through would count as this process's.
        self._file = pa.OSFile(str(file))
        self._batches = pa.ipc.open_file(self._file)
        metadata = self._batches.schema.metadata or {}
        self._rows = int(metadata[b"rows"])
        self._held: OrderedDict[int, list[list[str]]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> list[str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[str]]: ...
    def __getitem__(self, index: int | slice) -> list[str] | list[list[str]]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._rows)
            if step != 1 or stop <= start:
                return [self[i] for i in range(start, stop, step)]
            first = start // BATCH
            numbers = range(first, (stop - 1) // BATCH + 1)
            rows = list(chain.from_iterable(map(self._batch, numbers)))
            return rows[start - first * BATCH : stop - first * BATCH]
        at = index + self._rows if index < 0 else index
        if not 0 <= at < self._rows:
            raise IndexError(index)
        return self._batch(at // BATCH)[at % BATCH]

    def _batch(self, number: int) -> list[list[str]]:
        if (held := self._held.get(number)) is None:
            held = self._batches.get_batch(number).column(0).to_pylist()
            self._held[number] = held
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        return held


def write_clause_rows(file: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> None:
    """Write ``batches``, whose one column holds the clauses of ``rows`` rows, as a file of :class:`ClauseRows`."""
    import pyarrow as pa

    schema = schema.with_metadata({"rows": str(rows)})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        # Batches of one size, so that a row's place tells its batch.
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            table = pa.Table.from_batches(waiting).combine_chunks()
            whole = table.num_rows - table.num_rows % BATCH
            writer.write_table(table.slice(0, whole).cast(schema), max_chunksize=BATCH)
            waiting = table.slice(whole).to_batches()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting).cast(schema), max_chunksize=BATCH)


def save_clause_rows(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows that are in memory, or elsewhere, as a file of :class:`ClauseRows`."""
    import pyarrow as pa

    schema = pa.schema([("clauses", pa.list_(pa.string()))])
    step = BATCH * 16
    parts = (list(map(list, rows[start : start + step])) for start in range(0, len(rows), step))
    batches = (pa.record_batch([pa.array(part, schema.field(0).type)], schema=schema) for part in parts)
    write_clause_rows(file, batches, schema, len(rows))
