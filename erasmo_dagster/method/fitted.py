"""What was fitted from a dataset's rows, in one piece: JSON for what is text, safetensors for arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import file_sha256, whole_folder
from erasmo_dagster.method.segment_model import SegmentModel
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import ClusteringSettings

FORMAT = 4
_STATE, _ARRAYS = "state.json", "state.safetensors"


@dataclass(frozen=True, eq=False)
class FittedClustering:
    """``k`` segments: the ``model`` that puts rows into them, and how they came about.

    ``segment_ids`` (k numbers) is what each of the model's segments is called. ``sizes`` (k numbers of rows), ``noise``
    (rows in none) and ``reach`` float64[k] (99th percentile of the distances of a segment's rows to its centre) are
    those of the training, by which drift is told. ``table`` is how rows become the points that the model works on; None
    where it works on the encoder's vectors. ``texts`` is the revision of the sentence encoder that reads the table.
    ``stability`` are figures of the training by their names in :data:`~.quality.METRICS`, and ``jaccard`` (k numbers)
    is how well each segment is found again; both empty where that is not known.
    """

    settings: ClusteringSettings
    model: SegmentModel
    k: int
    segment_ids: tuple[int, ...]
    sizes: tuple[int, ...]
    noise: int
    reach: npt.NDArray[np.float64]
    table: TableSpace | None = None
    texts: str | None = None
    stability: dict[str, float] = field(default_factory=dict)
    jaccard: tuple[float, ...] = ()

    @property
    def rows_by_id(self) -> dict[int, int]:
        """Rows of the training by segment id; noise is -1."""
        return {**dict(zip(self.segment_ids, self.sizes, strict=True)), -1: self.noise}

    @property
    def noise_share(self) -> float:
        """Share of the training's rows that are in no segment, 0 to 1."""
        return self.noise / (sum(self.sizes) + self.noise)

    def ids(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Segment ids int32[n] of the model's labels int[n]; noise stays -1."""
        ids: npt.NDArray[np.int32] = np.array([*self.segment_ids, -1], dtype=np.int32)
        return np.asarray(ids[labels])

    def labels(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The model's labels int64[n] of segment ids int[n]; -1 for noise and ids that it has none of."""
        label = {segment: index for index, segment in enumerate(self.segment_ids)}
        return np.array([label.get(i, -1) for i in ids.tolist()], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class FittedState:
    """How rows become text and vectors become segments, unchanged until the next retraining.

    ``clustering`` is None until there are segments.
    """

    text: TextPlan
    clustering: FittedClustering | None

    def save(self, folder: Path) -> None:
        """Write ``state.json`` and ``state.safetensors``; ``folder`` appears whole, in the place of an older one.

        Raises ErasmoError where the disk is full or not to be written on.
        """
        from safetensors.numpy import save_file

        with whole_folder(folder) as new:
            save_file(self._arrays(), new / _ARRAYS)
            (new / _ARRAYS).chmod(new.stat().st_mode & 0o666)  # saved readable by their owner alone
            state = {
                "text": self.text.model_dump(mode="json"),
                "clustering": self._described(),
                "arrays_sha256": file_sha256(new / _ARRAYS),
            }
            document = {"format": FORMAT, "sha256": _digest(state), "state": state}
            (new / _STATE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FittedState:
        """The state that was saved in ``folder``, its arrays bit for bit.

        Raises ErasmoError where it is missing, damaged or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            document = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise _unreadable(folder, f"is of format {document['format']}", f"format {FORMAT}")
            state = document["state"]
            if document["sha256"] != _digest(state):
                raise _unreadable(folder, f"is damaged ({_STATE})", "the files as they were written")
            if state["arrays_sha256"] != file_sha256(folder / _ARRAYS):
                raise _unreadable(folder, f"is damaged ({_ARRAYS})", "the files as they were written")
            arrays = load_file(folder / _ARRAYS)
            return cls(TextPlan.model_validate(state["text"]), _clustering(state["clustering"], arrays))
        except FileNotFoundError as error:
            name = Path(error.filename).name
            raise _unreadable(folder, f"lacks {name}", f"{_STATE} and {_ARRAYS}") from error
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reason = f"does not load ({type(error).__name__})"
            raise _unreadable(folder, reason, "the files as they were written") from error

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        if self.clustering is None:
            return {}
        arrays = {**self.clustering.model.arrays(), "reach": self.clustering.reach}
        if self.clustering.table is not None:
            arrays |= {f"table.{name}": array for name, array in self.clustering.table.arrays().items()}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # the file keeps memory's order

    def _described(self) -> dict[str, Any] | None:
        if self.clustering is None:
            return None
        return {
            "settings": self.clustering.settings.model_dump(mode="json"),
            "model": self.clustering.model.details(),
            "k": self.clustering.k,
            "segment_ids": list(self.clustering.segment_ids),
            "sizes": list(self.clustering.sizes),
            "noise": self.clustering.noise,
            "table": None if self.clustering.table is None else self.clustering.table.details(),
            "texts": self.clustering.texts,
            "stability": self.clustering.stability,
            "jaccard": list(self.clustering.jaccard),
        }


def _clustering(described: dict[str, Any] | None, arrays: dict[str, npt.NDArray[Any]]) -> FittedClustering | None:
    if described is None:
        return None
    return FittedClustering(
        settings=ClusteringSettings.model_validate(described["settings"]),
        model=SegmentModel.from_saved(described["model"], arrays),
        k=described["k"],
        segment_ids=tuple(described["segment_ids"]),
        sizes=tuple(described["sizes"]),
        noise=described["noise"],
        reach=arrays["reach"],
        table=None if described["table"] is None else TableSpace.from_saved(described["table"], _of_table(arrays)),
        texts=described["texts"],
        stability=described["stability"],
        jaccard=tuple(described["jaccard"]),
    )


def _of_table(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    own = "table."
    return {name.removeprefix(own): array for name, array in arrays.items() if name.startswith(own)}


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _unreadable(folder: Path, reason: str, expected: str) -> ErasmoError:
    return ErasmoError(
        f"Got a fitted state in {folder} that {reason}",
        expected=expected,
        fix="materialize the dataset's assets from text_corpus on again",
    )
