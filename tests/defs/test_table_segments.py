"""Segments drawn in the table's own columns, from the table to the published file and through a refresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.defs import points
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import state_dir
from tests.defs.lineage import Run, published, warehouse
from tests.tiny_encoders import tiny_sentence_encoder

ROWS = 90
REMARKS = ("the parcel came late and the box was torn", "the soft green dress fits me very well indeed")


def shoppers(rows: int = ROWS) -> pl.DataFrame:
    """Three planted groups: by two correlated numbers, by a category, and one more by what a remark is about."""
    rng = np.random.default_rng(0)
    group = np.arange(rows) % 3
    spent = rng.normal(size=rows)
    return pl.DataFrame(
        {
            "id": range(1, rows + 1),
            "spent": spent * 10 + 50,
            "visits": spent * 3 + 0.3 * rng.normal(size=rows) + 4.0 * group,
            "channel": [("web", "shop", "phone")[g] for g in group],
            "remark": [f"{REMARKS[int(g == 2)]} {('today', 'again', 'so far')[i % 3]}" for i, g in enumerate(group)],
            "kind": [f"g{g}" for g in group],
        }
    )


def write(project: Project, frame: pl.DataFrame, model: Path, clustering: str) -> None:
    frame.write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\nencoder: {name: tfidf, min_df: 1}\n"
        "columns: {remark: {kind: text}}\n"
        "refresh: {changed_share: 1.0, psi: 100, beyond_rows: 1000}\ngate: {min_segment_size: 2}\n"
        f"clustering: {{text_model: 'path:{model}', {clustering}}}\n"
    )


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sentence_encoder(tmp_path_factory.mktemp("models") / "sentences")


def test_columns_are_what_segments_are_drawn_in_and_a_refresh_reads_what_is_new(
    project: Project, run: Run, sentence_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = shoppers()
    write(project, frame, sentence_model, "method: mixture, k: 3")
    run()
    truth = dict(zip(frame["id"].cast(pl.String), frame["kind"], strict=True))
    before = dict(published(project, "select entity_key, segment_id from segments"))
    assert len({(before[key], kind) for key, kind in truth.items()}) == 3
    assert dict(published(project, "select metric, value from segment_metrics"))["ari"] == 1.0
    assert published(project, "select count(*) from segment_memberships") == [(3 * ROWS,)]
    fitted = FittedState.load(state_dir(project, "customers", 1)).clustering
    assert fitted is not None
    assert fitted.table is not None
    assert fitted.texts

    read: list[int] = []
    encoder = points.text_encoder

    def counting(*args: object, **options: object) -> object:
        encode = encoder(*args, **options)  # type: ignore[arg-type]

        def counted(texts: list[str]) -> object:
            read.extend(texts)  # type: ignore[arg-type]
            return encode(texts)

        return counted

    monkeypatch.setattr(points, "text_encoder", counting)
    late = "the parcel came late once more"  # to a model of random weights this says nothing
    new = shoppers(ROWS + 3)[ROWS:].with_columns(
        remark=pl.when(pl.col("kind") == "g2").then(pl.lit(late)).otherwise("remark")
    )
    changed = frame.with_columns(spent=pl.when(pl.col("id") == 5).then(51.0).otherwise("spent"))
    write(project, pl.concat([changed, new]), sentence_model, "method: mixture, k: 3")
    metadata = run()
    assert metadata["refresh_plan"]["decision"] == "refresh"
    assert set(read) == {*new["remark"], changed.filter(pl.col("id") == 5)["remark"].item()}
    after = dict(published(project, "select entity_key, segment_id from segments"))
    assert {key: after[key] for key in before if key != "5"} == {k: s for k, s in before.items() if k != "5"}
    assert [after[str(ROWS + 1)], after[str(ROWS + 2)]] == [before["1"], before["2"]]
    held = f"select version, count(*) from points_{fitted.table.dimensions} group by 1 order by 1"
    assert warehouse(project, held) == [(1, ROWS), (2, ROWS + 3)]


def test_auto_takes_the_best_of_several_ways_and_says_why(project: Project, run: Run, sentence_model: Path) -> None:
    write(project, shoppers(), sentence_model, "method: auto")
    metadata = run()["segments"]
    assert metadata["chosen"] in ("columns, mixture", "columns and vectors, mixture")
    shown = metadata["leaderboard"].records
    assert {record.data["name"] for record in shown} >= {
        "columns, mixture",
        "columns, k-means",
        "vectors, k-means",
        "columns and vectors, mixture",
    }
    assert "bits" in metadata["reading"]
    assert metadata["k_reason"]
    assert dict(published(project, "select metric, value from segment_metrics"))["ari"] > 0.9
