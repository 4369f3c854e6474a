"""Segments of labelled tables by this project and by its peers, on the same rows: ``python -m benchmarks.quality``."""
