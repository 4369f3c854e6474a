"""Segments drawn in the table's own columns, from the table to the published file and through a refresh."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.defs import points
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.peers import PEERS, ROW_TEXTS
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import state_dir
from tests.defs.lineage import Run, published, warehouse
from tests.tiny_encoders import tiny_sentence_encoder

ROWS = 90
PAGE = Path(__file__).parents[2] / "docs" / "query-segments.md"
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


def write(
    project: Project,
    frame: pl.DataFrame,
    model: Path,
    clustering: str,
    columns: str = "columns: {remark: {kind: text}}\n",
) -> None:
    frame.write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\nencoder: {name: tfidf, min_df: 1}\n"
        f"{columns}"
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
    assert published(project, "from segment_leaderboard") == []
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
    write(project, shoppers(60), sentence_model, "method: auto, k_max: 4, n_init: 2")
    metadata = run()["segments"]
    assert metadata["chosen"] in ("columns, mixture", "columns and vectors, mixture")
    shown = [record.data for record in metadata["leaderboard"].records]
    names = {row["candidate"] for row in shown}
    assert names == {
        "columns, mixture",
        "columns, k-means",
        "vectors, k-means",
        "columns and vectors, mixture",
        *PEERS,
    }
    assert [row["candidate"] for row in shown if row["chosen"]] == [metadata["chosen"]] == [shown[0]["candidate"]]
    assert all(row["separation"] != "" and row["stability"] != "" for row in shown if row["bits_saved"] != "")
    for picture in ("leaderboard_plot", "k_sweep"):
        assert "data:image/png;base64," in metadata[picture]
    assert "fewest segments" in metadata["k_reason"] or "save the most" in metadata["k_reason"]
    assert metadata["reading"].count("\n") == 5
    assert "Reading whole rows as text, as language models do, adds" in metadata["reading"]
    assert dict(published(project, "select metric, value from segment_metrics"))["ari"] > 0.9

    board = published(project, "from segment_leaderboard order by rank")
    assert [row[:5] for row in board if row[3]] == [("customers", 1, metadata["chosen"], True, 1)]
    assert {row[2] for row in board} == names
    fitted = FittedState.load(state_dir(project, "customers", 1)).clustering
    assert fitted is not None
    by_name = {row[2]: row for row in board}
    assert by_name[metadata["chosen"]][9] == pytest.approx(fitted.stability["stability"])
    assert len(fitted.jaccard) == fitted.k
    assert by_name["columns, k-means"][5] == pytest.approx(
        next(row["bits_saved"] for row in shown if row["candidate"] == "columns, k-means"), abs=1e-3
    )
    (query,) = re.findall(r"^```sql of=auto\n((?:.*\n)*?)```$", PAGE.read_text(), flags=re.MULTILINE)
    assert next(row[0] for row in published(project, query)) == metadata["chosen"]

    # A refresh places rows by the same training: what was compared then is what the published version has.
    more = pl.concat([shoppers(60), shoppers(63)[60:]])
    write(project, more, sentence_model, "method: auto, k_max: 4, n_init: 2")
    assert run()["refresh_plan"]["decision"] == "refresh"
    later = published(project, "from segment_leaderboard order by rank")
    assert later == [(row[0], 2, *row[2:]) for row in board]
    assert warehouse(project, "select distinct version from segment_candidates") == [(1,)]


@pytest.mark.slow
def test_a_table_without_text_needs_no_sentence_encoder(project: Project, run: Run, tmp_path: Path) -> None:
    """What cannot be read is refused with its reason, and all else goes on."""
    write(project, shoppers(60).drop("remark"), tmp_path / "nowhere", "method: auto, k: 3, n_init: 2", columns="")
    metadata = run()["segments"]
    (refused,) = [row.data for row in metadata["leaderboard"].records if row.data["candidate"] == ROW_TEXTS]
    assert "nowhere" in refused["refused"]
    assert (refused["bits_saved"], refused["rank"], refused["chosen"]) == ("", "", False)
    assert published(project, f"select bits_saved, rank from segment_leaderboard where candidate = '{ROW_TEXTS}'") == [
        (None, None)
    ]
    assert dict(published(project, "select metric, value from segment_metrics"))["ari"] > 0.9
