"""Segments from a table's own columns: points of mixed columns, and mixtures of them."""
