"""Measurements of the whole pipeline, run by hand and in CI; nothing here is part of the package."""
