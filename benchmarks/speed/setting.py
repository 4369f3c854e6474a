"""What a run is asked for, as every part of it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.speed.data import Tables
from benchmarks.speed.results import Pieces
from erasmo_dagster.method.base_models import LocalModel, resolve

Effort = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class Bench:
    """Tables, models, effort and seed. ``threads`` are torch's; ``seconds`` what a part may take, None: any time."""

    tables: Tables
    models: Path
    base_model: str
    effort: Effort
    seed: int
    device: str
    threads: int
    pieces: Pieces
    seconds: float | None = None

    def base(self) -> LocalModel:
        """The base model, fetched where it is not there. Raises ErasmoError as ``resolve`` does."""
        return resolve(self.base_model, self.models)
