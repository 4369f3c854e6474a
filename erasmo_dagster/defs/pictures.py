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
        records=[dg.TableRecord({k: "" if v is None else v for k, v in row.items()}) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in rows[0]])
        if rows
        else dg.TableSchema(columns=[]),
    )
