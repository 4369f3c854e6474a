"""Rows -> text -> vectors, fitted once, for use without a project: what was learnt lies in a temporary folder."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster import progress
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.base import Encoder
from erasmo_dagster.method.encoders.kinds import fit_encoder, identify, open_encoder
from erasmo_dagster.method.endpoints import shown_url
from erasmo_dagster.method.summaries import long_texts, open_summarizer, summarized_columns
from erasmo_dagster.method.textual import TextPlan, fit_text, write_clauses
from erasmo_dagster.settings import DatasetSettings
from erasmo_dagster.settings.naming import is_here


class Reader:
    """How a table's rows become vectors, by the functions that the assets use.

    ``plan`` says how they become text, and ``about`` what the encoder is and was trained on. The folder goes with the
    reader; a copy, by ``copy`` or pickling, has one of its own. The encoder is opened at the first use and kept.
    """

    def __init__(self, plan: TextPlan, settings: DatasetSettings, models: Path, about: dict[str, Any]) -> None:
        self.plan, self.settings, self.models, self.about = plan, settings, models, about
        self._folder: Path | None = None
        self._encoder: Encoder | None = None

    @classmethod
    def fit(cls, frame: pl.DataFrame, settings: DatasetSettings, models: Path) -> tuple[Reader, pl.Series]:
        """Learn from the rows of ``frame``; with their clauses. Raises ErasmoError as the functions do."""
        about = identify(settings, models)
        reader = cls(fit_text(frame, settings), settings, models, about)
        clauses = reader.clauses(frame)
        if about["learns"]:
            reader._folder = reader._new_folder()
            with tempfile.TemporaryDirectory(prefix="erasmo-") as checkpoints:
                told = fit_encoder(
                    clauses.to_list(),
                    reader.plan,
                    settings,
                    about,
                    models_dir=models,
                    out=reader._folder,
                    checkpoints=Path(checkpoints),
                    provenance={},
                )
            reader.about = {**about, **told}
        return reader, clauses

    def clauses(self, frame: pl.DataFrame) -> pl.Series:
        """The clauses of every row, List(String), with summaries in the place of long texts where settings say so."""
        settings = self.plan.settings.summarize
        if settings is not None:
            summarizer = open_summarizer(settings, self.models)
            for name in summarized_columns(frame, self.plan, settings):
                if texts := long_texts(frame[name], settings):
                    frame = frame.with_columns(frame[name].replace(texts, summarizer.summarize(texts)))
        return write_clauses(frame, self.plan)

    def vectors(self, clauses: pl.Series) -> npt.NDArray[np.float32]:
        """The vector of every row, given as clauses: float32[n, d]."""
        if self._encoder is None:
            self._encoder = open_encoder(self.about, self.settings, self._folder, self.models)
            if (address := self.settings.encoder.remote) is not None and not is_here(address):
                columns = ", ".join(column.name for column in self.plan.columns)
                progress.note(f"The texts of rows go to {shown_url(address)}, made of these columns: {columns}")
        features = [column.label for column in self.plan.columns]
        options, seed = self.settings.embedding, self.settings.seed
        return embed_rows(clauses.to_list(), self._encoder, options, seed=seed, features=features).vectors

    def _new_folder(self) -> Path:
        home = Path(tempfile.mkdtemp(prefix="erasmo-"))
        weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        return home / "learnt"

    def __getstate__(self) -> dict[str, Any]:
        """With the folder's files as bytes, and without the opened encoder."""
        files = None
        if self._folder is not None:
            paths = (path for path in sorted(self._folder.rglob("*")) if path.is_file())
            files = {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in paths}
        return {**self.__dict__, "_folder": files, "_encoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Into a folder of its own."""
        files = state.pop("_folder")
        self.__dict__.update(state, _folder=None)
        if files is not None:
            self._folder = self._new_folder()
            for name, content in files.items():
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self._folder / name).write_bytes(content)
