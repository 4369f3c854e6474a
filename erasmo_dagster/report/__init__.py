"""One dataset's segments as one HTML file that needs nothing else: no script, no network, no server."""

from erasmo_dagster.report.make import make_report, write_report

__all__ = ["make_report", "write_report"]
