"""How a causal language model reads many token sequences: every shared prefix once, or padded batches."""

from erasmo_dagster.method.engines.attention import NotServedError
from erasmo_dagster.method.engines.base import Engine, Pooled
from erasmo_dagster.method.engines.plain import PlainEngine
from erasmo_dagster.method.engines.shared import SharedPrefixEngine

__all__ = ["Engine", "NotServedError", "PlainEngine", "Pooled", "SharedPrefixEngine"]
