"""Write the archive that `test_upgrade.py` upgrades: a project of two datasets as the release at hand leaves it.

    python -m tests.deploy.make_release tests/deploy/schema_5.tar.xz

Made once with each release that raises the schema version, before it does, and then never again.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from pathlib import Path

import polars as pl

from tests.conftest import customers, make_project

YAML = """\
source: {path: %s.parquet}
key: id
drop: email
encoder: {name: tfidf, lsa: 8, min_df: 1}
clustering: {method: kmeans++, k: 3}
"""


def changed(frame: pl.DataFrame) -> pl.DataFrame:
    """Two rows gone, three new, one changed."""
    more = frame[:3].with_columns(id=pl.col("id") + 1000)
    return pl.concat([frame[2:].with_columns(age=pl.when(pl.col("id") == 9).then(71).otherwise("age")), more])


def main(archive: Path) -> None:
    """Run ``people`` twice and ``others`` once, and pack what is left."""
    from erasmo_dagster.defs.instance import open_instance, run_dataset

    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder))
        for name in ("people", "others"):
            customers().write_parquet(project.root / f"{name}.parquet")
            (project.datasets_dir / f"{name}.yaml").write_text(YAML % name)
        with open_instance(project) as instance:
            for name in ("people", "others"):
                run_dataset(instance, project, name)
            changed(customers()).write_parquet(project.root / "people.parquet")
            run_dataset(instance, project, "people")
        with tarfile.open(archive, "w:xz") as packed:
            for path in (project.root, project.warehouse, project.artifacts, project.published):
                packed.add(path, path.relative_to(folder).as_posix())


if __name__ == "__main__":
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    main(Path(sys.argv[1]))
