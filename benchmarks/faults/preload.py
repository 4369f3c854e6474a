"""Loads once, in the server that processes are forked from, what each of them would load anew."""

from __future__ import annotations

import atexit
import gc
import importlib

_MODULES = (
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "transformers.pytorch_utils",
    "peft",
    "peft.utils.transformers_weight_conversion",
    "accelerate",
    "safetensors.numpy",
    "safetensors.torch",
    "sklearn.cluster",
    "sklearn.metrics",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "dagster._core.execution.execute_in_process",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.event_log.sqlite",
    "dagster._core.storage.runs.sqlite",
    "dagster._core.storage.schedules.sqlite",
    "dagster._core.storage.root",
    "dagster._core.storage.migration.utils",
    "dagster._core.workspace.load",
    "dagster._daemon.controller",
    "alembic.autogenerate",
    "alembic.context",
    "mako.template",
    "structlog",
    "erasmo_dagster.method.adapter",
    "benchmarks.faults.child",
)
for _name in _MODULES:
    importlib.import_module(_name)
# What is loaded stays: collecting garbage need not look at it again in every process.
gc.collect()
gc.freeze()
# At its own end the server lets go of all, or DuckDB's binding reports every object as leaked.
atexit.register(gc.unfreeze)
