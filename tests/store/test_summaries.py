"""The table of summaries: what was made before is found, by summarizer and text."""

from __future__ import annotations

import polars as pl

from erasmo_dagster.settings import Project
from erasmo_dagster.store.summaries import forget_summaries, read_summaries, text_hash, write_summaries
from erasmo_dagster.store.warehouse import open_warehouse, write_corpus


def test_summaries_are_found_by_summarizer_and_text(project: Project) -> None:
    with open_warehouse(project.warehouse) as con:
        write_summaries(con, "one", {"a text": "a", "another": "b"})
        write_summaries(con, "two", {"a text": "z"})
        write_summaries(con, "one", {"a text": "later", "": ""})
        write_summaries(con, "one", {})
    with open_warehouse(project.warehouse) as con:
        assert read_summaries(con, "one", ["a text", "unknown", ""]) == {"a text": "a", "": ""}
        assert read_summaries(con, "two", ["a text", "another"]) == {"a text": "z"}
        assert read_summaries(con, "three", ["a text"]) == {}
        assert read_summaries(con, "one", []) == {}


def test_the_name_of_a_text_is_the_same_everywhere() -> None:
    assert text_hash("naïve\n") == "4806b204111f2bf629ee9a08429cea2b"
    assert text_hash("a") != text_hash("a ")


def test_summaries_that_no_corpus_has_are_forgotten(project: Project) -> None:
    corpus = pl.DataFrame(
        {
            "entity_key": ["1", "2"],
            "text_hash": ["x", "y"],
            "clauses": [["note is a"], ["note is short"]],
            "summaries": [[{"key": "note", "value": "a"}], None],
        }
    )
    with open_warehouse(project.warehouse) as con:
        write_summaries(con, "one", {"a text": "a", "another": "b"})
        write_corpus(con, "customers", 1, corpus)
        write_corpus(con, "others", 1, corpus.drop("summaries"))
    with open_warehouse(project.warehouse) as con:
        kept = con.execute("select dataset, entity_key, summaries from corpus order by all").fetchall()
        assert kept[:2] == [("customers", "1", {"note": "a"}), ("customers", "2", None)]
        assert [row[2] for row in kept[2:]] == [None, None]
        assert forget_summaries(con) == 1
        assert read_summaries(con, "one", ["a text", "another"]) == {"a text": "a"}
        con.execute("delete from corpus")
        assert forget_summaries(con) == 1
        assert forget_summaries(con) == 0
