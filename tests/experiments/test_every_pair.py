"""Every encoder with every algorithm, on a small table and with tiny models: all cells are done."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.experiments.run import load_results
from erasmo_dagster.method.baselines import BASELINES
from erasmo_dagster.settings import Project
from erasmo_dagster.settings.clustering import METHODS, ON_COLUMNS
from erasmo_dagster.settings.encoders import BUILT_IN
from tests.experiments.conftest import TUNING, Grid
from tests.tiny_encoders import tiny_sentence_encoder

LETTERS = "abcdefghijklmnopqrstuvwxyz 0123456789"
ROWS = 60


class LetterCounts(BaseHTTPRequestHandler):
    """An endpoint whose vectors are the letters' shares."""

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        data = []
        for index, text in enumerate(texts):
            counts = Counter(text.lower())
            vector = [counts[letter] / len(text) for letter in LETTERS]
            data.append({"object": "embedding", "index": index, "embedding": vector})
        body = json.dumps({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), LetterCounts) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def sentences(tmp_path: Path) -> str:
    return f"path:{tiny_sentence_encoder(tmp_path / 'sentences')}"


@pytest.fixture
def arms(tiny_model: Path, sentences: str, endpoint: str) -> dict[str, dict[str, Any]]:
    model = f"path:{tiny_model}"
    return {
        "erasmo": {"encoder": "erasmo", "adapter": {**TUNING, "base_model": model}},
        "causal-lm": {"encoder": {"name": "causal-lm", "model": model, "device": "cpu"}},
        "tfidf": {"encoder": "tfidf"},
        "sentence-transformer": {"encoder": {"name": "sentence-transformer", "model": sentences, "device": "cpu"}},
        "openai": {"encoder": {"name": "openai", "url": endpoint}},
        "mpnet-dice": {"encoder": {"name": "mpnet-dice", "model": sentences, "device": "cpu"}},
        "one-hot": {"baseline": "one-hot"},
        "paper": {"baseline": "paper", "options": {"base_model": model, "steps": 1, "padded_to": 64, "device": "cpu"}},
    }


def test_every_encoder_goes_with_every_algorithm(
    project: Project, grid: Grid, data: Path, arms: dict[str, dict[str, Any]], sentences: str
) -> None:
    assert arms.keys() == {*BUILT_IN, *BASELINES}
    kinds = [("technician", 25, "calls"), ("retired", 70, "letters"), ("student", 19, "nothing")]
    table = pl.DataFrame(
        {
            "id": range(ROWS),
            "age": [kinds[i % 3][1] + i % 4 for i in range(ROWS)],
            "job": [kinds[i % 3][0] for i in range(ROWS)],
            "note": [kinds[i % 3][2] for i in range(ROWS)],
        }
    ).with_columns(kind=pl.col("job").str.head(1))
    table.write_parquet(data / "few.parquet")
    report = grid(
        datasets=[{"name": "few", "source": {"path": "${DATA}/few.parquet"}, "key": "id", "label": "kind"}],
        encoders=[{"name": name, **arm} for name, arm in arms.items()],
        algorithms=[
            {"method": method, **({"text_model": sentences} if method in ON_COLUMNS else {})} for method in METHODS
        ],
    )
    frame = load_results(project, "small")
    assert report.faults == ()
    assert report.done == frame.height == len(arms) * len(METHODS)
    assert frame.group_by("encoder", "algorithm").len().height == frame.height
    for figure in ("silhouette", "gower_silhouette", "ari"):
        values = frame[figure].drop_nulls()
        assert values.is_between(-1, 1).all()
        assert values.len() > frame.height * 0.9, figure
    # Of the columns alone, whatever the encoder; and `auto` is no worse by them.
    for algorithm in ON_COLUMNS:
        assert set(frame.filter(algorithm=algorithm)["ari"]) == {1.0}
        assert frame.filter(algorithm=algorithm)["gower_silhouette"].n_unique() == 1
    # What has clear groups is told apart.
    assert frame.filter(pl.col("encoder").is_in(["tfidf", "one-hot", "openai"]))["ari"].median() == 1.0
