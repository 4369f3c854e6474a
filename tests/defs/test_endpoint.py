"""What goes to an encoder's endpoint from run to run, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import polars as pl
import pytest
from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import OpenAIOptions, Project, SummarizeSettings
from erasmo_dagster.store.artifacts import vectors_dir
from tests.conftest import customers
from tests.defs.lineage import Run, warehouse
from tests.defs.test_algorithms import strangers
from tests.method.test_openai_encoder import Endpoint, answer


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint on loopback that answers as OpenAI's, in 4 dimensions unless it is told otherwise."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.let_go.set()
        server.shutdown()
        thread.join()


def write(project: Project, encoder: str, *, new: bool = False, more: str = "") -> None:
    """The customers, with some of other words where they are ``new``, under an encoder."""
    frame = pl.concat([customers(), strangers(61)]) if new else customers()
    frame.write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\ndrop: email\n"
        f"encoder: {encoder}\nclustering: {{method: kmeans++, k: 3}}\ngate: {{min_segment_size: 1}}\n{more}"
    )


def asked(endpoint: Endpoint) -> str:
    return f"{{name: openai, model: m, url: 'http://127.0.0.1:{endpoint.server_port}/v1'}}"


@pytest.mark.slow
def test_an_endpoint_that_changes_its_dimensions_is_told_of(project: Project, run: Run, endpoint: Endpoint) -> None:
    write(project, asked(endpoint))
    run()
    write(project, asked(endpoint), new=True)
    endpoint.plays = [lambda handler, texts: handler.reply(200, answer(texts, 8))]
    with pytest.raises(ErasmoError, match=r"^Got vectors of 8 dimensions from the encoder openai, expected 4, as"):
        run()
    run()  # it answers as before
    assert warehouse(project, "select count(*) from embeddings_4 where version = 3") == [(64,)]


@pytest.mark.slow
def test_what_became_sensitive_is_not_sent_with_a_text_that_stands(
    project: Project, run: Run, endpoint: Endpoint
) -> None:
    write(project, asked(endpoint), more="refresh: {retrain: never}\n")
    run()
    before = len(endpoint.got)
    write(project, asked(endpoint), new=True, more="refresh: {retrain: never}\nsensitive: note\n")
    with pytest.raises(ErasmoError, match=r"what is sensitive by now: 'note', .* run again with --retrain"):
        run()
    assert len(endpoint.got) == before
    run(retrain=True)
    sent = [text for body in endpoint.got[before:] for text in body["input"]]
    assert sent
    assert not any("note" in text for text in sent)


@pytest.mark.slow
def test_vectors_that_led_to_a_retraining_are_kept_once(project: Project, run: Run) -> None:
    write(project, "{name: tfidf, min_df: 1}")
    run()
    write(project, "{name: tfidf, min_df: 1}", new=True, more="refresh: {beyond_rows: 1, beyond_share: 0.1}\n")
    metadata = run()["refresh_plan"]
    assert (metadata["decision"], metadata["texts_embedded"]) == ("retrain", 4)
    assert not list(vectors_dir(project, "customers", "any").parent.iterdir())


@pytest.mark.slow
def test_another_seed_asks_for_no_vector_anew(project: Project, run: Run, endpoint: Endpoint) -> None:
    write(project, asked(endpoint))
    run()
    before = len(endpoint.got)
    write(project, asked(endpoint), more="seed: 5\n")
    assert "settings of clustering changed" in run()["refresh_plan"]["reasons"]
    assert len(endpoint.got) == before
    write(project, asked(endpoint), more="seed: 6\nembedding: {permutations: 2}\n")
    run()
    assert len(endpoint.got) > before


@pytest.mark.slow
def test_what_became_sensitive_is_in_no_sample_of_a_text_that_stands(project: Project, run: Run) -> None:
    write(project, "{name: tfidf, min_df: 1}")
    assert "note is likes" in run()["text_corpus"]["sample"]
    write(project, "{name: tfidf, min_df: 1}", more="sensitive: note\n")
    metadata = run()
    assert metadata["refresh_plan"]["decision"] == "refresh"
    assert "note is ***" in metadata["text_corpus"]["sample"]
    assert "note is likes" not in metadata["text_corpus"]["sample"]


@pytest.mark.parametrize("url", ["http://me:key@127.0.0.1/v1", "http://127.0.0.1/v1?api-key=secret"])
def test_an_address_holds_no_key(url: str) -> None:
    for kind, given in ((OpenAIOptions, {"name": "openai"}), (SummarizeSettings, {"by": "endpoint", "model": "m"})):
        with pytest.raises(ValidationError, match="api_key_env"):
            kind.model_validate({**given, "url": url})
