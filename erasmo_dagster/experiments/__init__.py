"""Grids of datasets, encoders and algorithms: run cell by cell, compared, and told of in one report."""
