"""Text -> vector: the encoders, one protocol for all."""

from erasmo_dagster.method.encoders.base import BatchEncoder, Encoder, FittedEncoder
from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder

__all__ = ["BatchEncoder", "CausalLMEncoder", "Encoder", "FittedEncoder"]
