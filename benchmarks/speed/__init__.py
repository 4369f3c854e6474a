"""How fast the stages are, beside what others do on the same rows in one process: ``python -m benchmarks.speed``."""
