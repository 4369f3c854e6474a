"""Rows of the source as points of the table that segments were drawn in."""

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.defs.sampling import columns_of
from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.fitted import FittedClustering
from erasmo_dagster.method.tables.texts import text_encoder
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.vectors import read_vectors, write_embeddings
from erasmo_dagster.store.versions import trained_with

Floats = npt.NDArray[np.float32]


def source_columns(run: StageRun, columns: list[str]) -> pl.DataFrame:
    """These columns of the run's source, by entity_key."""
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    return pl.read_parquet(path, columns=[ENTITY_KEY, *columns], glob=False).sort(ENTITY_KEY).drop(ENTITY_KEY)


def drawn_in(
    run: StageRun, fitted: FittedClustering, training: int, rows: pl.DataFrame, vectors: Floats, *, keep: bool = False
) -> Floats:
    """What the model of ``fitted`` works on: points of the table float32[n, p], or ``vectors`` float32[n, d].

    ``rows`` (entity_key, text_hash) are of the source, all or some. A text that a version of the same training
    (version ``training``) has read keeps its point to the last bit; the others are read, and with ``keep`` written
    down as this version's.

    Raises ErasmoError where the sentence encoder is no longer what it was.
    """
    table = fitted.table
    if table is None:
        return vectors
    with run.warehouse.get_connection() as con:
        versions = trained_with(con, run.dataset, training, run.version)
        known, points = read_vectors(con, run.dataset, versions, table.dimensions, rows["text_hash"], kind="points")
    fresh = ~known
    if fresh.any():
        wanted = list(dict.fromkeys(part.column for part in table.parts if part.column))
        path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
        frame = columns_of(rows.filter(pl.Series(fresh)), path, wanted)
        if table.needs_texts and resolve(fitted.settings.text_model, run.project.models).revision != fitted.texts:
            raise ErasmoError(
                f"Got another sentence encoder in {fitted.settings.text_model} than the segments were drawn with",
                expected=f"revision {fitted.texts}",
                fix="bring it back, or run again with --retrain",
            )
        encode = text_encoder(fitted.settings.text_model, run.project.models)
        points[fresh] = table.read(frame, encode, vectors=vectors[fresh])
        if keep:
            with run.warehouse.get_connection() as con:
                new = rows.filter(pl.Series(fresh)).select("entity_key", "text_hash")
                write_embeddings(con, run.dataset, run.version, new, points[fresh], kind="points")
    return points
