"""Segments from tables, by language models, run by Dagster (ERASMO, arXiv 2410.03738)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("erasmo-dagster")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
