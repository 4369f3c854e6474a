"""One reader of a published file: asks until it is told to stop, and says what it saw. Run as a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb

# Every query is of one connection's file, in which all must agree.
QUERIES = (
    "select count(*), count(distinct entity_key), min(version), max(version) from segments",
    "select sum(rows)::bigint, sum(rows)::bigint, min(version), max(version) from segment_sizes",
    "select sum(rows)::bigint, sum(rows)::bigint, min(version), max(version) from segment_overview",
    "select count(*), count(distinct entity_key), min(version), max(version) from a_segmented",
    "select max_by(rows, publish_id), max_by(rows, publish_id), max(version), max(version) from publish_log",
)


def main(path: str, stop: str, least: int) -> None:
    asked, faults, versions = 0, [], set()
    while asked < least or not Path(stop).exists():
        try:
            with duckdb.connect(path, read_only=True) as con:
                answers = {con.execute(query).fetchall()[0] for query in QUERIES}
        except duckdb.Error as error:
            faults.append(str(error))
        else:
            if len(answers) != 1:
                faults.append(str(sorted(answers)))
            versions |= {version for _, _, *both in answers for version in both}
        asked += len(QUERIES)
    print(json.dumps({"asked": asked, "faults": faults[:5], "versions": len(versions)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
