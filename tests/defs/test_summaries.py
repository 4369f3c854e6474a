"""Long texts as summaries through Dagster: what the corpus reads, what is kept, what analysts see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.defs import summarizing
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.resources import project_resources
from erasmo_dagster.defs.stages import CODE_VERSIONS, StageRun, settings_digests
from erasmo_dagster.defs.summarizing import summarize_texts
from erasmo_dagster.defs.upkeep import collect_garbage
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.summaries import TextRankSummarizer, textrank
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store.versions import StageOutput
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import Run, published, warehouse

SUMMARIZE = "text: {summarize: {by: textrank, sentences: 2, longer_than: 15}}\n"
LONG = pl.format(
    "Customer {} called. The customer {}. The customer {} and asked for help. It rained. We said that the customer {}.",
    "id",
    "note",
    "note",
    "note",
)


def with_long_notes(rows: int = 60) -> pl.DataFrame:
    """Customers, every other one with a note of five sentences of its own."""
    return customers(rows).with_columns(note=pl.when(pl.col("id") % 2 == 0).then(LONG).otherwise("note"))


@pytest.mark.slow
def test_summaries_take_the_place_of_long_texts_and_a_refresh_makes_the_new_ones_alone(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    frame = with_long_notes()
    write_dataset(frame=frame, extra=SUMMARIZE)
    told = run()["text_corpus"]["summarized"]
    assert told["long_texts"] == {"note": 30}
    assert (told["made"], told["fallbacks"]) == (30, 0)
    query = (
        "select entity_key::int, summaries, array_to_string(clauses, ', ') from corpus where version = {} order by 1"
    )
    notes = dict(zip(frame["id"].to_list(), frame["note"].to_list(), strict=True))
    for key, summaries, text in warehouse(project, query.format(1)):
        read = textrank(notes[key], 2) if key % 2 == 0 else notes[key]
        assert f"note is {read}" in text
        assert summaries == ({"note": read} if key % 2 == 0 else None)
        assert "It rained" not in text
    columns = [name for name, *_ in published(project, "describe customers_segmented")]
    assert columns[columns.index("note") + 1] == "note_summary"
    shown = dict(published(project, "select id, note_summary from customers_segmented"))
    assert shown == {key: textrank(note, 2) if key % 2 == 0 else None for key, note in notes.items()}
    assert dict(published(project, "select id, note from customers_segmented")) == notes

    hashes = "select entity_key, text_hash, summaries from corpus where version = {} order by 1"
    before = warehouse(project, hashes.format(1))
    write_dataset(frame=with_long_notes(62), extra=SUMMARIZE)
    metadata = run()
    plan = metadata["refresh_plan"]
    assert (plan["decision"], plan["rows_new"], plan["rows_changed"], plan["rows_gone"]) == ("refresh", 2, 0, 0)
    assert warehouse(project, "select count(*) from summaries") == [(31,)]
    assert [row for row in warehouse(project, hashes.format(2)) if int(row[0]) <= 60] == before
    assert published(project, "select note_summary from customers_segmented where id = 62") == [
        (textrank(with_long_notes(62)["note"][61], 2),)
    ]


@pytest.mark.slow
def test_settings_of_summaries_retrain_and_sensitive_ones_are_published_nowhere(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    frame = with_long_notes().with_columns(note_summary=pl.lit("x"), Note_Summary_=pl.col("id"))
    write_dataset(frame=frame, extra=SUMMARIZE)
    run()
    columns = [name for name, *_ in published(project, "describe customers_segmented")]
    assert columns[columns.index("note") + 1] == "note_summary__"
    write_dataset(frame=frame, extra=SUMMARIZE.replace("sentences: 2", "sentences: 1") + "sensitive: note\n")
    metadata = run()
    assert metadata["refresh_plan"]["decision"] == "retrain"
    assert metadata["text_corpus"]["summarized"]["made"] == 30
    columns = [name for name, *_ in published(project, "describe customers_segmented")]
    assert not {"note", "note_summary__"} & set(columns)
    assert "called" not in str(metadata)
    assert warehouse(project, "select count(*) from summaries") == [(60,)]


def a_run(project: Project, frame: pl.DataFrame, **options: Any) -> StageRun:
    """A stage of a run that has read ``frame``."""
    settings = DatasetSettings.model_validate({"source": {"path": "x"}, "key": "id", **options})
    source = StageOutput("source_table", 1, "hash", {"sensitive": []})
    resource: Any = project_resources(project)["warehouse"]
    return StageRun(
        "text_corpus",
        "customers",
        1,
        settings,
        project,
        resource,
        CODE_VERSIONS["text_corpus"],
        {"source_table": source},
    )


def test_what_was_summarized_before_a_stop_is_not_summarized_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = with_long_notes()
    run = a_run(project, frame, text={"summarize": {"by": "textrank", "sentences": 2, "longer_than": 15}})
    plan = fit_text(frame, run.settings)
    monkeypatch.setattr(TextRankSummarizer, "chunk", 8)
    asked: list[str] = []
    left = 20

    def summarize(self: TextRankSummarizer, texts: Sequence[str]) -> list[str]:
        if len(asked) >= left:
            raise ErasmoError("Got stopped")
        with open_warehouse(project.warehouse, lock_timeout=5):
            pass  # nobody holds the warehouse meanwhile
        asked.extend(texts)
        return [textrank(text, self.sentences) for text in texts]

    monkeypatch.setattr(TextRankSummarizer, "summarize", summarize)
    with pytest.raises(ErasmoError, match="Got stopped"):
        summarize_texts(run, frame, plan)
    assert len(asked) == 24
    left = 1000
    done = summarize_texts(run, frame, plan)
    assert len(asked) == len(set(asked)) == 30
    assert done.details["made"] == 6
    again = summarize_texts(run, frame, plan)
    assert len(asked) == 30
    assert again.details["made"] == 0
    assert again.frame.equals(done.frame)
    assert again.summaries.equals(done.summaries, null_equal=True)
    assert done.frame.drop("note").equals(frame.drop("note"))


def test_an_endpoint_gets_no_sensitive_text_and_what_leaves_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = with_long_notes().with_columns(secret=pl.concat_str(pl.col("note"), pl.lit(" It is a secret.")), empty=None)
    options = {"by": "endpoint", "url": "https://api.example.org/v1", "model": "m", "allow_remote": True}
    run = a_run(project, frame, text={"summarize": {**options, "sentences": 2, "longer_than": 15}}, sensitive="secret")
    sent: list[str] = []

    class Remote(TextRankSummarizer):
        identity = "remote"

        def summarize(self, texts: Sequence[str]) -> list[str]:
            assert "columns note (30 texts)" in capsys.readouterr().err
            sent.extend(texts)
            return ["From afar." for _ in texts]

    monkeypatch.setattr(summarizing, "open_summarizer", lambda settings, models: Remote(2))
    done = summarize_texts(run, frame, fit_text(frame, run.settings))
    assert set(sent) == {note for note in frame["note"] if "rained" in note}
    assert done.frame["note"].to_list().count("From afar.") == 30
    assert done.frame["secret"].to_list() == [textrank(t, 2) if "rained" in t else t for t in frame["secret"]]
    assert done.details["long_texts"] == {"note": 30, "secret": 30}


def test_rows_without_a_text_or_a_long_one_are_as_they_were(project: Project) -> None:
    frame = customers().with_columns(note=pl.when(pl.col("id") > 3).then("note"))
    run = a_run(project, frame, text={"summarize": {"by": "textrank", "columns": ["note"]}})
    plan = fit_text(frame, run.settings)
    done = summarize_texts(run, frame, plan)
    assert done.frame.equals(frame)
    assert done.summaries.null_count() == frame.height
    assert done.details["long_texts"] == {"note": 0}
    other = a_run(project, frame)
    assert summarize_texts(other, frame, fit_text(frame, other.settings)).details == {}


def test_where_summaries_are_made_retrains_nothing(project: Project) -> None:
    frame = customers()
    options = {"by": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}
    one, moved, other = (
        settings_digests(a_run(project, frame, text={"summarize": {**options, **more}}).settings)["text"]
        for more in ({}, {"url": "http://127.0.0.1:2/v1", "timeout": 5}, {"model": "n"})
    )
    assert one == moved != other


def test_garbage_is_what_no_corpus_holds(project: Project) -> None:
    frame = with_long_notes()
    run = a_run(project, frame, text={"summarize": {"by": "textrank", "sentences": 2, "longer_than": 15}})
    summarize_texts(run, frame, fit_text(frame, run.settings))
    assert warehouse(project, "select count(*) from summaries") == [(30,)]
    with open_instance(project) as instance:
        assert list(collect_garbage(project, instance))
    assert warehouse(project, "select count(*) from summaries") == [(0,)]
