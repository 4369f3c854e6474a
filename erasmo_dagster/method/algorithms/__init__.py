"""The clustering algorithms, each prepared once for any number of segments."""

from erasmo_dagster.method.algorithms.base import Cut, StructureError, Partitioner
from erasmo_dagster.method.algorithms.prepare import prepare

__all__ = ["Cut", "StructureError", "Partitioner", "prepare"]
