"""Whether a row keeps its segment when its columns come in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import factorial

import numpy as np
import polars as pl

from erasmo_dagster.defs.encoding import encoder_id
from erasmo_dagster.defs.sampling import planned_columns_of, sampled_rows
from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.method.auto import TableSegments
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.kinds import open_encoder, options_of
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.tables.parts import Floats
from erasmo_dagster.method.tables.texts import text_encoder
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings.encoders import BUILT_IN
from erasmo_dagster.store.artifacts import adapter_dir, snapshot_path, text_dir
from erasmo_dagster.store.corpus import corpus_of, read_hashes
from erasmo_dagster.store.versions import upstream
from erasmo_dagster.store.warehouse import read_corpus

ROWS = 50  # an encoder of a hundred million weights reads them in seconds
ORDERS = 2
_LARGE = 2**28  # bytes that an encoder may leave: to collect them takes longer than to read with a small one


def order_figures(run: StageRun, found: TableSegments) -> dict[str, float]:
    """``stability_orders``: the share of rows that are in their segment still when their columns come in another order.

    Of segments ``found`` of all rows by entity_key, on at most 50 of them, a seeded sample, in two orders each.
    Segments of the table's columns are asked for by the same table with its columns in other orders; those of the
    encoder's vectors by texts with their clauses in other orders, which the encoder reads anew.

    Nothing for one column alone; nor where an encoder would have to read that sends texts to another machine, or of
    which that is not known, since a package registers it; nor where what has read the rows cannot be opened any more.
    """
    corpus = run.inputs["text_corpus"].version
    plan = FittedState.load(text_dir(run.project, run.dataset, corpus)).text
    if len(plan.columns) < 2:
        return {}
    with run.warehouse.get_connection() as con:
        keys = read_hashes(con, corpus_of(run.dataset, corpus)).select("entity_key")
    rows = sampled_rows(keys.with_columns(segment=pl.Series(found.labels)), run.settings.seed, ROWS)
    kept = []
    try:
        for points in _read_again(run, found, plan, rows):
            kept.append(found.result.model.place(points).labels == rows["segment"].to_numpy())
    except (Exception, pl.exceptions.PanicException):  # a figure never holds up segments
        return {}
    return {"stability_orders": float(np.mean(kept))} if kept else {}


def _read_again(run: StageRun, found: TableSegments, plan: TextPlan, rows: pl.DataFrame) -> Iterator[Floats]:
    """The points of ``rows`` (entity_key), by their columns in each of the other orders; none where they may not be."""
    orders = other_orders([column.name for column in plan.columns], run.settings.seed)
    vectors: list[Floats | None] = [None] * len(orders)
    if found.space is None or found.space.needs_vectors:
        vectors = list(_vectors(run, plan, rows, orders))
    if found.space is None:
        yield from (own for own in vectors if own is not None)
        return
    snapshot = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    frame, _ = planned_columns_of(rows, snapshot, plan.columns, label=run.settings.label)
    encode = text_encoder(run.settings.clustering.text_model, run.project.models)
    for order, own in zip(orders, vectors, strict=False):
        yield found.space.read(frame.select(order), encode, vectors=own)


def _vectors(run: StageRun, plan: TextPlan, rows: pl.DataFrame, orders: Sequence[Sequence[str]]) -> Iterator[Floats]:
    """The encoder's vectors of ``rows``, in each of ``orders``."""
    embeddings = run.inputs["embeddings"].details
    way = embeddings["reading"]
    with run.warehouse.get_connection() as con:
        adapter = upstream(con, run.dataset, run.version, "adapter")
        version = run.inputs["text_corpus"].version
        corpus = read_corpus(con, run.dataset, version, keys=rows["entity_key"].to_list())
    options = options_of(adapter.details, run.settings)
    if options.remote is not None or options.name not in BUILT_IN or encoder_id(adapter, way) != embeddings["encoder"]:
        return
    clauses = rows.select("entity_key").join(corpus, on="entity_key", maintain_order="left")["clauses"].to_list()
    embedding = run.settings.embedding.model_copy(update=way["embedding"])
    settings = run.settings.model_copy(update={"embedding": embedding})
    folder = adapter_dir(run.project, run.dataset, adapter.version) if adapter.details["learns"] else None
    before = _resident()
    encoder = open_encoder(adapter.details, settings, folder, run.project.models)
    labels = {column.name: column.label for column in plan.columns}
    for order in orders:
        called = [labels[name] for name in order]
        written = [reordered(row, called) for row in clauses]
        yield embed_rows(written, encoder, embedding, seed=way["seed"] or 0, features=called).vectors
    del encoder
    if _resident() - before > _LARGE:
        release_memory()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def other_orders(names: Sequence[str], seed: int) -> list[list[str]]:
    """``names`` in two seeded orders that are not theirs, or in one where there is but one."""
    rng = np.random.default_rng(seed)
    orders: list[list[str]] = []
    while len(orders) < min(ORDERS, factorial(len(names)) - 1):
        order = [names[place] for place in rng.permutation(len(names))]
        if order not in (*orders, list(names)):
            orders.append(order)
    return orders


def reordered(clauses: Sequence[str], labels: Sequence[str]) -> list[str]:
    """A row's clauses in the order of ``labels``, which are the names that they begin with; some may be missing.

    >>> reordered(["job is cook", "job is hard is yes"], ["job is hard", "age", "job"])
    ['job is hard is yes', 'job is cook']
    """
    place = {label: at for at, label in enumerate(labels)}
    longest = sorted(labels, key=len, reverse=True)  # one name may be the beginning of another

    def at(clause: str) -> int:
        return next((place[label] for label in longest if clause.startswith(f"{label} is ")), len(place))

    return sorted(clauses, key=at)
