"""Pictures and tables as Dagster's UI shows them."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG inside the metadata itself, so that it needs no file server and goes with the event."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table; every row has the same keys."""
    return dg.MetadataValue.table(
        records=[dg.TableRecord({k: _shown(v) for k, v in row.items()}) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in rows[0]])
        if rows
        else dg.TableSchema(columns=[]),
    )


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return float(f"{value:.5g}") if isinstance(value, float) else value
