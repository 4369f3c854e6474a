"""The clustering algorithms, each prepared once for any number of segments."""

from erasmo_dagster.method.algorithms.base import Cut, Partitioner, StructureError
from erasmo_dagster.method.algorithms.prepare import prepare

__all__ = ["Cut", "Partitioner", "StructureError", "prepare"]
