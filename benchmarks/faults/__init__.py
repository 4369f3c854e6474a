"""Fault injection: a run that is killed, a full disk, a source that goes away or changes while it is read.

``python -m benchmarks.faults --kills 12 --seed 1`` prints one line a case and exits with status 1 on any loss.
"""
