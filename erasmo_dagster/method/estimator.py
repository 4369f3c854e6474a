"""The method as a scikit-learn estimator, for notebooks and pipelines: no project, no Dagster, no warehouse."""

# ruff: noqa: N803 -- scikit-learn's names of arguments

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.auto import TableSegments, segment_table
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.frames import TEXT, as_frame, as_texts, frame_of_array
from erasmo_dagster.method.reader import Reader
from erasmo_dagster.method.tables.parts import Encode
from erasmo_dagster.method.tables.texts import text_encoder
from erasmo_dagster.method.textual import TextPlan, text_hashes
from erasmo_dagster.settings import DEFAULT_MODEL, DatasetSettings
from erasmo_dagster.settings.clustering import ON_COLUMNS

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_MAX_SEED = 2**31 - 1
# The options of a dataset's settings that are parameters of their own.
_OPTIONS = {
    "base_model": ("adapter", "base_model"),
    "tuning": ("adapter", "method"),
    "max_tokens": ("adapter", "max_tokens"),
    "verbalize": ("text", "verbalize"),
    "algorithm": ("clustering", "method"),
    "n_clusters": ("clustering", "k"),
}


class Erasmo(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Rows -> text -> vectors -> segments (arXiv 2410.03738), with the functions that the assets use.

    Tables are polars or pandas frames, arrays or lists of rows (columns ``x0``, ``x1``, …); a list or a series of
    strings, or a frame of the one column ``text``, is plain text. Values may be of any type and missing. ``fit`` learns
    how rows become text, the encoder and the segments; ``transform`` gives vectors float32[n, d], ``predict`` segments,
    0 the largest, -1 noise. The same rows, parameters and integer ``random_state`` give the same result to the bit.

    Parameters
    ----------
    encoder: name of an encoder, or a mapping with ``name`` and its options, as in a dataset's YAML.
    base_model, tuning, max_tokens: ``adapter.base_model``, ``adapter.method`` and ``adapter.max_tokens`` of the encoder
        ``erasmo``; others refuse what differs from the default.
    verbalize: numbers in words.
    columns: names, kinds, units and coded values by column, as `columns` in a dataset's YAML.
    algorithm, n_clusters: ``clustering.method`` and ``clustering.k``. `auto`, the default, compares several ways, on
        the vectors and on the table's own columns, of arrays as of frames. Other than in a dataset's run, a sentence
        encoder reads whole rows only of tables that have texts: no other table needs one to be fetched.
    text, adapter, embedding, clustering: further options of these parts of a dataset's YAML.
    random_state: seed of every random step; an integer, a ``RandomState``, or None for another result each time.
    models_dir: folder of fetched base models; by default ``$ERASMO_HOME/models``, else ``~/.cache/erasmo/models``.

    Attributes
    ----------
    labels_: int64[n], the training rows' segments; ``n_clusters_`` their number without noise.
    cluster_centers_: float32[k, d], the mean vector of each segment.
    clustering_: all that the clustering found: confidence, the figures of every k that was tried, notes.
    candidates_: the ways that `auto` compared, best first; empty for other algorithms.
    plan_: how rows become text. ``settings_``: the settings that the parameters come to.
    encoder_: what the encoder is and was trained on: its name, options, weights' revision, training.
    n_features_in_, feature_names_in_: of the table, as in scikit-learn; the latter for frames alone.

    Raises ErasmoError, in one line, for parameters and tables that the method refuses; ValueError for tables of another
    shape or other names than those of ``fit``. What is learnt lies in a temporary folder, which goes with the
    estimator; copies and pickles carry it along. The encoder stays in memory once it was used.
    """

    def __init__(
        self,
        encoder: str | Mapping[str, Any] = "erasmo",
        *,
        base_model: str = DEFAULT_MODEL,
        tuning: str = "lora",
        max_tokens: int | None = 200_000,
        verbalize: bool = False,
        columns: Mapping[str, Any] | None = None,
        algorithm: str = "auto",
        n_clusters: int | str = "auto",
        text: Mapping[str, Any] | None = None,
        adapter: Mapping[str, Any] | None = None,
        embedding: Mapping[str, Any] | None = None,
        clustering: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        models_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.encoder = encoder
        self.base_model = base_model
        self.tuning = tuning
        self.max_tokens = max_tokens
        self.verbalize = verbalize
        self.columns = columns
        self.algorithm = algorithm
        self.n_clusters = n_clusters
        self.text = text
        self.adapter = adapter
        self.embedding = embedding
        self.clustering = clustering
        self.random_state = random_state
        self.models_dir = models_dir

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from the rows of ``X`` (n >= 3); ``y`` is not looked at."""
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Vectors:
        """``fit``, and the vectors float32[n, d] of the same rows, which are read once."""
        return self._fit(X)

    def transform(self, X: Any) -> Vectors:
        """The vector of every row: float32[n, d]."""
        check_is_fitted(self)
        return self._reader.vectors(self._reader.clauses(self._table(X, reset=False)))

    def predict(self, X: Any) -> Labels:
        """The segment of every row: int64[n].

        A row that reads as one of the training's is in that one's segment; any other is placed as a refresh would. So
        are rows whose text was in several segments, as numbers can be that differ in digits that the text leaves out.
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        clauses = self._reader.clauses(table)
        known = [self._segment_of_text.get(text) for text in text_hashes(clauses)]
        new = np.array([segment is None for segment in known], dtype=bool)
        labels = np.array([-1 if segment is None else segment for segment in known], dtype=np.int64)
        if new.any():
            labels[new] = self.clustering_.model.place(self._points(table, clauses, pl.Series(new))).labels
        return labels

    def _fit(self, given: Any) -> Vectors:
        frame = self._table(given, reset=True)
        settings = self._settings(frame)
        reader, clauses = Reader.fit(frame, settings, self._models())
        vectors = reader.vectors(clauses)
        texts = _encoder_of_texts(reader.plan, settings, self._models())
        segmented = _segmented(frame, vectors, reader.plan, settings, self._models(), texts)
        found: ClusterResult = segmented.result
        self.settings_, self.plan_, self.encoder_, self.clustering_ = settings, reader.plan, reader.about, found
        self.labels_, self.n_clusters_, self.candidates_ = found.labels, found.k, segmented.candidates
        self.cluster_centers_ = np.stack([vectors[found.labels == k].mean(axis=0) for k in range(found.k)])
        self._reader, self._space, self._texts, self._n_features_out = reader, segmented.space, texts, vectors.shape[1]
        self._segment_of_text = _of_one_segment(text_hashes(clauses).to_list(), found.labels)
        return vectors

    def _points(self, table: pl.DataFrame, clauses: pl.Series, new: pl.Series) -> Vectors:
        """What the new rows are placed by: points of their columns, or their vectors."""
        space = self._space
        vectors = None
        if space is None or space.needs_vectors:
            vectors = self._reader.vectors(clauses.filter(new))
        if space is None:
            assert vectors is not None
            return vectors
        return space.read(table.filter(new), self._texts, vectors=vectors)

    def _table(self, given: Any, *, reset: bool) -> pl.DataFrame:
        """The rows as a frame, with the columns of ``fit``; ``reset`` says that this is it."""
        frame = as_frame(given)
        if frame is not None:
            validate_data(self, frame, reset=reset, skip_check_array=True)
        elif (frame := as_texts(given)) is not None:
            validate_data(self, frame.to_numpy(), reset=reset, skip_check_array=True)  # plain texts have no name
        else:
            if isinstance(given, list):
                given = np.array(given, dtype=object)  # so that each value keeps its type
            array = validate_data(self, given, reset=reset, dtype=None, ensure_all_finite=False)
            frame = frame_of_array(array, getattr(self, "feature_names_in_", None))
        if frame.height < (least := 2 if reset else 1):
            raise ValueError(f"Found a table with {frame.height} sample(s) while a minimum of {least} is required.")
        return frame

    def _settings(self, frame: pl.DataFrame) -> DatasetSettings:
        """The settings that the parameters come to, for a table without a key."""
        plain = frame.columns == [TEXT] and frame[TEXT].dtype == pl.String
        parts = {name: dict(getattr(self, name) or {}) for name in ("text", "adapter", "embedding", "clustering")}
        for parameter, (part, option) in _OPTIONS.items():
            if option in parts[part]:
                raise ErasmoError(
                    f"Got {part} with {option}, which is a parameter of its own",
                    expected="further options there",
                    fix=f"set {parameter}",
                )
            value = getattr(self, parameter)
            # What is set is refused where an encoder or an algorithm does not heed it; the defaults are not.
            if value != getattr(DatasetSettings.model_fields[part].default, option):
                parts[part][option] = value.item() if isinstance(value, np.generic) else value
        data = {
            "source": {"path": "-"},
            "key": _free_name(frame.columns),
            "columns": dict(self.columns or ({TEXT: {"kind": "text"}} if plain else {})),
            "encoder": dict(self.encoder) if isinstance(self.encoder, Mapping) else self.encoder,
            "seed": self._seed(),
            **parts,
        }
        try:
            return DatasetSettings.model_validate(data)
        except ValidationError as error:
            raise ErasmoError("; ".join(_fault(fault) for fault in error.errors())) from error

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(_MAX_SEED))

    def _models(self) -> Path:
        if self.models_dir is not None:
            return Path(self.models_dir).expanduser()
        home = os.environ.get("ERASMO_HOME")
        return (Path(home) if home else Path("~/.cache/erasmo")).expanduser() / "models"

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = []  # vectors are float32, whatever the table is
        return tags


def _segmented(
    frame: pl.DataFrame, vectors: Vectors, plan: TextPlan, settings: DatasetSettings, models: Path, encode: Encode
) -> TableSegments:
    if settings.clustering.method not in ON_COLUMNS:
        return TableSegments(cluster(vectors, settings.clustering, seed=settings.seed), vectors)
    return segment_table(
        frame, plan, settings.clustering, seed=settings.seed, models_dir=models, vectors=vectors, encode=encode
    )


def _encoder_of_texts(plan: TextPlan, settings: DatasetSettings, models: Path) -> Encode:
    """The sentence encoder of columns of text; where there are none, one that refuses to read."""
    if any(column.kind == "text" for column in plan.columns):
        return text_encoder(settings.clustering.text_model, models)
    return _no_texts


def _no_texts(texts: Sequence[str]) -> Vectors:
    raise ErasmoError("Got a table without texts", expected="a column of text for a sentence encoder to be fetched")


def _of_one_segment(texts: Sequence[str], labels: Labels) -> dict[str, int]:
    """The segment of each text, but of those that are in several."""
    found: dict[str, int] = {}
    several: set[str] = set()
    for text, label in zip(texts, labels.tolist(), strict=True):
        if found.setdefault(text, label) != label:
            several.add(text)
    return {text: label for text, label in found.items() if text not in several}


def _free_name(columns: Sequence[str]) -> str:
    """A name that no column has: settings want a key, and the rows need none."""
    name = "row"
    while name in columns:
        name += "_"
    return name


def _fault(fault: Any) -> str:
    """One fault of the settings, by the parameter that it is about."""
    path = tuple(str(part) for part in fault["loc"])
    parameter = next((name for name, option in _OPTIONS.items() if path[:2] == option), ".".join(path))
    if fault["type"] == "extra_forbidden":
        return f"Got {parameter}, which is no option"
    message = fault["msg"].removeprefix("Value error, ")
    for name, option in _OPTIONS.items():
        message = message.replace(".".join(option), name)
    shown = "" if fault["type"] == "value_error" else f"={fault['input']!r}"[:80]
    return (
        f"Got {parameter}{shown}: {message[0].lower()}{message[1:]}"
        if parameter
        else f"{message[0].upper()}{message[1:]}"
    )
