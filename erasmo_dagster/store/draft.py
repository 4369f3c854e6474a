"""A dataset's YAML as a person would write it: short, with the reason beside each choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from erasmo_dagster.settings import SourceSettings


@dataclass(frozen=True)
class Draft:
    """What goes into the file. ``drop`` maps a column to the reason; ``columns`` one to its kind and a remark."""

    source: SourceSettings
    key: tuple[str, ...]
    label: str | None
    drop: Mapping[str, str] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def compose(draft: Draft, command: str) -> str:
    """The YAML text. It reads back as settings equal to the draft's, whatever characters are in the names."""
    source = [f"  path: {scalar(draft.source.path or '')}"]
    if draft.source.format is not None:
        source.append(f"  format: {scalar(draft.source.format)}")
    if draft.source.table is not None:
        source.append(f"  table: {scalar(draft.source.table)}")
    if draft.source.null_values:
        source.append(f"  null_values: {_flow(draft.source.null_values)}  # cells that mean missing")
    lines = [
        "# yaml-language-server: $schema=.schema.json",
        f"# Written by `{' '.join(command.split())}`. Change anything: `erasmo schema` explains every setting.",
        "# description: What a row is, in a sentence.",
        "source:",
        *source,
        f"key: {_flow(draft.key) if len(draft.key) > 1 else scalar(draft.key[0])}",
        f"label: {scalar(draft.label)}  # only the metrics see it"
        if draft.label is not None
        else "# label: COLUMN  # known groups, if there are any; only the metrics see them",
    ]
    if draft.drop:
        lines.append("drop:  # left out of the text; take a line out to let the method read the column")
        lines += [f"  - {scalar(name)}  # {reason}" for name, reason in draft.drop.items()]
    if draft.sensitive:
        lines.append("sensitive:  # in no sample, log or published table")
        lines += [f"  - {scalar(name)}" for name in draft.sensitive]
    if draft.columns:
        lines.append("columns:  # also: name (a human name), unit, and values such as {1: male, 0: female}")
        lines += [
            f"  {scalar(name)}: {{kind: {kind}}}" + (f"  # {remark}" if remark else "")
            for name, (kind, remark) in draft.columns.items()
        ]
    lines += [
        "# clustering: {k: 4}  # by default several methods and numbers are compared, and the best is taken",
        "# adapter: {max_tokens: 200000}  # what fine-tuning may cost",
    ]
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """A text as a YAML scalar on one line, safe as a value, a key and an item."""
    # In a flow sequence plain scalars are held to the strictest rules, which fit everywhere else.
    plain = _dumped([text], None)[1:-1]
    return plain if len(plain.splitlines()) == 1 else _dumped([text], '"')[1:-1]


def _flow(texts: Iterable[str]) -> str:
    return f"[{', '.join(scalar(text) for text in texts)}]"


def _dumped(value: list[str], style: str | None) -> str:
    return yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=2**31).rstrip(
        "\n"
    )
