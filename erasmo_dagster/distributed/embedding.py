"""Texts -> vectors by workers of a Ray cluster: Ray Data hands parts of the corpus to actors, and streams vectors back.

A part is one Parquet file of neighbours in the order of texts, so that what they begin with is shared within it. Each
actor opens the encoder once and reads parts by the same engine as a run without Ray. What a part gives is one block.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, begin_worker, import_ray
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.embedding import EmbeddingResult, embed_rows
from erasmo_dagster.method.encoders.base import Encoder
from erasmo_dagster.method.encoders.kinds import open_encoder
from erasmo_dagster.settings import DatasetSettings, EncoderOptions, ExecutionSettings, OpenAIOptions, TfidfOptions

if TYPE_CHECKING:
    import pyarrow as pa

_MIB = 2**20
LONGEST_PART = 4096  # texts: what is lost with a worker; beginnings that end with a part cost next to nothing
_PARTS_PER_WORKER = 4  # at least, so that no worker waits long for the last


@dataclass(frozen=True)
class Reader:
    """What a worker needs to read texts: the encoder's description, its folder, and how it reads.

    ``about``, ``folder`` and ``models`` are as :func:`~erasmo_dagster.method.encoders.kinds.open_encoder` takes them;
    paths are seen by every worker. ``features`` and ``seed`` are those of
    :func:`~erasmo_dagster.method.embedding.embed_rows`.
    """

    about: Mapping[str, Any]
    settings: DatasetSettings
    folder: Path | None
    models: Path
    features: Sequence[str]
    seed: int


@dataclass(frozen=True)
class ReadTexts:
    """Texts that were read: their hashes, vectors float32[m, d], bool[m] whether cut, and what they took.

    ``seconds`` is time on the clock since the texts before. ``engine`` is how the encoder reads, where it tells.
    """

    hashes: Sequence[str]
    vectors: np.ndarray
    cut: np.ndarray
    tokens: int
    computed: int
    seconds: float
    engine: str | None


def computes_on_gpu(options: EncoderOptions, settings: DatasetSettings) -> bool:
    """Whether an encoder would use a GPU. Of one that a package registers it is not known, so that it has one."""
    if isinstance(options, TfidfOptions | OpenAIOptions):
        return False
    device = settings.adapter.device if options.tuned else getattr(options, "device", "auto")
    return device in ("auto", "cuda")


def part_size(texts: int, workers: int) -> int:
    """How many texts belong in a part, so that every worker has some."""
    return max(1, min(LONGEST_PART, -(-texts // (workers * _PARTS_PER_WORKER))))


def read_parts(files: Sequence[Path], texts: int, reader: Reader, cluster: Cluster) -> Iterator[ReadTexts]:
    """The vectors of the ``texts`` in ``files`` (Parquet: text_hash, clauses), as they come, in no order.

    Every worker sees ``files``, and writes beside them. A worker that is lost is replaced, and the part that it was at
    is read again. Raises ErasmoError as the encoder does in a worker; other errors are Ray's, see
    :func:`~erasmo_dagster.distributed.cluster.ray_errors`. Closing the iterator ends the work on the cluster.
    """
    before = time.monotonic()
    with _data_context(cluster) as data, progress.bar("embedding on Ray", texts, "texts") as shown:
        parts = _dataset(data, files, reader, cluster)
        # Whole blocks, none of them held back until the next has come: what is done is to be on the disk.
        blocks = iter(parts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        with closing(blocks):
            for block in blocks:
                now = time.monotonic()
                read = _read_texts(block, now - before)
                before = now
                yield read
                shown.update(len(read.hashes))


def _dataset(data: Any, files: Sequence[Path], reader: Reader, cluster: Cluster) -> Any:
    # One file an item and one item a block, which an actor reads for itself: tasks that read would need cores beside
    # the actors, which may hold them all.
    workers = min(cluster.workers, len(files))
    items = data.from_items([{"file": str(file)} for file in files], override_num_blocks=len(files))
    return items.map_batches(
        PartReader,
        fn_constructor_args=(reader, cluster.settings),
        batch_size=1,
        batch_format="pyarrow",
        # Down to one where a node is lost and the others have no room for its workers. Ray starts actors that are lost
        # again, and gives them their part again, without an end: the actors themselves count a part's tries.
        # One part at a time: what waits behind a slow one could be read by another.
        compute=data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1
        ),
        **cluster.worker,
    )


class PartReader:
    """An actor's work: opens the encoder once, with the first part that it is given, and reads part after part."""

    def __init__(self, reader: Reader, execution: ExecutionSettings) -> None:
        begin_worker(execution.cpus_per_worker)
        self._reader, self._failures = reader, execution.max_failures
        self._encoder: Encoder | None = None

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The vectors of the texts in the file that ``batch`` names; what a user must mend comes as a result too."""
        for file in batch.column("file").to_pylist():
            try:
                _count_try(Path(file), self._failures)
                yield self._read(Path(file))
            except ErasmoError as error:
                yield _fault_table(error)  # raised, it would come as one of Ray's errors

    def _read(self, file: Path) -> pa.Table:
        import pyarrow.parquet as pq

        reader = self._reader
        with progress.hidden():
            if self._encoder is None:
                _see_that_weights_are_the_same(reader)
                self._encoder = open_encoder(reader.about, reader.settings, reader.folder, reader.models)
            texts = pq.read_table(file, columns=["text_hash", "clauses"])
            done = embed_rows(
                texts.column("clauses").to_pylist(),
                self._encoder,
                reader.settings.embedding,
                seed=reader.seed,
                features=reader.features,
            )
        return _table(texts.column("text_hash"), done, getattr(self._encoder, "engine", None))


def _see_that_weights_are_the_same(reader: Reader) -> None:
    """Raise ErasmoError where the base model is another on this node than where the run is."""
    name = reader.about.get("base_model")
    if name is not None and resolve(name, reader.models).revision != reader.about["revision"]:
        raise ErasmoError(
            f"Got other weights of {name} on node {socket.gethostname()} of Ray than on the machine of the run",
            expected=f"the revision {reader.about['revision']} on every node",
            fix="share the folder or the hub's cache (HF_HUB_CACHE) between the machines",
        )


def _count_try(file: Path, failures: int) -> None:
    """Count in a file beside the part that it is begun; raise ErasmoError where workers were lost with it too often."""
    tries = file.with_suffix(".tries")
    with tries.open("ab") as counted:
        counted.write(b".")
    if (lost := tries.stat().st_size - 1) > failures:
        raise ErasmoError(
            f"Got {lost} workers of Ray lost while they read the same texts",
            expected=f"at most {failures}, as `execution.max_failures` says",
            fix="see Ray's logs for the reason, mostly memory: take fewer `workers`, set `memory_mb` or lower "
            "`embedding.batch_tokens`; run again to go on from there",
        )


def _table(hashes: Any, done: EmbeddingResult, engine: str | None) -> pa.Table:
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(done.vectors, dtype=np.float32).ravel())
    # In the first row, so that it is told once wherever Ray may cut the block.
    told = {"tokens": done.tokens, "computed": done.computed, "engine": engine}
    return pa.table(
        {
            "text_hash": hashes,
            "vector": pa.FixedSizeListArray.from_arrays(values, done.vectors.shape[1]),
            "truncated": pa.array(done.cut),
            "told": pa.array([json.dumps(told), *[None] * (len(hashes) - 1)], pa.string()),
        }
    )


def _fault_table(error: ErasmoError) -> pa.Table:
    import pyarrow as pa

    fault = {"got": error.got, "expected": error.expected, "fix": error.fix}
    return pa.table({"told": pa.array([json.dumps({"fault": fault})], pa.string())})


def _read_texts(block: pa.Table, seconds: float) -> ReadTexts:
    told = {} if block["told"][0].as_py() is None else json.loads(block["told"][0].as_py())
    if "fault" in told:
        fault = told["fault"]
        raise ErasmoError(fault["got"], expected=fault["expected"], fix=fault["fix"])
    vectors = block["vector"].combine_chunks()
    return ReadTexts(
        hashes=block["text_hash"].to_pylist(),
        vectors=vectors.flatten().to_numpy().reshape(len(block), -1),
        cut=block["truncated"].to_numpy(),
        tokens=told.get("tokens", 0),
        computed=told.get("computed", 0),
        seconds=seconds,
        engine=told.get("engine"),
    )


@contextmanager
def _data_context(cluster: Cluster) -> Iterator[Any]:
    """``ray.data`` that keeps quiet and within the object store's share; its settings are as before afterwards."""
    import_ray()
    from ray import data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, on a setting of its own
        context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    # Actors that wait for the driver to take what they have read stay; at the end, Ray Data lets them go all the same.
    # Those that a lost node took with it come again where there is room: with one part at a time an actor is at work
    # with 1.0 of it, never more.
    context.autoscaling_config = replace(
        context.autoscaling_config, actor_pool_util_upscaling_threshold=1.0, actor_pool_util_downscaling_threshold=-1.0
    )
    if (megabytes := cluster.settings.object_store_mb) is not None:
        limits = data.ExecutionResources.for_limits(object_store_memory=megabytes * _MIB)
        context.execution_options.resource_limits = limits
    logger = logging.getLogger("ray.data")
    shown = [(handler, handler.level) for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    for handler, _ in shown:
        handler.setLevel(logging.CRITICAL)  # what ends the work is raised as well
    try:
        with data.DataContext.current(context):
            yield data
    finally:
        for handler, level in shown:
            handler.setLevel(level)
